#include "decode.h"

#include <errno.h>

#include "frame.h"
#include "keccak.h"
#include "rlp.h"
#include "sha256.h"

#define GAS_TRANSACTION 21000      /* yellow paper, G_transaction */
#define GAS_CREATE 53000           /* EIP-2: G_transaction and G_txcreate */
#define GAS_DATA_ZERO 4            /* EIP-2028 */
#define GAS_DATA_NONZERO 16        /* EIP-2028 */
#define GAS_INITCODE_WORD 2        /* EIP-3860 */
#define GAS_ACCESS_ADDRESS 2400    /* EIP-2930 */
#define GAS_ACCESS_KEY 1900        /* EIP-2930 */
#define GAS_AUTHORIZATION 25000    /* EIP-7702: PER_EMPTY_ACCOUNT_COST */
#define GAS_FLOOR_TOKEN 10         /* EIP-7623: a zero byte is one token, another four */
#define BLOB_BYTES 131072          /* EIP-4844 */
#define COMMITMENT_BYTES 48        /* EIP-4844; a proof is as long */
#define CELL_PROOFS_PER_BLOB 128   /* EIP-7594 */

/* The order of secp256k1, and half of it (EIP-2), least significant word first. */
static const uint64_t ORDER[4] = {0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe,
                                  0xffffffffffffffff};
static const uint64_t HALF_ORDER[4] = {0xdfe92f46681b20a0, 0x5d576e7357a4501d, 0xffffffffffffffff,
                                       0x7fffffffffffffff};

/* What decoding carries along beside the record. */
struct decoding {
    const uint8_t *raw;
    const struct bw_rules *rules;
    struct bw_tx *tx;
    uint64_t gas; /* intrinsic, apart from calldata */
};

static inline uint32_t offset(const struct decoding *d, const uint8_t *at) {
    return (uint32_t)(at - d->raw);
}

static inline int above(const uint64_t a[4], const uint64_t b[4]) {
    for (int i = 3; i > 0; i--)
        if (a[i] != b[i]) return a[i] > b[i];
    return a[0] > b[0];
}

static inline int is_zero(const uint64_t a[4]) { return !(a[0] | a[1] | a[2] | a[3]); }

/* Zero bytes among `len`, sixteen at a time; a lane counts to 255 before it is summed. */
static uint32_t count_zeros(const uint8_t *data, uint32_t len) {
    typedef uint8_t lanes __attribute__((vector_size(16)));
    uint32_t zeros = 0;
    while (len >= 16) {
        lanes count = {0}, word;
        uint32_t steps = len / 16 < 255 ? len / 16 : 255;
        len -= 16 * steps;
        for (; steps; steps--, data += 16) {
            memcpy(&word, data, 16);
            count -= (lanes)(word == 0);
        }
        for (int i = 0; i < 16; i++) zeros += count[i];
    }
    for (; len; len--) zeros += *data++ == 0;
    return zeros;
}

/* ---------------------------------------------------------------- parts of an envelope */

static inline enum bw_verdict protected_by(struct decoding *d, uint64_t chain) {
    d->tx->chain_id = chain;
    d->tx->flags |= BW_TX_PROTECTED;
    return d->rules->chain_id && d->rules->chain_id != chain ? BW_CHAIN_ID : BW_OK;
}

static inline enum bw_verdict chain_id(struct decoding *d, struct bw_cursor *c) {
    uint64_t wide[4];
    BW_TRY(bw_rlp_u256(c, wide));
    if (wide[1] | wide[2] | wide[3]) return BW_CHAIN_ID; /* the record holds 64 bits (EIP-2294) */
    return protected_by(d, wide[0]);
}

static inline enum bw_verdict nonce(struct decoding *d, struct bw_cursor *c) {
    BW_TRY(bw_rlp_u64(c, &d->tx->nonce));
    return d->rules->pool && d->tx->nonce == UINT64_MAX ? BW_NONCE_MAX : BW_OK;
}

