#include "pump.h"

#include <stdlib.h>
#include <string.h>

#include "pump_parts.h"

static int runs(const struct bw_pump_config *config, enum bw_stage stage) {
    return config->first <= stage && stage <= config->last;
}

/* Whether there is everything that the section needs. */
static int whole(const struct bw_pump_config *config) {
    int intake = runs(config, BW_STAGE_RECEIVE) || runs(config, BW_STAGE_FEED);
    if (config->first > config->last || config->last > BW_STAGE_TRIGGER ||
        config->sources > BW_PUMP_SOURCES || config->outboxes > BW_PUMP_OUTBOXES ||
        (intake ? !config->sources && !config->offers : config->sources) ||
        (config->offers && !runs(config, BW_STAGE_TRIGGER)))
        return 0;
    int starts = runs(config, BW_STAGE_RECEIVE), ends = runs(config, BW_STAGE_TRIGGER);
    if (starts == !!config->before || ends == !!config->after || (config->outboxes && !starts))
        return 0;
    if (runs(config, BW_STAGE_TRIGGER) &&
        (!config->triggers || !config->dedup || (config->shots && !config->out.ops)))
        return 0;
    for (uint32_t i = 0; i < config->sources; i++) {
        const struct bw_pump_source *source = &config->source[i];
        if (!source->in.ops && (runs(config, BW_STAGE_RECEIVE) || source->request_peer >= 0))
            return 0;
        if (runs(config, BW_STAGE_FEED) && (!source->mold || !source->fragments)) return 0;
    }
    return 1;
}

struct bw_pump *bw_pump_new(const struct bw_pump_config *config) {
    if (!whole(config)) return NULL;
    struct bw_pump *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return NULL;
    memset(p, 0, sizeof *p); /* touches every page now, so that no turn faults */
    p->with = *config;
    p->watched = config->recorder || config->metrics;
    for (uint32_t i = 0; i < config->sources; i++) {
        p->intake[i].with = config->source[i];
        p->endpoint[i] = config->source[i].in;
    }
    for (uint32_t i = 0; i < config->outboxes; i++) p->outbox[i].ring = config->outbox[i];
    return p;
}

void bw_pump_free(struct bw_pump *p) {
    if (!p) return;
    bw_intake_return_envelopes(p);
    for (uint32_t i = 0; i < p->with.sources; i++) bw_intake_give_back(p, &p->intake[i]);
    free(p);
}

void bw_pump_offer(struct bw_pump *p, const struct bw_message *messages, const struct bw_tx *txs,
                   uint32_t n) {
    p->offered = messages;
    p->offered_tx = txs;
    p->offers = n < BW_PUMP_MESSAGES - 64 ? n : BW_PUMP_MESSAGES - 64;
}

/* The pump's own counters, to where anyone may read them. */
static void show(const struct bw_pump *p) {
    const struct bw_pump_stats *s = &p->stats;
    uint64_t lost = 0;
    for (uint32_t i = 0; i < p->with.sources; i++)
        if (p->intake[i].with.mold) lost += bw_mold_stats(p->intake[i].with.mold)->lost;
    uint64_t shown[] = {
        [BW_COUNTER_DATAGRAMS_RECEIVED] = s->datagrams,
        [BW_COUNTER_MESSAGES_DELIVERED] = s->messages,
        [BW_COUNTER_MESSAGES_LOST] = lost,
        [BW_COUNTER_RETRANSMISSIONS_REQUESTED] = s->requests,
        [BW_COUNTER_RETRANSMISSIONS_UNSENT] = s->requests_unsent,
        [BW_COUNTER_TRANSACTIONS_DECODED] = s->transactions,
        [BW_COUNTER_TRANSACTIONS_REFUSED] = s->refused,
        [BW_COUNTER_TRANSACTIONS_RESENT] = s->resent,
        [BW_COUNTER_TRANSACTIONS_FROM_POOLS] = s->from_pools,
        [BW_COUNTER_TRANSACTIONS_QUEUED] = s->queued,
        [BW_COUNTER_TRANSACTIONS_FROM_BLOCKS] = s->from_blocks,
        [BW_COUNTER_TRANSACTIONS_DUPLICATE] = s->duplicates,
        [BW_COUNTER_TRANSACTIONS_MATCHED] = s->matched,
        [BW_COUNTER_SENDERS_RECOVERED] = s->recovered_senders,
        [BW_COUNTER_SIGNATURES_BAD] = s->bad_signatures,
        [BW_COUNTER_SHOTS_ASKED] = s->asked_to_fire,
        [BW_COUNTER_SHOTS_FIRED] = s->fired,
        [BW_COUNTER_DATAGRAMS_SENT] = s->sent,
        [BW_COUNTER_SENDS_REFUSED] = s->sends_refused,
    };
    uint64_t *counters = p->with.metrics->counters;
    if (p->with.senders) {
        const struct bw_sender_stats *senders = bw_senders_stats(p->with.senders);
        shown[BW_COUNTER_SENDERS_ASKED] = senders->queued;
        shown[BW_COUNTER_SENDERS_ANSWERED] = senders->recovered + senders->nobody;
        shown[BW_COUNTER_SENDERS_UNASKED] = senders->refused;
    }
    for (unsigned i = 0; i < sizeof shown / sizeof shown[0]; i++)
        __atomic_store_n(&counters[i], shown[i], __ATOMIC_RELAXED);
}

