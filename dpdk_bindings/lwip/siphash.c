#include "siphash.h"

#include <string.h>

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void rounds(uint64_t v[4], int n) {
    for (; n > 0; n--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* Up to eight bytes as a little-endian word. */
static uint64_t word(const uint8_t *bytes, size_t len) {
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint64_t dpb_siphash(const uint8_t key[16], const uint8_t *bytes, size_t len) {
    static const char says[] = "somepseudorandomlygeneratedbytes";
    uint64_t v[4];
    for (int i = 0; i < 4; i++) { /* the constants are those letters, the first the highest */
        v[i] = 0;
        for (int j = 0; j < 8; j++)
            v[i] = v[i] << 8 | (uint8_t)says[8 * i + j];
        v[i] ^= word(key + 8 * (i & 1), 8);
    }
    size_t at = 0;
    for (; len - at >= 8; at += 8) {
        uint64_t m = word(bytes + at, 8);
        v[3] ^= m;
        rounds(v, 2);
        v[0] ^= m;
    }
    uint64_t last = word(bytes + at, len - at) | (uint64_t)len << 56;
    v[3] ^= last;
    rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
