/* De-duplication by hash: has this transaction been seen, by any source, of late?
 *
 * The same transaction comes over several sources, and again when a node gossips it anew. What is
 * remembered is bounded in number and in age, and asking costs the same whether the table is empty
 * or full: one bucket of eight entries is looked at, nothing else. A full bucket forgets the entry
 * that was not seen for longest; forgetting early costs a repeated match, never a wrong "seen". The
 * age counts from the last time that it was announced or read, so that what is gossiped again and
 * again, or lies in a pool, never becomes new. Only what has been read from a pool's queue, and
 * nowhere else, is new once more when it is announced: the gap of nonces before it has just closed.
 *
 * Anyone can grind hashes that share their first bits, so the bucket is chosen by SipHash-2-4
 * (Aumasson and Bernstein, 2012) under a random key: who does not know the key cannot aim at a
 * bucket. Equality is of all 32 bytes.
 *
 * Memory is taken once, in bw_dedup_new(). One thread. */
#ifndef BAREWIRE_DEDUP_H
#define BAREWIRE_DEDUP_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_DEDUP_SOURCES 64    /* sources that are told apart: numbers 0..63, the rest share 63 */
#define BW_DEDUP_WAYS 8        /* entries in a bucket */

struct bw_dedup_stats {
    uint64_t first;            /* hashes not seen before, but in a queue */
    uint64_t seen;             /* seen within the age limit */
    uint64_t expired;          /* of `first`: seen last longer ago than that */
    uint64_t evicted;          /* entries forgotten before their time: the table is too small */
    uint64_t first_of[64];     /* by source: it was the first to bring it */
    uint64_t seen_of[64];      /* by source: another was first, or it brought it twice */
};

/* The arrival that a hash is remembered by: the earliest of those of one clock. */
struct bw_dedup_first {
    uint64_t arrival_ns;       /* of the clock named in `clock` */
    uint64_t sources;          /* that had brought it before this time, a bit each */
    uint16_t source;           /* whose it is */
    uint8_t clock;             /* enum dpb_clock */
    uint8_t reserved[5];
};

struct bw_dedup;

/* Remembers `entries` hashes (a power of two from 8 to 2^28) for `max_age_ns`; `key` are 16 random
 * bytes. NULL: no memory, or entries out of range. */
struct bw_dedup *bw_dedup_new(uint32_t entries, uint64_t max_age_ns, const uint8_t *key);
void bw_dedup_free(struct bw_dedup *d);

/* 1 if `hash` (32 bytes) was asked about less than max_age_ns before `now_mono_ns`; otherwise 0,
 * and it is remembered from now on. */
int bw_dedup_seen(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t now_mono_ns);

/* The same, for one that arrived at `arrival_ns` of `clock`; where it was seen before, *first says
 * when and from whom. If this is the first of its source and arrived before that (by the same
 * clock; 0 is no time), the hash is remembered by this one from now on. */
int bw_dedup_arrived(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t arrival_ns,
                     uint8_t clock, uint64_t now_mono_ns, struct bw_dedup_first *first);

/* The same, for one that has no arrival of its own, as it was read from a pool or a block: what is
 * still remembered of it counts, however old that is. `queued`: from the part of a pool that cannot
 * be mined as things stand. */
int bw_dedup_read(struct bw_dedup *d, const uint8_t *hash, uint32_t source, int queued,
                  uint64_t now_mono_ns, struct bw_dedup_first *first);

/* The same as bw_dedup_arrived(), for a hash whose transaction is yet to come: it is not remembered
 * where it was not seen. */
int bw_dedup_heard(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t arrival_ns,
                   uint8_t clock, uint64_t now_mono_ns, struct bw_dedup_first *first);

/* The sources that have brought `hash`, a bit each (bit 0: source 0); 0 if it is not known. */
uint64_t bw_dedup_sources(const struct bw_dedup *d, const uint8_t *hash);

const struct bw_dedup_stats *bw_dedup_stats(const struct bw_dedup *d);
/* </cdef> */

#endif
