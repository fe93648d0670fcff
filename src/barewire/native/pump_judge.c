/* Decode and trigger: from envelopes to shots and matches. */
#include <string.h>

#include "pump_parts.h"
#include "secp.h"

/* Fills in the sender of tx[i]; false where the signature has none. About 30 us where it is not
 * known yet, so only for what would fire or match otherwise. */
static int recover(struct bw_pump *p, uint32_t i) {
    struct bw_tx *tx = &p->tx[i];
    uint8_t hash[32], rs[64];
    if (tx->flags & BW_TX_SENDER) return 1;
    if (p->with.senders) {
        bw_hash_burst(&p->message[i], tx, 1);
        enum bw_sender known = bw_senders_lookup(p->with.senders, tx->hash, tx->sender);
        if (known == BW_SENDER_KNOWN) tx->flags |= BW_TX_SENDER;
        if (known != BW_SENDER_UNKNOWN) return known == BW_SENDER_KNOWN;
    }
    bw_signing_hash(p->message[i].data, tx, hash);
    memcpy(rs, tx->r, 32);
    memcpy(rs + 32, tx->s, 32);
    p->stats.recovered_senders++;
    int known = bw_secp_recover(hash, rs, tx->y_parity, tx->sender);
    if (known == 1)
        tx->flags |= BW_TX_SENDER;
    else
        p->stats.bad_signatures++;
    if (p->with.senders && known != BW_SECP_ABSENT)
        bw_senders_learn(p->with.senders, tx->hash, known ? tx->sender : NULL);
    return known == 1;
}

/* What was not announced is counted by how it came. */
static void count_origin(struct bw_pump_stats *stats, const struct bw_tx *tx) {
    switch (tx->origin) {
    case BW_ORIGIN_RESENT: stats->resent++; break;
    case BW_ORIGIN_POOL: stats->from_pools++; break;
    case BW_ORIGIN_QUEUED: stats->queued++; break;
    case BW_ORIGIN_BLOCK: stats->from_blocks++; break;
    default: break;
    }
}

static int fire(struct bw_pump *p, const struct bw_match *match, uint32_t i) {
    struct bw_shots *shots = p->with.shots;
    const struct bw_tx *tx = &p->tx[i];
    uint64_t seq = bw_shots_next_event(shots);
    p->stats.asked_to_fire++;
    int any_origin = match->flags & BW_MATCH_ORIGIN;
    int outcome = bw_shots_fire(shots, match->shot, match->trigger, tx, any_origin, p->now,
                                &p->with.out);
    if (outcome == BW_SHOT_UNTRUSTED && recover(p, i))
        outcome = bw_shots_fire(shots, match->shot, match->trigger, tx, any_origin,
                                bw_pump_clock(p), &p->with.out);
    p->steps[i].fired_mono_ns = p->watched ? bw_pump_clock(p) : p->now;
    if (outcome == BW_SHOT_FIRED) {
        p->stats.fired++;
        if (tx->arrival_clock == DPB_CLOCK_MONO)
            bw_pump_observe(p, BW_HISTOGRAM_WIRE_TO_WIRE_SECONDS, tx->arrival_ns,
                            p->steps[i].fired_mono_ns);
    } else if (outcome == BW_SHOT_NO_ROOM || outcome == BW_SHOT_JOURNAL ||
               outcome == BW_SHOT_SEND_FAILED || outcome == BW_SHOT_HALTED) {
        p->stats.sends_refused++;
    }
    if (p->events < MATCHES)
        p->unnamed[p->events++] =
            (struct unnamed_events){.seq = seq,
                                    .n = (uint32_t)(bw_shots_next_event(shots) - seq),
                                    .tx = i,
                                    .shot = match->shot,
                                    .outcome = outcome};
    return outcome;
}

static void hand_over(struct bw_pump *p, const struct bw_match *match, uint32_t i) {
    int outcome = match->shot != BW_NO_SHOT && p->with.shots ? fire(p, match, i) : -1;
    if (p->found == MATCHES) {
        p->match_stats.overflow++;
        return;
    }
    p->handed[p->found++] = (struct bw_found){.tx = &p->tx[i],
                                              .raw = p->message[i].data,
                                              .match = *match,
                                              .outcome = outcome,
                                              .raw_len = p->tx[i].raw_len};
}

