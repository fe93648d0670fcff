/* Makes outboxes (dpdk_bindings/outbox.h). */
#ifndef DPB_ENDPOINT_OUTBOX_H
#define DPB_ENDPOINT_OUTBOX_H

#include "dpdk_bindings/outbox.h"

/* <cdef> */
/* Sends by the owner's endpoint number `endpoint`, over `ring`, which outlives it. */
void dpb_outbox_open(struct dpb_outbox *outbox, struct dpb_ring_tx *ring, uint16_t endpoint);
void dpb_outbox_ref(struct dpb_outbox *outbox, struct dpb_datagram_ref *ref);

/* One datagram in one call: 1, or 0 where the ring is full. */
int dpb_outbox_send(struct dpb_outbox *outbox, int peer, const uint8_t *bytes, uint32_t len);
/* </cdef> */

#endif
