/* Keccak-256 as Ethereum uses it: Keccak-f[1600], rate 136, the original 0x01 padding and not
 * SHA-3's 0x06 (Keccak reference, version 3.0; Ethereum yellow paper, appendix B).
 *
 * One message keeps one permutation busy after the other; many messages fill the lanes of a vector
 * unit, four with AVX2, eight with AVX-512, at hardly more than the cost of one. So what comes in
 * bursts is hashed in bursts. The width is the widest that the CPU has, found at run time. */
#ifndef BAREWIRE_KECCAK_H
#define BAREWIRE_KECCAK_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_KECCAK_RATE 136 /* bytes that one permutation takes in */

/* One message of a burst. */
struct bw_keccak_job {
    const uint8_t *data;
    uint8_t *out;   /* 32 bytes for the digest */
    uint32_t len;
    int32_t first;  /* -1, or the byte that is hashed in place of data[0] (then len >= 1) */
};

/* Hashes `len` bytes at `data` into out[32]. Allocates nothing. */
void bw_keccak256(const uint8_t *data, size_t len, uint8_t *out);

/* Hashes n messages, packed over the lanes longest first. Allocates nothing. */
void bw_keccak256_many(const struct bw_keccak_job *jobs, uint32_t n);

/* How many messages are hashed at once: 8 (AVX-512), 4 (AVX2) or 1. */
int bw_keccak_width(void);

/* Hashes that many at once from now on, in this process; 0 chooses the widest again. Returns 0, or
 * -EINVAL for a width that there is not or that this CPU lacks. Not while others hash. */
int bw_keccak_force(int width);
/* </cdef> */

/* One message that comes in pieces: begin, add any number of times, end once. */
struct bw_keccak {
    uint64_t state[25];
    uint8_t block[BW_KECCAK_RATE]; /* what does not fill a block yet */
    uint32_t held;                 /* bytes of it */
};
void bw_keccak_begin(struct bw_keccak *k);
void bw_keccak_add(struct bw_keccak *k, const void *data, size_t len);
void bw_keccak_end(struct bw_keccak *k, uint8_t *out);

#endif
