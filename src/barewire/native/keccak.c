#include "keccak.h"

#include <string.h>

#define RATE 136

static const uint64_t ROUND_CONSTANT[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};
static const int ROTATION[24] = {1,  3,  6,  10, 15, 21, 28, 36, 45, 55, 2,  14,
                                 27, 41, 56, 8,  25, 43, 62, 18, 39, 61, 20, 44};
static const int LANE[24] = {10, 7,  11, 17, 18, 3, 5,  16, 8,  21, 24, 4,
                             15, 23, 19, 13, 12, 2, 20, 14, 22, 9,  6,  1};

static inline uint64_t rotl(uint64_t x, int n) { return (x << n) | (x >> (64 - n)); }

static void permute(uint64_t a[25]) {
    for (int round = 0; round < 24; round++) {
        uint64_t c[5], t;
        for (int x = 0; x < 5; x++) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
        for (int x = 0; x < 5; x++) {
            t = c[(x + 4) % 5] ^ rotl(c[(x + 1) % 5], 1);
            for (int y = 0; y < 25; y += 5) a[x + y] ^= t;
        }
        t = a[1];
        for (int i = 0; i < 24; i++) {
            uint64_t moved = a[LANE[i]];
            a[LANE[i]] = rotl(t, ROTATION[i]);
            t = moved;
        }
        for (int y = 0; y < 25; y += 5) {
            for (int x = 0; x < 5; x++) c[x] = a[y + x];
            for (int x = 0; x < 5; x++) a[y + x] = c[x] ^ (~c[(x + 1) % 5] & c[(x + 2) % 5]);
        }
        a[0] ^= ROUND_CONSTANT[round];
    }
}

static void absorb(uint64_t a[25], const uint8_t *block) {
    for (int i = 0; i < RATE / 8; i++) {
        uint64_t word;
        memcpy(&word, block + 8 * i, 8);
        a[i] ^= word;
    }
    permute(a);
}

void bw_keccak_begin(struct bw_keccak *k) {
    memset(k->state, 0, sizeof k->state);
    k->held = 0;
}

void bw_keccak_add(struct bw_keccak *k, const void *data, size_t len) {
    const uint8_t *bytes = data;
    if (k->held) {
        size_t take = RATE - k->held < len ? RATE - k->held : len;
        memcpy(k->block + k->held, bytes, take);
        k->held += (uint32_t)take;
        bytes += take;
        len -= take;
        if (k->held < RATE) return;
        absorb(k->state, k->block);
        k->held = 0;
    }
    for (; len >= RATE; bytes += RATE, len -= RATE) absorb(k->state, bytes);
    if (len) memcpy(k->block, bytes, len);
    k->held = (uint32_t)len;
}

void bw_keccak_end(struct bw_keccak *k, uint8_t *out) {
    memset(k->block + k->held, 0, RATE - k->held);
    k->block[k->held] = 0x01;
    k->block[RATE - 1] |= 0x80;
    absorb(k->state, k->block);
    memcpy(out, k->state, 32);
}

void bw_keccak256(const uint8_t *data, size_t len, uint8_t *out) {
    struct bw_keccak k;
    bw_keccak_begin(&k);
    bw_keccak_add(&k, data, len);
    bw_keccak_end(&k, out);
}
