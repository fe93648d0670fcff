#define _GNU_SOURCE
#include "endpoint_kernel.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, CHANNELS = 64, PEERS = 4096, CONTROL = CMSG_SPACE(sizeof(struct timespec)) };

struct peer {
    struct sockaddr_storage name;
    socklen_t len;
    uint32_t payload_bytes;
    int fd;
};

struct dpb_kernel {
    struct dpb_endpoint_counters counters;
    int clock;
    uint32_t payload_bytes;
    size_t stride;

    int channels, turn; /* turn: the channel that is asked first next time */
    struct {
        int fd;
        int family;
    } channel[CHANNELS];

    /* Entries [0, armed) of `in` each have a buffer and are ready for the kernel. */
    int armed;
    struct mmsghdr in[BATCH];
    struct iovec in_iov[BATCH];
    struct sockaddr_storage in_name[BATCH];
    _Alignas(struct cmsghdr) uint8_t in_control[BATCH][CONTROL];
    uint32_t in_slot[BATCH];

    uint8_t *rx;
    uint32_t rx_buffers, rx_free;
    uint32_t *rx_stack; /* free buffers, the warmest on top */
    uint8_t *rx_out;    /* a buffer's datagram is with the caller */

    uint8_t *tx;
    uint32_t tx_buffers, tx_head, tx_tail; /* sent up to head, queued up to tail */
    uint32_t tx_lost;                      /* refused, and nobody was told yet */
    struct mmsghdr *out;
    struct iovec *out_iov;
    int *out_fd;
    int peers, reserved; /* reserved: the peer of the reservation, or -1 */
    struct peer *peer;

    struct dpb_sample truncated;
    size_t mapped;
};

static uint64_t mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t power_of_two(uint32_t n) {
    uint32_t p = 1;
    while (p < n)
        p <<= 1;
    return p;
}

struct dpb_kernel *dpb_kernel_open(uint32_t rx_buffers, uint32_t tx_buffers,
                                   uint32_t payload_bytes, int clock) {
    struct dpb_kernel *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    tx_buffers = power_of_two(tx_buffers);
    /* An odd number of cache lines, so that the first lines of all buffers spread over the cache
     * instead of meeting in one set. */
    k->stride = (((size_t)payload_bytes + 63) / 64 | 1) * 64;
    k->payload_bytes = payload_bytes;
    k->clock = clock;
    k->rx_buffers = rx_buffers;
    k->tx_buffers = tx_buffers;
    k->reserved = -1;
    k->mapped = k->stride * (rx_buffers + tx_buffers);
    k->rx = mmap(NULL, k->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    k->rx_stack = calloc(rx_buffers, sizeof *k->rx_stack);
    k->rx_out = calloc(rx_buffers, 1);
    k->out = calloc(tx_buffers, sizeof *k->out);
    k->out_iov = calloc(tx_buffers, sizeof *k->out_iov);
    k->out_fd = calloc(tx_buffers, sizeof *k->out_fd);
    k->peer = calloc(PEERS, sizeof *k->peer);
    if (k->rx == MAP_FAILED || !k->rx_stack || !k->rx_out || !k->out || !k->out_iov ||
        !k->out_fd || !k->peer) {
        dpb_kernel_close(k);
        return NULL;
    }
    k->tx = k->rx + k->stride * rx_buffers;
    for (uint32_t i = 0; i < rx_buffers; i++)
        k->rx_stack[k->rx_free++] = rx_buffers - 1 - i;
    for (uint32_t i = 0; i < tx_buffers; i++) {
        k->out_iov[i].iov_base = k->tx + k->stride * i;
        k->out[i].msg_hdr.msg_iov = &k->out_iov[i];
        k->out[i].msg_hdr.msg_iovlen = 1;
    }
    for (int i = 0; i < BATCH; i++) {
        k->in_iov[i].iov_len = payload_bytes;
        k->in[i].msg_hdr.msg_iov = &k->in_iov[i];
        k->in[i].msg_hdr.msg_iovlen = 1;
        k->in[i].msg_hdr.msg_name = &k->in_name[i];
        k->in[i].msg_hdr.msg_namelen = sizeof k->in_name[i];
        if (clock == DPB_CLOCK_REAL) {
            k->in[i].msg_hdr.msg_control = k->in_control[i];
            k->in[i].msg_hdr.msg_controllen = CONTROL;
        }
    }
    return k;
}

void dpb_kernel_close(struct dpb_kernel *k) {
    if (k->rx != MAP_FAILED)
        munmap(k->rx, k->mapped);
    free(k->rx_stack);
    free(k->rx_out);
    free(k->out);
    free(k->out_iov);
    free(k->out_fd);
    free(k->peer);
    free(k);
}

void dpb_kernel_detach(struct dpb_kernel *k) {
    k->channels = k->peers = 0;
    k->tx_head = k->tx_tail;
}

int dpb_kernel_add_channel(struct dpb_kernel *k, int fd, int family) {
    if (k->channels == CHANNELS)
        return -ENOSPC;
    k->channel[k->channels].fd = fd;
    k->channel[k->channels].family = family;
    return k->channels++;
}

int dpb_kernel_add_peer(struct dpb_kernel *k, int fd, const uint8_t *name, uint32_t len,
                        uint32_t payload_bytes) {
    if (k->peers == PEERS || len > sizeof(struct sockaddr_storage))
        return -ENOSPC;
    struct peer *peer = &k->peer[k->peers];
    memcpy(&peer->name, name, len);
    peer->len = len;
    peer->fd = fd;
    peer->payload_bytes = payload_bytes < k->payload_bytes ? payload_bytes : k->payload_bytes;
    return k->peers++;
}

/* Gives entry `i` a buffer from the stack, which must not be empty. */
static void arm(struct dpb_kernel *k, int i) {
    k->in_slot[i] = k->rx_stack[--k->rx_free];
    k->in_iov[i].iov_base = k->rx + k->stride * k->in_slot[i];
}

/* Makes entry `i` fit for the kernel again after it has written there. */
static void rearm(struct dpb_kernel *k, int i) {
    k->in[i].msg_hdr.msg_namelen = sizeof k->in_name[i];
    if (k->clock == DPB_CLOCK_REAL)
        k->in[i].msg_hdr.msg_controllen = CONTROL;
}

static uint64_t kernel_stamp(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(c), sizeof at);
            return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
        }
    return 0;
}

