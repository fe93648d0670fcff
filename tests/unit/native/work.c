/* How much work decoding is, in basic blocks entered: the same number on every machine. decode.c is
 * compiled with -fsanitize-coverage=trace-pc, which calls the function below from each of them;
 * this file is not. Built by test_worst_case.py. */
#include <string.h>

#include "decode.h"

static int64_t blocks;

void __sanitizer_cov_trace_pc(void) { blocks++; }

/* Blocks that decoding `raw` under the fork's rules takes, negative where it is refused. */
__attribute__((visibility("default"))) int64_t work(const uint8_t *raw, uint32_t len,
                                                    uint32_t fork) {
    struct bw_rules rules;
    struct bw_tx tx;
    bw_rules_preset(fork, 0, &rules);
    blocks = 0;
    return bw_decode_one(raw, len, &rules, &tx) == BW_OK ? blocks : -blocks;
}
