/* SHA-256 (FIPS 180-4) of a message that fits one block: a KZG commitment's 48 bytes, whose
 * digest is the versioned hash (EIP-4844). */
#ifndef BAREWIRE_SHA256_H
#define BAREWIRE_SHA256_H

#include <stdint.h>

/* len <= 55 */
void bw_sha256_block(const uint8_t *data, uint32_t len, uint8_t out[32]);

#endif
