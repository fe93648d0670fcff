#include "pump.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "secp.h"

#define BURST 64          /* datagrams taken from a source at once */
#define MATCHES 1024      /* of one group of transactions, and of one turn */
#define REQUESTS 8        /* retransmission requests a source and turn */

/* A source and the datagrams it has lent us. */
struct intake {
    struct bw_pump_source with;
    struct dpb_datagram burst[BURST];
    int count;  /* datagrams lent */
    int next;   /* the first not handed to the feed */
    int more;   /* the feed has more messages of burst[next - 1] */
};

/* Shots asked for before the hash was known: which events are whose. */
struct unnamed_events {
    uint64_t seq;
    uint32_t n;
    uint32_t tx;
};

struct bw_pump {
    struct bw_pump_config with;
    struct intake intake[BW_PUMP_SOURCES];
    struct bw_pump_stats stats;
    struct bw_match_stats match_stats;

    uint32_t taken; /* transactions of this turn */
    uint32_t found;
    uint32_t events;
    uint32_t lents;
    struct lent {
        struct bw_fragments *by;
        struct bw_envelope envelope;
    } lent[BW_PUMP_MESSAGES]; /* put together of fragments, to be given back */
    struct bw_message message[BW_PUMP_MESSAGES];
    struct bw_tx tx[BW_PUMP_MESSAGES];
    uint8_t verdict[BW_PUMP_MESSAGES];
    struct bw_match match[MATCHES];
    struct bw_found handed[MATCHES];
    struct unnamed_events unnamed[MATCHES];
};

struct bw_pump *bw_pump_new(const struct bw_pump_config *config) {
    if (config->sources == 0 || config->sources > BW_PUMP_SOURCES || !config->triggers ||
        !config->dedup || (config->shots && !config->out.ops))
        return NULL;
    struct bw_pump *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return NULL;
    memset(p, 0, sizeof *p); /* touches every page now, so that no turn faults */
    p->with = *config;
    for (uint32_t i = 0; i < config->sources; i++) {
        const struct bw_pump_source *source = &config->source[i];
        if (!source->in.ops || !source->mold || !source->fragments) {
            free(p);
            return NULL;
        }
        p->intake[i].with = *source;
    }
    return p;
}

static void return_envelopes(struct bw_pump *p) {
    for (uint32_t i = 0; i < p->lents; i++)
        bw_fragments_release(p->lent[i].by, &p->lent[i].envelope);
    p->lents = 0;
}

static void give_back(struct intake *in) {
    if (in->count) in->with.in.ops->release(in->with.in.endpoint, in->burst, in->count);
    in->count = in->next = in->more = 0;
}

void bw_pump_free(struct bw_pump *p) {
    if (!p) return;
    return_envelopes(p);
    for (uint32_t i = 0; i < p->with.sources; i++) give_back(&p->intake[i]);
    free(p);
}