static inline enum bw_verdict one_price(struct decoding *d, struct bw_cursor *c) {
    BW_TRY(bw_rlp_u256(c, d->tx->fee_cap_wei));
    memcpy(d->tx->tip_wei, d->tx->fee_cap_wei, sizeof d->tx->tip_wei);
    return BW_OK;
}

static inline enum bw_verdict two_prices(struct decoding *d, struct bw_cursor *c) {
    BW_TRY(bw_rlp_u256(c, d->tx->tip_wei));
    BW_TRY(bw_rlp_u256(c, d->tx->fee_cap_wei));
    return d->rules->pool && above(d->tx->tip_wei, d->tx->fee_cap_wei) ? BW_TIP_ABOVE_CAP : BW_OK;
}

/* Gas limit, to, value and calldata: the same in every type. */
static inline enum bw_verdict call(struct decoding *d, struct bw_cursor *c, int may_create) {
    struct bw_tx *tx = d->tx;
    const uint8_t *data;
    uint32_t len;
    BW_TRY(bw_rlp_u64(c, &tx->gas));
    if (d->rules->pool && tx->gas > d->rules->max_gas) return BW_GAS_MAX;
    BW_TRY(bw_rlp_string(c, &data, &len));
    d->gas = GAS_TRANSACTION;
    if (len == 20) {
        memcpy(tx->to, data, 20);
    } else if (len == 0) {
        if (!may_create) return BW_TO_MISSING;
        tx->flags |= BW_TX_CREATE;
        d->gas = GAS_CREATE;
    } else {
        return BW_TO_WIDTH;
    }
    BW_TRY(bw_rlp_u256(c, tx->value_wei));
    BW_TRY(bw_rlp_string(c, &data, &len));
    tx->data_off = offset(d, data);
    tx->data_len = len;
    if (len >= 4) {
        uint32_t selector;
        memcpy(&selector, data, 4);
        tx->selector = __builtin_bswap32(selector);
        tx->flags |= BW_TX_HAS_SELECTOR;
    }
    if (tx->flags & BW_TX_CREATE && d->rules->fork >= BW_FORK_SHANGHAI) {
        if (d->rules->pool && len > d->rules->max_initcode) return BW_INITCODE_SIZE;
        d->gas += (uint64_t)GAS_INITCODE_WORD * ((len + 31) / 32);
    }
    return BW_OK;
}

static inline enum bw_verdict access_list(struct decoding *d, struct bw_cursor *c) {
    struct bw_cursor entries, entry, keys;
    const uint8_t *address;
    uint32_t count;
    BW_TRY(bw_rlp_list(c, &entries));
    d->tx->access_off = offset(d, entries.at);
    d->tx->access_len = (uint32_t)bw_left(&entries);
    while (entries.at < entries.end) {
        BW_TRY(bw_rlp_list(&entries, &entry));
        if (entry.at == entry.end) return BW_ACCESS_SHAPE;
        BW_TRY(bw_rlp_fixed(&entry, 20, BW_ACCESS_SHAPE, &address));
        if (entry.at == entry.end) return BW_ACCESS_SHAPE;
        BW_TRY(bw_rlp_fixed_list(&entry, 32, BW_ACCESS_SHAPE, &keys, &count));
        if (entry.at != entry.end) return BW_ACCESS_SHAPE;
        d->gas += GAS_ACCESS_ADDRESS + (uint64_t)GAS_ACCESS_KEY * count;
    }
    return BW_OK;
}

/* EIP-7702: an authorization that is well formed but not valid is skipped by the chain, so its
 * values (chain, nonce, signature) are not judged here. */
static inline enum bw_verdict authorization(struct bw_cursor *c) {
    static const uint8_t WIDTH[6] = {32, 0, 8, 1, 32, 32}; /* of its integers, in bytes */
    const uint8_t *address;
    for (int field = 0; field < 6; field++) {
        if (c->at == c->end) return BW_AUTH_SHAPE;
        if (field == 1)
            BW_TRY(bw_rlp_fixed(c, 20, BW_AUTH_SHAPE, &address));
        else
            BW_TRY(bw_rlp_integer(c, WIDTH[field]));
    }
    return c->at == c->end ? BW_OK : BW_AUTH_SHAPE;
}

