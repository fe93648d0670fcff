/* Where the path is cut: what one core publishes and the next one takes. */
#include <string.h>

#include "pump_parts.h"

/* Publishes head, then bytes, as one record; counts what is too long for the ring. */
static void hand_on(struct bw_pump *p, const void *head, uint32_t head_len, const void *more,
                    uint32_t more_len, const uint8_t *bytes, uint32_t len,
                    struct dpb_record *about) {
    uint8_t *room = dpb_ring_reserve(p->with.after, head_len + more_len + len);
    if (!room) {
        p->stats.not_handed_on++;
        return;
    }
    dpb_ring_copy_in(room, head, head_len);
    dpb_ring_copy_in(room + head_len, more, more_len);
    dpb_ring_copy_in(room + head_len + more_len, bytes, len);
    about->len = head_len + more_len + len;
    dpb_ring_commit(p->with.after, about, bw_pump_clock(p));
    p->stats.handed_on++;
}

static int take(struct bw_pump *p) {
    int n = dpb_ring_take(p->with.before, p->crossed, BURST);
    if (n <= 0) return 0; /* a lossy ring's damage is counted by its consumer */
    uint64_t now = bw_pump_clock(p);
    for (int i = 0; i < n; i++)
        bw_pump_observe(p, BW_HISTOGRAM_RING_SECONDS, p->crossed[i].publish_mono_ns, now);
    return n;
}

void bw_cross_datagrams(struct bw_pump *p) {
    for (uint32_t i = 0; i < p->with.sources; i++) {
        struct intake *in = &p->intake[i];
        for (; in->next < in->count; in->next++) {
            const struct dpb_datagram *d = &in->burst[in->next];
            struct bw_steps steps = {.received_mono_ns = in->received_mono_ns};
            struct dpb_record about = {.source = (uint16_t)i,
                                       .origin_ns = d->arrival_ns,
                                       .clock = d->clock,
                                       .user = d->channel};
            p->stats.datagrams++;
            hand_on(p, &steps, sizeof steps, NULL, 0, d->data, d->len, &about);
        }
    }
}

/* Fills the intakes, as receiving would; datagrams of a source that is none are passed over. */
int bw_cross_take_datagrams(struct bw_pump *p) {
    int waiting = 0;
    for (uint32_t i = 0; i < p->with.sources; i++) {
        struct intake *in = &p->intake[i];
        if (in->next < in->count || in->more) waiting += in->count - in->next + in->more;
        else in->count = in->next = 0;
    }
    if (waiting) return waiting; /* what they hold lies in the arena, until the next take */
    int n = take(p);
    for (int i = 0; i < n; i++) {
        const struct dpb_record *r = &p->crossed[i];
        if (r->source >= p->with.sources || r->len < sizeof(struct bw_steps)) continue;
        struct intake *in = &p->intake[r->source];
        struct bw_steps steps;
        memcpy(&steps, r->data, sizeof steps);
        in->received_mono_ns = steps.received_mono_ns;
        in->burst[in->count++] = (struct dpb_datagram){
            .data = r->data + sizeof steps,
            .len = r->len - (uint32_t)sizeof steps,
            .arrival_ns = r->origin_ns,
            .clock = r->clock,
            .channel = (uint16_t)r->user,
        };
        waiting++;
    }
    return waiting;
}

void bw_cross_messages(struct bw_pump *p, uint32_t first) {
    for (uint32_t i = first; i < p->taken; i++) {
        const struct bw_message *m = &p->message[i];
        struct dpb_record about = {.kind = m->flags,
                                   .source = m->source,
                                   .origin_ns = m->arrival_ns,
                                   .user = m->missed_mono_ns,
                                   .clock = m->clock};
        hand_on(p, &p->steps[i], sizeof p->steps[i], NULL, 0, m->data, m->len, &about);
    }
    p->taken = first;
    bw_intake_return_envelopes(p);
}

static void message_of(struct bw_pump *p, const struct dpb_record *r, uint32_t head) {
    memcpy(&p->steps[p->taken], r->data, sizeof p->steps[0]);
    p->message[p->taken] = (struct bw_message){
        .data = r->data + head,
        .len = r->len - head,
        .arrival_ns = r->origin_ns,
        .missed_mono_ns = r->user,
        .clock = r->clock,
        .source = r->source,
        .flags = (uint8_t)r->kind,
    };
}

int bw_cross_take_messages(struct bw_pump *p, const struct bw_triggers *table) {
    int n = take(p);
    for (int i = 0; i < n; i++) {
        const struct dpb_record *r = &p->crossed[i];
        if (r->len < sizeof(struct bw_steps)) continue;
        uint32_t first = p->taken;
        message_of(p, r, sizeof(struct bw_steps));
        p->taken++;
        bw_judge_messages(p, table, first);
    }
    return n;
}

void bw_cross_decoded(struct bw_pump *p, uint32_t first) {
    for (uint32_t i = first; i < p->taken; i++) {
        const struct bw_tx *tx = &p->tx[i];
        struct dpb_record about = {.kind = p->message[i].flags,
                                   .source = tx->source,
                                   .origin_ns = tx->arrival_ns,
                                   .clock = tx->arrival_clock};
        hand_on(p, &p->steps[i], sizeof p->steps[i], tx, sizeof *tx, p->message[i].data,
                tx->raw_len, &about);
    }
    p->taken = first;
}

int bw_cross_take_decoded(struct bw_pump *p, const struct bw_triggers *table) {
    const uint32_t head = sizeof(struct bw_steps) + sizeof(struct bw_tx);
    int n = take(p);
    for (int i = 0; i < n; i++) {
        const struct dpb_record *r = &p->crossed[i];
        if (r->len < head) continue;
        uint32_t first = p->taken;
        message_of(p, r, head);
        memcpy(&p->tx[first], r->data + sizeof(struct bw_steps), sizeof p->tx[first]);
        if (p->tx[first].raw_len != r->len - head) continue;
        p->taken++;
        bw_judge_decoded(p, table, first);
    }
    return n;
}
