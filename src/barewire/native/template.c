#include "template.h"

#include <stdlib.h>
#include <string.h>

#include "keccak.h"

#define HEADROOM 16 /* type byte and the longest list header, and a round number */
#define TAILROOM 96 /* v, r and s; more than EIP-155's three numbers */
#define LONGEST_NUMBER 33

struct whole {
    struct bw_template open; /* first: what callers see */
    uint32_t type, piece_count, slot_count, fields_len;
    uint64_t chain_id;
    struct bw_template_caps caps;
    struct bw_template_piece *pieces;
    struct bw_template_slot *slots;
    uint8_t *literal;
};

/* ---- RLP, yellow paper appendix B ---- */

static inline int width(uint64_t x) { return x ? (71 - __builtin_clzll(x)) / 8 : 0; }

/* Writes the low `n` bytes of x, big-endian. Touches eight bytes at p. */
static inline uint8_t *put_bytes(uint8_t *p, uint64_t x, int n) {
    uint64_t big = n ? __builtin_bswap64(x << (64 - 8 * n)) : 0;
    memcpy(p, &big, 8);
    return p + n;
}

static inline uint8_t *put_u64(uint8_t *p, uint64_t x) {
    if (x && x < 0x80) {
        *p = (uint8_t)x;
        return p + 1;
    }
    int n = width(x);
    *p = (uint8_t)(0x80 + n);
    return put_bytes(p + 1, x, n);
}

static inline uint8_t *put_u128(uint8_t *p, const uint64_t x[2]) {
    if (!x[1]) return put_u64(p, x[0]);
    int n = width(x[1]);
    *p = (uint8_t)(0x80 + n + 8);
    return put_bytes(put_bytes(p + 1, x[1], n), x[0], 8);
}

/* 32 big-endian bytes as an integer: without leading zeros. */
static inline uint8_t *put_word(uint8_t *p, const uint8_t *word) {
    int n = 32;
    while (n && !*word) word++, n--;
    if (n != 1 || *word >= 0x80) *p++ = (uint8_t)(0x80 + n);
    memcpy(p, word, (size_t)n);
    return p + n;
}

/* Writes the header of a list of `len` bytes so that it ends at `end`; returns where it begins. */
static inline uint8_t *put_list_before(uint8_t *end, uint64_t len) {
    if (len < 56) {
        *--end = (uint8_t)(0xc0 + len);
        return end;
    }
    int n = width(len);
    for (int i = 0; i < n; i++) *--end = (uint8_t)(len >> (8 * i));
    *--end = (uint8_t)(0xf7 + n);
    return end;
}

/* ---- making one ---- */

static int fits(uint32_t offset, uint32_t len, uint32_t all) {
    return offset <= all && len <= all - offset;
}

static void *copied(const void *from, size_t len) {
    void *to = malloc(len ? len : 1);
    if (to && len) memcpy(to, from, len);
    return to;
}

struct bw_template *bw_template_new(uint32_t type, uint64_t chain_id, const uint8_t *literal,
                                    uint32_t literal_len, const struct bw_template_piece *pieces,
                                    uint32_t piece_count, const struct bw_template_slot *slots,
                                    uint32_t slot_count, const struct bw_template_caps *caps) {
    uint64_t out_len = HEADROOM + TAILROOM, slots_len = 0;
    for (uint32_t i = 0; i < piece_count; i++) {
        int is_literal = pieces[i].kind == BW_PIECE_LITERAL;
        if (pieces[i].kind > BW_PIECE_BLOB_FEE_CAP) return NULL;
        if (is_literal && !fits(pieces[i].offset, pieces[i].len, literal_len)) return NULL;
        out_len += is_literal ? pieces[i].len : LONGEST_NUMBER;
    }
    for (uint32_t i = 0; i < slot_count; i++) {
        if (!fits(slots[i].offset, slots[i].width, literal_len)) return NULL;
        slots_len += slots[i].width;
    }
    if (out_len > UINT32_MAX || slots_len > UINT32_MAX || type > 4) return NULL;
    struct whole *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->type = type;
    t->chain_id = chain_id;
    t->caps = *caps;
    t->piece_count = piece_count;
    t->slot_count = slot_count;
    t->open.out_len = (uint32_t)out_len;
    t->open.slots_len = (uint32_t)slots_len;
    t->open.out = calloc(1, out_len);
    t->literal = copied(literal, literal_len);
    t->pieces = copied(pieces, piece_count * sizeof *pieces);
    t->slots = copied(slots, slot_count * sizeof *slots);
    if (!t->open.out || !t->literal || !t->pieces || !t->slots) {
        bw_template_free(&t->open);
        return NULL;
    }
    return &t->open;
}

void bw_template_free(struct bw_template *open) {
    struct whole *t = (struct whole *)open;
    if (!t) return;
    free(t->open.out);
    free(t->literal);
    free(t->pieces);
    free(t->slots);
    free(t);
}

/* ---- using it ---- */

static int refusal(const struct whole *t, const struct bw_template_numbers *n, size_t slots_len) {
    const struct bw_template_caps *caps = &t->caps;
    int has_tip = t->type >= 2, has_blobs = t->type == 3;
    if (n->nonce == UINT64_MAX) return BW_REFUSED_NONCE;
    if (n->fee_cap_wei > caps->fee_cap_wei) return BW_REFUSED_FEE_CAP;
    if (has_tip ? n->tip_wei > caps->tip_wei : n->tip_wei != 0) return BW_REFUSED_TIP;
    if (n->tip_wei > n->fee_cap_wei) return BW_REFUSED_TIP_ABOVE;
    if (has_blobs ? n->blob_fee_cap_wei > caps->blob_fee_cap_wei : n->blob_fee_cap_wei != 0)
        return BW_REFUSED_BLOB_FEE;
    if (n->value_wei[1] > caps->value_wei[1] ||
        (n->value_wei[1] == caps->value_wei[1] && n->value_wei[0] > caps->value_wei[0]))
        return BW_REFUSED_VALUE;
    return slots_len == t->open.slots_len ? 0 : BW_REFUSED_SLOTS;
}

