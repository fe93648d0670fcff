/* The datagram endpoint over a Port: frames are taken apart, and headers put in front of payloads,
 * in place, in the port's own buffers.
 *
 * A datagram borrows its frame: release() gives the frame back to the port. A frame that is not
 * shown goes back at once, is counted by the reason, and its first bytes are kept as that
 * reason's sample. Which channel a frame is for is told by the flow number that the port's filter
 * gave it, or, where it gave none (a capture), by the channels' addresses; either way address and
 * port must be the channel's.
 *
 * A peer has headers (headers.h) while its next hop is known. Who knows routes and neighbours is
 * the caller (Python, by netlink): it sets and clears peers between calls, in the same thread. */
#ifndef DPB_ENDPOINT_PORT_H
#define DPB_ENDPOINT_PORT_H

#include "endpoint.h"
#include "headers.h"
#include "port.h"

/* <cdef> */
struct dpb_over_port;

struct dpb_rejects {
    uint64_t count[32]; /* by enum dpb_reject */
    struct dpb_sample last[32];
};

/* `verify`: whether UDP checksums are verified. The port must outlive the endpoint. NULL: out of
 * memory. */
struct dpb_over_port *dpb_over_port_open(const struct dpb_port_ref *port, int verify);

/* Address (network order, 4 or 16 bytes by family) and port become the next channel; `flow` is
 * the port's number for them or DPB_FLOW_NONE. Its number, or -ENOSPC. */
int dpb_over_port_add_channel(struct dpb_over_port *e, int family, const uint8_t *address,
                              uint16_t port, uint16_t flow);

/* The next peer, not resolved yet. Its number, or -ENOSPC. */
int dpb_over_port_add_peer(struct dpb_over_port *e);

/* Gives peer number `peer` a route, or with NULL takes it away. */
void dpb_over_port_set_peer(struct dpb_over_port *e, int peer, const struct dpb_tx_route *route);

/* Says whether the link is up. While it is not, nothing is sent; what is queued when it goes down
 * is taken back. */
void dpb_over_port_set_link(struct dpb_over_port *e, int up);

void dpb_over_port_ref(struct dpb_over_port *e, struct dpb_datagram_ref *ref);
struct dpb_endpoint_counters *dpb_over_port_counters(struct dpb_over_port *e);
struct dpb_rejects *dpb_over_port_rejects(struct dpb_over_port *e);
void dpb_over_port_close(struct dpb_over_port *e);
/* </cdef> */

#endif
