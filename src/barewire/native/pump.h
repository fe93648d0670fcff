/* The pump: datagrams in, shots fired and matches out, one native call a turn.
 *
 * Everything between a packet's arrival and a decision is composed here and nowhere else: receive,
 * MoldUDP64, reassembly, decoding, triggers, shots, then hashing and de-duplication. The order is
 * the point. What can send (decode, match, fire) runs datagram by datagram, so that the first
 * packet of a burst does not wait for its neighbours; what can wait (Keccak, de-duplication, the
 * request for what is missing, the flight recorder) runs once a burst, after the shots have left.
 *
 *     for each source:  recv -> mold -> reassemble -> decode -> match -> fire    per datagram
 *                       '---'  '---------------'     '----'     '-----------'
 *                      RECEIVE       FEED            DECODE        TRIGGER
 *     then:             hash the burst -> de-duplicate -> hand matches to Python
 *     then:             ask for what both lines lost; send for other cores; record
 *
 * A pump runs a *section* of the path: the stages from `first` to `last`. One core runs all four
 * and needs no ring. Where the path is cut, the core in front publishes into a lossy ring what the
 * core behind takes from it (docs/decisions/0005-a-core-runs-a-section.md):
 *
 *     RECEIVE | FEED       datagrams as they came
 *     FEED | DECODE        struct bw_steps, and a whole envelope
 *     DECODE | TRIGGER     struct bw_steps, struct bw_tx, and the envelope
 *
 * What a core behind sends (shots, requests) goes through a lossless ring, an outbox, to the core
 * that has RECEIVE, to which the endpoints belong (dpdk_bindings/outbox.h).
 *
 * A turn never blocks and allocates nothing. It takes what it has room for and leaves the rest for
 * the next turn; what it hands out stays valid until then, because the datagrams are only given
 * back when the next turn begins.
 *
 * Ownership: the pump borrows every part it is given (endpoints, receivers, tables, rings); they
 * must outlive it. One thread. */
#ifndef BAREWIRE_PUMP_H
#define BAREWIRE_PUMP_H

#include "arbiter.h"
#include "datagram.h"
#include "decode.h"
#include "dedup.h"
#include "fragment.h"
#include "mold.h"
#include "senders.h"
#include "shot.h"
#include "trace.h"
#include "trigger.h"

/* <cdef> */
#define BW_PUMP_SOURCES 16
#define BW_PUMP_CHANNELS 16    /* of one source's endpoint */
#define BW_PUMP_MESSAGES 256   /* transactions in one turn */
#define BW_PUMP_FOUND 1024     /* matches of one turn, and of one group of transactions */
#define BW_PUMP_NO_LINE 0xff   /* a channel that carries no copy of the feed */
#define BW_PUMP_OUTBOXES 3     /* cores that one with RECEIVE sends for */
#define BW_PUMP_PUBLISHERS 8   /* that one source listens to */

/* The stages of the path, in its order. */
enum bw_stage {
    BW_STAGE_RECEIVE = 0,
    BW_STAGE_FEED = 1,
    BW_STAGE_DECODE = 2,
    BW_STAGE_TRIGGER = 3,
};

/* Who may send a feed: an address as in struct dpb_datagram. */
struct bw_pump_publisher {
    uint8_t family;                     /* 4 or 6 */
    uint8_t address[16];
};

/* One feed: an endpoint whose channels are the lines of one MoldUDP64 sequence. Without RECEIVE
 * `in` is where requests leave by (an outbox, say) and is not received from. */
struct bw_pump_source {
    struct dpb_datagram_ref in;
    struct bw_mold *mold;               /* NULL without FEED, as `fragments` */
    struct bw_fragments *fragments;
    int32_t request_peer;               /* who retransmits, a peer of `in`; -1: nobody */
    uint16_t number;                    /* tx.source */
    uint8_t trusted;                    /* 1: its transactions may fire without a checked sender */
    uint8_t publishers;                 /* how many there are of: */
    struct bw_pump_publisher publisher[BW_PUMP_PUBLISHERS]; /* heard; all others with 0 of them */
    uint8_t line[BW_PUMP_CHANNELS];     /* of each channel: its line, BW_MOLD_RETRANSMISSION, or
                                         * BW_PUMP_NO_LINE */
};

