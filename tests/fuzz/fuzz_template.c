// sources: src/barewire/native/template.c src/barewire/native/decode.c src/barewire/native/sha256.c src/barewire/native/keccak*.c
// max_len: 2048
//
// Templates. The first byte chooses between pieces and slots that lie anywhere, which must be
// refused or stay inside their buffer, and templates as Python makes them, of every type and with
// every width of every number, which the decoder must read back as they were asked for. The signer
// is a stand-in that takes r and s from the input.
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "keccak.h"
#include "template.h"

static void insist(int truth) {
    if (!truth) abort();
}

/* ---- the input ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

static void take(struct input *in, void *out, size_t len) {
    size_t have = len < in->left ? len : in->left;
    memset(out, 0, len);
    if (have) memcpy(out, in->at, have);
    in->at += have;
    in->left -= have;
}

static uint64_t number(struct input *in, size_t bytes) {
    uint64_t value = 0;
    take(in, &value, bytes);
    return value;
}

/* Any width is as likely as any other. */
static uint64_t any_width(struct input *in) {
    return number(in, 8) >> (number(in, 1) & 63);
}

static struct bw_template_numbers numbers_of(struct input *in) {
    struct bw_template_numbers n;
    n.nonce = any_width(in);
    n.tip_wei = any_width(in);
    n.fee_cap_wei = any_width(in);
    n.blob_fee_cap_wei = any_width(in);
    n.value_wei[0] = number(in, 8);
    n.value_wei[1] = any_width(in);
    return n;
}

/* ---- the signer ---- */

struct bw_signer {
    uint8_t rs[64];
    int parity;
};

int bw_signer_sign(struct bw_signer *signer, const uint8_t *hash, uint8_t *rs) {
    if (!signer) return BW_SIGN_NOBODY;
    memcpy(rs, signer->rs, 64);
    return signer->parity;
}

/* r and s of any width, in range and not zero. */
static struct bw_signer signer_of(struct input *in) {
    struct bw_signer signer;
    take(in, signer.rs, 64);
    for (int half = 0; half < 2; half++) {
        uint8_t *word = signer.rs + 32 * half;
        memset(word, 0, 1 + (size_t)(number(in, 1) & 31) % 31);
        word[31] |= 1;
    }
    signer.parity = (int)number(in, 1) & 1;
    return signer;
}

/* ---- what must hold of any template ---- */

static const struct bw_template_caps OPEN = {
    UINT64_MAX, UINT64_MAX, UINT64_MAX, {UINT64_MAX, UINT64_MAX}};

static void inside(const struct bw_template *t, uint32_t off, uint32_t len) {
    insist(off <= t->out_len && len <= t->out_len - off);
}

/* `slots_len` bytes of slots, in an allocation of exactly that size. */
static int64_t fire(struct bw_template *t, struct bw_signer *signer,
                    const struct bw_template_numbers *n, struct input *in, size_t slots_len) {
    uint8_t *slots = malloc(slots_len ? slots_len : 1);
    take(in, slots, slots_len);
    int64_t len = bw_template_fire(t, signer, n, slots, slots_len);
    free(slots);
    return len;
}

static int64_t check(struct bw_template *t, struct bw_signer *signer,
                     const struct bw_template_numbers *n, struct input *in) {
    uint8_t hash[32], other[32];
    insist(fire(t, signer, n, in, t->slots_len + 1) < 0);
    int64_t len = fire(t, signer, n, in, t->slots_len);
    if (len < 0) return len;
    insist(t->raw_len == len);
    inside(t, t->raw_off, t->raw_len);
    inside(t, t->payload_off, t->payload_len);
    bw_template_hash(t, hash);
    bw_keccak256(t->out + t->raw_off, t->raw_len, other);
    insist(!memcmp(hash, other, 32));
    return len;
}

/* ---- pieces that lie anywhere ---- */

static void anything(struct input *in) {
    struct bw_template_piece pieces[6];
    struct bw_template_slot slots[3];
    struct bw_signer signer = signer_of(in);
    struct bw_template_numbers first = numbers_of(in), second = numbers_of(in);
    uint32_t type = (uint32_t)number(in, 1) % 6;
    uint64_t chain_id = any_width(in);
    uint32_t piece_count = (uint32_t)number(in, 1) % 7, slot_count = (uint32_t)number(in, 1) & 3;
    for (uint32_t i = 0; i < 6; i++)
        pieces[i] = (struct bw_template_piece){
            (uint32_t)number(in, 1) % 7, (uint32_t)number(in, 2), (uint32_t)number(in, 2)};
    for (uint32_t i = 0; i < 3; i++)
        slots[i] = (struct bw_template_slot){(uint32_t)number(in, 2), (uint32_t)number(in, 1)};
    struct bw_template *t = bw_template_new(type, chain_id, in->at, (uint32_t)in->left, pieces,
                                            piece_count, slots, slot_count, &OPEN);
    if (!t) return;
    check(t, &signer, &first, in);
    check(t, &signer, &second, in);
    check(t, NULL, &first, in);
    bw_template_free(t);
}

/* ---- templates as they are made ---- */

struct literal {
    uint8_t bytes[1200];
    uint32_t len, begin;
    struct bw_template_piece pieces[16];
    uint32_t count;
};

static void put(struct literal *l, const void *bytes, size_t len) {
    memcpy(l->bytes + l->len, bytes, len);
    l->len += (uint32_t)len;
}