static enum bw_verdict authorizations(struct decoding *d, struct bw_cursor *c) {
    struct bw_cursor entries, entry;
    BW_TRY(bw_rlp_list(c, &entries));
    d->tx->auths_off = offset(d, entries.at);
    d->tx->auths_len = (uint32_t)bw_left(&entries);
    if (d->rules->pool && entries.at == entries.end) return BW_AUTH_EMPTY;
    while (entries.at < entries.end) {
        BW_TRY(bw_rlp_list(&entries, &entry));
        BW_TRY(authorization(&entry));
        d->gas += GAS_AUTHORIZATION;
    }
    return BW_OK;
}

static enum bw_verdict blob_hashes(struct decoding *d, struct bw_cursor *c) {
    struct bw_cursor hashes;
    uint32_t count;
    BW_TRY(bw_rlp_u256(c, d->tx->blob_fee_cap_wei));
    BW_TRY(bw_rlp_fixed_list(c, 32, BW_BLOB_HASH, &hashes, &count));
    d->tx->blobs_off = offset(d, hashes.at);
    d->tx->blobs_len = (uint32_t)bw_left(&hashes);
    if (!d->rules->pool) return BW_OK;
    if (is_zero(d->tx->blob_fee_cap_wei)) return BW_BLOB_FEE;
    if (count == 0) return BW_BLOB_NONE;
    if (count > d->rules->max_blobs) return BW_BLOB_COUNT;
    for (const uint8_t *hash = hashes.at + 1; hash < hashes.end; hash += 33)
        if (*hash != 0x01) return BW_BLOB_HASH;
    return BW_OK;
}

static inline enum bw_verdict r_and_s(struct decoding *d, struct bw_cursor *c) {
    uint64_t r[4], s[4];
    BW_TRY(bw_rlp_u256(c, r));
    BW_TRY(bw_rlp_u256(c, s));
    if (d->rules->pool) {
        if (is_zero(r) || !above(ORDER, r)) return BW_SIG_R;
        if (is_zero(s) || !above(ORDER, s)) return BW_SIG_S;
        if (above(s, HALF_ORDER)) return BW_SIG_HIGH_S;
    }
    for (int i = 0; i < 4; i++) {
        uint64_t word = __builtin_bswap64(r[3 - i]);
        memcpy(d->tx->r + 8 * i, &word, 8);
        word = __builtin_bswap64(s[3 - i]);
        memcpy(d->tx->s + 8 * i, &word, 8);
    }
    return BW_OK;
}

static inline enum bw_verdict y_parity(struct decoding *d, struct bw_cursor *c) {
    uint64_t v[4];
    BW_TRY(bw_rlp_u256(c, v));
    if (v[0] > (d->rules->pool ? 1 : UINT8_MAX) || v[1] | v[2] | v[3]) return BW_SIG_V;
    d->tx->y_parity = (uint8_t)v[0];
    return BW_OK;
}

/* 27 or 28 without a chain, else 35 + 2 * chain + parity (EIP-155). */
static inline enum bw_verdict legacy_v(struct decoding *d, struct bw_cursor *c) {
    uint64_t v[4];
    BW_TRY(bw_rlp_u256(c, v));
    if (v[1] | v[2] | v[3]) {
        /* up to 36 + 2 * (2^64 - 1) it still names a chain of 64 bits */
        if (v[2] | v[3] || v[1] > 2 || (v[1] == 2 && v[0] > 34)) return BW_CHAIN_ID;
    } else if (v[0] == 27 || v[0] == 28) {
        d->tx->y_parity = (uint8_t)(v[0] - 27);
        return BW_OK;
    } else if (v[0] < 35) {
        d->tx->y_parity = (uint8_t)v[0];
        return d->rules->pool ? BW_SIG_V : BW_OK;
    }
    unsigned __int128 rest = (((unsigned __int128)v[1] << 64) | v[0]) - 35;
    d->tx->y_parity = (uint8_t)(rest & 1);
    return protected_by(d, (uint64_t)(rest >> 1));
}

