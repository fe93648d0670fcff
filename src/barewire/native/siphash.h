/* SipHash-2-4 (Aumasson and Bernstein, 2012) of the first 16 bytes of a transaction's hash.
 *
 * Tables that are filled from the wire choose their buckets by it: anyone can grind transactions
 * whose hashes share their first bits, but who does not know the key cannot aim at a bucket. */
#ifndef BAREWIRE_SIPHASH_H
#define BAREWIRE_SIPHASH_H

#include <stdint.h>
#include <string.h>

static inline uint64_t bw_sip_rotl(uint64_t x, int n) { return (x << n) | (x >> (64 - n)); }

#define BW_SIPROUND                                                          \
    do {                                                                     \
        v0 += v1; v1 = bw_sip_rotl(v1, 13); v1 ^= v0; v0 = bw_sip_rotl(v0, 32); \
        v2 += v3; v3 = bw_sip_rotl(v3, 16); v3 ^= v2;                        \
        v0 += v3; v3 = bw_sip_rotl(v3, 21); v3 ^= v0;                        \
        v2 += v1; v1 = bw_sip_rotl(v1, 17); v1 ^= v2; v2 = bw_sip_rotl(v2, 32); \
    } while (0)

/* `key` are 16 random bytes as two words; `hash` at least 16 bytes, already as good as random. */
static inline uint64_t bw_siphash16(const uint64_t key[2], const uint8_t *hash) {
    uint64_t v0 = key[0] ^ 0x736f6d6570736575, v1 = key[1] ^ 0x646f72616e646f6d;
    uint64_t v2 = key[0] ^ 0x6c7967656e657261, v3 = key[1] ^ 0x7465646279746573;
    uint64_t word[3];
    memcpy(word, hash, 16);
    word[2] = (uint64_t)16 << 56;
    for (int i = 0; i < 3; i++) {
        v3 ^= word[i];
        BW_SIPROUND;
        BW_SIPROUND;
        v0 ^= word[i];
    }
    v2 ^= 0xff;
    BW_SIPROUND;
    BW_SIPROUND;
    BW_SIPROUND;
    BW_SIPROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#endif
