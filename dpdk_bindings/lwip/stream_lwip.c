#define _GNU_SOURCE
#include "stream_lwip.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "siphash.h"

#include "lwip/init.h"
#include "lwip/ip.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

enum {
    BATCH = 64,
    FLOWS = 4096,
    RING = 65536, /* no less than lwIP's window */
    MARKS = 256,
    CONNECTIONS = 250, /* lwIP numbers interfaces in a byte, and aborts beyond it */
    ETHER = 14,
    TAG = 4,
    TCP_SEQ = 4,
};
#define SECOND_NS 1000000000ull
#define TICK_NS 10000000ull
#define SLOW_TICK_NS (2 * TICK_NS)
#define LEAST_RTO 3 /* slow ticks: sent again after 40 to 60 ms */
#define UNACKNOWLEDGED_NS (30 * SECOND_NS)
/* Milliseconds as lwIP has to be told them, its slow tick being 20 ms and not 500. */
#define LWIP_MS(ms) ((ms) * (TCP_SLOW_INTERVAL / (SLOW_TICK_NS / 1000000)))

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
    int readable;
    uint64_t arrival_ns; /* of the frame that lwIP is looking at */
    uint8_t arrival_clock;
    struct entry *live;
    struct entry *of_flow[FLOWS];
    struct dpb_frame frames[BATCH];
    struct dpb_stream_lwip_counters counters;
    uint64_t rejected[DPB_REJECTS];
    struct dpb_sample sample[DPB_REJECTS];
};

/* The process's one stack. */
static struct {
    bool ready;
    int endpoints, connections;
    pid_t process;
    pthread_t thread;
    uint64_t ticked_mono_ns;
    uint8_t secret[16];
} stack;

static uint64_t mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* ---- what lwIP sends ---- */

/* Counts a segment that carries bytes from before the highest sequence number sent. lwIP makes
 * fragments of segments that were queued for a larger MTU: those are not looked at. */
static void note_sent(struct entry *c, const uint8_t *ip, uint32_t len) {
    uint32_t at = ip[0] >> 4 == 4 ? 20 : 40;
    if (at == 20 ? get16(ip + 6) & 0x3fff : ip[6] != IP_PROTO_TCP)
        return;
    const uint8_t *tcp = ip + at;
    uint32_t seq = get32(tcp + TCP_SEQ), header = (uint32_t)(tcp[12] >> 4) * 4;
    uint32_t carried = len - at - header + ((tcp[13] & 3) != 0); /* SYN and FIN count */
    if (!carried)
        return;
    if (c->started && (int32_t)(seq - c->highest_sent) < 0)
        c->endpoint->counters.retransmitted++;
    if (!c->started || (int32_t)(seq + carried - c->highest_sent) > 0)
        c->highest_sent = seq + carried;
}

static err_t output(struct netif *netif, struct pbuf *p) {
    struct entry *c = netif->state;
    struct dpb_stream_lwip *e = c->endpoint;
    if (!c->resolved) {
        e->counters.tx_unresolved++;
        return ERR_RTE;
    }
    if (p->tot_len > netif->mtu) {
        e->counters.tx_too_long++;
        return ERR_BUF;
    }
    const struct dpb_tx_route *route = &c->route;
    uint32_t ether = ETHER + (route->vlan == DPB_NO_VLAN ? 0 : TAG);
    uint8_t *frame = e->ops->reserve(e->port, ether + p->tot_len);
    if (!frame) {
        e->counters.tx_ring_full++;
        return ERR_MEM;
    }
    uint8_t *at = frame;
    memcpy(at, route->dest_mac, 6);
    memcpy(at + 6, route->source_mac, 6);
    at += 12;
    if (route->vlan != DPB_NO_VLAN) {
        put16(at, 0x8100);
        put16(at + 2, route->vlan);
        at += TAG;
    }
    put16(at, route->family == 4 ? 0x0800 : 0x86dd);
    pbuf_copy_partial(p, at + 2, p->tot_len, 0);
    note_sent(c, at + 2, p->tot_len);
    if (e->ops->commit(e->port, ether + p->tot_len) < 0)
        return ERR_IF;
    e->unflushed = true;
    e->counters.tx_segments++;
    return ERR_OK;
}