/* The gas that the bytes cost before anything runs, and from Prague on the floor (EIP-7623).
 * Zero bytes are counted only where the gas limit does not cover every byte at its dearest. */
static inline enum bw_verdict gas_covers(const struct decoding *d) {
    const struct bw_tx *tx = d->tx;
    const uint64_t len = tx->data_len, dearest = 4 * GAS_FLOOR_TOKEN * len;
    if (!d->rules->pool || (tx->gas >= d->gas && tx->gas - d->gas >= dearest)) return BW_OK;
    uint64_t zeros = count_zeros(d->raw + tx->data_off, tx->data_len);
    if (tx->gas < d->gas + GAS_DATA_ZERO * zeros + GAS_DATA_NONZERO * (len - zeros))
        return BW_GAS_INTRINSIC;
    if (d->rules->fork >= BW_FORK_PRAGUE &&
        tx->gas < GAS_TRANSACTION + GAS_FLOOR_TOKEN * (zeros + 4 * (len - zeros)))
        return BW_GAS_FLOOR;
    return BW_OK;
}

/* ---------------------------------------------------------------- envelopes */

static inline void signed_part(struct decoding *d, const uint8_t *from, const uint8_t *to) {
    d->tx->fields_off = offset(d, from);
    d->tx->fields_len = (uint32_t)(to - from);
}

static inline enum bw_verdict ended(const struct bw_cursor *c) {
    return c->at == c->end ? BW_OK : BW_FIELDS_MANY;
}

static inline enum bw_verdict legacy(struct decoding *d, struct bw_cursor *c) {
    const uint8_t *start = c->at;
    BW_TRY(nonce(d, c));
    BW_TRY(one_price(d, c));
    BW_TRY(call(d, c, 1));
    signed_part(d, start, c->at);
    BW_TRY(legacy_v(d, c));
    BW_TRY(r_and_s(d, c));
    BW_TRY(ended(c));
    return gas_covers(d);
}

static inline enum bw_verdict typed(struct decoding *d, struct bw_cursor *c, int type) {
    const uint8_t *start = c->at;
    BW_TRY(chain_id(d, c));
    BW_TRY(nonce(d, c));
    BW_TRY(type == 1 ? one_price(d, c) : two_prices(d, c));
    BW_TRY(call(d, c, type < 3));
    BW_TRY(access_list(d, c));
    if (type == 3) BW_TRY(blob_hashes(d, c));
    if (type == 4) BW_TRY(authorizations(d, c));
    signed_part(d, start, c->at);
    BW_TRY(y_parity(d, c));
    BW_TRY(r_and_s(d, c));
    BW_TRY(ended(c));
    return gas_covers(d);
}

/* EIP-4844's network form, [tx, blobs, commitments, proofs], and since EIP-7594
 * [tx, 1, blobs, commitments, cell proofs]. */
