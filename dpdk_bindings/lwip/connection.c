#include "stack.h"

#include <errno.h>
#include <string.h>

#include "siphash.h"

#include "lwip/ip.h"

/* Milliseconds as lwIP has to be told them, its slow tick being 20 ms and not 500. */
#define LWIP_MS(ms) ((ms) * (TCP_SLOW_INTERVAL / (SLOW_TICK_NS / 1000000)))

/* ---- what lwIP says ---- */

void dpb_lwip_let_go(struct entry *c) {
    if (!c->pcb)
        return;
    tcp_arg(c->pcb, NULL);
    tcp_recv(c->pcb, NULL);
    tcp_err(c->pcb, NULL);
    c->pcb = NULL;
}

void dpb_lwip_fail(struct entry *c, int error) {
    c->face.state = DPB_STREAM_FAILED;
    c->face.error = error;
    c->face.readable = 0;
}

void dpb_lwip_lost(struct entry *c, int error) {
    if (c->face.state == DPB_STREAM_CONNECTING) {
        dpb_lwip_fail(c, error);
    } else if (c->face.state != DPB_STREAM_FAILED) {
        c->failure = error;
        if (c->face.state == DPB_STREAM_ENDED)
            dpb_lwip_fail(c, error);
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
        dpb_lwip_lost(c, c->face.state == DPB_STREAM_CONNECTING ? ECONNREFUSED : ECONNRESET);
        break;
    case ERR_CLSD: /* both sides have ended, and the last of it was acknowledged */
        break;
    default:
        dpb_lwip_lost(c, ETIMEDOUT);
    }
}

void dpb_lwip_set_mtu(struct entry *c) {
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
    dpb_lwip_set_mtu(c);
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
            dpb_lwip_let_go(c);
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

/* ---- how it begins ---- */

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* The initial sequence number of RFC 6528: a secret hash of the connection, and a clock. The clock
 * makes it larger than any that an earlier connection of the same ports used, so that a peer that
 * still remembers that one (TIME_WAIT) takes the new one at once. */
static uint32_t initial_sequence(const struct dpb_tx_route *route) {
    uint8_t who[37] = {route->family};
    memcpy(who + 1, route->source, 16);
    memcpy(who + 17, route->dest, 16);
    put16(who + 33, route->source_port);
    put16(who + 35, route->dest_port);
    uint32_t secret = (uint32_t)dpb_siphash(dpb_lwip_stack.secret, who, sizeof who);
    return secret + (uint32_t)(mono_ns() / 4000);
}

/* Makes lwIP's next initial sequence number `wanted`: it adds its tick counter to the last one. The
 * counter has to be put back. */
static void prepare_sequence(struct tcp_pcb *pcb, uint32_t wanted) {
    tcp_ticks = 0;
    tcp_ticks = wanted - tcp_next_iss(pcb);
}

void dpb_lwip_start(struct entry *c) {
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
        dpb_lwip_fail(c, ENOMEM);
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
        dpb_lwip_let_go(c);
        tcp_abort(pcb);
        dpb_lwip_fail(c, error == ERR_USE ? EADDRINUSE : ENOMEM);
        return;
    }
    c->pcb->rttest = ticks;
    c->started = true;
}
