/* The Internet checksum (RFC 1071) over as many bytes as there are.
 *
 * The sum of 16-bit words modulo 0xffff does not care in which byte order or in how wide words it
 * was added, so 32-bit words go into 64-bit sums, which no frame can overflow and which a compiler
 * turns into vector code; on x86 gcc adds an AVX2 copy, chosen when the library is loaded. Sums are in
 * the byte order of memory: what dpb_sum_finish() gives is stored as it is. */
#ifndef DPB_CHECKSUM_H
#define DPB_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Adds the bytes to `sum`. Only the last piece of what is summed may have an odd length. */
uint64_t dpb_sum_add(uint64_t sum, const void *bytes, size_t len);

/* The same for a header of a known even length, unrolled where it stands: the call and the lanes of
 * dpb_sum_add() cost more than twenty bytes do. */
static inline __attribute__((always_inline)) uint64_t dpb_sum_header(uint64_t sum,
                                                                     const uint8_t *p, size_t len) {
    size_t at = 0;
    for (; at + 4 <= len; at += 4) {
        uint32_t word;
        memcpy(&word, p + at, 4);
        sum += word;
    }
    for (; at + 2 <= len; at += 2) {
        uint16_t word;
        memcpy(&word, p + at, 2);
        sum += word;
    }
    return sum;
}

/* Folds a sum to 16 bits: 0xffff where the bytes include their own right checksum. */
static inline uint16_t dpb_sum_fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t dpb_sum_finish(uint64_t sum) { return (uint16_t)~dpb_sum_fold(sum); }

#endif