void bw_judge_messages(struct bw_pump *p, const struct bw_triggers *table, uint32_t first) {
    uint32_t n = p->taken - first;
    uint32_t accepted = bw_decode_burst(&p->message[first], n, &p->with.rules, &p->tx[first],
                                        &p->verdict[first], p->with.refusals);
    uint64_t decoded = bw_pump_step(p);
    p->stats.transactions += accepted;
    p->stats.refused += n - accepted;
    /* What was refused leaves: the records that remain stand without holes, so that one call
     * matches them and another hashes them. */
    uint32_t kept = first;
    for (uint32_t i = first; i < p->taken; i++) {
        p->steps[i].decoded_mono_ns = decoded;
        if (p->verdict[i] != BW_OK) {
            if (p->with.recorder)
                bw_record_refused(p->with.recorder, &p->message[i], &p->steps[i], p->verdict[i],
                                  p->now);
            continue;
        }
        if (__builtin_expect(p->tx[i].origin != BW_ORIGIN_ANNOUNCED, 0))
            count_origin(&p->stats, &p->tx[i]);
        if (kept != i) {
            p->tx[kept] = p->tx[i];
            p->message[kept] = p->message[i];
            p->steps[kept] = p->steps[i];
        }
        kept++;
    }
    p->taken = kept;
    if (kept == first) return;
    if (p->with.last == BW_STAGE_DECODE)
        bw_cross_decoded(p, first);
    else
        bw_judge_decoded(p, table, first);
}

void bw_judge_decoded(struct bw_pump *p, const struct bw_triggers *table, uint32_t first) {
    if (!table) return;
    int matches =
        (int)bw_triggers_match(table, &p->message[first], &p->tx[first], p->taken - first,
                               p->match, MATCHES, &p->match_stats);
    uint64_t matched = p->with.recorder ? bw_pump_clock(p) : p->now;
    for (uint32_t i = first; i < p->taken; i++) p->steps[i].matched_mono_ns = matched;
    for (int m = 0; m < matches; m++)
        if (!(p->match[m].flags & BW_MATCH_NEEDS_SENDER))
            hand_over(p, &p->match[m], first + p->match[m].tx);
    /* Those whose sender decides: what they already matched was reported above, so of the second
     * answer only what needed the sender is new. It was not reported before because a trigger is
     * either decided without the sender or not at all. */
    for (int m = 0; m < matches; m++) {
        if (!(p->match[m].flags & BW_MATCH_NEEDS_SENDER)) continue;
        uint32_t i = first + p->match[m].tx;
        if (!recover(p, i)) continue;
        struct bw_match again[BW_MATCHES_PER_TX];
        int n_again = (int)bw_triggers_match(table, &p->message[i], &p->tx[i], 1, again,
                                             BW_MATCHES_PER_TX, &p->match_stats);
        p->steps[i].matched_mono_ns = bw_pump_clock(p);
        for (int k = 0; k < n_again; k++) {
            int reported = 0;
            for (uint32_t h = p->found; h-- > 0 && p->handed[h].tx == &p->tx[i];)
                reported |= p->handed[h].match.trigger == again[k].trigger;
            if (!reported) hand_over(p, &again[k], i);
        }
    }
}

/* Whether transaction i came before. */
static int seen(struct bw_pump *p, uint32_t i) {
    const struct bw_tx *tx = &p->tx[i];
    struct bw_dedup_first first;
    int known;
    if (p->with.arbiter)
        known = !bw_arbiter_take(p->with.arbiter, tx->source, tx->hash, tx->arrival_ns,
                                 tx->arrival_clock, tx->origin, p->now);
    else if (tx->origin >= BW_ORIGIN_POOL)
        known = bw_dedup_read(p->with.dedup, tx->hash, tx->source, tx->origin == BW_ORIGIN_QUEUED,
                              p->now, &first);
    else
        known = bw_dedup_seen(p->with.dedup, tx->hash, tx->source, p->now);
    p->stats.duplicates += (uint64_t)known;
    return known;
}

