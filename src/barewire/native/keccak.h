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

#endif
