#include "endpoint_port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, CHANNELS = 64, PEERS = 4096, FLOWS = 4096 };
#define NO_CHANNEL 0xff

_Static_assert(DPB_REJECTS <= sizeof((struct dpb_rejects){0}.count) / sizeof(uint64_t),
               "a counter for every reason");

struct channel {
    uint8_t address[16];
    uint16_t port;
    uint8_t family;
};

struct peer {
    struct dpb_tx_headers headers;
    int resolved;
};

struct dpb_over_port {
    struct dpb_endpoint_counters counters;
    const struct dpb_port_ops *ops;
    void *port;
    int verify;
    int link_down;
    int channels, peers;
    uint32_t queued; /* datagrams since all of them had left, and their bytes */
    uint64_t queued_bytes;
    const struct dpb_tx_headers *reserved; /* of the reservation, or NULL */
    uint8_t *room;
    uint32_t room_len;
    struct channel channel[CHANNELS];
    uint8_t channel_of_flow[FLOWS];
    struct peer *peer;
    struct dpb_frame frames[BATCH];
    struct dpb_rejects rejects;
};

struct dpb_over_port *dpb_over_port_open(const struct dpb_port_ref *port, int verify) {
    struct dpb_over_port *e = calloc(1, sizeof *e);
    struct peer *peer = calloc(PEERS, sizeof *peer);
    if (!e || !peer) {
        free(e);
        free(peer);
        return NULL;
    }
    e->ops = port->ops;
    e->port = port->port;
    e->verify = verify;
    e->peer = peer;
    memset(e->channel_of_flow, NO_CHANNEL, sizeof e->channel_of_flow);
    return e;
}

void dpb_over_port_close(struct dpb_over_port *e) {
    free(e->peer);
    free(e);
}

int dpb_over_port_add_channel(struct dpb_over_port *e, int family, const uint8_t *address,
                              uint16_t port, uint16_t flow) {
    if (e->channels == CHANNELS || (flow != DPB_FLOW_NONE && flow >= FLOWS))
        return -ENOSPC;
    struct channel *channel = &e->channel[e->channels];
    memcpy(channel->address, address, family == 4 ? 4 : 16);
    channel->family = (uint8_t)family;
    channel->port = port;
    if (flow != DPB_FLOW_NONE)
        e->channel_of_flow[flow] = (uint8_t)e->channels;
    return e->channels++;
}

int dpb_over_port_add_peer(struct dpb_over_port *e) {
    return e->peers < PEERS ? e->peers++ : -ENOSPC;
}

void dpb_over_port_set_peer(struct dpb_over_port *e, int peer, const struct dpb_tx_route *route) {
    e->peer[peer].resolved = route != NULL;
    if (route)
        dpb_tx_prepare(route, &e->peer[peer].headers);
}

static int port_withdraw(void *endpoint);

void dpb_over_port_set_link(struct dpb_over_port *e, int up) {
    e->link_down = !up;
    if (!up)
        port_withdraw(e);
}

static int is_for(const struct channel *channel, const struct dpb_udp *udp) {
    return channel->port == udp->dest_port && channel->family == udp->family &&
           !memcmp(channel->address, udp->dest, udp->family == 4 ? 4 : 16);
}

/* The channel of a datagram, or -1. */
static int channel_of(const struct dpb_over_port *e, uint16_t flow, const struct dpb_udp *udp) {
    if (flow < FLOWS) {
        int channel = e->channel_of_flow[flow];
        return channel != NO_CHANNEL && is_for(&e->channel[channel], udp) ? channel : -1;
    }
    for (int i = 0; i < e->channels; i++)
        if (is_for(&e->channel[i], udp))
            return i;
    return -1;
}

static int take(struct dpb_over_port *e, const struct dpb_frame *frame, struct dpb_datagram *d) {
    struct dpb_udp udp;
    int why = dpb_udp_parse(frame->data, frame->len, e->verify, &udp);
    if (why)
        return why;
    if (e->verify && frame->flags & DPB_FRAME_CSUM_BAD)
        return DPB_REJECT_UDP_CHECKSUM;
    int channel = channel_of(e, frame->flow, &udp);
    if (channel < 0)
        return DPB_REJECT_NOT_OURS;
    memset(d, 0, sizeof *d);
    d->data = udp.payload;
    d->len = udp.payload_len;
    d->arrival_ns = frame->arrival_ns;
    d->clock = frame->clock;
    d->handle = frame->handle;
    d->channel = (uint16_t)channel;
    d->family = udp.family;
    d->source_port = udp.source_port;
    d->headers = (uint16_t)(udp.payload - frame->data);
    memcpy(d->source, udp.source, udp.family == 4 ? 4 : 16);
    return DPB_REJECT_NONE;
}

