/* An outbox: a datagram endpoint that another core sends for.
 *
 * An endpoint belongs to one thread, and an interface's queue to one socket. A core that decides but
 * does not own the endpoint therefore writes its datagrams into a lossless ring, as the same table
 * of functions as any endpoint (so that what fires does not know the difference), and the owner
 * sends them from there. Money is not dropped on the way: a full ring refuses the reservation, and
 * a record stays in it until the owner has handed it to the real endpoint.
 *
 * What the real endpoint has no room or no next hop for is tried again for DPB_OUTBOX_PATIENCE_NS
 * after it was written, then given up and counted: what was decided for this instant must not leave
 * at another. So is what the endpoint takes and cannot send, and what is found too late, because the
 * owner was held up: behind its expiry, or where it has none older than DPB_OUTBOX_OLD_NS.
 *
 * Records: `source` is the number of the endpoint among the owner's, `user` the peer, `origin_ns` the
 * expiry (CLOCK_MONOTONIC). */
#ifndef DPDK_BINDINGS_OUTBOX_H
#define DPDK_BINDINGS_OUTBOX_H

#include "datagram.h"
#include "ring.h"

#define DPB_OUTBOX_PATIENCE_NS 10000000u
#define DPB_OUTBOX_OLD_NS 1000000000u
#define DPB_OUTBOX_BURST 16

/* <cdef> */
/* The deciding core's side. Receives nothing. */
struct dpb_outbox {
    struct dpb_ring_tx *ring;
    int32_t peer;
    uint32_t room; /* bytes reserved; 0: none */
    uint16_t endpoint;
    uint8_t reserved[6];
    uint64_t expires_mono_ns; /* of what was reserved; 0: not said */
};
/* </cdef> */

/* Why the owner did not send what another core had handed over. */
enum dpb_outbox_cause {
    DPB_OUTBOX_LATE = 0,   /* found behind its expiry, or too old where it has none */
    DPB_OUTBOX_NO_WAY = 1, /* no room, no next hop or too long, for all its patience */
    DPB_OUTBOX_FAILED = 2, /* the endpoint took it, and could not send it at once */
    DPB_OUTBOX_CAUSES = 3,
};

/* The owner's side. Zero but for `ring`. */
struct dpb_outbox_reader {
    struct dpb_ring_rx *ring;
    struct dpb_record held[DPB_OUTBOX_BURST];
    int count;
    int next;
    uint64_t sent;
    uint64_t given_up[3]; /* by enum dpb_outbox_cause */
};

/* Hands what is waiting to endpoints[0..n); returns how many datagrams were handed over. */
static inline int dpb_outbox_drain(struct dpb_outbox_reader *reader,
                                   const struct dpb_datagram_ref *endpoints, uint32_t n,
                                   uint64_t now_mono_ns)
{
    int sent = 0;
    if (reader->next == reader->count) {
        reader->next = 0;
        reader->count = dpb_ring_take(reader->ring, reader->held, DPB_OUTBOX_BURST);
        if (reader->count <= 0) {
            reader->count = 0;
            return 0;
        }
    }
    for (; reader->next < reader->count; reader->next++) {
        const struct dpb_record *record = &reader->held[reader->next];
        const struct dpb_datagram_ref *to = record->source < n ? &endpoints[record->source] : NULL;
        uint64_t age = now_mono_ns > record->publish_mono_ns ? now_mono_ns - record->publish_mono_ns : 0;
        int late = now_mono_ns >= record->origin_ns;
        uint8_t *room =
            to && !late ? to->ops->reserve(to->endpoint, (int)record->user, record->len) : NULL;
        if (room) {
            memcpy(room, record->data, record->len);
            int rc = to->ops->commit(to->endpoint, record->len);
            if (rc >= 0) rc = to->ops->flush(to->endpoint);
            if (rc == -EAGAIN) to->ops->withdraw(to->endpoint);
            if (rc == 0) {
                reader->sent++;
                sent++;
            } else {
                reader->given_up[DPB_OUTBOX_FAILED]++;
            }
        } else if (!to || late || age > DPB_OUTBOX_PATIENCE_NS) {
            reader->given_up[late ? DPB_OUTBOX_LATE : DPB_OUTBOX_NO_WAY]++;
        } else {
            break;
        }
        dpb_ring_ack(reader->ring, record->seq);
    }
    return sent;
}

#endif
