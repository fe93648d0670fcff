/* Four messages at once with AVX2. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "keccak_lanes.h"

#define V __m256i
#define TARGET __attribute__((target("avx2")))
#define XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define ROL(a, n) \
    _mm256_or_si256(_mm256_slli_epi64(a, n), _mm256_srli_epi64(a, 64 - (n)))
#define CHI(a, b, c) _mm256_xor_si256(a, _mm256_andnot_si256(b, c))
#include "keccak_round.h"

/* out[i] = word i of each of the four rows of four words at rows[] + offset. */
TARGET static inline __attribute__((always_inline)) void transpose(const uint8_t *const *rows,
                                                                   size_t offset, V out[4]) {
    V row[4];
    for (int i = 0; i < 4; i++) row[i] = _mm256_loadu_si256((const V *)(rows[i] + offset));
    V even01 = _mm256_unpacklo_epi64(row[0], row[1]), odd01 = _mm256_unpackhi_epi64(row[0], row[1]);
    V even23 = _mm256_unpacklo_epi64(row[2], row[3]), odd23 = _mm256_unpackhi_epi64(row[2], row[3]);
    out[0] = _mm256_permute2x128_si256(even01, even23, 0x20);
    out[1] = _mm256_permute2x128_si256(odd01, odd23, 0x20);
    out[2] = _mm256_permute2x128_si256(even01, even23, 0x31);
    out[3] = _mm256_permute2x128_si256(odd01, odd23, 0x31);
}

TARGET void bw_keccak_step_avx2(uint64_t *state, const uint8_t *const *blocks, uint32_t fresh) {
    V a[25], e[25], words[17];
    const V bits = _mm256_set_epi64x(8, 4, 2, 1);
    V old = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(fresh), bits),
                               _mm256_setzero_si256());
    for (int i = 0; i < 16; i += 4) transpose(blocks, 8 * (size_t)i, words + i);
    words[16] = _mm256_i64gather_epi64(
        NULL, _mm256_add_epi64(_mm256_loadu_si256((const V *)blocks), _mm256_set1_epi64x(128)), 1);
    for (int i = 0; i < 25; i++) {
        a[i] = _mm256_and_si256(_mm256_load_si256((const V *)(state + 4 * i)), old);
        if (i < 17) a[i] = _mm256_xor_si256(a[i], words[i]);
    }
    for (int round = 0; round < 24; round += 2) {
        keccak_round(a, e, _mm256_set1_epi64x((long long)bw_keccak_constant[round]));
        keccak_round(e, a, _mm256_set1_epi64x((long long)bw_keccak_constant[round + 1]));
    }
    for (int i = 0; i < 25; i++) _mm256_store_si256((V *)(state + 4 * i), a[i]);
}
#endif
