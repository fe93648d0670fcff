#define _GNU_SOURCE
#include "stream_kernel.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 64 };

/* A stream and its place in the endpoint's list. Dropped ones are kept to be used again: what a
 * careless holder still reads stays a stream. */
struct entry {
    struct dpb_stream face; /* first: an entry is its face */
    struct entry *next;
    uint64_t deadline_mono_ns;
    int fd, epoll;
    int send_error; /* what send() met; recv() says so when it has given out what came before */
    bool ack_due;
};

struct dpb_stream_kernel {
    struct entry *live, *spare;
    int count, epoll;
};

static uint64_t mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Nothing more will come: the kernel need not be asked again. */
static void settle(struct entry *e, enum dpb_stream_state state) {
    e->face.state = (uint8_t)state;
    e->face.readable = 0;
    e->ack_due = false;
    epoll_ctl(e->epoll, EPOLL_CTL_DEL, e->fd, NULL);
}

static int fail(struct entry *e, int error) {
    settle(e, DPB_STREAM_FAILED);
    e->face.error = error;
    return -error;
}

/* Whether the connection stands by now. */
static void connecting(struct entry *e) {
    struct pollfd ask = {.fd = e->fd, .events = POLLOUT};
    if (poll(&ask, 1, 0) > 0) {
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            error = errno;
        if (error)
            fail(e, error);
        else
            e->face.state = DPB_STREAM_OPEN;
    } else if (mono_ns() >= e->deadline_mono_ns) {
        fail(e, ETIMEDOUT);
    }
}

static int kernel_poll(void *endpoint) {
    struct dpb_stream_kernel *k = endpoint;
    bool ask = k->count > DPB_STREAM_ASK;
    int readable = 0;
    for (struct entry *e = k->live; e; e = e->next) {
        if (e->face.state == DPB_STREAM_CONNECTING)
            connecting(e);
        if (e->ack_due) {
            static const int on = 1;
            setsockopt(e->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
            e->ack_due = false;
        }
        e->face.readable = !ask && e->face.state == DPB_STREAM_OPEN;
        readable += (int)e->face.readable;
    }
    if (!ask)
        return readable;
    struct epoll_event events[EVENTS];
    int n = epoll_wait(k->epoll, events, EVENTS, 0);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        struct entry *e = events[i].data.ptr;
        if (e->face.state == DPB_STREAM_OPEN) {
            e->face.readable = 1;
            readable++;
        }
    }
    return readable;
}

static int kernel_recv(struct dpb_stream *stream, void *into, uint32_t len) {
    struct entry *e = (struct entry *)stream;
    if (stream->state != DPB_STREAM_OPEN)
        return stream->state == DPB_STREAM_ENDED    ? 0
               : stream->state == DPB_STREAM_FAILED ? -stream->error
                                                    : -EAGAIN;
    ssize_t n = recv(e->fd, into, len > INT32_MAX ? INT32_MAX : len, MSG_DONTWAIT);
    if (n > 0) {
        stream->arrival_ns = mono_ns();
        stream->rx_bytes += (uint64_t)n;
        stream->readable = n == len; /* or else the kernel has no more */
        e->ack_due = true;
        return (int)n;
    }
    stream->readable = 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    int error = e->send_error ? e->send_error : n < 0 ? errno : 0;
    if (error)
        return fail(e, error);
    settle(e, DPB_STREAM_ENDED);
    return 0;
}

static int kernel_send(struct dpb_stream *stream, const void *bytes, uint32_t len) {
    struct entry *e = (struct entry *)stream;
    if (stream->state == DPB_STREAM_FAILED)
        return -stream->error;
    if (e->send_error || stream->shut)
        return -(e->send_error ? e->send_error : EPIPE);
    if (stream->state == DPB_STREAM_CONNECTING)
        return -EAGAIN;
    ssize_t n = send(e->fd, bytes, len > INT32_MAX ? INT32_MAX : len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
        stream->tx_bytes += (uint64_t)n;
        return (int)n;
    }
    if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM)
        return -EAGAIN;
    e->send_error = errno == EPIPE ? ECONNRESET : errno;
    return -e->send_error;
}

static int kernel_shutdown(struct dpb_stream *stream) {
    struct entry *e = (struct entry *)stream;
    if (stream->state == DPB_STREAM_FAILED)
        return -stream->error;
    if (stream->state == DPB_STREAM_CONNECTING)
        return -ENOTCONN;
    if (shutdown(e->fd, SHUT_WR) < 0)
        return -errno;
    stream->shut = 1;
    return 0;
}

static const struct dpb_stream_ops OPS = {
    .abi = DPB_STREAM_ABI,
    .size = sizeof(struct dpb_stream_ops),
    .poll = kernel_poll,
    .recv = kernel_recv,
    .send = kernel_send,
    .shutdown = kernel_shutdown,
};

struct dpb_stream_kernel *dpb_stream_kernel_open(void) {
    struct dpb_stream_kernel *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (k->epoll < 0) {
        free(k);
        return NULL;
    }
    return k;
}

struct dpb_stream *dpb_stream_kernel_add(struct dpb_stream_kernel *k, int fd, int error,
                                         uint64_t deadline_mono_ns) {
    struct entry *e = k->spare;
    if (e)
        k->spare = e->next;
    else if (!(e = aligned_alloc(64, (sizeof *e + 63) & ~(size_t)63)))
        return NULL;
    memset(e, 0, sizeof *e);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = e};
    if (epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        e->next = k->spare;
        k->spare = e;
        return NULL;
    }
    e->fd = fd;
    e->epoll = k->epoll;
    e->deadline_mono_ns = deadline_mono_ns;
    e->face.clock = DPB_CLOCK_MONO;
    e->next = k->live;
    k->live = e;
    k->count++;
    if (error)
        fail(e, error);
    return &e->face;
}

void dpb_stream_kernel_drop(struct dpb_stream_kernel *k, struct dpb_stream *stream) {
    for (struct entry **at = &k->live; *at; at = &(*at)->next)
        if (&(*at)->face == stream) {
            struct entry *e = *at;
            *at = e->next;
            fail(e, EBADF);
            e->next = k->spare;
            k->spare = e;
            k->count--;
            return;
        }
}

void dpb_stream_kernel_ref(struct dpb_stream_kernel *k, struct dpb_stream_ref *ref) {
    ref->ops = &OPS;
    ref->endpoint = k;
}

static void free_all(struct entry *e) {
    for (struct entry *next; e; e = next) {
        next = e->next;
        free(e);
    }
}

void dpb_stream_kernel_close(struct dpb_stream_kernel *k) {
    free_all(k->live);
    free_all(k->spare);
    close(k->epoll);
    free(k);
}