static enum bw_verdict wrapped(struct decoding *d, struct bw_cursor *c) {
    struct bw_tx *tx = d->tx;
    struct bw_cursor fields, blobs, commitments, proofs;
    uint32_t blob_count, commitment_count, proof_count;
    uint64_t version = 0;
    tx->flags |= BW_TX_WRAPPED;
    tx->hashed_off = offset(d, c->at);
    BW_TRY(bw_rlp_list(c, &fields));
    tx->hashed_len = offset(d, c->at) - tx->hashed_off;
    BW_TRY(typed(d, &fields, 3));
    if (c->at < c->end && *c->at < 0xc0) {
        BW_TRY(bw_rlp_u64(c, &version));
        if (version != 1) return BW_WRAPPER_VERSION;
    }
    tx->wrapper_version = (uint8_t)version;
    if (d->rules->pool && version != (d->rules->fork >= BW_FORK_OSAKA)) return BW_WRAPPER_VERSION;
    BW_TRY(bw_rlp_fixed_list(c, BLOB_BYTES, BW_WRAPPER_SHAPE, &blobs, &blob_count));
    BW_TRY(bw_rlp_fixed_list(c, COMMITMENT_BYTES, BW_WRAPPER_SHAPE, &commitments,
                             &commitment_count));
    BW_TRY(bw_rlp_fixed_list(c, COMMITMENT_BYTES, BW_WRAPPER_SHAPE, &proofs, &proof_count));
    BW_TRY(ended(c));
    if (!d->rules->pool) return BW_OK;
    const uint32_t hashes = tx->blobs_len / 33;
    if (blob_count != hashes || commitment_count != hashes ||
        proof_count != hashes * (version ? CELL_PROOFS_PER_BLOB : 1))
        return BW_WRAPPER_COUNT;
    for (uint32_t i = 0; i < hashes; i++) {
        uint8_t digest[32];
        const uint8_t *commitment = commitments.at + 1 + (size_t)i * (COMMITMENT_BYTES + 1);
        bw_sha256_block(commitment, COMMITMENT_BYTES, digest);
        /* the first byte of a versioned hash is its version */
        if (memcmp(digest + 1, d->raw + tx->blobs_off + 33 * i + 2, 31))
            return BW_WRAPPER_COMMITMENT;
    }
    return BW_OK;
}

/* The list that is the whole of what follows the type byte. */
static inline enum bw_verdict outermost(struct bw_cursor *c, struct bw_cursor *fields) {
    BW_TRY(bw_rlp_list(c, fields));
    return c->at == c->end ? BW_OK : BW_RLP_TRAILING;
}

enum bw_verdict bw_decode_one(const uint8_t *raw, uint32_t len, const struct bw_rules *rules,
                              struct bw_tx *out) {
    static const uint8_t SINCE[5] = {BW_FORK_LONDON, BW_FORK_LONDON, BW_FORK_LONDON,
                                     BW_FORK_CANCUN, BW_FORK_PRAGUE};
    struct decoding d = {raw, rules, out, 0};
    struct bw_cursor c = {raw, raw + len}, fields;
    memset(out, 0, sizeof *out);
    if (len == 0) return BW_EMPTY;
    out->raw_len = out->hashed_len = len;
    if (raw[0] > 0x7f) {
        if (rules->pool && len > rules->max_size) return BW_OVERSIZED;
        BW_TRY(outermost(&c, &fields));
        return legacy(&d, &fields);
    }
    const uint8_t type = raw[0];
    if (len == 1) return BW_EMPTY;
    if (type < 1 || type > 4) return BW_TYPE_UNKNOWN;
    if (rules->pool && rules->fork < SINCE[type]) return BW_TYPE_EARLY;
    if (rules->pool && len > (type == 3 ? rules->max_blob_size : rules->max_size)) return BW_OVERSIZED;
    out->type = type;
    c.at++;
    BW_TRY(outermost(&c, &fields));
    switch (type) { /* a constant each, so that each type gets code of its own */
    case 1: return typed(&d, &fields, 1);
    case 2: return typed(&d, &fields, 2);
    case 3:
        if (fields.at < fields.end && *fields.at >= 0xc0) return wrapped(&d, &fields);
        return typed(&d, &fields, 3);
    default: return typed(&d, &fields, 4);
    }
}

uint32_t bw_decode_burst(const struct bw_message *messages, uint32_t n,
                         const struct bw_rules *rules, struct bw_tx *out, uint8_t *verdicts,
                         struct bw_refusals *refusals) {
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct bw_message *m = &messages[i];
        enum bw_verdict verdict = bw_decode_one(m->data, m->len, rules, &out[i]);
        verdicts[i] = (uint8_t)verdict;
        if (__builtin_expect(verdict != BW_OK, 0)) {
            memset(&out[i], 0, sizeof out[i]);
            if (refusals) bw_refuse(refusals, verdict, m->data, m->len);
            continue;
        }
        out[i].arrival_ns = m->arrival_ns;
        out[i].source = m->source;
        out[i].arrival_clock = m->clock;
        out[i].origin = m->flags >> BW_MESSAGE_ORIGIN;
        out[i].known_ns = m->missed_mono_ns ? m->missed_mono_ns : m->arrival_ns;
        out[i].known_clock = m->missed_mono_ns ? DPB_CLOCK_MONO : m->clock;
        if (m->flags & BW_MESSAGE_TRUSTED) out[i].flags |= BW_TX_TRUSTED;
        accepted++;
    }
    if (refusals) refusals->of[BW_OK].count += accepted;
    return accepted;
}