int bw_judge_offered(struct bw_pump *p, const struct bw_triggers *table) {
    const uint32_t first = p->taken, n = p->offers;
    if (!n) return 0;
    bw_pump_clock(p);
    p->offers = 0;
    p->stats.transactions += n;
    for (uint32_t i = 0; i < n; i++) {
        p->tx[p->taken] = p->offered_tx[i];
        count_origin(&p->stats, &p->tx[p->taken]);
        p->message[p->taken] = p->offered[i];
        p->steps[p->taken] = (struct bw_steps){
            .received_mono_ns = p->now, .fed_mono_ns = p->now, .decoded_mono_ns = p->now};
        if (seen(p, p->taken)) continue;
        p->message[p->taken++].flags |= BW_MESSAGE_NEW;
    }
    if (p->taken > first) bw_judge_decoded(p, table, first);
    return (int)n;
}

/* What left because of shots: their bytes are still in the book. */
static void record_shots(struct bw_pump *p) {
    for (uint32_t e = 0; e < p->events; e++) {
        const struct unnamed_events *event = &p->unnamed[e];
        const struct bw_shot_spec *spec;
        if (event->outcome != BW_SHOT_FIRED || !(spec = bw_shots_spec(p->with.shots, event->shot)))
            continue;
        for (uint32_t i = 0; i < spec->peer_count; i++)
            bw_record_sent(p->with.recorder, 0, p->tx[event->tx].hash, spec->peers[i], spec->bytes,
                           spec->len, p->steps[event->tx].fired_mono_ns);
    }
}

/* Every transaction's way. Matches of one are close together in `handed`, but not in one piece. */
static void record_traces(struct bw_pump *p) {
    uint16_t first[BW_PUMP_MESSAGES], next[MATCHES];
    memset(first, 0xff, p->taken * sizeof first[0]);
    for (uint32_t h = p->found; h-- > 0;) {
        uint32_t i = (uint32_t)(p->handed[h].tx - p->tx);
        next[h] = first[i];
        first[i] = (uint16_t)h;
    }
    for (uint32_t i = 0; i < p->taken; i++) {
        struct bw_trace trace = {.steps = p->steps[i], .duplicate = p->verdict[i]};
        trace.steps.settled_mono_ns = p->now;
        for (uint16_t h = first[i]; h != NONE && trace.matches < BW_TRACE_MATCHES; h = next[h]) {
            const struct bw_found *found = &p->handed[h];
            trace.match[trace.matches++] = (struct bw_traced_match){.trigger = found->match.trigger,
                                                                    .outcome = found->outcome,
                                                                    .shot = found->match.shot,
                                                                    .flags = found->match.flags};
        }
        bw_record_trace(p->with.recorder, &trace, &p->tx[i], p->message[i].data, p->now);
    }
}

/* After the shots: names what was fired, and drops the matches of transactions seen before. */
void bw_judge_settle(struct bw_pump *p) {
    bw_hash_burst(p->message, p->tx, p->taken);
    for (uint32_t e = 0; e < p->events; e++)
        bw_shots_note_hash(p->with.shots, p->unnamed[e].seq, p->unnamed[e].n,
                           p->tx[p->unnamed[e].tx].hash);
    uint64_t now = bw_pump_clock(p);
    /* The verdicts have been counted: their place is free. */
    for (uint32_t i = 0; i < p->taken; i++)
        p->verdict[i] = p->message[i].flags & BW_MESSAGE_NEW ? 0 : (uint8_t)seen(p, i);
    if (p->with.senders)
        for (uint32_t i = 0; i < p->taken; i++)
            if (!p->verdict[i])
                bw_senders_submit(p->with.senders, &p->message[i], &p->tx[i], 1, 0, 0, now);
    if (p->with.recorder) {
        record_shots(p);
        record_traces(p);
    }
    for (uint32_t e = 0; e < p->events; e++)
        if (p->unnamed[e].outcome == BW_SHOT_FIRED)
            p->stats.sent += bw_shots_spec(p->with.shots, p->unnamed[e].shot)->peer_count;
    uint32_t kept = 0;
    for (uint32_t f = 0; f < p->found; f++) {
        const struct bw_tx *tx = p->handed[f].tx;
        if (p->verdict[tx - p->tx]) continue;
        if (tx->arrival_clock == DPB_CLOCK_MONO)
            bw_pump_observe(p, BW_HISTOGRAM_WIRE_TO_MATCH_SECONDS, tx->arrival_ns, now);
        p->handed[kept++] = p->handed[f];
    }
    p->found = kept;
    p->stats.matched += kept;
}
