// sources: src/barewire/native/swap.c src/barewire/native/calls.c
// runs: 10000000
// max_len: 8192
//
// Any calldata under any operations, in a table with one wrapper of each kind; or any bytes as a
// table. Input: 0xff and a serialised table; or the number of operations, the operations, and
// calldata. Selectors: 1 to 5 and 7 are wrappers, by kind; 6 swaps, and every command stands
// for it.
#include <stdlib.h>
#include <string.h>

#include "swap.h"

static void insist(int truth) {
    if (!truth)
        abort();
}

static const struct bw_wrapper WRAPPERS[7] = {
    {.selector = 1, .kind = BW_WRAPPER_ONE, .target_how = BW_WRAPPER_SLOT,
     .value_how = BW_WRAPPER_SLOT, .target = 0, .value = 1, .data = 2},
    {.selector = 2, .kind = BW_WRAPPER_BYTES, .list = 0},
    {.selector = 3, .kind = BW_WRAPPER_TUPLES, .target_how = BW_WRAPPER_SLOT,
     .value_how = BW_WRAPPER_SLOT, .list = 0, .target = 0, .value = 1, .data = 2},
    {.selector = 4, .kind = BW_WRAPPER_ARRAYS, .target_how = BW_WRAPPER_SLOT,
     .value_how = BW_WRAPPER_SLOT, .target = 0, .value = 1, .data = 2},
    {.selector = 5, .kind = BW_WRAPPER_COMMANDS, .command_mask = 0xff, .value_how = BW_WRAPPER_ZERO,
     .list = 0, .data = 1, .deadline = 3},
    {.selector = 7, .kind = BW_WRAPPER_PACKED, .data = 0},
    {.selector = 2, .kind = BW_WRAPPER_PACKED, .data = 0, .limited = 1, .only = {[19] = 1}},
};

struct image {
    struct bw_swap_file file;
    struct bw_wrapper wrappers[7];
    struct bw_command_set set;
    struct bw_swap_abi abi;
    struct bw_swap_op ops[BW_SWAP_OPS];
};

static void decode(const struct bw_swap_table *table, const uint8_t *data, uint32_t len) {
    struct bw_swap out[8];
    struct bw_swap_stats stats = {0};
    struct bw_message message = {.data = data, .len = len};
    struct bw_tx tx = {.raw_len = len ? len : 1, .data_len = len};
    if (len >= 4) {
        tx.flags = BW_TX_HAS_SELECTOR;
        tx.selector = (uint32_t)data[0] << 24 | data[1] << 16 | data[2] << 8 | data[3];
    }
    uint32_t n = bw_swaps_decode(table, &message, &tx, 1, out, 8, &stats);
    insist(n <= 8 && n == stats.swaps && stats.swaps + stats.bad <= BW_CALLS + 1);
    for (uint32_t i = 0; i < n; i++) {
        insist(out[i].token_count <= BW_SWAP_TOKENS && out[i].pool_count <= BW_SWAP_HOPS &&
               out[i].fee_count <= BW_SWAP_HOPS);
        insist(out[i].call_off <= len && out[i].depth <= BW_CALL_DEPTH);
        insist(!i || out[i - 1].call < out[i].call);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size)
        return 0;
    const char *what = NULL;
    if (data[0] == 0xff) {
        uint8_t *blob = malloc(size);
        memcpy(blob, data + 1, size - 1);
        struct bw_swap_table *table = bw_swaps_load(blob, size - 1, &what);
        insist(!table == !!what);
        if (table)
            decode(table, blob, (uint32_t)size - 1);
        bw_swaps_free(table);
        free(blob);
        return 0;
    }
    uint32_t ops = data[0] % BW_SWAP_OPS + 1;
    size_t head = 1 + ops * sizeof(struct bw_swap_op);
    if (size < head)
        return 0;
    struct image image = {.file = {.magic = "BWSWAPS", .version = BW_SWAP_VERSION, .wrappers = 7,
                                   .command_sets = 1, .abis = 1, .ops = ops},
                          .abi = {.selector = 6, .ops = ops}};
    memcpy(image.wrappers, WRAPPERS, sizeof WRAPPERS);
    for (int i = 0; i < 256; i++)
        image.set.selectors[i] = 6;
    memcpy(image.ops, data + 1, head - 1);
    image.file.length = sizeof image - (BW_SWAP_OPS - ops) * sizeof(struct bw_swap_op);
    struct bw_swap_table *table = bw_swaps_load((const uint8_t *)&image, image.file.length, &what);
    insist(!table == !!what);
    if (table) {
        uint32_t len = (uint32_t)(size - head);
        uint8_t *calldata = malloc(len ? len : 1); // of the exact size
        memcpy(calldata, data + head, len);
        decode(table, calldata, len);
        free(calldata);
        bw_swaps_free(table);
    }
    return 0;
}
