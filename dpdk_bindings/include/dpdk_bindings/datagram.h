/* A datagram endpoint: UDP payloads in, UDP payloads out, over a Port or over kernel sockets.
 *
 * An endpoint receives on one or more *channels* (a local address or multicast group, and a
 * port), numbered from 0 in the order they were opened; lines A and B of a feed are two channels.
 * It sends to *peers* (a remote address and port whose headers were prepared beforehand), numbered
 * from 0 likewise. An endpoint belongs to one thread; no function blocks; functions that can fail
 * return a negative errno. */
#ifndef DPDK_BINDINGS_DATAGRAM_H
#define DPDK_BINDINGS_DATAGRAM_H

#include "frame.h"

/* <cdef> */
#define DPB_DATAGRAM_ABI 2

struct dpb_datagram {
    const uint8_t *data;     /* first payload byte; borrowed until release() */
    uint64_t arrival_ns;     /* of the clock named in `clock` */
    uint64_t handle;         /* the endpoint's own: what release() needs to know */
    uint32_t len;            /* payload bytes */
    uint16_t channel;        /* which local address it came to */
    uint8_t clock;           /* enum dpb_clock */
    uint8_t family;          /* 4 or 6 */
    uint8_t source[16];      /* sender's address, network order; IPv4 in the first four bytes */
    uint16_t source_port;    /* host order */
    uint16_t headers;        /* bytes of frame headers that lie in front of `data`; 0: no frame */
    uint8_t member;          /* of an endpoint made of several: which of them it came by */
    uint8_t reserved[11];
};

struct dpb_datagram_ops {
    uint32_t abi;  /* DPB_DATAGRAM_ABI */
    uint32_t size; /* sizeof(struct dpb_datagram_ops) */

    /* Fills out[0..max) with datagrams that have arrived; returns how many. Borrowed until
     * release(). Malformed frames and bad checksums are counted and never shown. */
    int (*recv)(void *endpoint, struct dpb_datagram *out, int max);

    /* Gives n datagrams back, each exactly once. */
    void (*release)(void *endpoint, const struct dpb_datagram *datagrams, int n);

    /* Room for a payload of `len` bytes to `peer`, or NULL: no free transmit buffer, a link
     * that is down, too long, or a peer whose next hop is not known yet (each counted). The room is the caller's until commit(). */
    uint8_t *(*reserve)(void *endpoint, int peer, uint32_t len);

    /* Completes lengths and checksums and queues what reserve() last gave; len as reserved or
     * less, 0 gives the room back unsent. */
    int (*commit)(void *endpoint, uint32_t len);

    /* Sends what was queued. 0: all of it left. -EAGAIN: some found no room below, stays queued,
     * and leaves with a later flush(). Above 0: so many were refused below since this was last
     * asked (each counted by its cause), and never leave. Another negative errno: the port below
     * is gone. */
    int (*flush)(void *endpoint);

    /* Takes back what was queued and has not left: it never leaves. What was decided for this
     * instant must not leave at another, so who sends for an instant calls this when flush() says
     * -EAGAIN. Returns how many datagrams, with those that flush() would have told of. */
    int (*withdraw)(void *endpoint);

    /* Says, before commit(), when what was reserved is worth nothing any more (CLOCK_MONOTONIC):
     * from then on it does not leave. NULL where what is committed leaves with flush() or is told
     * of by it, so that its time cannot pass behind the caller's back. */
    void (*expires)(void *endpoint, uint64_t at_mono_ns);
};

/* An endpoint as another native module sees it: hand both pointers on together. */
struct dpb_datagram_ref {
    const struct dpb_datagram_ops *ops;
    void *endpoint;
};
/* </cdef> */
_Static_assert(sizeof(struct dpb_datagram) == 64, "one descriptor a cache line");

#endif