/* ---------------------------------------------------------------- hashes */

uint32_t bw_hash_burst(const struct bw_message *messages, struct bw_tx *txs, uint32_t n) {
    struct bw_keccak_job jobs[64];
    uint32_t count = 0, hashed = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct bw_tx *tx = &txs[i];
        if (tx->raw_len == 0 || tx->flags & BW_TX_HASHED) continue;
        struct bw_keccak_job *job = &jobs[count++];
        *job = (struct bw_keccak_job){messages[i].data, tx->hash, tx->hashed_len, -1};
        if (tx->flags & BW_TX_WRAPPED) { /* the type byte stands outside the wrapper */
            job->data += tx->hashed_off - 1;
            job->len++;
            job->first = tx->type;
        }
        tx->flags |= BW_TX_HASHED;
        if (count == 64) {
            bw_keccak256_many(jobs, count);
            hashed += count;
            count = 0;
        }
    }
    bw_keccak256_many(jobs, count);
    return hashed + count;
}

/* An RLP integer of at most 64 bits; returns how many bytes it took. */
static uint32_t put_u64(uint8_t *to, uint64_t value) {
    if (value && value < 0x80) {
        to[0] = (uint8_t)value;
        return 1;
    }
    uint32_t width = value ? (71 - (uint32_t)__builtin_clzll(value)) / 8 : 0;
    to[0] = (uint8_t)(0x80 + width);
    for (uint32_t i = width; i; i--, value >>= 8) to[i] = (uint8_t)value;
    return 1 + width;
}

static uint32_t put_list_header(uint8_t *to, uint32_t len) {
    if (len < 56) {
        to[0] = (uint8_t)(0xc0 + len);
        return 1;
    }
    uint32_t width = put_u64(to, len); /* 0x80 + width, or the byte itself below 0x80 */
    if (width == 1) to[width++] = (uint8_t)len;
    to[0] = (uint8_t)(0xf7 + width - 1);
    return width;
}

/* What is hashed for the signature: these bytes around the fields. */
struct frame {
    uint8_t head[8], tail[16];
    uint32_t head_len, tail_len;
};

static void signing_frame(const struct bw_tx *tx, struct frame *frame) {
    frame->head_len = frame->tail_len = 0;
    if (tx->type) {
        frame->head[frame->head_len++] = tx->type;
    } else if (tx->flags & BW_TX_PROTECTED) {
        frame->tail_len = put_u64(frame->tail, tx->chain_id);
        frame->tail[frame->tail_len++] = 0x80;
        frame->tail[frame->tail_len++] = 0x80;
    }
    frame->head_len += put_list_header(frame->head + frame->head_len,
                                       tx->fields_len + frame->tail_len);
}

void bw_signing_hash(const uint8_t *raw, const struct bw_tx *tx, uint8_t *out) {
    struct frame frame;
    struct bw_keccak k;
    signing_frame(tx, &frame);
    bw_keccak_begin(&k);
    bw_keccak_add(&k, frame.head, frame.head_len);
    bw_keccak_add(&k, raw + tx->fields_off, tx->fields_len);
    bw_keccak_add(&k, frame.tail, frame.tail_len);
    bw_keccak_end(&k, out);
}

uint32_t bw_signing_bytes(const uint8_t *raw, const struct bw_tx *tx, uint8_t *out) {
    struct frame frame;
    signing_frame(tx, &frame);
    memcpy(out, frame.head, frame.head_len);
    memcpy(out + frame.head_len, raw + tx->fields_off, tx->fields_len);
    memcpy(out + frame.head_len + tx->fields_len, frame.tail, frame.tail_len);
    return frame.head_len + tx->fields_len + frame.tail_len;
}

