/* Eight messages at once with AVX-512F. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "keccak_lanes.h"

#define V __m512i
#define TARGET __attribute__((target("avx512f")))
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define ROL(a, n) _mm512_rol_epi64(a, n)
#define CHI(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xd2)
#include "keccak_round.h"

/* out[i] = word i of each of the eight rows of eight words at rows[] + offset. */
TARGET static inline __attribute__((always_inline)) void transpose(const uint8_t *const *rows,
                                                                   size_t offset, V out[8]) {
    V pair[8], quad[8];
    for (int i = 0; i < 8; i += 2) {
        V a = _mm512_loadu_si512(rows[i] + offset), b = _mm512_loadu_si512(rows[i + 1] + offset);
        pair[i] = _mm512_unpacklo_epi64(a, b);     /* words 0 2 4 6 */
        pair[i + 1] = _mm512_unpackhi_epi64(a, b); /* words 1 3 5 7 */
    }
    for (int odd = 0; odd < 2; odd++) {
        /* of rows 0 to 3, then of rows 4 to 7: words 0 and 4, words 2 and 6 (plus odd) */
        for (int half = 0; half < 2; half++) {
            V a = pair[4 * half + odd], b = pair[4 * half + 2 + odd];
            quad[4 * odd + half] = _mm512_shuffle_i64x2(a, b, 0x88);
            quad[4 * odd + 2 + half] = _mm512_shuffle_i64x2(a, b, 0xdd);
        }
        V low = quad[4 * odd], high = quad[4 * odd + 1];
        out[odd] = _mm512_shuffle_i64x2(low, high, 0x88);
        out[4 + odd] = _mm512_shuffle_i64x2(low, high, 0xdd);
        low = quad[4 * odd + 2], high = quad[4 * odd + 3];
        out[2 + odd] = _mm512_shuffle_i64x2(low, high, 0x88);
        out[6 + odd] = _mm512_shuffle_i64x2(low, high, 0xdd);
    }
}

TARGET void bw_keccak_step_avx512(uint64_t *state, const uint8_t *const *blocks, uint32_t fresh) {
    V a[25], e[25], words[17];
    __mmask8 old = (__mmask8)~fresh;
    for (int i = 0; i < 25; i++) a[i] = _mm512_maskz_load_epi64(old, state + 8 * i);
    transpose(blocks, 0, words);
    transpose(blocks, 64, words + 8);
    words[16] = _mm512_i64gather_epi64(
        _mm512_add_epi64(_mm512_loadu_si512(blocks), _mm512_set1_epi64(128)), NULL, 1);
    for (int i = 0; i < 17; i++) a[i] = _mm512_xor_si512(a[i], words[i]);
    for (int round = 0; round < 24; round += 2) {
        keccak_round(a, e, _mm512_set1_epi64((long long)bw_keccak_constant[round]));
        keccak_round(e, a, _mm512_set1_epi64((long long)bw_keccak_constant[round + 1]));
    }
    for (int i = 0; i < 25; i++) _mm512_store_si512(state + 8 * i, a[i]);
}
#endif
