// sources: src/barewire/native/mold.c
// max_len: 2048
//
// A history of datagrams as a program: each instruction sends raw bytes or a well-formed datagram
// near the current place (two sessions, three lines and the server), lets time pass, fetches the
// messages in small portions or abandons them, asks for requests. Beyond what the sanitizers see:
// messages lie inside their datagram, no number comes twice while the sequence is not begun anew,
// the window is kept, every number heard of is delivered, lost or missing, and losses are counted of
// confirmed streams only.
#include <stdlib.h>
#include <string.h>

#include "mold.h"

#define WINDOW 128
#define WATCHED 65536

static void insist(int truth) {
    if (!truth) abort();
}

struct input {
    const uint8_t *at, *end;
};

static uint64_t take(struct input *in, unsigned bytes) {
    uint64_t value = 0;
    while (bytes-- && in->at < in->end) value = value << 8 | *in->at++;
    return value;
}

struct model {
    uint64_t epoch, base, abandoned;
    uint8_t came[WATCHED / 8];
};

static void watch(struct model *model, const struct bw_mold_stats *s, uint64_t n) {
    uint64_t epoch = s->sessions + s->resyncs;
    if (epoch != model->epoch) {
        memset(model->came, 0, sizeof model->came);
        model->epoch = epoch;
        model->base = n > 1024 ? n - 1024 : 0;
    }
    if (n < model->base || n - model->base >= WATCHED) return;
    uint64_t i = n - model->base;
    insist(!(model->came[i / 8] >> i % 8 & 1));
    model->came[i / 8] |= (uint8_t)(1 << i % 8);
}

static void check(struct bw_mold *m) {
    const struct bw_mold_stats *s = bw_mold_stats(m);
    struct bw_mold_gap gap[300];
    int n = bw_mold_open_gaps(m, gap, 300);
    uint64_t missing = 0, from = s->watermark;
    insist(n >= 0 && (uint32_t)n == s->gaps_open);
    for (int i = 0; i < n; i++) {
        const struct bw_mold_gap *g = &gap[i];
        uint64_t left = g->missing - g->reordered - g->other_line - g->retransmitted - g->lost;
        insist(left && left <= WINDOW && g->first < g->end && g->end > from);
        insist(!i || g->first >= from);
        from = g->end;
        missing += left;
    }
    insist(missing == s->missing);
    insist(s->watermark <= s->next_sequence && s->next_sequence - s->watermark <= WINDOW - 64);
    insist((s->missing == 0) == (s->watermark == s->next_sequence));
    /* It takes seven datagrams refused, or eight accepted, to confirm a stream. */
    uint64_t told = s->refused[BW_MOLD_SESSION] + s->refused[BW_MOLD_JUMP];
    for (int i = 0; i < 3; i++) told += s->line[i].datagrams;
    insist(!s->lost || told >= 8);
    insist(s->overflowed <= s->lost && s->displacements <= s->sessions + s->resyncs);
}

static size_t structured(struct input *in, const struct bw_mold_stats *s, uint8_t *out) {
    uint8_t shape = (uint8_t)take(in, 1);
    uint64_t sequence = shape & 0x80 ? take(in, 8)
                                     : s->next_sequence + (uint64_t)(int64_t)(int8_t)take(in, 1);
    uint32_t count = shape & 0x40 ? (shape & 0x20 ? 0xffff : 0) : shape & 0x0f;
    memcpy(out, shape & 0x10 ? "SESSION..1" : "SESSION..2", 10);
    for (int i = 0; i < 8; i++) out[10 + i] = (uint8_t)(sequence >> (56 - 8 * i));
    out[18] = (uint8_t)(count >> 8);
    out[19] = (uint8_t)count;
    size_t len = 20;
    for (uint32_t i = 0; count != 0xffff && i < count; i++) {
        out[len++] = 0;
        out[len++] = (uint8_t)(i % 3);
        for (uint32_t j = 0; j < i % 3; j++) out[len++] = (uint8_t)i;
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, data + size};
    struct bw_mold_config config;
    bw_mold_defaults(&config);
    uint8_t options = (uint8_t)take(&in, 1);
    config.window = WINDOW;
    config.lines = 3;
    config.start = options & 1;
    config.ask = options >> 1 & 1;
    config.grace_ns = 10;
    config.retry_ns = 40;
    config.give_up_ns = 1000;
    config.silence_ns = 500;
    if (options & 4) memcpy(config.session, "SESSION..1", 10);
    struct bw_mold *m = bw_mold_new(&config);
    const struct bw_mold_stats *s = bw_mold_stats(m);
    static struct model model;
    memset(&model, 0, sizeof model);
    uint64_t now = 0;
    while (in.at < in.end) {
        uint8_t op = (uint8_t)take(&in, 1);
        now += op & 0x80 ? take(&in, 1) * 8 : 1;
        uint8_t built[20 + 15 * 4];
        size_t len;
        if (op & 0x40) {
            len = (size_t)take(&in, 1);
            if (len > (size_t)(in.end - in.at)) len = (size_t)(in.end - in.at);
            if (len > sizeof built) len = sizeof built;
            memcpy(built, in.at, len);
            in.at += len;
        } else {
            len = structured(&in, s, built);
        }
        uint64_t lost = s->lost, displaced = s->displaced;
        uint8_t *datagram = malloc(len);
        if (len) memcpy(datagram, built, len);
        static const uint32_t LINES[8] = {0, 0, 1, 1, 2, 8, 8, 3};
        struct bw_mold_message out[4];
        int max = (op >> 3 & 3) + 1;
        int n = bw_mold_receive(m, LINES[op & 7], datagram, len, now, out, max);
        for (;;) {
            insist(n <= max);
            for (int i = 0; i < n; i++) {
                insist(out[i].data >= datagram + 22 && out[i].data + out[i].len <= datagram + len);
                watch(&model, s, out[i].sequence);
            }
            if (n < max || (op & 0x20 && max == 4)) break; /* the rest is abandoned */
            n = bw_mold_more(m, out, max);
        }
        free(datagram);
        insist(s->lost >= lost && s->displaced >= displaced);
        check(m);
        struct bw_mold_request request[3];
        if (op & 1) {
            int asked = bw_mold_requests(m, now, request, 3);
            insist(asked >= 0 && asked <= 3);
            for (int i = 0; i < asked; i++)
                insist(request[i].count && request[i].sequence >= s->watermark &&
                       request[i].sequence + request[i].count <= s->next_sequence);
            check(m);
        }
    }
    struct bw_mold_gap closed[7];
    uint64_t reports = 0;
    for (int n; (n = bw_mold_closed_gaps(m, closed, 7)) > 0;)
        for (int i = 0; i < n; i++, reports++)
            insist(closed[i].missing == closed[i].reordered + closed[i].other_line +
                                            closed[i].retransmitted + closed[i].lost);
    insist(reports <= 256);
    bw_mold_free(m);
    return 0;
}