static err_t output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to) {
    return output(netif, p);
}

static err_t output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to) {
    return output(netif, p);
}

/* What the port has no room for it keeps; a link that is down loses frames, as any link may. */
static void flush(struct dpb_stream_lwip *e) {
    if (!e->unflushed)
        return;
    int result = e->ops->flush(e->port);
    e->unflushed = result == -EAGAIN;
    if (result < 0 && result != -EAGAIN)
        e->counters.tx_refused++;
}

/* ---- what lwIP says ---- */

/* lwIP's control block is its own from here on: it may free it without a word. */
static void let_go(struct entry *c) {
    if (!c->pcb)
        return;
    tcp_arg(c->pcb, NULL);
    tcp_recv(c->pcb, NULL);
    tcp_err(c->pcb, NULL);
    c->pcb = NULL;
}

static void fail(struct entry *c, int error) {
    c->face.state = DPB_STREAM_FAILED;
    c->face.error = error;
    c->face.readable = 0;
}

/* The connection is no more. A reader learns it behind the bytes that came before. */
static void lost(struct entry *c, int error) {
    if (c->face.state == DPB_STREAM_CONNECTING) {
        fail(c, error);
    } else if (c->face.state != DPB_STREAM_FAILED) {
        c->failure = error;
        if (c->face.state == DPB_STREAM_ENDED)
            fail(c, error);
        else
            c->face.readable = 1;
    }
}

static void on_error(void *argument, err_t error) {
    struct entry *c = argument;
    if (!c)
        return;
    c->pcb = NULL; /* freed already */
    switch (error) {
    case ERR_RST:
        lost(c, c->face.state == DPB_STREAM_CONNECTING ? ECONNREFUSED : ECONNRESET);
        break;
    case ERR_CLSD: /* both sides have ended, and the last of it was acknowledged */
        break;
    default:
        lost(c, ETIMEDOUT);
    }
}

/* lwIP looks for the way, which it does not know, when it settles what a segment may carry. */
static void set_mtu(struct entry *c) {
    c->netif.mtu = c->route.mtu;
    c->netif.mtu6 = c->route.mtu;
    uint16_t headers = (c->route.family == 4 ? 20 : 40) + 20;
    uint16_t most = c->route.mtu > headers ? c->route.mtu - headers : 1;
    if (c->pcb && c->pcb->mss > most)
        c->pcb->mss = most;
}

static err_t on_connected(void *argument, struct tcp_pcb *pcb, err_t error) {
    struct entry *c = argument;
    c->face.state = DPB_STREAM_OPEN;
    set_mtu(c);
    c->acknowledged = pcb->lastack;
    c->acknowledged_mono_ns = mono_ns();
    return ERR_OK;
}

static void put_mark(struct entry *c) {
    uint64_t arrival_ns = c->endpoint->arrival_ns;
    struct mark *last = &c->mark[(c->first_mark + c->marks - 1) % MARKS];
    if (c->marks == MARKS || (c->marks && last->arrival_ns == arrival_ns)) {
        *last = (struct mark){c->came, arrival_ns};
        return;
    }
    c->mark[(c->first_mark + c->marks++) % MARKS] = (struct mark){c->came, arrival_ns};
}

static err_t on_recv(void *argument, struct tcp_pcb *pcb, struct pbuf *p, err_t error) {
    struct entry *c = argument;
    if (c->peer_ended) { /* lwIP takes bytes behind the last one too */
        if (p)
            pbuf_free(p);
        return ERR_OK;
    }
    c->face.readable = 1;
    if (!p) {
        c->peer_ended = true;
        c->ack_due = false;
        if (c->face.shut)
            let_go(c);
        return ERR_OK;
    }
    uint32_t at = c->came % RING, len = p->tot_len;
    uint32_t first = len < RING - at ? len : RING - at;
    pbuf_copy_partial(p, c->ring + at, (u16_t)first, 0);
    pbuf_copy_partial(p, c->ring, (u16_t)(len - first), (u16_t)first);
    pbuf_free(p);
    c->came += len;
    c->ack_due = true;
    c->face.clock = c->endpoint->arrival_clock;
    put_mark(c);
    return ERR_OK;
}

