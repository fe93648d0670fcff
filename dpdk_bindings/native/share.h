/* One port, several endpoints: each sees a port of its own that carries only its flows.
 *
 * An interface has one XDP program and one set of sockets, so two endpoints on it must share a
 * port. Whoever of them polls takes a burst from the shared port, keeps its own frames and puts the
 * others' into their queues. A member that does not poll loses its own frames (counted for it) and
 * nobody else's: its queue is bounded.
 *
 * All members and the shared port belong to one thread. A member's reserve() must be followed by
 * its commit() before another member reserves. */
#ifndef DPB_SHARE_H
#define DPB_SHARE_H

#include "dpdk_bindings/port.h"

/* <cdef> */
#define DPB_SHARE_MEMBERS 32
#define DPB_SHARE_WAITING 1024 /* frames that wait for a member; more are dropped */

struct dpb_share_stats {
    uint64_t waiting;    /* now in the member's queue */
    uint64_t dropped;    /* its queue was full: it polls too seldom */
    uint64_t unassigned; /* of the whole share: frames of flows that are no member's, dropped */
};

struct dpb_share;

/* The port outlives the share. NULL: no memory. */
struct dpb_share *dpb_share_new(const struct dpb_port_ref *port);

/* Adds a member. Gives its number or -ENOSPC. */
int dpb_share_add(struct dpb_share *share);

/* The member as a port. Valid until dpb_share_free. */
struct dpb_port_ref dpb_share_member(struct dpb_share *share, int member);

/* From now on frames of `flow` go to `member`, or (-1) to nobody. DPB_FLOW_NONE is a flow here:
 * frames whose port does not tell. Gives 0 or -EINVAL. */
int dpb_share_assign(struct dpb_share *share, uint16_t flow, int member);

/* Gives back the frames that wait for a member, which has no flows any more. */
void dpb_share_leave(struct dpb_share *share, int member);

/* Gives waiting frames back; frames that a member still holds must come first. */
void dpb_share_free(struct dpb_share *share);

void dpb_share_stats(const struct dpb_share *share, int member, struct dpb_share_stats *stats);
/* </cdef> */

#endif
