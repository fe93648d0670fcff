#include "keccak.h"

#include <string.h>

#include "keccak_lanes.h"

const uint64_t bw_keccak_constant[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

#define V uint64_t
#define TARGET
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define ROL(a, n) ((a) << (n) | (a) >> (64 - (n)))
#define CHI(a, b, c) ((a) ^ (~(b) & (c)))
#include "keccak_round.h"

static inline __attribute__((always_inline)) void absorb(uint64_t state[25],
                                                          const uint8_t *block) {
    uint64_t a[25], e[25], words[BW_KECCAK_RATE / 8];
    memcpy(a, state, sizeof a);
    memcpy(words, block, sizeof words);
    for (int i = 0; i < BW_KECCAK_RATE / 8; i++) a[i] ^= words[i];
    for (int round = 0; round < 24; round += 2) {
        keccak_round(a, e, bw_keccak_constant[round]);
        keccak_round(e, a, bw_keccak_constant[round + 1]);
    }
    memcpy(state, a, sizeof a);
}

#if defined(__x86_64__)
/* The same code: chi's and-not is one instruction here. */
__attribute__((target("bmi,bmi2"))) static void absorb_bmi(uint64_t state[25],
                                                           const uint8_t *block) {
    absorb(state, block);
}
#endif

void bw_keccak_absorb(uint64_t state[25], const uint8_t *block) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vl") && bw_keccak_width() == 8) {
        bw_keccak_absorb_avx512(state, block);
        return;
    }
    if (__builtin_cpu_supports("bmi2")) {
        absorb_bmi(state, block);
        return;
    }
#endif
    absorb(state, block);
}

void bw_keccak_begin(struct bw_keccak *k) {
    memset(k->state, 0, sizeof k->state);
    k->held = 0;
}

void bw_keccak_add(struct bw_keccak *k, const void *data, size_t len) {
    const uint8_t *bytes = data;
    if (len == 0) return;
    if (k->held) {
        size_t take = BW_KECCAK_RATE - k->held < len ? BW_KECCAK_RATE - k->held : len;
        memcpy(k->block + k->held, bytes, take);
        k->held += (uint32_t)take;
        bytes += take;
        len -= take;
        if (k->held < BW_KECCAK_RATE) return;
        bw_keccak_absorb(k->state, k->block);
        k->held = 0;
    }
    for (; len >= BW_KECCAK_RATE; bytes += BW_KECCAK_RATE, len -= BW_KECCAK_RATE)
        bw_keccak_absorb(k->state, bytes);
    memcpy(k->block, bytes, len);
    k->held = (uint32_t)len;
}

void bw_keccak_end(struct bw_keccak *k, uint8_t *out) {
    memset(k->block + k->held, 0, BW_KECCAK_RATE - k->held);
    k->block[k->held] = 0x01;
    k->block[BW_KECCAK_RATE - 1] |= 0x80;
    bw_keccak_absorb(k->state, k->block);
    memcpy(out, k->state, 32);
}

void bw_keccak256(const uint8_t *data, size_t len, uint8_t *out) {
    struct bw_keccak k;
    bw_keccak_begin(&k);
    bw_keccak_add(&k, data, len);
    bw_keccak_end(&k, out);
}