static void put_byte(struct literal *l, unsigned byte) { put(l, &(uint8_t){(uint8_t)byte}, 1); }

static void put_number(struct literal *l, uint64_t value) {
    int width = 0;
    for (uint64_t rest = value; rest; rest >>= 8) width++;
    if (value >= 0x80 || !value) put_byte(l, 0x80 + (unsigned)width);
    while (width) put_byte(l, (unsigned)(value >> (8 * --width)) & 0xff);
}

/* Ends the piece that is being written, and adds `kind` after it. */
static void then(struct literal *l, uint32_t kind) {
    l->pieces[l->count++] =
        (struct bw_template_piece){BW_PIECE_LITERAL, l->begin, l->len - l->begin};
    l->pieces[l->count++] = (struct bw_template_piece){kind, 0, 0};
    l->begin = l->len;
}

static void proper(struct input *in) {
    static struct literal l;
    struct bw_signer signer = signer_of(in);
    struct bw_template_numbers n = numbers_of(in);
    uint32_t type = (uint32_t)number(in, 1) % 5, data_len = (uint32_t)number(in, 2) % 1000;
    uint64_t chain_id = any_width(in), gas = any_width(in);
    uint8_t to[20], word[32] = {1};
    if (type && !chain_id) chain_id = 1;
    if (data_len == 1) data_len = 2; /* a single byte has no place for a slot */
    take(in, to, 20);
    l.len = l.begin = l.count = 0;
    if (type) put_number(&l, chain_id);
    then(&l, BW_PIECE_NONCE);
    if (type >= 2) then(&l, BW_PIECE_TIP);
    then(&l, BW_PIECE_FEE_CAP);
    put_number(&l, gas);
    put_byte(&l, 0x94);
    put(&l, to, 20);
    then(&l, BW_PIECE_VALUE);
    if (data_len > 255) {
        put_byte(&l, 0xb9);
        put_byte(&l, data_len >> 8);
    } else if (data_len > 55) {
        put_byte(&l, 0xb8);
    }
    put_byte(&l, data_len > 55 ? data_len & 0xff : 0x80 + data_len);
    struct bw_template_slot slot = {l.len, data_len};
    memset(l.bytes + l.len, 0, data_len);
    l.len += data_len;
    if (type) put_byte(&l, 0xc0); /* access list */
    if (type == 3) {
        then(&l, BW_PIECE_BLOB_FEE_CAP);
        put_byte(&l, 0xe1);
        put_byte(&l, 0xa0);
        put(&l, word, 32);
    }
    if (type == 4) { /* [[chain 1, to, nonce 0, parity 1, r 1, s 1]] */
        put_byte(&l, 0xdb);
        put_byte(&l, 0xda);
        put_byte(&l, 1);
        put_byte(&l, 0x94);
        put(&l, to, 20);
        put(&l, "\x80\1\1\1", 4);
    }
    l.pieces[l.count++] =
        (struct bw_template_piece){BW_PIECE_LITERAL, l.begin, l.len - l.begin};
    struct bw_template *t = bw_template_new(type, chain_id, l.bytes, l.len, l.pieces, l.count,
                                            &slot, data_len ? 1 : 0, &OPEN);
    insist(t != NULL);
    if (check(t, &signer, &n, in) < 0) {
        insist(n.nonce == UINT64_MAX || n.tip_wei > n.fee_cap_wei || (type < 2 && n.tip_wei) ||
               (type != 3 && n.blob_fee_cap_wei));
        n.nonce &= ~1ull;
        n.tip_wei = type < 2 ? 0 : n.fee_cap_wei;
        if (type != 3) n.blob_fee_cap_wei = 0;
        insist(check(t, &signer, &n, in) > 0);
    }

    struct bw_rules rules;
    struct bw_tx tx;
    uint8_t digest[32];
    insist(bw_rules_preset(BW_FORK_PRAGUE, 0, &rules) == 0);
    rules.pool = 0;
    enum bw_verdict verdict = bw_decode_one(t->out + t->raw_off, t->raw_len, &rules, &tx);
    /* Legacy chain ids from 2^63 - 18 on make a v that geth has no room for. */
    if (!type && chain_id > (UINT64_MAX - 36) / 2) {
        bw_template_free(t);
        return;
    }
    insist(verdict == BW_OK);
    insist(tx.type == type && tx.nonce == n.nonce && tx.gas == gas && tx.chain_id == chain_id);
    insist(tx.fee_cap_wei[0] == n.fee_cap_wei && !tx.fee_cap_wei[1]);
    insist(tx.tip_wei[0] == (type < 2 ? n.fee_cap_wei : n.tip_wei));
    insist(tx.value_wei[0] == n.value_wei[0] && tx.value_wei[1] == n.value_wei[1]);
    insist(tx.blob_fee_cap_wei[0] == n.blob_fee_cap_wei);
    insist(!memcmp(tx.to, to, 20) && tx.data_len == data_len);
    insist(!memcmp(tx.r, signer.rs, 32) && !memcmp(tx.s, signer.rs + 32, 32));
    insist(tx.y_parity == signer.parity);
    bw_signing_hash(t->out + t->raw_off, &tx, digest);
    insist(!memcmp(digest, t->digest, 32));
    bw_template_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    if (number(&in, 1) & 1)
        anything(&in);
    else
        proper(&in);
    return 0;
}
