#include "checksum.h"

#include <string.h>

/* clang 14 gives the choosing symbol another name than other files then look for. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define BY_CPU __attribute__((target_clones("avx2", "default")))
#else
#define BY_CPU
#endif

BY_CPU uint64_t dpb_sum_add(uint64_t sum, const void *bytes, size_t len) {
    const uint8_t *p = bytes;
    uint64_t lane[16] = {0};
    for (; len >= 64; p += 64, len -= 64)
        for (int i = 0; i < 16; i++) {
            uint32_t word;
            memcpy(&word, p + 4 * i, 4);
            lane[i] += word;
        }
    for (int i = 0; i < 16; i++)
        sum += lane[i];
    for (; len >= 4; p += 4, len -= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        sum += word;
    }
    uint32_t last = 0;
    memcpy(&last, p, len);
    return sum + last;
}
