// sources: dpdk_bindings/lwip/*.c dpdk_bindings/native/headers.c dpdk_bindings/native/checksum.c dpdk_bindings/native/endpoint.c
// flags: -isystem/usr/include/lwip -llwip -Dclock_gettime=fuzz_clock
// runs: 300000
//
// A hostile peer against a stream over lwIP, through a port in memory and on a clock of its own. An
// input is a list of steps: segments with any flags, options, window and payload, numbered relative
// to what we last said; and our own side's receiving, sending, ending, waiting. Every byte of the
// peer is a function of its sequence number, so whatever is given out must be what belongs there,
// however segments overlapped, came twice or out of order. lwIP aborts on what it thinks impossible:
// that counts as a crash.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checksum.h"
#include "stream_lwip.h"

enum { HEADERS = 14 + 20 + 20, ROOM = 2048, FIN = 1, SYN = 2, ACK = 16 };
#define PEER_ISS 0xffffff00u /* wraps soon */

static uint64_t now_ns = 1000000000;
static uint8_t sent[ROOM], coming[ROOM];
static uint32_t coming_len, our_next, peer_next, first; /* first: of the peer's bytes */

int fuzz_clock(clockid_t clock, struct timespec *now) {
    now->tv_sec = (time_t)(now_ns / 1000000000);
    now->tv_nsec = (long)(now_ns % 1000000000);
    return 0;
}

