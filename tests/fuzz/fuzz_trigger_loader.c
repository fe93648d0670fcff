// sources: src/barewire/native/trigger.c src/barewire/native/trigger_load.c src/barewire/native/calls.c
// runs: 10000000
// max_len: 8192
//
// Any bytes as a serialised table of triggers: refused with a sentence, or loaded; and where it
// loads, any calldata held against it. Input: one byte of transaction flags, two of the calldata's
// length, calldata, table.
#include <stdlib.h>
#include <string.h>

#include "trigger.h"

static void insist(int truth) {
    if (!truth)
        abort();
}

static struct bw_tx transaction(uint8_t flags, const uint8_t *data, uint32_t len) {
    struct bw_tx tx = {.raw_len = len ? len : 1, .data_len = len, .type = flags >> 4 & 7};
    tx.flags = (flags & 1 ? BW_TX_CREATE : 0) | (flags & 2 ? BW_TX_SENDER : 0);
    if (len >= 4) {
        tx.flags |= BW_TX_HAS_SELECTOR;
        tx.selector = (uint32_t)data[0] << 24 | data[1] << 16 | data[2] << 8 | data[3];
    }
    memset(tx.to, flags & 1 ? 0 : 1, 20);
    memset(tx.sender, 3, 20);
    tx.origin = (flags >> 2 & 3) + (flags >> 7);
    tx.gas = tx.chain_id = tx.value_wei[0] = tx.tip_wei[0] = tx.fee_cap_wei[0] = 1;
    return tx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3)
        return 0;
    uint32_t len = (uint32_t)(data[1] | data[2] << 8);
    if (len > size - 3)
        return 0;
    size_t blob_len = size - 3 - len;
    uint8_t *calldata = malloc(len ? len : 1), *blob = malloc(blob_len ? blob_len : 1);
    memcpy(calldata, data + 3, len);
    memcpy(blob, data + 3 + len, blob_len);

    struct bw_load_error error;
    struct bw_triggers *table = bw_triggers_load(blob, blob_len, 42, &error);
    if (table) {
        struct bw_tx txs[2] = {transaction(data[0], calldata, len),
                               transaction(data[0] ^ 2, calldata, len)};
        struct bw_message messages[2] = {{.data = calldata, .len = len},
                                         {.data = calldata, .len = len}};
        struct bw_match out[2 * BW_MATCHES_PER_TX];
        struct bw_match_stats stats = {0};
        uint32_t n = bw_triggers_match(table, messages, txs, 2, out, 2 * BW_MATCHES_PER_TX, &stats);
        insist(n <= 2 * BW_MATCHES_PER_TX && n == stats.matches + stats.needs_sender);
        for (uint32_t i = 0; i < n; i++) {
            insist(out[i].trigger < bw_triggers_count(table) && out[i].tx < 2);
            insist(out[i].call <= BW_CALLS && out[i].call_off <= len);
            insist(!i || out[i - 1].tx <= out[i].tx);
            // a known sender leaves nothing open
            if (txs[out[i].tx].flags & BW_TX_SENDER)
                insist(!(out[i].flags & BW_MATCH_NEEDS_SENDER));
            for (uint32_t k = 0; k < i; k++)
                insist(out[k].tx != out[i].tx || out[k].trigger != out[i].trigger);
        }
        bw_triggers_free(table);
    } else {
        insist(error.what && *error.what && error.offset <= blob_len);
    }
    free(calldata);
    free(blob);
    return 0;
}
