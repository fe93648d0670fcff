#include "trace.h"

void bw_record_datagram(struct dpb_ring_tx *ring, uint16_t source, const struct dpb_datagram *d,
                        uint64_t now) {
    struct bw_recorded head = {
        .port = d->source_port,
        .place = d->channel,
        .headers = d->headers,
        .family = d->family,
        .len = d->headers + d->len,
    };
    memcpy(head.address, d->source, sizeof head.address);
    struct dpb_record about = {.kind = BW_RECORD_DATAGRAM,
                               .source = source,
                               .origin_ns = d->arrival_ns,
                               .clock = d->clock};
    bw_trace_put(ring, &head, sizeof head, d->data - d->headers, head.len, &about, now);
}

void bw_record_sent(struct dpb_ring_tx *ring, uint16_t source, const uint8_t *cause, int32_t peer,
                    const uint8_t *bytes, uint32_t len, uint64_t now) {
    struct bw_recorded head = {.place = (uint16_t)peer, .out = 1, .len = len};
    if (cause) memcpy(head.cause, cause, sizeof head.cause);
    struct dpb_record about = {
        .kind = BW_RECORD_DATAGRAM, .source = source, .origin_ns = now, .clock = DPB_CLOCK_MONO};
    bw_trace_put(ring, &head, sizeof head, bytes, len, &about, now);
}

void bw_record_trace(struct dpb_ring_tx *ring, struct bw_trace *trace, const struct bw_tx *tx,
                     const uint8_t *raw, uint64_t now) {
    struct dpb_record about = {.kind = BW_RECORD_TRACE,
                               .source = tx->source,
                               .origin_ns = tx->arrival_ns,
                               .clock = tx->arrival_clock};
    memcpy(trace->hash, tx->hash, sizeof trace->hash);
    memcpy(trace->sender, tx->sender, sizeof trace->sender);
    memcpy(&about.filter, tx->hash, sizeof about.filter);
    trace->arrival_ns = tx->arrival_ns;
    trace->arrival_clock = tx->arrival_clock;
    trace->source = tx->source;
    trace->origin = tx->origin;
    trace->known_ns = tx->known_ns;
    trace->known_clock = tx->known_clock;
    trace->raw_len = tx->raw_len;
    trace->trusted = !!(tx->flags & BW_TX_TRUSTED);
    trace->sender_known = !!(tx->flags & BW_TX_SENDER);
    bw_trace_put(ring, trace, sizeof *trace, raw, tx->raw_len, &about, now);
}

void bw_record_refused(struct dpb_ring_tx *ring, const struct bw_message *message,
                       const struct bw_steps *steps, uint8_t verdict, uint64_t now) {
    struct bw_trace trace = {
        .arrival_ns = message->arrival_ns,
        .arrival_clock = message->clock,
        .steps = *steps,
        .raw_len = message->len,
        .source = message->source,
        .origin = message->flags >> BW_MESSAGE_ORIGIN,
        .verdict = verdict,
        .trusted = !!(message->flags & BW_MESSAGE_TRUSTED),
    };
    struct dpb_record about = {.kind = BW_RECORD_REFUSED,
                               .source = message->source,
                               .origin_ns = message->arrival_ns,
                               .clock = message->clock};
    bw_trace_put(ring, &trace, sizeof trace, message->data, message->len, &about, now);
}