/* Ends the turn in the metrics. */
static void account(struct bw_pump *p, int busy) {
    const struct dpb_metrics *metrics = p->with.metrics;
    if (busy) {
        uint64_t end = bw_pump_clock(p), begun = metrics->duty->last_mono_ns;
        if (begun) bw_pump_observe(p, BW_HISTOGRAM_TURN_SECONDS, begun, end);
        show(p);
    }
    dpb_duty_turn(metrics->duty, busy ? DPB_DUTY_BUSY : DPB_DUTY_IDLE, p->now);
}

static int send_for_others(struct bw_pump *p) {
    int sent = 0;
    for (uint32_t i = 0; i < p->with.outboxes; i++) {
        const uint64_t *given_up = p->outbox[i].given_up;
        uint64_t late = given_up[DPB_OUTBOX_LATE], no_way = given_up[DPB_OUTBOX_NO_WAY],
                 failed = given_up[DPB_OUTBOX_FAILED];
        sent += dpb_outbox_drain(&p->outbox[i], p->endpoint, p->with.sources, p->now);
        late = given_up[DPB_OUTBOX_LATE] - late;
        no_way = given_up[DPB_OUTBOX_NO_WAY] - no_way;
        failed = given_up[DPB_OUTBOX_FAILED] - failed;
        p->stats.given_up_late += late;
        p->stats.given_up_no_way += no_way;
        p->stats.given_up_failed += failed;
        p->stats.sends_refused += late + no_way + failed;
    }
    p->stats.sent += (uint64_t)sent;
    return sent;
}

int bw_pump_turn(struct bw_pump *p) {
    const struct bw_pump_config *with = &p->with;
    int work;
    p->stats.turns++;
    /* What the last turn received is still there, and nobody waits for it any more. */
    if (with->recorder && with->first == BW_STAGE_RECEIVE) bw_intake_record(p);
    bw_intake_return_envelopes(p);
    p->taken = p->found = p->events = 0;
    const struct bw_triggers *table = with->triggers ? bw_trigger_slot_enter(with->triggers) : NULL;
    if (table) p->table_seed = bw_triggers_seed(table);
    int offered = bw_judge_offered(p, table);
    switch (with->first) {
    case BW_STAGE_RECEIVE:
    case BW_STAGE_FEED:
        work = with->before ? bw_cross_take_datagrams(p) : bw_intake_receive(p);
        if (work && with->last == BW_STAGE_RECEIVE)
            bw_cross_datagrams(p);
        else if (work)
            bw_intake_drain(p, table);
        break;
    case BW_STAGE_DECODE:
        work = bw_cross_take_messages(p, table);
        break;
    default:
        work = bw_cross_take_decoded(p, table);
    }
    if (with->triggers) bw_trigger_slot_leave(with->triggers);
    work += offered;
    p->stats.busy_turns += work > 0;
    if (with->senders)
        work += (int)bw_senders_collect(with->senders, p->answered, BURST, p->now);
    if (p->taken)
        bw_judge_settle(p);
    else
        bw_pump_clock(p);
    if (runs(with, BW_STAGE_FEED)) work += bw_intake_request(p);
    if (with->outboxes) work += send_for_others(p);
    if (with->metrics) account(p, work > 0);
    return (int)p->found;
}

int bw_pump_run(struct bw_pump *p, uint64_t until_mono_ns) {
    int found;
    do found = bw_pump_turn(p);
    while (!found && p->now < until_mono_ns);
    return found;
}

void bw_pump_note_sent(struct bw_pump *p, const struct bw_tx *cause, int32_t peer,
                       const uint8_t *bytes, uint32_t len, int left) {
    if (!left) {
        p->stats.sends_refused++;
        return;
    }
    uint64_t now = bw_pump_clock(p);
    p->stats.sent++;
    if (cause && cause->arrival_clock == DPB_CLOCK_MONO)
        bw_pump_observe(p, BW_HISTOGRAM_WIRE_TO_WIRE_SECONDS, cause->arrival_ns, now);
    if (p->with.recorder)
        bw_record_sent(p->with.recorder, 0, cause ? cause->hash : NULL, peer, bytes, len, now);
}

const struct bw_found *bw_pump_found(const struct bw_pump *p) { return p->handed; }
uint64_t bw_pump_table(const struct bw_pump *p) { return p->table_seed; }
const struct bw_pump_stats *bw_pump_stats(const struct bw_pump *p) { return &p->stats; }
const struct bw_match_stats *bw_pump_match_stats(const struct bw_pump *p) { return &p->match_stats; }
