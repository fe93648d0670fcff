/* Keccak-256 as Ethereum uses it: Keccak-f[1600], rate 136, the original 0x01 padding and not
 * SHA-3's 0x06 (Keccak reference, version 3.0; Ethereum yellow paper, appendix B). */
#ifndef BAREWIRE_KECCAK_H
#define BAREWIRE_KECCAK_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
/* Hashes `len` bytes at `data` into out[32]. Allocates nothing. */
void bw_keccak256(const uint8_t *data, size_t len, uint8_t *out);
/* </cdef> */

/* The same of a message that comes in pieces: begin, add any number of times, end once. */
struct bw_keccak {
    uint64_t state[25];
    uint8_t block[136]; /* what does not fill a block yet */
    uint32_t held;      /* bytes of it */
};
void bw_keccak_begin(struct bw_keccak *k);
void bw_keccak_add(struct bw_keccak *k, const void *data, size_t len);
void bw_keccak_end(struct bw_keccak *k, uint8_t *out);

#endif
