#define _GNU_SOURCE
#include "stream_lwip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "lwip/init.h"
#include "lwip/ip.h"

#include "stack.h"

struct dpb_lwip_stack dpb_lwip_stack;

#define PATIENCE 4 /* turns that bring something, after which acknowledgements leave all the same */

static void acknowledge(struct dpb_stream_lwip *e) {
    for (struct entry *c = e->live; c; c = c->next)
        if (c->ack_due) {
            c->ack_due = false;
            if (c->pcb && c->pcb->flags & (TF_ACK_DELAY | TF_ACK_NOW)) {
                tcp_ack_now(c->pcb);
                tcp_output(c->pcb);
            }
        }
}

static int lwip_poll(void *endpoint) {
    struct dpb_stream_lwip *e = endpoint;
    int n = dpb_lwip_take_frames(e);
    dpb_lwip_pass_time(e);
    int readable = 0;
    for (struct entry *c = e->live; c; c = c->next)
        readable += c->face.readable != 0;
    /* To acknowledge is a system call or two, for which whoever waits for these bytes would have to
     * wait, and for the rest of a message too: it is done in the first turn that brings nothing. */
    if (n <= 0 || !readable || ++e->busy_turns >= PATIENCE) {
        e->busy_turns = 0;
        acknowledge(e);
        dpb_lwip_flush(e);
    }
    return n < 0 ? n : readable;
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
            dpb_lwip_fail(c, c->failure);
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
    if (c->pcb)
        tcp_recved(c->pcb, (u16_t)len);
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
    dpb_lwip_flush(c->endpoint);
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
            dpb_lwip_let_go(c);
        dpb_lwip_flush(c->endpoint);
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
    if (dpb_lwip_stack.endpoints) {
        if (dpb_lwip_stack.process != getpid())
            *trouble = DPB_STREAM_LWIP_FORKED;
        else if (!pthread_equal(dpb_lwip_stack.thread, pthread_self()))
            *trouble = DPB_STREAM_LWIP_THREAD;
        if (*trouble != DPB_STREAM_LWIP_MEMORY)
            return NULL;
    }
    struct dpb_stream_lwip *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    if (!dpb_lwip_stack.ready) {
        uint8_t *secret = dpb_lwip_stack.secret;
        if (getrandom(secret, sizeof dpb_lwip_stack.secret, 0) != sizeof dpb_lwip_stack.secret) {
            free(e);
            return NULL;
        }
        lwip_init();
    }
    dpb_lwip_stack.ready = true;
    dpb_lwip_stack.process = getpid();
    dpb_lwip_stack.thread = pthread_self();
    dpb_lwip_stack.endpoints++;
    e->ops = (const struct dpb_port_ops *)ops;
    e->port = (void *)port;
    e->trust = trust;
    return e;
}

struct dpb_stream *dpb_stream_lwip_connect(struct dpb_stream_lwip *e,
                                           const struct dpb_tx_route *route, uint16_t flow,
                                           uint64_t deadline_mono_ns) {
    if (dpb_lwip_stack.connections == CONNECTIONS || (flow != DPB_FLOW_NONE && flow >= FLOWS))
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
    if (!netif_add(&c->netif, &local, &mask, &none, c, dpb_lwip_set_up, ip_input)) {
        free(c);
        return NULL;
    }
    dpb_lwip_stack.connections++;
    dpb_lwip_set_mtu(c);
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
    dpb_lwip_set_mtu(c);
    if (!c->started && !c->over && stream->state == DPB_STREAM_CONNECTING) {
        dpb_lwip_start(c);
        dpb_lwip_flush(c->endpoint);
    }
}

void dpb_stream_lwip_end(struct dpb_stream *stream, int abort) {
    struct entry *c = (struct entry *)stream;
    struct tcp_pcb *pcb = c->pcb;
    c->over = true;
    dpb_lwip_let_go(c);
    if (pcb) {
        if (abort || stream->state == DPB_STREAM_CONNECTING)
            tcp_abort(pcb);
        else
            tcp_close(pcb);
        dpb_lwip_flush(c->endpoint);
    }
    dpb_lwip_fail(c, EBADF);
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
    dpb_lwip_stack.connections--;
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
        dpb_lwip_let_go(c);
        if (!pcb)
            pcb = listed(tcp_tw_pcbs, c);
        if (pcb)
            tcp_abandon(pcb, !all_said(pcb));
        dpb_lwip_flush(e);
        forget(c);
    }
    dpb_lwip_stack.endpoints--;
    free(e);
}