static int port_recv(void *endpoint, struct dpb_datagram *out, int max) {
    struct dpb_over_port *e = endpoint;
    struct dpb_frame *frames = e->frames;
    int n = e->ops->poll(e->port, frames, max < BATCH ? max : BATCH);
    if (n <= 0)
        return n;
    int got = 0, bad = 0;
    for (int i = 0; i < n; i++) {
        if (i + 1 < n) {
            __builtin_prefetch(frames[i + 1].data);
            __builtin_prefetch(frames[i + 1].data + 64);
        }
        int why = take(e, &frames[i], &out[got]);
        if (!why) {
            e->counters.rx_bytes += out[got++].len;
            continue;
        }
        e->rejects.count[why]++;
        dpb_sample_keep(&e->rejects.last[why], frames[i].data, frames[i].len, frames[i].len);
        frames[bad++] = frames[i];
    }
    if (bad)
        e->ops->release(e->port, frames, bad);
    e->counters.rx_datagrams += (uint64_t)got;
    e->counters.borrowed += (uint64_t)got;
    return got;
}

static void port_release(void *endpoint, const struct dpb_datagram *datagrams, int n) {
    struct dpb_over_port *e = endpoint;
    e->counters.borrowed -= (uint64_t)n;
    for (int done = 0; done < n;) {
        int some = n - done < BATCH ? n - done : BATCH;
        for (int i = 0; i < some; i++)
            e->frames[i].handle = datagrams[done + i].handle;
        e->ops->release(e->port, e->frames, some);
        done += some;
    }
}

static uint8_t *port_reserve(void *endpoint, int peer, uint32_t len) {
    struct dpb_over_port *e = endpoint;
    e->reserved = NULL;
    if (peer < 0 || peer >= e->peers)
        return NULL;
    if (e->link_down) {
        e->counters.tx_link_down++;
        return NULL;
    }
    if (!e->peer[peer].resolved) {
        e->counters.tx_unresolved++;
        return NULL;
    }
    const struct dpb_tx_headers *h = &e->peer[peer].headers;
    if (len > h->payload_max) {
        e->counters.tx_too_long++;
        return NULL;
    }
    /* Room for the whole of h->bytes, so that copying them has a constant length. */
    uint32_t room = h->len + len;
    uint8_t *frame = e->ops->reserve(e->port, room > sizeof h->bytes ? room : sizeof h->bytes);
    if (!frame) {
        uint64_t *why = errno == ENETDOWN   ? &e->counters.tx_link_down
                        : errno == EMSGSIZE ? &e->counters.tx_too_long
                                            : &e->counters.tx_ring_full;
        ++*why;
        return NULL;
    }
    memcpy(frame, h->bytes, sizeof h->bytes);
    e->reserved = h;
    e->room = frame;
    e->room_len = len;
    return frame + h->len;
}

static int port_commit(void *endpoint, uint32_t len) {
    struct dpb_over_port *e = endpoint;
    const struct dpb_tx_headers *h = e->reserved;
    if (!h || len > e->room_len)
        return -EINVAL;
    e->reserved = NULL;
    int rc = e->ops->commit(e->port, len ? dpb_tx_finish(h, e->room, len) : 0);
    if (rc < 0) {
        e->counters.tx_failed++;
    } else if (len) {
        e->queued++;
        e->queued_bytes += len;
    }
    return rc;
}

/* What was queued is no more: `lost` of it never leave, for the reason counted in `why`. */
static int settle(struct dpb_over_port *e, int lost, uint64_t *why) {
    /* A shared port also tells of frames of its other members. */
    uint32_t ours = (uint32_t)lost < e->queued ? (uint32_t)lost : e->queued;
    *why += ours;
    e->counters.tx_datagrams += e->queued - ours;
    if (ours && e->queued) /* which of them they were is not known */
        e->queued_bytes = e->queued_bytes * (e->queued - ours) / e->queued;
    e->counters.tx_bytes += e->queued_bytes;
    e->queued = 0;
    e->queued_bytes = 0;
    return (int)ours;
}

static int port_flush(void *endpoint) {
    struct dpb_over_port *e = endpoint;
    int rc = e->ops->flush(e->port);
    if (rc >= 0)
        return settle(e, rc, &e->counters.tx_failed);
    if (rc == -EAGAIN)
        e->counters.tx_blocked++;
    return rc;
}

static int port_withdraw(void *endpoint) {
    struct dpb_over_port *e = endpoint;
    int rc = e->ops->withdraw(e->port);
    return rc >= 0 ? settle(e, rc, &e->counters.tx_withdrawn) : rc;
}

static const struct dpb_datagram_ops OPS = {
    .abi = DPB_DATAGRAM_ABI,
    .size = sizeof(struct dpb_datagram_ops),
    .recv = port_recv,
    .release = port_release,
    .reserve = port_reserve,
    .commit = port_commit,
    .flush = port_flush,
    .withdraw = port_withdraw,
};

void dpb_over_port_ref(struct dpb_over_port *e, struct dpb_datagram_ref *ref) {
    ref->ops = &OPS;
    ref->endpoint = e;
}

struct dpb_endpoint_counters *dpb_over_port_counters(struct dpb_over_port *e) {
    return &e->counters;
}

struct dpb_rejects *dpb_over_port_rejects(struct dpb_over_port *e) { return &e->rejects; }
