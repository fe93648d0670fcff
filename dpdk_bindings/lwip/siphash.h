/* SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): a keyed hash whose
 * values say nothing about the key or about each other. */
#ifndef DPB_SIPHASH_H
#define DPB_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
uint64_t dpb_siphash(const uint8_t key[16], const uint8_t *bytes, size_t len);
/* </cdef> */

#endif