static void insist(int truth) {
    if (!truth)
        abort();
}

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value) {
    put16(p, value >> 16);
    put16(p + 2, value);
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t byte_at(uint32_t seq) { return (uint8_t)(seq * 31 + (seq >> 8)); }

/* ---- a port in memory ---- */

static int port_poll(void *port, struct dpb_frame *out, int max) {
    if (!coming_len)
        return 0;
    memset(out, 0, sizeof *out);
    out->data = coming;
    out->len = coming_len;
    out->flow = 3;
    out->arrival_ns = now_ns;
    out->clock = DPB_CLOCK_MONO;
    coming_len = 0;
    return 1;
}

static void port_release(void *port, const struct dpb_frame *frames, int n) {}

static uint8_t *port_reserve(void *port, uint32_t len) { return len <= ROOM ? sent : NULL; }

/* Every frame of ours must be sound. */
static int port_commit(void *port, uint32_t len) {
    struct dpb_tcp tcp;
    insist(dpb_tcp_parse(sent, len, &tcp) == DPB_REJECT_NONE);
    insist(len <= 18 + 1500);
    const uint8_t *p = tcp.ip + tcp.tcp_at;
    uint32_t carried = tcp.ip_len - tcp.tcp_at - (uint32_t)(p[12] >> 4) * 4 + ((p[13] & 3) != 0);
    our_next = get32(p + 4) + carried;
    if (p[13] & ACK)
        peer_next = get32(p + 8);
    return 0;
}

static int port_flush(void *port) { return 0; }

static const struct dpb_port_ops PORT = {
    .abi = DPB_PORT_ABI,
    .size = sizeof PORT,
    .poll = port_poll,
    .release = port_release,
    .reserve = port_reserve,
    .commit = port_commit,
    .flush = port_flush,
};

static void segment(uint32_t seq, uint32_t ack, int flags, uint32_t window, const uint8_t *options,
                    uint32_t options_len, uint32_t payload) {
    uint8_t *ip = coming + 14, *tcp = ip + 20;
    uint32_t tcp_len = 20 + options_len + payload;
    memset(coming, 0, HEADERS);
    put16(coming + 12, 0x0800);
    ip[0] = 0x45;
    put16(ip + 2, 20 + tcp_len);
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\0\0\x02\x0a\0\0\x01", 8);
    uint16_t check = dpb_sum_finish(dpb_sum_add(0, ip, 20));
    memcpy(ip + 10, &check, 2);
    put16(tcp, 80);
    put16(tcp + 2, 5000);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = (uint8_t)((20 + options_len) / 4 << 4);
    tcp[13] = (uint8_t)flags;
    put16(tcp + 14, window);
    memcpy(tcp + 20, options, options_len);
    for (uint32_t i = 0; i < payload; i++)
        tcp[20 + options_len + i] = byte_at(seq + ((flags & SYN) != 0) + i);
    coming_len = HEADERS + options_len + payload;
    struct dpb_tcp parsed;
    dpb_tcp_parse(coming, coming_len, &parsed);
    memcpy(tcp + 16, &parsed.right, 2);
}

/* ---- our side ---- */

static void receive(const struct dpb_stream_ops *ops, struct dpb_stream *stream, uint32_t most) {
    uint8_t into[ROOM];
    uint32_t at = (uint32_t)stream->rx_bytes;
    int got = ops->recv(stream, into, most % ROOM + 1);
    for (int i = 0; i < got; i++)
        insist(into[i] == byte_at(first + at + (uint32_t)i));
    insist(got != 0 || stream->state == DPB_STREAM_ENDED);
}

static void step(const struct dpb_stream_ops *ops, void *endpoint, struct dpb_stream *stream,
                 const uint8_t *s) {
    static const uint8_t bytes[1024];
    switch (s[0] & 7) {
    default: { /* most steps: a segment */
        uint32_t seq = peer_next + (uint32_t)(int32_t)(int8_t)s[2] * (s[0] & 64 ? 100 : 1);
        segment(seq, our_next + (uint32_t)(int32_t)(int8_t)s[3] * (s[0] & 128 ? 100 : 1), s[1],
                (uint32_t)s[4] << 8 | s[5], s + 8, (s[0] >> 3 & 3) * 4, (uint32_t)s[6] * 5);
        if (stream->state == DPB_STREAM_CONNECTING && s[1] & SYN)
            first = seq + 1;
        ops->poll(endpoint);
        break;
    }
    case 4:
        receive(ops, stream, (uint32_t)s[1] << 3);
        break;
    case 5:
        ops->send(stream, bytes, (uint32_t)s[1] * 4 + 1);
        break;
    case 6:
        now_ns += (uint64_t)s[1] * s[1] * 1000000;
        for (int i = 0; i <= s[2] % 32; i++) {
            now_ns += 10000000;
            ops->poll(endpoint);
        }
        break;
    case 7:
        if (s[1] < 32)
            ops->shutdown(stream);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size)
        return 0;
    int trouble;
    struct dpb_stream_lwip *e =
        dpb_stream_lwip_open((uintptr_t)&PORT, (uintptr_t)&PORT, data[0] & 1, &trouble);
    insist(e != NULL);
    struct dpb_tx_route route = {.source = {10, 0, 0, 1}, .dest = {10, 0, 0, 2}};
    route.source_port = 5000;
    route.dest_port = 80;
    route.vlan = data[0] & 4 ? 7 : DPB_NO_VLAN;
    route.mtu = 1500;
    route.family = 4;
    route.ttl = 64;
    peer_next = PEER_ISS;
    coming_len = 0;
    struct dpb_stream *stream = dpb_stream_lwip_connect(e, &route, 3, now_ns + 5000000000);
    insist(stream != NULL);
    dpb_stream_lwip_route(stream, &route);
    struct dpb_stream_ref ref;
    dpb_stream_lwip_ref(e, &ref);
    if (data[0] & 2) { /* or the input has to manage the handshake itself */
        static const uint8_t options[] = {2, 4, 5, 0xb4, 1, 3, 3, 7};
        first = PEER_ISS + 1;
        segment(PEER_ISS, our_next, SYN | ACK, 64000, options, 8, 0);
        ref.ops->poll(e);
        insist(stream->state == DPB_STREAM_OPEN);
    }
    for (data++, size--; size >= 20; data += 20, size -= 20)
        step(ref.ops, e, stream, data);
    while (stream->readable && stream->state == DPB_STREAM_OPEN)
        receive(ref.ops, stream, ROOM - 1);
    if (data[-1] & 1) {
        dpb_stream_lwip_end(stream, data[-1] & 2);
        ref.ops->poll(e);
        dpb_stream_lwip_leaving(stream);
    }
    dpb_stream_lwip_close(e);
    return 0;
}