/* ---------------------------------------------------------------- rules and refusals */

int bw_rules_preset(uint32_t fork, uint64_t chain_id, struct bw_rules *out) {
    if (fork > BW_FORK_OSAKA) return -EINVAL;
    *out = (struct bw_rules){
        .chain_id = chain_id,
        .max_gas = fork >= BW_FORK_OSAKA ? 1 << 24 : UINT64_MAX, /* EIP-7825 */
        .fork = fork,
        .max_size = 128 * 1024,       /* geth: legacypool txMaxSize */
        .max_blob_size = 1024 * 1024, /* geth: blobpool txMaxSize */
        /* a block's limit in Cancun (EIP-4844) and Prague (EIP-7691), one's own (EIP-7594) */
        .max_blobs = fork == BW_FORK_PRAGUE ? 9 : 6,
        .max_initcode = 2 * 24576, /* EIP-3860 */
        .pool = 1,
    };
    return 0;
}

void bw_refuse(struct bw_refusals *refusals, enum bw_verdict verdict, const uint8_t *raw,
               uint32_t len) {
    struct bw_refusal *refusal = &refusals->of[verdict];
    refusal->count++;
    refusal->sample_len = len;
    refusal->sample_kept = len < BW_SAMPLE_BYTES ? len : BW_SAMPLE_BYTES;
    if (len) memcpy(refusal->sample, raw, refusal->sample_kept);
}

const char *bw_verdict_name(uint32_t verdict) {
    static const char *const NAMES[BW_VERDICTS] = {
        [BW_OK] = "ok",
        [BW_EMPTY] = "empty",
        [BW_OVERSIZED] = "oversized",
        [BW_TYPE_UNKNOWN] = "type_unknown",
        [BW_TYPE_EARLY] = "type_early",
        [BW_RLP_TRUNCATED] = "rlp_truncated",
        [BW_RLP_TRAILING] = "rlp_trailing",
        [BW_RLP_LENGTH] = "rlp_length",
        [BW_RLP_BYTE] = "rlp_byte",
        [BW_RLP_KIND] = "rlp_kind",
        [BW_FIELDS_FEW] = "fields_few",
        [BW_FIELDS_MANY] = "fields_many",
        [BW_INT_ZEROS] = "int_zeros",
        [BW_INT_WIDTH] = "int_width",
        [BW_CHAIN_ID] = "chain_id",
        [BW_NONCE_MAX] = "nonce_max",
        [BW_GAS_MAX] = "gas_max",
        [BW_GAS_INTRINSIC] = "gas_intrinsic",
        [BW_GAS_FLOOR] = "gas_floor",
        [BW_TIP_ABOVE_CAP] = "tip_above_cap",
        [BW_TO_WIDTH] = "to_width",
        [BW_TO_MISSING] = "to_missing",
        [BW_INITCODE_SIZE] = "initcode_size",
        [BW_ACCESS_SHAPE] = "access_shape",
        [BW_AUTH_EMPTY] = "auth_empty",
        [BW_AUTH_SHAPE] = "auth_shape",
        [BW_BLOB_NONE] = "blob_none",
        [BW_BLOB_COUNT] = "blob_count",
        [BW_BLOB_HASH] = "blob_hash",
        [BW_BLOB_FEE] = "blob_fee",
        [BW_WRAPPER_VERSION] = "wrapper_version",
        [BW_WRAPPER_SHAPE] = "wrapper_shape",
        [BW_WRAPPER_COUNT] = "wrapper_count",
        [BW_WRAPPER_COMMITMENT] = "wrapper_commitment",
        [BW_SIG_V] = "sig_v",
        [BW_SIG_R] = "sig_r",
        [BW_SIG_S] = "sig_s",
        [BW_SIG_HIGH_S] = "sig_high_s",
    };
    return verdict < BW_VERDICTS ? NAMES[verdict] : "?";
}
