// sources: src/barewire/native/txfeed.c src/barewire/native/txjson.c src/barewire/native/jsontext.c src/barewire/native/wsframe.c src/barewire/native/decode.c src/barewire/native/sha256.c src/barewire/native/keccak*.c
// runs: 1000000
// max_len: 8192
//
// Any bytes as the JSON of a subscription: as one message, as a transaction object alone, as the
// values of an IPC socket in pieces, or as WebSocket frames. Beyond what the sanitizers see: what
// comes out is a transaction with the hash that stands in the record, every text is accounted for,
// and what one call walks through is bounded by the budget, which the input chooses, and changes
// nothing of what comes out.
#include <stdlib.h>
#include <string.h>

#include "keccak.h"
#include "txfeed.h"

#define LIMIT 6000
#define ACROSS 16 /* bytes that one call may walk through beyond its budget */

static void insist(int truth) {
    if (!truth) abort();
}

static uint8_t *exactly(const uint8_t *data, size_t len) {
    uint8_t *copy = malloc(len);
    if (len) memcpy(copy, data, len);
    return copy;
}

/* Everything that came out, in one number (FNV-1a). */
static void note(uint64_t *sum, const void *data, size_t len) {
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++) *sum = (*sum ^ at[i]) * 0x100000001b3u;
}

static void drain(struct bw_txfeed *f, const struct bw_txfeed_config *config, uint32_t max,
                  uint64_t *sum) {
    const struct bw_txfeed_stats *stats = bw_txfeed_stats(f);
    struct bw_message messages[BW_TXFEED_BURST];
    struct bw_tx txs[BW_TXFEED_BURST], again;
    struct bw_txfeed_event event;
    do {
        const uint64_t walked = stats->walked;
        uint32_t n = bw_txfeed_read(f, messages, txs, max, &event);
        insist(n <= max);
        if (config->work) insist(stats->walked - walked <= config->work + ACROSS);
        for (uint32_t i = 0; i < n; i++) {
            uint8_t hash[32];
            insist(txs[i].flags & BW_TX_HASHED && txs[i].raw_len == messages[i].len);
            insist(bw_decode_one(messages[i].data, messages[i].len, &config->rules, &again) == BW_OK);
            if (!(again.flags & BW_TX_WRAPPED)) {
                bw_keccak256(messages[i].data, messages[i].len, hash);
                insist(!memcmp(hash, txs[i].hash, 32));
            }
            note(sum, messages[i].data, messages[i].len);
            note(sum, &messages[i].flags, 1);
        }
        insist(event.kind <= BW_TXFEED_MORE);
        if (event.kind == BW_TXFEED_OTHER) {
            insist(event.text_len >= 1 && event.text_len <= LIMIT);
            note(sum, event.text, event.text_len);
            if (event.result_len) {
                insist(event.result > event.text);
                insist(event.result + event.result_len < event.text + event.text_len);
                note(sum, event.result, event.result_len);
            }
        }
        if (event.kind == BW_TXFEED_ANNOUNCED) note(sum, event.hash, 32);
    } while (event.kind != BW_TXFEED_NONE);
}

/* Reads it all, in calls that walk through `work` bytes each. */
static uint64_t read_all(const uint8_t *data, size_t size, uint32_t work) {
    const int way = data[0] & 3, result = way < 2 && (data[0] & 16); /* a pool's or a block's */
    const uint32_t max = data[0] & 4 ? 1 : BW_TXFEED_BURST, step = data[1] + 1u;
    const uint8_t *text = data + 2;
    size_t len = size - 2;
    struct bw_ws *ws = way == 3 ? bw_ws_new(LIMIT, 0) : NULL;
    struct bw_txfeed_config config = {.ws = ws, .max_text = LIMIT, .work = work};
    insist(bw_rules_preset(BW_FORK_OSAKA, 0, &config.rules) == 0);
    config.rules.pool = data[0] & 8 ? 1 : 0; /* without: more gets through to the hash */
    struct bw_txfeed *f = bw_txfeed_new(&config);
    uint64_t sum = 0xcbf29ce484222325u;
    if (way < 2) {
        uint8_t *copy = exactly(text, len);
        const int form = (result ? BW_JSON_POOL : BW_JSON_STREAM) + way;
        bw_txfeed_lend_text(f, copy, (uint32_t)len, form, BW_ORIGIN_POOL, 1, 1);
        drain(f, &config, max, &sum);
        free(copy);
        insist(bw_txfeed_stats(f)->texts == 1);
    } else {
        for (size_t at = 0; at < len; at += step) {
            size_t take = len - at < step ? len - at : step;
            uint8_t *copy = exactly(text + at, take);
            bw_txfeed_lend(f, copy, take, 1, 1);
            drain(f, &config, max, &sum);
            free(copy);
        }
    }
    for (int i = 0; i < BW_JSON_CAUSES; i++) {
        const struct bw_txfeed_sample *refused = &bw_txfeed_stats(f)->refused[i];
        note(&sum, &refused->count, sizeof refused->count);
        note(&sum, refused->text, refused->kept);
    }
    bw_txfeed_free(f);
    bw_ws_free(ws);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint32_t WORK[8] = {0, 1, 2, 3, 7, 16, 64, 500};
    if (size < 2) return 0;
    const uint32_t work = WORK[data[0] >> 5];
    const uint64_t whole = read_all(data, size, 0);
    if (work) insist(read_all(data, size, work) == whole);
    return 0;
}