struct bw_pump_config {
    uint32_t first;                     /* enum bw_stage: the section that this pump runs */
    uint32_t last;
    uint32_t sources;                   /* 0 without RECEIVE and FEED */
    uint32_t outboxes;
    uint32_t offers;                    /* 1: records are offered too; then `sources` may be 0 */
    uint32_t reserved;
    struct bw_pump_source source[BW_PUMP_SOURCES];
    struct dpb_ring_rx *before;         /* lossy, from the core in front; NULL with RECEIVE */
    struct dpb_ring_tx *after;          /* lossy, to the core behind; NULL with TRIGGER */
    struct dpb_ring_rx *outbox[BW_PUMP_OUTBOXES]; /* what other cores want sent, with RECEIVE */
    struct bw_rules rules;
    struct bw_refusals *refusals;       /* counts what the decoder refuses */
    struct bw_trigger_slot *triggers;   /* NULL without TRIGGER, as `dedup` */
    struct bw_shots *shots;             /* NULL: nothing fires */
    struct dpb_datagram_ref out;        /* by which shots leave; unused without shots */
    struct bw_dedup *dedup;
    struct bw_senders *senders;         /* asked who signed what is new, and what is known is used;
                                         * nobody else collects its answers. NULL: only what would
                                         * fire or match is recovered, here */
    struct bw_arbiter *arbiter;         /* compares sources too; over `dedup`; may be NULL */
    struct dpb_ring_tx *recorder;       /* lossy: trace.h; NULL: nothing is recorded */
    const struct dpb_metrics *metrics;  /* NULL: nothing is measured */
    const uint64_t *clock_mono_ns;      /* NULL: this host's CLOCK_MONOTONIC; else a clock that the
                                         * caller moves, for replay */
};

/* A transaction that met a trigger, for Python. Valid until the next turn. */
struct bw_found {
    const struct bw_tx *tx;
    const uint8_t *raw;                 /* tx->raw_len bytes */
    struct bw_match match;              /* match.tx is meaningless here */
    int32_t outcome;                    /* enum bw_shot_outcome where the trigger had a shot, or -1 */
    uint32_t raw_len;
};

struct bw_pump_stats {
    uint64_t turns;
    uint64_t busy_turns;                /* that received something */
    uint64_t datagrams;
    uint64_t messages;                  /* delivered by the feeds, each sequence number once */
    uint64_t transactions;              /* decoded and accepted, offered ones included */
    uint64_t refused;                   /* see the decoder's refusals for the causes */
    uint64_t resent;                    /* of `transactions`: missed, and sent again, */
    uint64_t from_pools;                /*   read from a node's pool, */
    uint64_t queued;                    /*   read from one and not executable there, */
    uint64_t from_blocks;               /*   or in a block; all others were announced */
    uint64_t duplicates;                /* the same hash, seen before */
    uint64_t matched;                   /* matches on transactions not seen before */
    uint64_t asked_to_fire;
    uint64_t fired;
    uint64_t recovered_senders;         /* signatures checked before something could fire or match */
    uint64_t bad_signatures;            /*   of which no sender could be recovered */
    uint64_t requests;                  /* for retransmission, sent */
    uint64_t strangers;                 /* datagrams of others than the publishers, not looked at */
    uint64_t requests_unsent;           /*   and not: no room, or no next hop yet */
    uint64_t handed_on;                 /* to the core behind */
    uint64_t not_handed_on;             /*   and not: longer than the ring takes */
    uint64_t sent;                      /* datagrams handed to endpoints, other cores' included */
    uint64_t sends_refused;             /*   and not: halted, no room, no next hop, no journal; */
    uint64_t given_up_late;             /*   of these, of another core that had handed it over: found
                                         *   behind its expiry, */
    uint64_t given_up_no_way;           /*   without room or a next hop for 10 ms, */
    uint64_t given_up_failed;           /*   or taken by the endpoint, which could not send it */
};

struct bw_pump;

/* NULL: no memory, or a configuration that lacks a part of its section. Copies `config`. */
struct bw_pump *bw_pump_new(const struct bw_pump_config *config);

/* Gives back the datagrams that are still held, and the pump's own memory. */
void bw_pump_free(struct bw_pump *p);

/* Records for the next turn, decoded and hashed (by a txfeed, say), at most BW_PUMP_MESSAGES - 64.
 * They and what they point to must stay until the turn behind that one. Needs TRIGGER, and `offers`.
 * As they have their hash, duplicates are dropped before anything can fire. */
void bw_pump_offer(struct bw_pump *p, const struct bw_message *messages, const struct bw_tx *txs,
                   uint32_t n);

/* One turn. Returns how many were found (bw_pump_found()[0..n)), 0 mostly. */
int bw_pump_turn(struct bw_pump *p);

/* Turns until something was found, or until `until_mono_ns`. Returns as bw_pump_turn(). */
int bw_pump_run(struct bw_pump *p, uint64_t until_mono_ns);

/* Counts and records what Python sent (`left`: it left, or was refused) because of `cause`, which
 * may be NULL. */
void bw_pump_note_sent(struct bw_pump *p, const struct bw_tx *cause, int32_t peer,
                       const uint8_t *bytes, uint32_t len, int left);

/* The array that bw_pump_turn() fills; the same one every time. */
const struct bw_found *bw_pump_found(const struct bw_pump *p);

/* The seed (trigger.h) of the table that those matches are of. */
uint64_t bw_pump_table(const struct bw_pump *p);

const struct bw_pump_stats *bw_pump_stats(const struct bw_pump *p);
const struct bw_match_stats *bw_pump_match_stats(const struct bw_pump *p);
/* </cdef> */

#endif
