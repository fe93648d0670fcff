/* Receive and feed: from datagrams to whole envelopes. */
#include <string.h>

#include "pump_parts.h"

void bw_intake_return_envelopes(struct bw_pump *p) {
    for (uint32_t i = 0; i < p->lents; i++)
        bw_fragments_release(p->lent[i].by, &p->lent[i].envelope);
    p->lents = 0;
}

void bw_intake_give_back(struct bw_pump *p, struct intake *in) {
    if (in->count && p->with.first == BW_STAGE_RECEIVE)
        in->with.in.ops->release(in->with.in.endpoint, in->burst, in->count);
    in->count = in->next = in->more = 0;
}

/* Datagrams of others than the publishers lose their channel: no feed takes them. Sources can be
 * forged, so this keeps mistakes out, and whoever cannot forge one. */
static void turn_strangers_away(struct bw_pump *p, struct intake *in) {
    for (int d = 0; d < in->count; d++) {
        int welcome = 0;
        for (uint32_t i = 0; i < in->with.publishers && !welcome; i++)
            welcome = in->burst[d].family == in->with.publisher[i].family &&
                      !memcmp(in->burst[d].source, in->with.publisher[i].address,
                              in->burst[d].family == 4 ? 4 : 16);
        if (!welcome) {
            in->burst[d].channel = BW_PUMP_NO_LINE;
            p->stats.strangers++;
        }
    }
}

int bw_intake_receive(struct bw_pump *p) {
    int waiting = 0;
    for (uint32_t i = 0; i < p->with.sources; i++) {
        struct intake *in = &p->intake[i];
        in->fresh = 0;
        if (in->next == in->count && !in->more) {
            bw_intake_give_back(p, in);
            in->count = in->with.in.ops->recv(in->with.in.endpoint, in->burst, BURST);
            if (in->count < 0) in->count = 0; /* the endpoint has counted why */
            if (in->count) {
                in->fresh = 1;
                if (in->with.publishers) turn_strangers_away(p, in);
                in->received_mono_ns = bw_pump_step(p);
            }
        }
        waiting += in->count;
    }
    return waiting;
}

/* Takes one feed message: a transaction, or a fragment that may complete one. */
static void take(struct bw_pump *p, struct intake *in, const struct bw_mold_message *message,
                 const struct dpb_datagram *datagram, uint64_t now) {
    struct bw_envelope envelope;
    p->stats.messages++;
    if (bw_fragments_push(in->with.fragments, in->with.number, message->data, message->len, now,
                          &envelope) != 1)
        return;
    /* What comes late by a line is late by as much as the line; what was asked for by much more. */
    uint8_t origin = envelope.origin;
    if (origin == BW_ORIGIN_ANNOUNCED && message->line == BW_MOLD_RETRANSMISSION)
        origin = BW_ORIGIN_RESENT;
    if (envelope.slot >= 0)
        p->lent[p->lents++] = (struct lent){.by = in->with.fragments, .envelope = envelope};
    p->steps[p->taken] =
        (struct bw_steps){.received_mono_ns = in->received_mono_ns, .fed_mono_ns = now};
    p->message[p->taken++] = (struct bw_message){
        .data = envelope.data,
        .len = envelope.len,
        .arrival_ns = datagram->arrival_ns,
        .missed_mono_ns = message->line == BW_MOLD_RETRANSMISSION ? message->missed_mono_ns : 0,
        .clock = datagram->clock,
        .source = in->with.number,
        .flags = (uint8_t)((in->with.trusted ? BW_MESSAGE_TRUSTED : 0) |
                           origin << BW_MESSAGE_ORIGIN),
    };
}

/* Works through what `in` has lent, as far as there is room. */
static void drain(struct bw_pump *p, struct intake *in, const struct bw_triggers *table) {
    struct bw_mold_message message[BW_PUMP_MESSAGES];
    while (in->next < in->count || in->more) {
        /* A refused transaction gives its place back, an envelope that was lent does not. */
        uint32_t used = p->taken > p->lents ? p->taken : p->lents;
        int room = (int)(BW_PUMP_MESSAGES - used);
        if (!room) return;
        uint64_t now = bw_pump_clock(p);
        const struct dpb_datagram *datagram;
        int n;
        if (in->more) {
            datagram = &in->burst[in->next - 1];
            n = bw_mold_more(in->with.mold, message, room);
        } else {
            datagram = &in->burst[in->next++];
            p->stats.datagrams++;
            uint8_t line = datagram->channel < BW_PUMP_CHANNELS
                               ? in->with.line[datagram->channel]
                               : BW_PUMP_NO_LINE;
            n = bw_mold_receive(in->with.mold, line, datagram->data, datagram->len, now, message,
                                room);
        }
        in->more = n == room;
        if (n <= 0) continue;
        uint32_t first = p->taken;
        for (int i = 0; i < n; i++) take(p, in, &message[i], datagram, now);
        if (p->taken == first) continue;
        if (p->with.last == BW_STAGE_FEED)
            bw_cross_messages(p, first);
        else
            bw_judge_messages(p, table, first);
    }
}

void bw_intake_drain(struct bw_pump *p, const struct bw_triggers *table) {
    for (uint32_t i = 0; i < p->with.sources; i++) drain(p, &p->intake[i], table);
}

void bw_intake_record(struct bw_pump *p) {
    for (uint32_t i = 0; i < p->with.sources; i++) {
        struct intake *in = &p->intake[i];
        for (int d = 0; in->fresh && d < in->count; d++)
            bw_record_datagram(p->with.recorder, (uint16_t)i, &in->burst[d], in->received_mono_ns);
        in->fresh = 0;
    }
}

static int request(struct bw_pump *p, uint32_t source) {
    const struct intake *in = &p->intake[source];
    struct bw_mold_request due[REQUESTS];
    int n = bw_mold_requests(in->with.mold, p->now, due, REQUESTS);
    if (n == 0 || in->with.request_peer < 0) return 0;
    const struct dpb_datagram_ops *ops = in->with.in.ops;
    void *endpoint = in->with.in.endpoint;
    int queued = 0;
    for (int i = 0; i < n; i++) {
        uint8_t *room = ops->reserve(endpoint, in->with.request_peer, sizeof due[i].packet);
        if (room) memcpy(room, due[i].packet, sizeof due[i].packet);
        if (!room || ops->commit(endpoint, sizeof due[i].packet) < 0) continue;
        queued++;
        if (p->with.recorder)
            bw_record_sent(p->with.recorder, (uint16_t)source, NULL, in->with.request_peer,
                           due[i].packet, sizeof due[i].packet, p->now);
    }
    int lost = ops->flush(endpoint);
    if (lost == -EAGAIN) lost = ops->withdraw(endpoint); /* it is asked again, by its own clock */
    if (lost < 0 || lost > queued) lost = queued;
    p->stats.requests += (uint64_t)(queued - lost);
    p->stats.sent += (uint64_t)(queued - lost);
    p->stats.requests_unsent += (uint64_t)(n - queued + lost);
    p->stats.sends_refused += (uint64_t)(n - queued + lost);
    return n;
}

int bw_intake_request(struct bw_pump *p) {
    int n = 0;
    for (uint32_t i = 0; i < p->with.sources; i++)
        if (p->now >= bw_mold_due_mono_ns(p->intake[i].with.mold)) n += request(p, i);
    return n;
}
