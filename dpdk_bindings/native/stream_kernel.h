/* Byte streams over kernel sockets: no privileges, any interface, loopback included.
 *
 * It spins: recv() is the non-blocking system call itself, straight into the caller's memory, and
 * a few connections are not asked beforehand whether they have something, because the question
 * costs as much as the call. With more than DPB_STREAM_ASK of them one epoll_wait a turn says
 * which.
 *
 * Quick acknowledgement is not a lasting property of a Linux socket: it is asked for again after
 * every receive, in the poll() that follows, so that the acknowledgement leaves when the caller has
 * had its bytes, and rides on the answer if there was one.
 *
 * Sockets are made, connected and closed by the caller (Python), who keeps them open until
 * dpb_stream_kernel_drop(); here bytes only move. */
#ifndef DPB_STREAM_KERNEL_H
#define DPB_STREAM_KERNEL_H

#include "dpdk_bindings/stream.h"

/* <cdef> */
struct dpb_stream_kernel;

#define DPB_STREAM_ASK 4

/* NULL: out of memory, or no epoll (errno says). */
struct dpb_stream_kernel *dpb_stream_kernel_open(void);

/* A non-blocking socket whose connect() was started becomes a stream; `error` is the errno that
 * connect() gave, if that was the network's own answer already, or 0. If it is not connected at
 * CLOCK_MONOTONIC `deadline_mono_ns` it has failed with ETIMEDOUT. NULL: out of memory, or epoll
 * refuses (errno says). */
struct dpb_stream *dpb_stream_kernel_add(struct dpb_stream_kernel *k, int fd, int error,
                                         uint64_t deadline_mono_ns);

/* Forgets the stream, before its owner closes the socket. */
void dpb_stream_kernel_drop(struct dpb_stream_kernel *k, struct dpb_stream *stream);

void dpb_stream_kernel_ref(struct dpb_stream_kernel *k, struct dpb_stream_ref *ref);
void dpb_stream_kernel_close(struct dpb_stream_kernel *k);
/* </cdef> */

#endif
