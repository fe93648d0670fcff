// sources: src/barewire/native/decode.c src/barewire/native/sha256.c src/barewire/native/keccak*.c
// runs: 10000000
// max_len: 140000
//
// Any bytes as a transaction. The first byte chooses the rules, and whether the rest is a whole
// message or a type byte and the payload of its list (so that a mutation need not mend lengths).
// Beyond what the sanitizers see: what is accepted lies inside the message, is no longer accepted
// when a byte is cut off or added, and is the same in a burst; the hash is that of one long
// message, however it is computed.
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "keccak.h"

static void insist(int truth) {
    if (!truth) abort();
}

static void inside(const struct bw_tx *tx, uint32_t off, uint32_t len) {
    insist(off <= tx->raw_len && len <= tx->raw_len - off);
}

/* A copy of exactly `len` bytes, so that a byte too far is seen. */
static uint8_t *exactly(const uint8_t *data, size_t len) {
    uint8_t *copy = malloc(len);
    if (len) memcpy(copy, data, len);
    return copy;
}

static void accepted(const uint8_t *raw, uint32_t len, const struct bw_rules *rules,
                     const struct bw_tx *tx) {
    inside(tx, tx->hashed_off, tx->hashed_len);
    inside(tx, tx->fields_off, tx->fields_len);
    inside(tx, tx->data_off, tx->data_len);
    inside(tx, tx->access_off, tx->access_len);
    inside(tx, tx->blobs_off, tx->blobs_len);
    inside(tx, tx->auths_off, tx->auths_len);
    insist(tx->raw_len == len && !(tx->flags & (BW_TX_HASHED | BW_TX_SENDER)));

    struct bw_tx other, burst[3];
    uint8_t *shorter = exactly(raw, len - 1), *longer = malloc(len + 1);
    insist(bw_decode_one(shorter, len - 1, rules, &other) != BW_OK);
    memcpy(longer, raw, len);
    longer[len] = 0x80;
    insist(bw_decode_one(longer, len + 1, rules, &other) != BW_OK);

    struct bw_message messages[3] = {
        {.data = raw, .len = len}, {.data = shorter, .len = len - 1}, {.data = raw, .len = len}};
    uint8_t verdicts[3], hash[32], signing[32];
    insist(bw_decode_burst(messages, 3, rules, burst, verdicts, NULL) == 2);
    insist(verdicts[1] != BW_OK && burst[1].raw_len == 0);
    insist(!memcmp(&burst[0], tx, sizeof *tx));
    insist(bw_hash_burst(messages, burst, 3) == 2);
    insist(!memcmp(burst[0].hash, burst[2].hash, 32));
    if (!(tx->flags & BW_TX_WRAPPED)) {
        bw_keccak256(raw, len, hash);
        insist(!memcmp(hash, burst[0].hash, 32));
    }
    bw_signing_hash(raw, tx, signing);
    free(shorter);
    free(longer);
}

/* `payload` behind a type byte (where it is one) and a list header. */
static uint8_t *listed(const uint8_t *data, size_t size, size_t *len) {
    size_t typed = size && data[0] < 0x80, payload = size - typed, head = typed;
    uint8_t *out = malloc(size + 5);
    if (typed) out[0] = data[0];
    if (payload < 56) {
        out[head++] = (uint8_t)(0xc0 + payload);
    } else {
        uint32_t width = payload > 0xffff ? 3 : payload > 0xff ? 2 : 1;
        out[head++] = (uint8_t)(0xf7 + width);
        while (width--) out[head++] = (uint8_t)(payload >> 8 * width);
    }
    if (payload) memcpy(out + head, data + typed, payload);
    *len = head + payload;
    return realloc(out, *len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    struct bw_rules rules;
    insist(bw_rules_preset(data[0] % 5, data[0] & 0x40, &rules) == 0);
    size_t len = size - 1;
    uint8_t *raw = data[0] & 0x80 ? listed(data + 1, size - 1, &len) : exactly(data + 1, len);
    struct bw_tx tx;
    enum bw_verdict verdict = bw_decode_one(raw, (uint32_t)len, &rules, &tx);
    insist(verdict < BW_VERDICTS);
    if (verdict == BW_OK) accepted(raw, (uint32_t)len, &rules, &tx);
    free(raw);
    return 0;
}
