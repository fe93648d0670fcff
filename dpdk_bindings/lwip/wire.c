#include "stack.h"

#include <errno.h>
#include <string.h>

#include "lwip/ip.h"

enum { ETHER = 14, TAG = 4, TCP_SEQ = 4 };

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

void dpb_lwip_flush(struct dpb_stream_lwip *e) {
    if (!e->unflushed)
        return;
    int result = e->ops->flush(e->port);
    e->unflushed = result == -EAGAIN;
    if (result != 0 && result != -EAGAIN)
        e->counters.tx_refused += result > 0 ? (uint64_t)result : 1;
}

err_t dpb_lwip_set_up(struct netif *netif) {
    netif->name[0] = 'b';
    netif->name[1] = 'w';
    netif->output = output4;
    netif->output_ip6 = output6;
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

int dpb_lwip_take_frames(struct dpb_stream_lwip *e) {
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