/* Lays the fields down; returns their end. */
static uint8_t *put_fields(const struct whole *t, uint8_t *p, const struct bw_template_numbers *n) {
    for (uint32_t i = 0; i < t->piece_count; i++) {
        const struct bw_template_piece *piece = &t->pieces[i];
        switch (piece->kind) {
        case BW_PIECE_LITERAL:
            memcpy(p, t->literal + piece->offset, piece->len);
            p += piece->len;
            break;
        case BW_PIECE_NONCE: p = put_u64(p, n->nonce); break;
        case BW_PIECE_TIP: p = put_u64(p, n->tip_wei); break;
        case BW_PIECE_FEE_CAP: p = put_u64(p, n->fee_cap_wei); break;
        case BW_PIECE_VALUE: p = put_u128(p, n->value_wei); break;
        case BW_PIECE_BLOB_FEE_CAP: p = put_u64(p, n->blob_fee_cap_wei); break;
        }
    }
    return p;
}

/* The list header, and the type, before the fields, which end at `end`; returns the first byte. */
static uint8_t *put_envelope(const struct whole *t, uint8_t *end) {
    uint8_t *fields = t->open.out + HEADROOM;
    uint8_t *first = put_list_before(fields, (uint64_t)(end - fields));
    if (t->type) *--first = (uint8_t)t->type;
    return first;
}

static inline int64_t prepare(struct whole *t, const struct bw_template_numbers *numbers,
                              const uint8_t *slots, size_t slots_len) {
    int why = refusal(t, numbers, slots_len);
    if (why) return why;
    for (uint32_t i = 0; i < t->slot_count; i++) {
        memcpy(t->literal + t->slots[i].offset, slots, t->slots[i].width);
        slots += t->slots[i].width;
    }
    uint8_t *fields = t->open.out + HEADROOM;
    uint8_t *end = put_fields(t, fields, numbers);
    t->fields_len = (uint32_t)(end - fields);
    if (!t->type && t->chain_id) { /* EIP-155: chain id, 0, 0 */
        end = put_u64(end, t->chain_id);
        *end++ = 0x80;
        *end++ = 0x80;
    }
    uint8_t *first = put_envelope(t, end);
    t->open.payload_off = (uint32_t)(first - t->open.out);
    t->open.payload_len = (uint32_t)(end - first);
    t->open.raw_len = 0;
    bw_keccak256(first, t->open.payload_len, t->open.digest);
    return t->open.payload_len;
}

static inline int64_t finish(struct whole *t, const uint8_t *rs, int y_parity) {
    uint8_t *end = t->open.out + HEADROOM + t->fields_len;
    if (t->type)
        *end++ = y_parity ? 0x01 : 0x80;
    else if (t->chain_id) { /* chain_id * 2 + 35 + parity can pass 2^64 */
        unsigned __int128 v = (unsigned __int128)t->chain_id * 2 + 35 + (unsigned)y_parity;
        uint64_t words[2] = {(uint64_t)v, (uint64_t)(v >> 64)};
        end = put_u128(end, words);
    } else
        *end++ = (uint8_t)(27 + y_parity);
    end = put_word(put_word(end, rs), rs + 32);
    uint8_t *first = put_envelope(t, end);
    t->open.raw_off = (uint32_t)(first - t->open.out);
    t->open.raw_len = (uint32_t)(end - first);
    return t->open.raw_len;
}

int64_t bw_template_prepare(struct bw_template *t, const struct bw_template_numbers *numbers,
                            const uint8_t *slots, size_t slots_len) {
    return prepare((struct whole *)t, numbers, slots, slots_len);
}

int64_t bw_template_finish(struct bw_template *t, const uint8_t *rs, int y_parity) {
    return finish((struct whole *)t, rs, y_parity);
}

int64_t bw_template_fire(struct bw_template *open, struct bw_signer *signer,
                         const struct bw_template_numbers *numbers, const uint8_t *slots,
                         size_t slots_len) {
    struct whole *t = (struct whole *)open;
    uint8_t rs[64];
    int64_t prepared = prepare(t, numbers, slots, slots_len);
    if (prepared < 0) return prepared;
    int y_parity = bw_signer_sign(signer, t->open.digest, rs);
    return y_parity < 0 ? y_parity : finish(t, rs, y_parity);
}

int64_t bw_template_fire_with(struct bw_template *t, struct bw_signer *signer, uint64_t nonce,
                              uint64_t tip_wei, uint64_t fee_cap_wei, uint64_t blob_fee_cap_wei,
                              uint64_t value_high, uint64_t value_low, const uint8_t *slots,
                              size_t slots_len) {
    struct bw_template_numbers numbers = {
        nonce, tip_wei, fee_cap_wei, blob_fee_cap_wei, {value_low, value_high}};
    return bw_template_fire(t, signer, &numbers, slots, slots_len);
}

void bw_template_hash(const struct bw_template *t, uint8_t *hash) {
    bw_keccak256(t->out + t->raw_off, t->raw_len, hash);
}
