/* What both kinds of datagram endpoint have in common beside their function table (datagram.h).
 *
 * Counters are plain words written by the endpoint's one thread; whoever else reads them sees a
 * value that is at most a little old. */
#ifndef DPB_ENDPOINT_H
#define DPB_ENDPOINT_H

#include "datagram.h"

/* <cdef> */
struct dpb_endpoint_counters {
    uint64_t rx_datagrams;  /* handed out by recv() */
    uint64_t rx_bytes;      /* their payload bytes */
    uint64_t rx_starved;    /* recv() that had no buffer to receive into: too many are held */
    uint64_t rx_truncated;  /* longer than the buffers of the endpoint; not shown */
    uint64_t rx_errors;     /* errors the kernel reported on a receiving socket */
    uint64_t rx_misreleased; /* release() of what was not out: a bug of the caller, ignored */
    uint64_t tx_datagrams;  /* taken by the kernel or the port: counted when flushed */
    uint64_t tx_bytes;      /* their payload bytes */
    uint64_t tx_ring_full;  /* reserve() without a free transmit buffer */
    uint64_t tx_link_down;  /* not sent: the link is down, or the interface gone */
    uint64_t tx_unresolved; /* not sent: no route to the peer, or a next hop not known (yet) */
    uint64_t tx_too_long;   /* not sent: more than the peer's route carries in one piece */
    uint64_t tx_blocked;    /* flush() cut short by a full queue below; the rest is kept */
    uint64_t tx_withdrawn;  /* queued, and taken back before the queue below had room */
    uint64_t tx_failed;     /* refused below for another reason, after they were queued: dropped */
    uint64_t borrowed;      /* out now: handed out and not given back yet */
};

/* The last datagram or frame of one kind, to look at: its first bytes and its full length. */
#define DPB_SAMPLE_BYTES 256
struct dpb_sample {
    uint32_t len;  /* of the original, may exceed what is kept */
    uint32_t kept; /* bytes kept */
    uint8_t bytes[256];
};
/* </cdef> */

/* Keeps the first bytes of something `len` bytes long of which `available` can be read. */
void dpb_sample_keep(struct dpb_sample *sample, const void *bytes, uint32_t available,
                     uint32_t len);

#endif
