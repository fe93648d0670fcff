#include "inlet.h"

#include <errno.h>
#include <time.h>

enum { NOTHING = -1 };

static uint64_t mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Reads on what is lent; hands over what is complete. */
static int read_on(struct bw_inlet *in) {
    struct bw_inlet_line *line = &in->line[in->at];
    uint32_t n = bw_txfeed_read(line->feed, in->messages, in->txs, BW_TXFEED_BURST, &in->event);
    line->reading = in->event.kind == BW_TXFEED_MORE;
    in->told = in->event.kind != BW_TXFEED_NONE && !line->reading;
    if (n && !in->pump) {
        in->count = n;
        return BW_INLET_RECORDS;
    }
    if (n) {
        bw_pump_offer(in->pump, in->messages, in->txs, n);
        in->held = 1;
        if ((in->count = (uint32_t)bw_pump_turn(in->pump))) return BW_INLET_FOUND;
    }
    return NOTHING;
}

/* Reads from the next line that has something. Every circle that finds nothing begins one line
 * further on: of lines that have something at the same time none is always asked before another. */
static int read_next(struct bw_inlet *in) {
    for (uint32_t i = 0; i < in->lines; i++) {
        uint32_t at = in->next;
        in->next = at + 1 < in->lines ? at + 1 : 0;
        struct bw_inlet_line *line = &in->line[at];
        struct dpb_stream *stream = line->stream;
        if (!stream || line->paused || !(line->reading || stream->readable)) continue;
        in->at = at;
        if (line->reading) return read_on(in);
        if (!line->feed) return BW_INLET_READABLE;
        const struct dpb_stream_ops *ops = in->endpoint[line->endpoint].ops;
        int got = ops->recv(stream, line->buffer, line->room);
        if (got == -EAGAIN) continue;
        if (got <= 0) return BW_INLET_READABLE; /* it says so again to whoever asks */
        bw_txfeed_lend(line->feed, line->buffer, (size_t)got, stream->arrival_ns, stream->clock);
        return read_on(in);
    }
    in->next = in->next + 1 < in->lines ? in->next + 1 : 0;
    return NOTHING;
}

int bw_inlet_run(struct bw_inlet *in, uint64_t until_mono_ns) {
    for (;;) {
        int what = NOTHING;
        if (in->held) {
            /* The turn behind the one that got them; the event's text waits with the bytes. */
        } else if (in->told) {
            in->told = 0;
            return BW_INLET_EVENT;
        } else {
            for (uint32_t i = 0; i < in->endpoints; i++)
                in->endpoint[i].ops->poll(in->endpoint[i].endpoint);
            what = read_next(in);
        }
        if (what != NOTHING) return what;
        in->held = 0;
        if (in->pump && (in->count = (uint32_t)bw_pump_turn(in->pump))) return BW_INLET_FOUND;
        if (!in->told && mono_ns() >= until_mono_ns) return BW_INLET_TIME;
    }
}