/* ---- what the port brings ---- */

static struct entry *owner_of(struct dpb_stream_lwip *e, const struct dpb_frame *frame,
                              const struct dpb_tcp *tcp) {
    struct entry *c = e->live;
    if (frame->flow != DPB_FLOW_NONE) {
        c = frame->flow < FLOWS ? e->of_flow[frame->flow] : NULL;
        return c && c->route.family == tcp->family && c->route.source_port == tcp->dest_port &&
                       c->route.dest_port == tcp->source_port
                   ? c
                   : NULL;
    }
    uint32_t n = tcp->family == 4 ? 4 : 16;
    while (c && (c->route.family != tcp->family || c->route.source_port != tcp->dest_port ||
                 c->route.dest_port != tcp->source_port || memcmp(c->route.source, tcp->dest, n) ||
                 memcmp(c->route.dest, tcp->source, n)))
        c = c->next;
    return c;
}

static int take(struct dpb_stream_lwip *e, const struct dpb_frame *frame) {
    struct dpb_tcp tcp;
    int why = dpb_tcp_parse(frame->data, frame->len, &tcp);
    bool finish = why == DPB_REJECT_TCP_CHECKSUM_UNFINISHED && e->trust;
    if (why && !finish)
        return why;
    if (frame->flags & DPB_FRAME_CSUM_BAD && !finish)
        return DPB_REJECT_TCP_CHECKSUM;
    struct entry *c = owner_of(e, frame, &tcp);
    if (!c || !c->started)
        return DPB_REJECT_NOT_OURS;
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)tcp.ip_len, PBUF_RAM);
    if (!p) {
        e->counters.rx_no_memory++;
        return DPB_REJECT_NONE;
    }
    memcpy(p->payload, tcp.ip, tcp.ip_len);
    if (finish)
        memcpy((uint8_t *)p->payload + tcp.tcp_at + 16, &tcp.right, 2);
    e->arrival_ns = frame->arrival_ns;
    e->arrival_clock = frame->clock;
    e->counters.rx_segments++;
    ip_input(p, &c->netif); /* frees it */
    return DPB_REJECT_NONE;
}

static int take_frames(struct dpb_stream_lwip *e) {
    int n = e->ops->poll(e->port, e->frames, BATCH);
    for (int i = 0; i < n; i++) {
        if (i + 1 < n)
            __builtin_prefetch(e->frames[i + 1].data);
        int why = take(e, &e->frames[i]);
        if (why) {
            e->rejected[why]++;
            dpb_sample_keep(&e->sample[why], e->frames[i].data, e->frames[i].len,
                            e->frames[i].len);
        }
    }
    if (n > 0)
        e->ops->release(e->port, e->frames, n);
    return n;
}

/* ---- time ---- */

/* The initial sequence number of RFC 6528: a secret hash of the connection, and a clock. The clock
 * makes it larger than any that an earlier connection of the same ports used, so that a peer that
 * still remembers that one (TIME_WAIT) takes the new one at once. */
static uint32_t initial_sequence(const struct dpb_tx_route *route) {
    uint8_t who[37] = {route->family};
    memcpy(who + 1, route->source, 16);
    memcpy(who + 17, route->dest, 16);
    put16(who + 33, route->source_port);
    put16(who + 35, route->dest_port);
    return (uint32_t)dpb_siphash(stack.secret, who, sizeof who) + (uint32_t)(mono_ns() / 4000);
}

/* Makes lwIP's next initial sequence number `wanted`: it adds its tick counter to the last one. The
 * counter has to be put back. */