static uint64_t now_mono_ns(const struct bw_pump *p) {
    if (p->with.clock_mono_ns) return *p->with.clock_mono_ns;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Fills in the sender of tx[i]; false where the signature has none. About 30 us, so only for what
 * would fire or match otherwise. */
static int recover(struct bw_pump *p, uint32_t i) {
    struct bw_tx *tx = &p->tx[i];
    uint8_t hash[32], rs[64];
    if (tx->flags & BW_TX_SENDER) return 1;
    bw_signing_hash(p->message[i].data, tx, hash);
    memcpy(rs, tx->r, 32);
    memcpy(rs + 32, tx->s, 32);
    p->stats.recovered_senders++;
    if (bw_secp_recover(hash, rs, tx->y_parity, tx->sender) != 1) {
        p->stats.bad_signatures++;
        return 0;
    }
    tx->flags |= BW_TX_SENDER;
    return 1;
}

static int fire(struct bw_pump *p, const struct bw_match *match, uint32_t i, uint64_t now) {
    struct bw_shots *shots = p->with.shots;
    uint64_t seq = bw_shots_next_event(shots);
    p->stats.asked_to_fire++;
    int outcome =
        bw_shots_fire(shots, match->shot, match->trigger, &p->tx[i], now, &p->with.out);
    if (outcome == BW_SHOT_UNTRUSTED && recover(p, i))
        outcome = bw_shots_fire(shots, match->shot, match->trigger, &p->tx[i], now_mono_ns(p),
                                &p->with.out);
    if (outcome == BW_SHOT_FIRED) p->stats.fired++;
    if (p->events < MATCHES)
        p->unnamed[p->events++] = (struct unnamed_events){
            .seq = seq, .n = (uint32_t)(bw_shots_next_event(shots) - seq), .tx = i};
    return outcome;
}

static void hand_over(struct bw_pump *p, const struct bw_match *match, uint32_t i, int outcome) {
    if (p->found == MATCHES) {
        p->match_stats.overflow++;
        return;
    }
    p->handed[p->found++] = (struct bw_found){
        .tx = &p->tx[i], .raw = p->message[i].data, .match = *match, .outcome = outcome};
}

/* Decodes messages [first, taken), matches them, and fires. */
static void recognise(struct bw_pump *p, const struct bw_triggers *table, uint32_t first,
                      uint64_t now) {
    uint32_t n = p->taken - first;
    uint32_t accepted = bw_decode_burst(&p->message[first], n, &p->with.rules, &p->tx[first],
                                        &p->verdict[first], p->with.refusals);
    p->stats.transactions += accepted;
    p->stats.refused += n - accepted;
    /* What was refused leaves: the records that remain stand without holes, so that one call
     * matches them and another hashes them. */
    uint32_t kept = first;
    for (uint32_t i = first; i < p->taken; i++) {
        if (p->verdict[i] != BW_OK) continue;
        if (kept != i) {
            p->tx[kept] = p->tx[i];
            p->message[kept] = p->message[i];
        }
        kept++;
    }
    p->taken = kept;
    if (!table || kept == first) return;

    int matches = bw_triggers_match(table, &p->message[first], &p->tx[first], (int)(kept - first),
                                    p->match, MATCHES, &p->match_stats);
    for (int m = 0; m < matches; m++) {
        const struct bw_match *match = &p->match[m];
        uint32_t i = first + match->tx;
        if (match->flags & BW_MATCH_NEEDS_SENDER) continue;
        hand_over(p, match, i,
                  match->shot != BW_NO_SHOT && p->with.shots ? fire(p, match, i, now) : -1);
    }
    /* Those whose sender decides: what they already matched was reported above, so of the second
     * answer only what needed the sender is new. It was not reported before because a trigger is
     * either decided without the sender or not at all. */
    for (int m = 0; m < matches; m++) {
        if (!(p->match[m].flags & BW_MATCH_NEEDS_SENDER)) continue;
        uint32_t i = first + p->match[m].tx;
        if (!recover(p, i)) continue;
        struct bw_match again[BW_MATCHES_PER_TX];
        int n_again = bw_triggers_match(table, &p->message[i], &p->tx[i], 1, again,
                                        BW_MATCHES_PER_TX, &p->match_stats);
        for (int k = 0; k < n_again; k++) {
            int reported = 0;
            for (uint32_t h = p->found; h-- > 0 && p->handed[h].tx == &p->tx[i];)
                reported |= p->handed[h].match.trigger == again[k].trigger;
            if (reported) continue;
            hand_over(p, &again[k], i,
                      again[k].shot != BW_NO_SHOT && p->with.shots ? fire(p, &again[k], i, now)
                                                                   : -1);
        }
    }
}

/* Takes one feed message: a transaction, or a fragment that may complete one. */
static void take(struct bw_pump *p, struct intake *in, const struct bw_mold_message *message,
                 const struct dpb_datagram *datagram, uint64_t now) {
    struct bw_envelope envelope;
    p->stats.messages++;
    if (bw_fragments_push(in->with.fragments, in->with.number, message->data, message->len, now,
                          &envelope) != 1)
        return;
    if (envelope.slot >= 0)
        p->lent[p->lents++] = (struct lent){.by = in->with.fragments, .envelope = envelope};
    p->message[p->taken++] = (struct bw_message){
        .data = envelope.data,
        .len = envelope.len,
        .arrival_ns = datagram->arrival_ns,
        .clock = datagram->clock,
        .source = in->with.number,
        .flags = in->with.trusted ? BW_MESSAGE_TRUSTED : 0,
    };
}

/* Works through what `in` has lent, as far as there is room. */
static void drain(struct bw_pump *p, struct intake *in, const struct bw_triggers *table) {
    struct bw_mold_message message[BW_PUMP_MESSAGES];
    while (in->next < in->count || in->more) {
        /* A refused transaction gives its place back, an envelope that was lent does not. */
        uint32_t used = p->taken > p->lents ? p->taken : p->lents;
        int room = (int)(BW_PUMP_MESSAGES - used);
        if (!room) return;
        uint64_t now = now_mono_ns(p);
        const struct dpb_datagram *datagram;
        int n;
        if (in->more) {
            datagram = &in->burst[in->next - 1];
            n = bw_mold_more(in->with.mold, message, room);
        } else {
            datagram = &in->burst[in->next++];
            p->stats.datagrams++;
            uint8_t line = datagram->channel < BW_PUMP_CHANNELS
                               ? in->with.line[datagram->channel]
                               : BW_PUMP_NO_LINE;
            n = bw_mold_receive(in->with.mold, line, datagram->data, datagram->len, now, message,
                                room);
        }
        in->more = n == room;
        if (n <= 0) continue;
        uint32_t first = p->taken;
        for (int i = 0; i < n; i++) take(p, in, &message[i], datagram, now);
        if (p->taken > first) recognise(p, table, first, now);
    }
}

/* After the shots: names what was fired, and drops the matches of transactions seen before. */
static void settle(struct bw_pump *p, uint64_t now) {
    bw_hash_burst(p->message, p->tx, p->taken);
    for (uint32_t e = 0; e < p->events; e++)
        bw_shots_note_hash(p->with.shots, p->unnamed[e].seq, p->unnamed[e].n,
                           p->tx[p->unnamed[e].tx].hash);
    for (uint32_t i = 0; i < p->taken; i++) {
        int seen = bw_dedup_seen(p->with.dedup, p->tx[i].hash, p->tx[i].source, now);
        p->verdict[i] = (uint8_t)seen; /* the verdicts have been counted: their place is free */
        p->stats.duplicates += (uint64_t)seen;
    }
    uint32_t kept = 0;
    for (uint32_t f = 0; f < p->found; f++)
        if (!p->verdict[p->handed[f].tx - p->tx]) p->handed[kept++] = p->handed[f];
    p->found = kept;
    p->stats.matched += kept;
}

static void request(struct bw_pump *p, struct intake *in, uint64_t now) {
    struct bw_mold_request due[REQUESTS];
    int n = bw_mold_requests(in->with.mold, now, due, REQUESTS);
    if (n == 0 || in->with.request_peer < 0) return;
    const struct dpb_datagram_ops *ops = in->with.in.ops;
    void *endpoint = in->with.in.endpoint;
    for (int i = 0; i < n; i++) {
        uint8_t *room = ops->reserve(endpoint, in->with.request_peer, sizeof due[i].packet);
        if (!room) {
            p->stats.requests_unsent++;
            continue;
        }
        memcpy(room, due[i].packet, sizeof due[i].packet);
        if (ops->commit(endpoint, sizeof due[i].packet) < 0)
            p->stats.requests_unsent++;
        else
            p->stats.requests++;
    }
    ops->flush(endpoint);
}

int bw_pump_turn(struct bw_pump *p) {
    uint32_t lent = 0;
    p->stats.turns++;
    return_envelopes(p);
    p->taken = p->found = p->events = 0;
    for (uint32_t i = 0; i < p->with.sources; i++) {
        struct intake *in = &p->intake[i];
        if (in->next == in->count && !in->more) {
            give_back(in);
            in->count = in->with.in.ops->recv(in->with.in.endpoint, in->burst, BURST);
            if (in->count < 0) in->count = 0; /* the endpoint has counted why */
        }
        lent += (uint32_t)in->count;
    }
    if (lent) {
        p->stats.busy_turns++;
        const struct bw_triggers *table = bw_trigger_slot_enter(p->with.triggers);
        for (uint32_t i = 0; i < p->with.sources; i++) drain(p, &p->intake[i], table);
        bw_trigger_slot_leave(p->with.triggers);
    }
    uint64_t now = now_mono_ns(p);
    if (p->taken) settle(p, now);
    for (uint32_t i = 0; i < p->with.sources; i++)
        if (now >= bw_mold_due_mono_ns(p->intake[i].with.mold)) request(p, &p->intake[i], now);
    return (int)p->found;
}

const struct bw_found *bw_pump_found(const struct bw_pump *p) { return p->handed; }
const struct bw_pump_stats *bw_pump_stats(const struct bw_pump *p) { return &p->stats; }
const struct bw_match_stats *bw_pump_match_stats(const struct bw_pump *p) { return &p->match_stats; }
