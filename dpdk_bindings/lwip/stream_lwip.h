/* Byte streams over a Port, by lwIP: user-space TCP as Debian ships it, its raw API, one thread.
 *
 * lwIP is one stack a process, with global lists and its own idea of time. How it is used here:
 *
 * - Every connection has an lwIP interface (netif) of its own, bound to its control block. So a
 *   frame that lwIP sends is known by its interface, and so are its Ethernet header and its MTU;
 *   lwIP never routes, never resolves, never hears of ARP. It numbers interfaces in a byte: a
 *   process can have 250 connections, those that are still saying good-bye included.
 * - Its threads are never started. poll() calls tcp_tmr() every 10 ms, where lwIP expects 250:
 *   every time constant of lwIP is 25 times shorter. The good of it: a lost segment is sent again
 *   after 40 to 60 ms (never sooner: Linux may keep an acknowledgement for 40 ms), not after
 *   seconds. What would be bad of it is undone: the limits on connecting, on keep-alive and on
 *   bytes that are not acknowledged are those of stream.h. What is left: TIME_WAIT lasts 5 s, and
 *   a peer that has not ended 0.8 s after we closed is forgotten (the kernel then answers it by
 *   RST).
 * - Initial sequence numbers: lwIP adds its tick counter to the last one, which anybody can
 *   predict. The counter is a public variable; while a connection is started it holds what makes
 *   the number that of RFC 6528.
 * - lwIP abort()s on what it thinks impossible. Two such things a peer could bring about; clock.c
 *   and send() keep lwIP from them (found by tests/fuzz/fuzz_stream.c).
 * - lwIP verifies checksums itself and cannot be told not to. A frame is looked at before
 *   (headers.h), so that a bad one is counted by its cause, and its first bytes kept.
 *
 * Received bytes are copied from the frame, which goes back to the port at once, and into the
 * connection's ring, which is as large as lwIP's window: a slow reader holds 64 KiB and no
 * frame. */
#ifndef DPB_STREAM_LWIP_H
#define DPB_STREAM_LWIP_H

#include "dpdk_bindings/port.h"
#include "dpdk_bindings/stream.h"
#include "endpoint.h"
#include "headers.h"

/* <cdef> */
struct dpb_stream_lwip;

struct dpb_stream_lwip_counters {
    uint64_t rx_segments;      /* handed to lwIP */
    uint64_t rx_no_memory;     /* dropped: no memory for a copy */
    uint64_t tx_segments;      /* handed to the port */
    uint64_t tx_unresolved;    /* not sent: the next hop is not known now */
    uint64_t tx_ring_full;     /* not sent: no free transmit buffer; lwIP tries again */
    uint64_t tx_too_long;      /* not sent: made for a larger MTU than there is now */
    uint64_t tx_refused;       /* flushes that the port refused: the link is down */
    uint64_t retransmitted;    /* of tx_segments: sent before */
};

/* Why dpb_stream_lwip_open gave NULL. */
enum dpb_stream_lwip_trouble {
    DPB_STREAM_LWIP_MEMORY = 1,
    DPB_STREAM_LWIP_THREAD = 2, /* another thread has endpoints in this process */
    DPB_STREAM_LWIP_FORKED = 3, /* the parent had endpoints when it forked */
};

/* An endpoint over a port, given as addresses of its function table and of itself; both outlive it.
 * `trust`: segments whose checksum was left unfinished are finished and taken. */
struct dpb_stream_lwip *dpb_stream_lwip_open(uintptr_t ops, uintptr_t port, int trust,
                                             int *trouble);

/* Starts a connection along `route`, whose addresses and ports are the connection's. Its frames
 * carry `flow`, or DPB_FLOW_NONE. The SYN leaves when dpb_stream_lwip_route says that the next hop
 * is known. If there is no connection at CLOCK_MONOTONIC `deadline_mono_ns` it has failed with
 * ETIMEDOUT. NULL: no memory, or 250 connections. */
struct dpb_stream *dpb_stream_lwip_connect(struct dpb_stream_lwip *e,
                                           const struct dpb_tx_route *route, uint16_t flow,
                                           uint64_t deadline_mono_ns);

/* Where the connection's frames go from now on, with what MTU; NULL: nobody knows now. */
void dpb_stream_lwip_route(struct dpb_stream *stream, const struct dpb_tx_route *route);

/* Ends the connection, by FIN or by RST. The stream means nothing to recv() and send() afterwards,
 * but needs its flow and its port until it is gone. */
void dpb_stream_lwip_end(struct dpb_stream *stream, int abort);

enum dpb_stream_lwip_leaving {
    DPB_STREAM_LWIP_GONE,    /* forgotten: this very call freed it */
    DPB_STREAM_LWIP_QUIET,   /* the peer has all that was sent; it may still speak */
    DPB_STREAM_LWIP_TALKING, /* the peer has not acknowledged everything */
};

/* How far an ended connection is. */
enum dpb_stream_lwip_leaving dpb_stream_lwip_leaving(struct dpb_stream *stream);

void dpb_stream_lwip_ref(struct dpb_stream_lwip *e, struct dpb_stream_ref *ref);
struct dpb_stream_lwip_counters *dpb_stream_lwip_counters(struct dpb_stream_lwip *e);

/* Frames not handed to lwIP, by enum dpb_reject, and the last of each. */
uint64_t dpb_stream_lwip_rejected(struct dpb_stream_lwip *e, int why);
struct dpb_sample *dpb_stream_lwip_sample(struct dpb_stream_lwip *e, int why);

/* Resets what is left, and frees. */
void dpb_stream_lwip_close(struct dpb_stream_lwip *e);
/* </cdef> */

#endif
