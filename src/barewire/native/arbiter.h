/* Many sources of the same transactions, made into one: who was first, and by how much.
 *
 * Every source that a transaction comes from is compared with the first that brought it. The first
 * wins and is handed on; what follows is a duplicate and only says something about the sources:
 *
 *     lag  of a source: how much later than the first it brought what another had brought
 *     lead of a source: how much earlier than the second it brought what it was first with
 *
 * both as histograms of nanoseconds. Arrival times are subtracted only where they are of one clock,
 * and pairs of unlike clocks are counted instead. A copy that is looked at later may have arrived
 * earlier (two sockets are read in some order): then the two change places in the histograms and
 * in `earliest`, but not in what was handed on.
 *
 * What was read from a node's pool after a reconnect has no time of its own: it is de-duplicated
 * like everything else and counted apart.
 *
 * The sources that brought a hash are remembered with it (dedup.h). One thread. */
#ifndef BAREWIRE_ARBITER_H
#define BAREWIRE_ARBITER_H

#include "dedup.h"

/* <cdef> */
struct dpb_histogram;

struct bw_arbiter_source {
    uint64_t first;            /* handed on: nobody had brought it before */
    uint64_t earliest;         /* it has the earliest arrival, in whatever order they were read */
    uint64_t behind;           /* another had */
    uint64_t repeated;         /* it had itself */
    uint64_t filled;           /* from its pool, and new */
    uint64_t overtaken;        /* was `earliest`: another's copy had arrived before, and was read later */
    uint64_t unlike_clocks;    /* of `behind`: its clock is not that of the first */
    uint64_t last_mono_ns;     /* when it last brought anything; 0: never */
    uint64_t last_first_mono_ns;
};

struct bw_arbiter;

/* For sources 0..sources-1 (1..BW_DEDUP_SOURCES). Borrows `dedup`. NULL: no memory, or out of
 * range. */
struct bw_arbiter *bw_arbiter_new(struct bw_dedup *dedup, uint32_t sources);
void bw_arbiter_free(struct bw_arbiter *a);

/* One transaction of `source`: 1 if it is new, and to be handed on; 0 if it is a duplicate.
 * `origin` (enum bw_origin): what was read from a pool or a block is new only where nothing is
 * remembered of it, however old; what was read from a pool's queue alone is new once more when it
 * is announced. */
int bw_arbiter_take(struct bw_arbiter *a, uint32_t source, const uint8_t *hash,
                    uint64_t arrival_ns, uint8_t clock, uint8_t origin, uint64_t now_mono_ns);

/* `source` announced a hash, whose transaction is not there yet: 1 if it is known, and need not be
 * fetched; it counts as brought. Of one that is not nothing is remembered: the transaction follows. */
int bw_arbiter_heard(struct bw_arbiter *a, uint32_t source, const uint8_t *hash,
                     uint64_t arrival_ns, uint8_t clock, uint64_t now_mono_ns);

/* Of one source; updated in place. */
const struct bw_arbiter_source *bw_arbiter_source(const struct bw_arbiter *a, uint32_t source);
const struct dpb_histogram *bw_arbiter_lead(const struct bw_arbiter *a, uint32_t source);
const struct dpb_histogram *bw_arbiter_lag(const struct bw_arbiter *a, uint32_t source);
/* </cdef> */

#endif
