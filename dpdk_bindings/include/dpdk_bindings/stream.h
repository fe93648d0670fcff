/* Byte streams (TCP) over kernel sockets or over a Port, the same for whoever reads them.
 *
 * An endpoint carries any number of connections and belongs to one thread; nothing here blocks. A
 * turn of a loop is one poll() of the endpoint, which moves everything that time and frames move,
 * and then recv() on the streams that say they are readable:
 *
 *     if (e.ops->poll(e.endpoint) > 0)
 *         for (i = 0; i < n; i++)
 *             while (stream[i]->readable && (got = e.ops->recv(stream[i], room, size)) > 0)
 *                 ...
 *
 * recv() writes into the caller's memory, at the end of what the caller has not parsed yet: a
 * message that spans segments must lie in one piece for its parser anyway, so a borrowed segment
 * would be copied too. Flow control follows: what is not read stays with the endpoint, and the peer
 * is told to wait when that is as much as the connection's window.
 *
 * A `struct dpb_stream` is a connection as its owner sees it. The endpoint writes it; others only
 * read it. It is valid from connect until close() or abort(), and its memory stays readable until
 * the endpoint is gone. What the network does to a connection is a state, never an error of a call:
 *
 *     CONNECTING -> OPEN -> ENDED     the peer has sent its last byte, and recv() has given it out;
 *                                     bytes can still be sent
 *     CONNECTING | OPEN | ENDED -> FAILED    reset, refused, unreachable, timed out: see `error`
 *
 * Both backends: no Nagle; acknowledgements at once, but after the caller has had the bytes; a
 * connection that is idle for 10 s is probed; when the peer has acknowledged neither bytes nor
 * probes for 30 s, the connection has failed with ETIMEDOUT. */
#ifndef DPDK_BINDINGS_STREAM_H
#define DPDK_BINDINGS_STREAM_H

#include "frame.h"

/* <cdef> */
#define DPB_STREAM_ABI 1

enum dpb_stream_state {
    DPB_STREAM_CONNECTING = 0,
    DPB_STREAM_OPEN = 1,
    DPB_STREAM_ENDED = 2,
    DPB_STREAM_FAILED = 3,
};

struct dpb_stream {
    uint64_t arrival_ns; /* when the last byte that recv() gave came; of the clock `clock` */
    uint64_t rx_bytes;   /* given out by recv() */
    uint64_t tx_bytes;   /* accepted by send() */
    uint32_t readable;   /* 0: recv() has nothing; else it may have bytes, or news of the state */
    int32_t error;       /* a positive errno, when FAILED */
    uint8_t state;       /* enum dpb_stream_state */
    uint8_t clock;       /* enum dpb_clock */
    uint8_t shut;        /* 1 after shutdown(): this side has ended */
    uint8_t reserved[29];
};

struct dpb_stream_ops {
    uint32_t abi;  /* DPB_STREAM_ABI */
    uint32_t size; /* sizeof(struct dpb_stream_ops) */

    /* One turn: frames in, timers, connections that are being made. Returns how many streams are
     * readable, or a negative errno when the port below is gone. */
    int (*poll)(void *endpoint);

    /* Up to `len` bytes into `into`. Returns their number; -EAGAIN: none now (or not connected
     * yet); 0: the peer has ended and everything was given out; another negative errno: failed.
     * `len` is not 0. */
    int (*recv)(struct dpb_stream *stream, void *into, uint32_t len);

    /* Takes up to `len` bytes and sends them now. Returns how many it took, fewer where there was
     * no more room; -EAGAIN: none, try again after poll() (or not connected yet); -EPIPE: after
     * shutdown(); another negative errno: failed. */
    int (*send)(struct dpb_stream *stream, const void *bytes, uint32_t len);

    /* Ends this side behind what send() took (FIN); receiving goes on. 0 or a negative errno. */
    int (*shutdown)(struct dpb_stream *stream);
};

/* An endpoint as another native module sees it: hand both pointers on together. */
struct dpb_stream_ref {
    const struct dpb_stream_ops *ops;
    void *endpoint;
};
/* </cdef> */
_Static_assert(sizeof(struct dpb_stream) == 64, "one connection's face is one cache line");

#endif
