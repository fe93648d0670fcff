/* One message with AVX-512VL: a lane in a register, which leaves seven of them to work with, and
 * three-input logic. A fifth faster than general registers, of which there are too few. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "keccak_lanes.h"

#define V __m128i
#define TARGET __attribute__((target("avx512f,avx512vl")))
#define XOR3(a, b, c) _mm_ternarylogic_epi64(a, b, c, 0x96)
#define ROL(a, n) _mm_rol_epi64(a, n)
#define CHI(a, b, c) _mm_ternarylogic_epi64(a, b, c, 0xd2)
#include "keccak_round.h"

TARGET static inline __attribute__((always_inline)) V load(const void *word) {
    return _mm_loadl_epi64(word);
}

TARGET void bw_keccak_absorb_avx512(uint64_t state[25], const uint8_t *block) {
    V a[25], e[25];
    for (int i = 0; i < 25; i++) a[i] = load(state + i);
    for (int i = 0; i < BW_KECCAK_RATE / 8; i++) a[i] = a[i] ^ load(block + 8 * i);
    for (int round = 0; round < 24; round += 2) {
        keccak_round(a, e, load(&bw_keccak_constant[round]));
        keccak_round(e, a, load(&bw_keccak_constant[round + 1]));
    }
    for (int i = 0; i < 25; i++) _mm_storel_epi64((V *)(state + i), a[i]);
}
#endif
