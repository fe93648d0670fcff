/* The datagram endpoint over kernel sockets: no privileges, any interface, loopback included.
 *
 * It spins on non-blocking sockets with recvmmsg and sendmmsg, so its cost is the system call and
 * the kernel's own path; nothing is set up anew for a poll that finds nothing, and nothing is
 * allocated after open. Sockets are made, bound, joined and closed by the caller (Python), who
 * keeps them open until dpb_kernel_close(); here bytes only move.
 *
 * A receive buffer belongs to the endpoint, then to the caller of recv() until release(). All
 * buffers are of one size; what is longer is counted as truncated, sampled, and not shown.
 * A transmit buffer belongs to the caller between reserve() and commit(). What the kernel's send
 * buffer has no room for stays queued until the next flush(); anything else it refuses is dropped
 * and counted.
 *
 * Losses inside the kernel (full receive buffer, bad checksum) are in the socket's own drop
 * counter, which Python reads on demand (SO_MEMINFO): the number that SO_RXQ_OVFL would repeat on
 * every datagram. */
#ifndef DPB_ENDPOINT_KERNEL_H
#define DPB_ENDPOINT_KERNEL_H

#include "endpoint.h"

/* <cdef> */
struct dpb_kernel;

/* `clock` is DPB_CLOCK_MONO (read once after each system call that brought something) or
 * DPB_CLOCK_REAL (SO_TIMESTAMPNS, which the caller set on the sockets). NULL: out of memory. */
struct dpb_kernel *dpb_kernel_open(uint32_t rx_buffers, uint32_t tx_buffers,
                                   uint32_t payload_bytes, int clock);

/* A bound non-blocking socket becomes the next channel. Its number, or -ENOSPC. */
int dpb_kernel_add_channel(struct dpb_kernel *k, int fd, int family);

/* Destination `name` (a sockaddr of `len` bytes; 0: `fd` is connected) reached through `fd` in
 * datagrams of at most `payload_bytes` becomes the next peer. Its number, or -ENOSPC. */
int dpb_kernel_add_peer(struct dpb_kernel *k, int fd, const uint8_t *name, uint32_t len,
                        uint32_t payload_bytes);

void dpb_kernel_ref(struct dpb_kernel *k, struct dpb_datagram_ref *ref);
struct dpb_endpoint_counters *dpb_kernel_counters(struct dpb_kernel *k);

struct dpb_sample *dpb_kernel_truncated_sample(struct dpb_kernel *k);

/* Forgets the sockets, before the caller closes them: their numbers will mean others soon. What
 * recv() gave out stays readable. */
void dpb_kernel_detach(struct dpb_kernel *k);
void dpb_kernel_close(struct dpb_kernel *k);
/* </cdef> */

#endif
