/* What the widths have in common; internal to the keccak files. */
#ifndef BAREWIRE_KECCAK_LANES_H
#define BAREWIRE_KECCAK_LANES_H

#include "keccak.h"

#define BW_KECCAK_LANES 8

extern const uint64_t bw_keccak_constant[24];

/* Absorbs one block of one message. */
void bw_keccak_absorb(uint64_t state[25], const uint8_t *block);

/* The same of `width` messages at once: word i of lane l is state[i * width + l]. A lane whose bit
 * in `fresh` is set begins a message: its state counts as zero. The state is aligned to 64. */
typedef void bw_keccak_step(uint64_t *state, const uint8_t *const *blocks, uint32_t fresh);

#if defined(__x86_64__)
bw_keccak_step bw_keccak_step_avx2;   /* width 4 */
bw_keccak_step bw_keccak_step_avx512; /* width 8 */
/* bw_keccak_absorb with AVX-512VL. */
void bw_keccak_absorb_avx512(uint64_t state[25], const uint8_t *block);
#endif

#endif
