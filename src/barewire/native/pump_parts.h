/* What the parts of a pump share: its memory, and what each does in a turn (pump.h). */
#ifndef BAREWIRE_PUMP_PARTS_H
#define BAREWIRE_PUMP_PARTS_H

#include <time.h>

#include "metric_places.h"
#include "metrics.h"
#include "outbox.h"
#include "pump.h"
#include "ring.h"

#define BURST 64          /* datagrams taken from a source at once, and records from a ring */
#define MATCHES BW_PUMP_FOUND
#define REQUESTS 8        /* retransmission requests a source and turn */
#define NONE 0xffff

/* A source and the datagrams it has lent us. */
struct intake {
    struct bw_pump_source with;
    struct dpb_datagram burst[BURST];
    int count;  /* datagrams lent */
    int next;   /* the first not handed to the feed */
    int more;   /* the feed has more messages of burst[next - 1] */
    int fresh;  /* not recorded yet */
    uint64_t received_mono_ns;
};

/* Shots asked for before the hash was known: which events are whose. */
struct unnamed_events {
    uint64_t seq;
    uint32_t n;
    uint32_t tx;
    uint32_t shot;
    int32_t outcome;
};

struct bw_pump {
    struct bw_pump_config with;
    struct intake intake[BW_PUMP_SOURCES];
    struct dpb_datagram_ref endpoint[BW_PUMP_SOURCES]; /* of the intakes, for outboxes */
    struct dpb_outbox_reader outbox[BW_PUMP_OUTBOXES];
    struct bw_pump_stats stats;
    struct bw_match_stats match_stats;
    uint64_t now; /* the last reading of the clock */
    uint64_t table_seed; /* of the table of this turn */
    int watched;  /* there are metrics, or a recorder */

    const struct bw_message *offered;
    const struct bw_tx *offered_tx;
    uint32_t offers;

    uint32_t taken; /* transactions of this turn */
    uint32_t found;
    uint32_t events;
    uint32_t lents;
    struct lent {
        struct bw_fragments *by;
        struct bw_envelope envelope;
    } lent[BW_PUMP_MESSAGES]; /* put together of fragments, to be given back */
    struct bw_message message[BW_PUMP_MESSAGES];
    struct bw_steps steps[BW_PUMP_MESSAGES];
    struct bw_tx tx[BW_PUMP_MESSAGES];
    uint8_t verdict[BW_PUMP_MESSAGES];
    struct bw_match match[MATCHES];
    struct bw_found handed[MATCHES];
    struct unnamed_events unnamed[MATCHES];
    struct dpb_record crossed[BURST]; /* taken from `before` */
    struct bw_sender_answer answered[BURST];
};

static inline uint64_t bw_pump_clock(struct bw_pump *p) {
    if (p->with.clock_mono_ns) return p->now = *p->with.clock_mono_ns;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return p->now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The time of a step that only the recorder wants to know. */
static inline uint64_t bw_pump_step(struct bw_pump *p) {
    return p->with.recorder ? bw_pump_clock(p) : 0;
}

static inline void bw_pump_observe(const struct bw_pump *p, enum bw_histogram histogram,
                                   uint64_t from, uint64_t to) {
    if (p->with.metrics && to > from) dpb_observe(p->with.metrics, histogram, to - from);
}

/* pump_intake.c: RECEIVE and FEED. */
int bw_intake_receive(struct bw_pump *p);  /* takes what came; returns how many datagrams wait */
void bw_intake_drain(struct bw_pump *p, const struct bw_triggers *table);
void bw_intake_record(struct bw_pump *p);  /* what came in this turn */
int bw_intake_request(struct bw_pump *p);  /* asks for what is missing; returns how many */
void bw_intake_give_back(struct bw_pump *p, struct intake *in);
void bw_intake_return_envelopes(struct bw_pump *p);

/* pump_judge.c: DECODE and TRIGGER. Messages or records [first, taken) are new. */
void bw_judge_messages(struct bw_pump *p, const struct bw_triggers *table, uint32_t first);
void bw_judge_decoded(struct bw_pump *p, const struct bw_triggers *table, uint32_t first);
int bw_judge_offered(struct bw_pump *p, const struct bw_triggers *table);
void bw_judge_settle(struct bw_pump *p);

/* pump_cross.c: the rings between cores. */
void bw_cross_datagrams(struct bw_pump *p);                  /* RECEIVE | FEED, both sides */
int bw_cross_take_datagrams(struct bw_pump *p);
void bw_cross_messages(struct bw_pump *p, uint32_t first);   /* FEED | DECODE */
int bw_cross_take_messages(struct bw_pump *p, const struct bw_triggers *table);
void bw_cross_decoded(struct bw_pump *p, uint32_t first);    /* DECODE | TRIGGER */
int bw_cross_take_decoded(struct bw_pump *p, const struct bw_triggers *table);

#endif