static void describe(struct dpb_kernel *k, int i, int channel, uint64_t now,
                     struct dpb_datagram *d) {
    memset(d, 0, sizeof *d);
    d->data = k->in_iov[i].iov_base;
    d->len = k->in[i].msg_len;
    d->handle = k->in_slot[i];
    d->channel = (uint16_t)channel;
    d->arrival_ns = now;
    if (k->clock == DPB_CLOCK_REAL)
        d->arrival_ns = kernel_stamp(&k->in[i].msg_hdr);
    d->clock = d->arrival_ns ? (uint8_t)k->clock : DPB_CLOCK_NONE;
    if (k->in_name[i].ss_family == AF_INET) {
        const struct sockaddr_in *from = (const void *)&k->in_name[i];
        d->family = 4;
        memcpy(d->source, &from->sin_addr, 4);
        d->source_port = ntohs(from->sin_port);
    } else {
        const struct sockaddr_in6 *from = (const void *)&k->in_name[i];
        d->family = 6;
        memcpy(d->source, &from->sin6_addr, 16);
        d->source_port = ntohs(from->sin6_port);
    }
}

/* One system call on one channel. */
static int recv_channel(struct dpb_kernel *k, int channel, struct dpb_datagram *out, int max) {
    int n = recvmmsg(k->channel[channel].fd, k->in, (unsigned)(max < k->armed ? max : k->armed),
                     MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (n <= 0) {
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            k->counters.rx_errors++;
        return 0;
    }
    uint64_t now = k->clock == DPB_CLOCK_MONO ? mono_ns() : 0;
    int got = 0, spent = 0;
    for (int i = 0; i < n; i++) {
        if (k->in[i].msg_hdr.msg_flags & MSG_TRUNC) {
            k->counters.rx_truncated++;
            dpb_sample_keep(&k->truncated, k->in_iov[i].iov_base, k->payload_bytes, k->in[i].msg_len);
            rearm(k, i);
            continue;
        }
        struct dpb_datagram *d = &out[got++];
        describe(k, i, channel, now, d);
        k->counters.rx_bytes += d->len;
        k->rx_out[d->handle] = 1;
        rearm(k, i);
        if (k->rx_free)
            arm(k, i);
        else
            k->in_slot[i] = UINT32_MAX, spent++;
    }
    /* Close the holes of entries that found no fresh buffer. */
    for (int i = n - 1; spent; i--)
        if (k->in_slot[i] == UINT32_MAX) {
            k->armed--, spent--;
            k->in_slot[i] = k->in_slot[k->armed];
            k->in_iov[i].iov_base = k->in_iov[k->armed].iov_base;
        }
    k->counters.rx_datagrams += (uint64_t)got;
    k->counters.borrowed += (uint64_t)got;
    return got;
}

static int kernel_recv(void *endpoint, struct dpb_datagram *out, int max) {
    struct dpb_kernel *k = endpoint;
    while (k->armed < BATCH && k->rx_free)
        arm(k, k->armed++);
    int got = 0;
    for (int i = 0; i < k->channels && got < max; i++) {
        if (!k->armed) {
            k->counters.rx_starved++;
            break;
        }
        int channel = k->turn++;
        if (k->turn >= k->channels)
            k->turn = 0;
        got += recv_channel(k, channel, out + got, max - got);
    }
    return got;
}

static void kernel_release(void *endpoint, const struct dpb_datagram *datagrams, int n) {
    struct dpb_kernel *k = endpoint;
    for (int i = n - 1; i >= 0; i--) {
        uint64_t slot = datagrams[i].handle;
        if (slot >= k->rx_buffers || !k->rx_out[slot]) {
            k->counters.rx_misreleased++;
            continue;
        }
        k->rx_out[slot] = 0;
        k->rx_stack[k->rx_free++] = (uint32_t)slot;
        k->counters.borrowed--;
    }
}

static uint8_t *kernel_reserve(void *endpoint, int peer, uint32_t len) {
    struct dpb_kernel *k = endpoint;
    k->reserved = -1;
    if (peer < 0 || peer >= k->peers)
        return NULL;
    if (len > k->peer[peer].payload_bytes) {
        k->counters.tx_too_long++;
        return NULL;
    }
    if (k->tx_tail - k->tx_head == k->tx_buffers) {
        k->counters.tx_ring_full++;
        return NULL;
    }
    k->reserved = peer;
    return k->out_iov[k->tx_tail & (k->tx_buffers - 1)].iov_base;
}

static int kernel_commit(void *endpoint, uint32_t len) {
    struct dpb_kernel *k = endpoint;
    if (k->reserved < 0 || len > k->payload_bytes)
        return -EINVAL;
    struct peer *peer = &k->peer[k->reserved];
    k->reserved = -1;
    if (!len)
        return 0;
    uint32_t i = k->tx_tail++ & (k->tx_buffers - 1);
    k->out_iov[i].iov_len = len;
    k->out_fd[i] = peer->fd;
    k->out[i].msg_hdr.msg_name = peer->len ? &peer->name : NULL;
    k->out[i].msg_hdr.msg_namelen = peer->len;
    return 0;
}

static uint64_t *cause_of(struct dpb_kernel *k, int code) {
    switch (code) {
    case EMSGSIZE:
        return &k->counters.tx_too_long;
    case ENETDOWN:
        return &k->counters.tx_link_down;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL: /* our address is gone */
    case ENODEV:        /* the interface is */
    case ENXIO:
        return &k->counters.tx_unresolved;
    default:
        return &k->counters.tx_failed;
    }
}

static int tell_lost(struct dpb_kernel *k) {
    int lost = (int)k->tx_lost;
    k->tx_lost = 0;
    return lost;
}

/* Hands queued datagrams to the kernel, one system call for each run that shares a socket. */
static int kernel_flush(void *endpoint) {
    struct dpb_kernel *k = endpoint;
    int refused = 0;
    while (k->tx_head != k->tx_tail) {
        uint32_t first = k->tx_head & (k->tx_buffers - 1);
        uint32_t run = 1, limit = k->tx_tail - k->tx_head;
        if (limit > k->tx_buffers - first)
            limit = k->tx_buffers - first;
        while (run < limit && k->out_fd[first + run] == k->out_fd[first])
            run++;
        int n = sendmmsg(k->out_fd[first], &k->out[first], run, MSG_DONTWAIT);
        if (n > 0) {
            for (int i = 0; i < n; i++)
                k->counters.tx_bytes += k->out[first + (uint32_t)i].msg_len;
            k->counters.tx_datagrams += (uint64_t)n;
            k->tx_head += (uint32_t)n;
            refused = 0;
        } else if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
            k->counters.tx_blocked++;
            return -EAGAIN;
        } else if (errno == ECONNREFUSED && !refused) {
            refused = 1; /* an earlier datagram's ICMP answer, reported here: not this one's */
        } else {
            ++*cause_of(k, errno);
            k->tx_lost++;
            k->tx_head++;
            refused = 0;
        }
    }
    return tell_lost(k);
}

static int kernel_withdraw(void *endpoint) {
    struct dpb_kernel *k = endpoint;
    uint32_t queued = k->tx_tail - k->tx_head;
    k->tx_head = k->tx_tail;
    k->counters.tx_withdrawn += queued;
    k->tx_lost += queued;
    return tell_lost(k);
}

static const struct dpb_datagram_ops OPS = {
    .abi = DPB_DATAGRAM_ABI,
    .size = sizeof(struct dpb_datagram_ops),
    .recv = kernel_recv,
    .release = kernel_release,
    .reserve = kernel_reserve,
    .commit = kernel_commit,
    .flush = kernel_flush,
    .withdraw = kernel_withdraw,
};

void dpb_kernel_ref(struct dpb_kernel *k, struct dpb_datagram_ref *ref) {
    ref->ops = &OPS;
    ref->endpoint = k;
}

struct dpb_endpoint_counters *dpb_kernel_counters(struct dpb_kernel *k) { return &k->counters; }

struct dpb_sample *dpb_kernel_truncated_sample(struct dpb_kernel *k) { return &k->truncated; }
