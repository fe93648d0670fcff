/* Several datagram endpoints as one: lines A and B of a feed that come by two NICs.
 *
 * A member is a whole endpoint, over a port or over kernel sockets, with channels and peers of its
 * own. Here they are numbered anew, in the order in which they are given to the whole. recv() asks
 * each member in turn, another one first each time, so that a busy line does not starve the other;
 * a datagram carries the number of its member (`member`), to which release() gives it back. What
 * is sent leaves by the member that the peer was added to.
 *
 * Members are borrowed and must outlive the whole. All belong to one thread. */
#ifndef DPB_ENDPOINT_JOINED_H
#define DPB_ENDPOINT_JOINED_H

#include "endpoint.h"

/* <cdef> */
#define DPB_JOINED_MEMBERS 16

struct dpb_joined;

/* NULL: out of memory, or more than DPB_JOINED_MEMBERS. */
struct dpb_joined *dpb_joined_open(const struct dpb_datagram_ref *members, int count);

/* The next channel of the whole is the next channel of `member`. Its number, or -ENOSPC. */
int dpb_joined_add_channel(struct dpb_joined *e, int member);

/* The next peer of the whole is peer `peer` of `member`. Its number, or -ENOSPC. */
int dpb_joined_add_peer(struct dpb_joined *e, int member, int peer);

void dpb_joined_ref(struct dpb_joined *e, struct dpb_datagram_ref *ref);
void dpb_joined_close(struct dpb_joined *e);
/* </cdef> */

#endif