static void prepare_sequence(struct tcp_pcb *pcb, uint32_t wanted) {
    tcp_ticks = 0;
    tcp_ticks = wanted - tcp_next_iss(pcb);
}

/* Starts a connection whose next hop is known. */
static void start(struct entry *c) {
    ip_addr_t local, remote;
    if (c->route.family == 4) {
        memset(&local, 0, sizeof local);
        memset(&remote, 0, sizeof remote);
        memcpy(ip_2_ip4(&local), c->route.source, 4);
        memcpy(ip_2_ip4(&remote), c->route.dest, 4);
        IP_SET_TYPE_VAL(local, IPADDR_TYPE_V4);
        IP_SET_TYPE_VAL(remote, IPADDR_TYPE_V4);
    } else {
        ip_addr_set_zero_ip6(&local);
        ip_addr_set_zero_ip6(&remote);
        memcpy(ip_2_ip6(&local)->addr, c->route.source, 16);
        memcpy(ip_2_ip6(&remote)->addr, c->route.dest, 16);
        ip6_addr_assign_zone(ip_2_ip6(&local), IP6_UNICAST, &c->netif);
        ip6_addr_assign_zone(ip_2_ip6(&remote), IP6_UNICAST, &c->netif);
    }
    c->pcb = tcp_new_ip_type(IP_GET_TYPE(&remote));
    if (!c->pcb) {
        fail(c, ENOMEM);
        return;
    }
    tcp_arg(c->pcb, c);
    tcp_recv(c->pcb, on_recv);
    tcp_err(c->pcb, on_error);
    tcp_nagle_disable(c->pcb);
    ip_set_option(c->pcb, SOF_KEEPALIVE);
    c->pcb->keep_idle = LWIP_MS(10000);
    c->pcb->keep_intvl = LWIP_MS(5000);
    c->pcb->keep_cnt = 4;
    c->pcb->ttl = c->route.ttl;
    tcp_bind_netif(c->pcb, &c->netif);

    uint32_t ticks = tcp_ticks;
    err_t error = tcp_bind(c->pcb, &local, c->route.source_port);
    if (error == ERR_OK) {
        prepare_sequence(c->pcb, initial_sequence(&c->route));
        error = tcp_connect(c->pcb, &remote, c->route.dest_port, on_connected);
        tcp_ticks = ticks;
    }
    if (error != ERR_OK) {
        struct tcp_pcb *pcb = c->pcb;
        let_go(c);
        tcp_abort(pcb);
        fail(c, error == ERR_USE ? EADDRINUSE : ENOMEM);
        return;
    }
    c->pcb->rttest = ticks;
    c->started = true;
}

static void give_up(struct entry *c) {
    struct tcp_pcb *pcb = c->pcb;
    let_go(c);
    if (pcb)
        tcp_abort(pcb);
    lost(c, ETIMEDOUT);
}

/* The limits of stream.h, which lwIP's own clock would reach too early or too late. */
static void watch(struct entry *c, uint64_t now) {
    if (c->over)
        return;
    if (c->face.state == DPB_STREAM_CONNECTING) {
        if (now >= c->deadline_mono_ns)
            give_up(c);
        else if (c->pcb && c->pcb->nrtx > 1)
            c->pcb->nrtx = 1; /* or it would stop after six SYNs */
        return;
    }
    if (!c->pcb)
        return;
    if (c->acknowledged != c->pcb->lastack || (!c->pcb->unacked && !c->pcb->unsent)) {
        c->acknowledged = c->pcb->lastack;
        c->acknowledged_mono_ns = now;
    } else if (now - c->acknowledged_mono_ns > UNACKNOWLEDGED_NS) {
        give_up(c);
    }
}

