/* What the benchmarks `io` and `drain` need in C: the peers that are C, and the other end. */
#include "dpdk_bindings/datagram.h"

#include <string.h>
#include <sys/socket.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The other end of `io`: sends back to the endpoint's only peer what comes, until it is killed. */
void io_echo_endpoint(const struct dpb_datagram_ref *ref)
{
    const struct dpb_datagram_ops *ops = ref->ops;
    struct dpb_datagram in;
    for (;;) {
        if (ops->recv(ref->endpoint, &in, 1) < 1)
            continue;
        uint8_t *room = ops->reserve(ref->endpoint, 0, in.len);
        if (room) {
            memcpy(room, in.data, in.len);
            ops->commit(ref->endpoint, in.len);
            ops->flush(ref->endpoint);
        }
        ops->release(ref->endpoint, &in, 1);
    }
}

/* io-afxdp of `wire`: sends `reply` to the endpoint's only peer for whatever comes, until it is
 * killed. */
void io_answer_endpoint(const struct dpb_datagram_ref *ref, const uint8_t *reply, uint32_t len)
{
    const struct dpb_datagram_ops *ops = ref->ops;
    struct dpb_datagram in;
    for (;;) {
        if (ops->recv(ref->endpoint, &in, 1) < 1)
            continue;
        uint8_t *room = ops->reserve(ref->endpoint, 0, len);
        if (room) {
            memcpy(room, reply, len);
            ops->commit(ref->endpoint, len);
            ops->flush(ref->endpoint);
        }
        ops->release(ref->endpoint, &in, 1);
    }
}

/* c-spin: `n` round trips over a connected socket, each from before send to reply in hand. */
int io_socket(int fd, uint32_t payload_bytes, uint64_t *took_ns, int n)
{
    uint8_t out[2048] = {0}, in[2048];
    for (int i = 0; i < n; i++) {
        memcpy(out, &i, sizeof i);
        uint64_t start = now_ns();
        if (send(fd, out, payload_bytes, MSG_DONTWAIT) != (ssize_t)payload_bytes)
            return i;
        while (recv(fd, in, sizeof in, MSG_DONTWAIT) < 0)
            if (now_ns() - start > 1000000000)
                return i;
        took_ns[i] = now_ns() - start;
        if (memcmp(in, out, payload_bytes))
            return i;
    }
    return n;
}

/* c-afxdp: the same through an endpoint's function table. */
int io_endpoint(const struct dpb_datagram_ref *ref, int peer, uint32_t payload_bytes,
                uint64_t *took_ns, int n)
{
    const struct dpb_datagram_ops *ops = ref->ops;
    uint8_t out[2048] = {0};
    for (int i = 0; i < n; i++) {
        memcpy(out, &i, sizeof i);
        uint64_t start = now_ns();
        uint8_t *room = ops->reserve(ref->endpoint, peer, payload_bytes);
        if (!room)
            return i;
        memcpy(room, out, payload_bytes);
        ops->commit(ref->endpoint, payload_bytes);
        ops->flush(ref->endpoint);
        struct dpb_datagram in;
        while (ops->recv(ref->endpoint, &in, 1) < 1)
            if (now_ns() - start > 1000000000)
                return i;
        took_ns[i] = now_ns() - start;
        int same = in.len == payload_bytes && !memcmp(in.data, out, payload_bytes);
        ops->release(ref->endpoint, &in, 1);
        if (!same)
            return i;
    }
    return n;
}

/* The other end of `drain`: `n` datagrams whose words are a running number. 0 or what is left. */
int drain_fill(int fd, uint32_t payload_bytes, uint64_t first, int n)
{
    uint64_t words[256];
    for (int i = 0; i < n; i++) {
        for (uint32_t w = 0; w < payload_bytes / 8; w++)
            words[w] = first + (uint64_t)i;
        if (send(fd, words, payload_bytes, 0) != (ssize_t)payload_bytes)
            return n - i;
    }
    return 0;
}

/* Sum of all payloads as little-endian 64-bit words, modulo 2^64; lengths are multiples of 8. */
uint64_t drain_sum(const struct dpb_datagram *datagrams, int n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        if (i + 4 < n) /* the bytes are in another core's cache: ask for them in time */
            for (uint32_t at = 0; at < datagrams[i + 4].len; at += 64)
                __builtin_prefetch(datagrams[i + 4].data + at);
        for (uint32_t at = 0; at + 8 <= datagrams[i].len; at += 8) {
            uint64_t word;
            memcpy(&word, datagrams[i].data + at, 8);
            sum += word;
        }
    }
    return sum;
}
