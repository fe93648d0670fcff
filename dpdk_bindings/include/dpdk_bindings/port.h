/* A Port: frames in, frames out.
 *
 * The function table is what a native loop uses; Python's Port uses the same functions. A port
 * belongs to one thread. Functions that can fail return a negative errno; none of them blocks. */
#ifndef DPDK_BINDINGS_PORT_H
#define DPDK_BINDINGS_PORT_H

#include "frame.h"

/* <cdef> */
#define DPB_PORT_ABI 2

struct dpb_port_ops {
    uint32_t abi;  /* DPB_PORT_ABI */
    uint32_t size; /* sizeof(struct dpb_port_ops) */

    /* Fills out[0..max) with frames that have arrived. Returns how many (0: none). The caller
     * borrows each until it gives it back by release(). Several bursts may be out at once. */
    int (*poll)(void *port, struct dpb_frame *out, int max);

    /* Gives n frames back, in any order. Each exactly once. */
    void (*release)(void *port, const struct dpb_frame *frames, int n);

    /* Room for a frame of `len` bytes to be written by the caller, or NULL, and errno says why:
     * ENOBUFS (no free transmit buffer), EMSGSIZE (longer than any frame of this port), ENETDOWN
     * (the link is down, the interface gone, or the port closed). The room is the caller's until commit(). */
    uint8_t *(*reserve)(void *port, uint32_t len);

    /* Queues what reserve() last gave, with its final length (<= the length reserved; 0 gives
     * the room back unsent). The port owns the bytes from here. */
    int (*commit)(void *port, uint32_t len);

    /* Makes the kernel or the NIC send what was queued. 0: it has taken all of it. -EAGAIN: it has
     * no room now; what it did not take stays queued, and is tried again by the next poll() or
     * flush(). Above 0: so many frames were refused since this was last asked (the link is down,
     * the driver threw them away), and never leave. Another negative errno: the port is gone. */
    int (*flush)(void *port);

    /* Takes back what was queued and has not been taken, whoever queued it: it never leaves.
     * Returns how many frames, with those that flush() would have told of. */
    int (*withdraw)(void *port);
};

/* A port as another native module sees it: hand both pointers on together. */
struct dpb_port_ref {
    const struct dpb_port_ops *ops;
    void *port;
};
/* </cdef> */

#endif