static void tick(uint64_t now) {
    stack.ticked_mono_ns = now;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
        if (pcb->rto < LEAST_RTO)
            pcb->rto = LEAST_RTO;
        /* A peer that acknowledges bytes which went back to be sent again leaves the timer of a
         * closed window running without anything to send: lwIP would abort() the process. */
        if (pcb->persist_backoff && (!pcb->unsent || pcb->unacked))
            pcb->persist_backoff = pcb->persist_cnt = 0;
    }
    tcp_tmr();
    /* After a loss lwIP sends one segment of today's size at once, and so never one that was made
     * for a larger MTU. */
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (pcb->unsent && pcb->cwnd < pcb->unsent->len) {
            pcb->cwnd = pcb->unsent->len;
            tcp_output(pcb);
        }
}

static int lwip_poll(void *endpoint) {
    struct dpb_stream_lwip *e = endpoint;
    for (struct entry *c = e->live; c; c = c->next)
        if (c->ack_due) {
            c->ack_due = false;
            if (c->pcb && c->pcb->flags & (TF_ACK_DELAY | TF_ACK_NOW)) {
                tcp_ack_now(c->pcb);
                tcp_output(c->pcb);
            }
        }
    int n = take_frames(e);
    uint64_t now = mono_ns();
    if (now - stack.ticked_mono_ns >= TICK_NS) {
        tick(now);
        for (struct entry *c = e->live; c; c = c->next)
            watch(c, now);
    }
    flush(e);
    if (n < 0)
        return n;
    int readable = 0;
    for (struct entry *c = e->live; c; c = c->next)
        readable += c->face.readable != 0;
    return readable;
}

/* ---- the caller's side ---- */

static int lwip_recv(struct dpb_stream *stream, void *into, uint32_t len) {
    struct entry *c = (struct entry *)stream;
    uint32_t have = (uint32_t)(c->came - stream->rx_bytes);
    if (!have) {
        stream->readable = 0;
        if (stream->state == DPB_STREAM_FAILED)
            return -stream->error;
        if (c->failure) {
            fail(c, c->failure);
            return -c->failure;
        }
        if (c->peer_ended)
            stream->state = DPB_STREAM_ENDED;
        return stream->state == DPB_STREAM_ENDED ? 0 : -EAGAIN;
    }
    if (len > have)
        len = have;
    uint32_t at = stream->rx_bytes % RING;
    uint32_t first = len < RING - at ? len : RING - at;
    memcpy(into, c->ring + at, first);
    memcpy((uint8_t *)into + first, c->ring, len - first);
    stream->rx_bytes += len;
    while (c->marks) {
        const struct mark *mark = &c->mark[c->first_mark];
        stream->arrival_ns = mark->arrival_ns;
        if (mark->end > stream->rx_bytes)
            break;
        c->first_mark = (c->first_mark + 1) % MARKS;
        c->marks--;
        if (mark->end == stream->rx_bytes)
            break;
    }
    stream->readable = len < have || c->peer_ended || c->failure;
    if (c->pcb) {
        tcp_recved(c->pcb, (u16_t)len);
        flush(c->endpoint);
    }
    return (int)len;
}

/* Whether lwIP can add to what it has not sent yet. It may not: a segment there can be longer than
 * what the peer's windows allow by now (first none, then a tiny one) or than the MTU, and lwIP
 * would then abort() the process. It goes when that segment has left. */
static bool can_append(const struct tcp_pcb *pcb) {
    const struct tcp_seg *last = pcb->unsent;
    if (!last)
        return true;
    while (last->next)
        last = last->next;
    uint32_t half = pcb->snd_wnd_max / 2;
    uint32_t most = half && half < pcb->mss ? half : pcb->mss;
    uint32_t has = last->len + LWIP_TCP_OPT_LENGTH(last->flags);
    return has <= most && pcb->unsent_oversize <= most - has;
}

