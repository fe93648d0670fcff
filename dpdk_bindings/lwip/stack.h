/* What the files of streams over lwIP share: a connection, an endpoint, the process's one stack.
 *
 * wire.c moves frames between lwIP and the port; connection.c begins a connection and hears what
 * lwIP says of it; clock.c drives lwIP's time and keeps the limits of stream.h; stream_lwip.c is
 * the caller's side. */
#ifndef DPB_LWIP_STACK_H
#define DPB_LWIP_STACK_H

#include "stream_lwip.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

enum {
    BATCH = 64,
    FLOWS = 4096,
    RING = 65536, /* no less than lwIP's window */
    MARKS = 256,
    CONNECTIONS = 250, /* lwIP numbers interfaces in a byte, and aborts beyond it */
};
#define SECOND_NS 1000000000ull
#define TICK_NS 10000000ull
#define SLOW_TICK_NS (2 * TICK_NS)

_Static_assert(TCP_WND <= RING, "the ring holds whatever lwIP lets the peer send");

/* The byte that ends at `end` of the stream and those before it came at `arrival_ns`. */
struct mark {
    uint64_t end, arrival_ns;
};

struct entry {
    struct dpb_stream face; /* first: an entry is its face */
    struct dpb_stream_lwip *endpoint;
    struct entry *next;
    struct netif netif;
    struct tcp_pcb *pcb; /* NULL: not started, or lwIP's alone now */
    struct dpb_tx_route route;
    bool resolved, started, peer_ended, ack_due, over;
    int failure; /* what recv() will say when the ring is empty */
    uint16_t flow;
    uint64_t deadline_mono_ns;
    uint32_t acknowledged;       /* and since when nothing more */
    uint64_t acknowledged_mono_ns;
    uint32_t highest_sent;       /* sequence number behind the last byte that left */
    uint64_t came;               /* bytes put into the ring */
    uint32_t first_mark, marks;
    struct mark mark[MARKS];
    uint8_t ring[RING];
};

struct dpb_stream_lwip {
    const struct dpb_port_ops *ops;
    void *port;
    bool trust, unflushed;
    int busy_turns; /* one after the other that brought frames */
    uint64_t arrival_ns; /* of the frame that lwIP is looking at */
    uint8_t arrival_clock;
    uint64_t watched_mono_ns;
    struct entry *live;
    struct entry *of_flow[FLOWS];
    struct dpb_frame frames[BATCH];
    struct dpb_stream_lwip_counters counters;
    uint64_t rejected[DPB_REJECTS];
    struct dpb_sample sample[DPB_REJECTS];
};

/* The process's one stack, and whose it is. */
struct dpb_lwip_stack {
    bool ready;
    int endpoints, connections;
    pid_t process;
    pthread_t thread;
    uint64_t ticked_mono_ns;
    uint8_t secret[16];
};
extern struct dpb_lwip_stack dpb_lwip_stack;

static inline uint64_t mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* For netif_add(): an interface whose `state` is the connection that it belongs to. */
err_t dpb_lwip_set_up(struct netif *netif);

/* Hands what the port brought to lwIP; how many frames, or the port's negative errno. */
int dpb_lwip_take_frames(struct dpb_stream_lwip *e);

/* Makes what lwIP sent leave. What the port has no room for it keeps; a link that is down loses
 * frames, as any link may. */
void dpb_lwip_flush(struct dpb_stream_lwip *e);

/* Starts a connection whose next hop is known. */
void dpb_lwip_start(struct entry *c);

/* Tells lwIP what the way to the peer carries. lwIP looks for the way, which it does not know, when
 * it settles that itself. */
void dpb_lwip_set_mtu(struct entry *c);

/* The connection's control block is lwIP's own from here on: it may free it without a word. */
void dpb_lwip_let_go(struct entry *c);

void dpb_lwip_fail(struct entry *c, int error);

/* The connection is no more. A reader learns it behind the bytes that came before. */
void dpb_lwip_lost(struct entry *c, int error);

/* Drives lwIP's time and the endpoint's limits, where it is time to. */
void dpb_lwip_pass_time(struct dpb_stream_lwip *e);

#endif
