/* AF_XDP by raw system calls: one memory (UMEM), and per receive queue one socket with four rings.
 *
 * Source of the contract with the kernel: Documentation/networking/af_xdp.rst. A ring is single
 * producer, single consumer; the side that does not own an index keeps a copy of it, so that the
 * other core's cache line is touched once a batch. */
#ifndef DPB_XSK_H
#define DPB_XSK_H

#include "error.h"
#include "kernel_abi.h"
#include "nic.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dpb_umem {
    uint8_t *base;
    size_t size;          /* mapped */
    uint32_t chunks;
    uint32_t chunk_shift; /* log2 of bytes a chunk */
    const char *pages;    /* "reserved 2M", "transparent 2M" or "4K" */
};

struct dpb_xsk_ring {
    uint32_t *producer, *consumer, *flags; /* shared with the kernel */
    void *entries;                         /* struct xdp_desc (rx, tx) or uint64_t (fill, done) */
    uint32_t mask;
    uint32_t mine;   /* the index this side owns, not yet published */
    uint32_t theirs; /* the other side's index as last seen */
    void *map;
    size_t map_size;
};

struct dpb_xsk {
    int fd;
    struct dpb_xsk_ring rx, tx, fill, done;
};

struct dpb_xsk_bind {
    bool zero_copy, several_buffers;
    int shared_with; /* socket that registered the memory, or -1: this one does */
    uint32_t headroom;
    uint32_t rx_entries, tx_entries, fill_entries, done_entries; /* powers of two */
    bool busy_poll;
};

/* Chunks of page-locked memory. 0 or a negative errno. */
int dpb_umem_map(struct dpb_umem *umem, uint32_t chunks, uint32_t chunk_shift,
                 struct dpb_error *error);
void dpb_umem_unmap(struct dpb_umem *umem);

/* Opens the socket and its rings and binds it to a queue; waits a moment while the kernel is
 * still clearing away a predecessor (EBUSY). On error nothing is left open. -EOPNOTSUPP: the
 * driver cannot do what was asked of it. */
int dpb_xsk_open(struct dpb_xsk *xsk, const struct dpb_umem *umem, const struct dpb_nic *nic,
                 uint32_t queue, const struct dpb_xsk_bind *how, struct dpb_error *error);
void dpb_xsk_close(struct dpb_xsk *xsk);

/* Entries that may be read from a ring the kernel fills. Looks at the kernel's index only when
 * fewer than `enough` are known. */
static inline uint32_t dpb_ring_readable(struct dpb_xsk_ring *ring, uint32_t enough)
{
    if (ring->theirs - ring->mine < enough)
        ring->theirs = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
    return ring->theirs - ring->mine;
}
/* Gives entries that were read back to the kernel. */
static inline void dpb_ring_consumed(struct dpb_xsk_ring *ring)
{
    __atomic_store_n(ring->consumer, ring->mine, __ATOMIC_RELEASE);
}
/* Shows the kernel entries that were written. */
static inline void dpb_ring_produced(struct dpb_xsk_ring *ring)
{
    __atomic_store_n(ring->producer, ring->mine, __ATOMIC_RELEASE);
}
static inline bool dpb_ring_needs_wakeup(const struct dpb_xsk_ring *ring)
{
    return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

#endif