static int lwip_send(struct dpb_stream *stream, const void *bytes, uint32_t len) {
    struct entry *c = (struct entry *)stream;
    if (stream->state == DPB_STREAM_FAILED)
        return -stream->error;
    if (c->failure || stream->shut)
        return -(c->failure ? c->failure : EPIPE);
    if (stream->state == DPB_STREAM_CONNECTING || !c->pcb)
        return -EAGAIN;
    uint32_t room = tcp_sndbuf(c->pcb);
    if (len > room)
        len = room;
    if (len > UINT16_MAX)
        len = UINT16_MAX;
    if (!len || !can_append(c->pcb) ||
        tcp_write(c->pcb, bytes, (u16_t)len, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return -EAGAIN;
    tcp_output(c->pcb);
    flush(c->endpoint);
    stream->tx_bytes += len;
    c->ack_due = false; /* it rode on this */
    return (int)len;
}

static int lwip_shutdown(struct dpb_stream *stream) {
    struct entry *c = (struct entry *)stream;
    if (stream->state == DPB_STREAM_FAILED)
        return -stream->error;
    if (stream->state == DPB_STREAM_CONNECTING)
        return -ENOTCONN;
    if (stream->shut)
        return 0;
    stream->shut = 1;
    if (c->pcb) {
        tcp_shutdown(c->pcb, 0, 1);
        if (c->peer_ended)
            let_go(c);
        flush(c->endpoint);
    }
    return 0;
}

static const struct dpb_stream_ops OPS = {
    .abi = DPB_STREAM_ABI,
    .size = sizeof(struct dpb_stream_ops),
    .poll = lwip_poll,
    .recv = lwip_recv,
    .send = lwip_send,
    .shutdown = lwip_shutdown,
};

/* ---- opening and closing ---- */

struct dpb_stream_lwip *dpb_stream_lwip_open(uintptr_t ops, uintptr_t port, int trust,
                                             int *trouble) {
    *trouble = DPB_STREAM_LWIP_MEMORY;
    if (stack.endpoints) {
        if (stack.process != getpid())
            *trouble = DPB_STREAM_LWIP_FORKED;
        else if (!pthread_equal(stack.thread, pthread_self()))
            *trouble = DPB_STREAM_LWIP_THREAD;
        if (*trouble != DPB_STREAM_LWIP_MEMORY)
            return NULL;
    }
    struct dpb_stream_lwip *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    if (!stack.ready) {
        if (getrandom(stack.secret, sizeof stack.secret, 0) != sizeof stack.secret) {
            free(e);
            return NULL;
        }
        lwip_init();
    }
    stack.ready = true;
    stack.process = getpid();
    stack.thread = pthread_self();
    stack.endpoints++;
    e->ops = (const struct dpb_port_ops *)ops;
    e->port = (void *)port;
    e->trust = trust;
    return e;
}

static err_t set_up(struct netif *netif) {
    netif->name[0] = 'b';
    netif->name[1] = 'w';
    netif->output = output4;
    netif->output_ip6 = output6;
    return ERR_OK;
}

struct dpb_stream *dpb_stream_lwip_connect(struct dpb_stream_lwip *e,
                                           const struct dpb_tx_route *route, uint16_t flow,
                                           uint64_t deadline_mono_ns) {
    if (stack.connections == CONNECTIONS || (flow != DPB_FLOW_NONE && flow >= FLOWS))
        return NULL;
    struct entry *c = aligned_alloc(64, (sizeof *c + 63) & ~(size_t)63);
    if (!c)
        return NULL;
    memset(c, 0, offsetof(struct entry, ring));
    c->endpoint = e;
    c->route = *route;
    c->flow = flow;
    c->deadline_mono_ns = deadline_mono_ns;
    ip4_addr_t local = {0}, mask = {0}, none = {0};
    if (route->family == 4) {
        memcpy(&local, route->source, 4);
        mask.addr = UINT32_MAX;
    }
    if (!netif_add(&c->netif, &local, &mask, &none, c, set_up, ip_input)) {
        free(c);
        return NULL;
    }
    stack.connections++;
    set_mtu(c);
    if (route->family == 6) {
        ip6_addr_t *own = ip_2_ip6(&c->netif.ip6_addr[0]);
        memcpy(own->addr, route->source, 16);
        ip6_addr_assign_zone(own, IP6_UNICAST, &c->netif);
        c->netif.ip6_addr_state[0] = IP6_ADDR_PREFERRED;
    }
    netif_set_up(&c->netif);
    netif_set_link_up(&c->netif);
    if (flow != DPB_FLOW_NONE)
        e->of_flow[flow] = c;
    c->next = e->live;
    e->live = c;
    return &c->face;
}

void dpb_stream_lwip_route(struct dpb_stream *stream, const struct dpb_tx_route *route) {
    struct entry *c = (struct entry *)stream;
    c->resolved = route != NULL;
    if (!route)
        return;
    c->route = *route;
    set_mtu(c);
    if (!c->started && !c->over && stream->state == DPB_STREAM_CONNECTING) {
        start(c);
        flush(c->endpoint);
    }
}

void dpb_stream_lwip_end(struct dpb_stream *stream, int abort) {
    struct entry *c = (struct entry *)stream;
    struct tcp_pcb *pcb = c->pcb;
    c->over = true;
    let_go(c);
    if (pcb) {
        if (abort || stream->state == DPB_STREAM_CONNECTING)
            tcp_abort(pcb);
        else
            tcp_close(pcb);
        flush(c->endpoint);
    }
    fail(c, EBADF);
}

/* The connection's control block that lwIP has in a list, or NULL. */
static struct tcp_pcb *listed(struct tcp_pcb *pcb, const struct entry *c) {
    while (pcb && pcb->netif_idx != netif_get_index(&c->netif))
        pcb = pcb->next;
    return pcb;
}

static void forget(struct entry *c) {
    /* Removing an interface resets every connection that has its address, the other ones' too. */
    ip_addr_set_zero_ip4(&c->netif.ip_addr);
    c->netif.ip6_addr_state[0] = IP6_ADDR_INVALID;
    netif_remove(&c->netif);
    struct dpb_stream_lwip *e = c->endpoint;
    if (c->flow != DPB_FLOW_NONE && e->of_flow[c->flow] == c)
        e->of_flow[c->flow] = NULL;
    struct entry **at = &e->live;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    stack.connections--;
    free(c);
}

static bool all_said(const struct tcp_pcb *pcb) { return !pcb->unsent && !pcb->unacked; }

enum dpb_stream_lwip_leaving dpb_stream_lwip_leaving(struct dpb_stream *stream) {
    struct entry *c = (struct entry *)stream;
    const struct tcp_pcb *pcb = listed(tcp_active_pcbs, c);
    if (pcb)
        return all_said(pcb) ? DPB_STREAM_LWIP_QUIET : DPB_STREAM_LWIP_TALKING;
    if (listed(tcp_tw_pcbs, c))
        return DPB_STREAM_LWIP_QUIET;
    forget(c);
    return DPB_STREAM_LWIP_GONE;
}

void dpb_stream_lwip_ref(struct dpb_stream_lwip *e, struct dpb_stream_ref *ref) {
    ref->ops = &OPS;
    ref->endpoint = e;
}

struct dpb_stream_lwip_counters *dpb_stream_lwip_counters(struct dpb_stream_lwip *e) {
    return &e->counters;
}

uint64_t dpb_stream_lwip_rejected(struct dpb_stream_lwip *e, int why) { return e->rejected[why]; }

struct dpb_sample *dpb_stream_lwip_sample(struct dpb_stream_lwip *e, int why) {
    return &e->sample[why];
}

void dpb_stream_lwip_close(struct dpb_stream_lwip *e) {
    while (e->live) {
        struct entry *c = e->live;
        struct tcp_pcb *pcb = listed(tcp_active_pcbs, c);
        let_go(c);
        if (!pcb)
            pcb = listed(tcp_tw_pcbs, c);
        if (pcb)
            tcp_abandon(pcb, !all_said(pcb));
        flush(e);
        forget(c);
    }
    stack.endpoints--;
    free(e);
}
