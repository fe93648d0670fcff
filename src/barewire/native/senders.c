#include "senders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keccak.h"
#include "secp.h"
#include "siphash.h"

#define WAYS 8
#define ASKED 3        /* known.sender beyond enum bw_sender: a worker has it */
#define NO_LANE UINT32_MAX
#define TOGETHER 8 /* jobs whose hashes fill the widest unit */

struct known {
    uint8_t hash[32];
    uint8_t address[20]; /* ASKED: its first four bytes are the place in waiting[] */
    uint32_t sender; /* enum bw_sender, or ASKED; BW_SENDER_UNKNOWN: free */
    uint64_t stamp;  /* order of learning */
};
_Static_assert(sizeof(struct known) == 64, "an entry a cache line");

/* One question without an answer. Its ticket is its place and how often the place was used. Who asks
 * the same has a place of his own behind it, without a ticket. */
struct waiting {
    uint8_t hash[32];
    struct bw_tx *tx;
    uint64_t cookie;
    uint64_t submitted_mono_ns;
    uint32_t index;
    uint32_t next;  /* the next free place; in use: the next who waits for the same answer */
    uint32_t uses;  /* odd: in use */
    uint32_t lane;  /* NO_LANE: waits behind another */
};

struct lane {
    struct dpb_ring_tx *jobs;
    struct dpb_ring_rx *results;
    uint64_t waiting;
    uint32_t lost; /* places before this one hold none of its lost jobs */
    int gone;      /* dropped, or its answers cannot be read: it gets no more questions */
};

struct bw_senders {
    struct known *known;
    struct waiting *waiting;
    uint64_t key[2];
    uint64_t buckets_mask;
    uint64_t stamp;
    uint32_t waiting_max;
    uint32_t free; /* first free place of waiting[]; waiting_max: none */
    uint32_t lanes;
    uint32_t turn; /* the lane that collecting begins with */
    uint32_t told; /* first place of those who wait for the last answer; waiting_max: none */
    uint32_t answer; /* that answer: enum bw_sender */
    uint8_t address[20];
    struct lane lane[BW_SENDER_LANES];
    struct bw_sender_stats stats;
};

struct bw_senders *bw_senders_new(uint32_t entries, uint32_t waiting, const uint8_t *key) {
    if (entries < WAYS || entries > 1u << 26 || (entries & (entries - 1)) || waiting == 0 ||
        waiting > 1u << 20)
        return NULL;
    struct bw_senders *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->known = aligned_alloc(64, (size_t)entries * sizeof *s->known);
    s->waiting = malloc((size_t)waiting * sizeof *s->waiting);
    if (!s->known || !s->waiting) {
        bw_senders_free(s);
        return NULL;
    }
    memset(s->known, 0, (size_t)entries * sizeof *s->known); /* touched now, not on the path */
    memset(s->waiting, 0, (size_t)waiting * sizeof *s->waiting);
    for (uint32_t i = 0; i < waiting; i++) s->waiting[i].next = i + 1;
    memcpy(s->key, key, sizeof s->key);
    s->buckets_mask = entries / WAYS - 1;
    s->waiting_max = s->told = waiting;
    return s;
}

void bw_senders_free(struct bw_senders *s) {
    if (!s) return;
    free(s->known);
    free(s->waiting);
    free(s);
}

int bw_senders_add_lane(struct bw_senders *s, struct dpb_ring_tx *jobs,
                        struct dpb_ring_rx *results) {
    uint32_t lane = 0;
    while (lane < s->lanes && (s->lane[lane].jobs || s->lane[lane].waiting)) lane++;
    if (lane == BW_SENDER_LANES) return -ENOSPC;
    if (lane == s->lanes) s->lanes++;
    s->lane[lane] = (struct lane){.jobs = jobs, .results = results};
    return (int)lane;
}

static void give_up(struct lane *lane) {
    lane->gone = 1;
    lane->lost = 0;
}

void bw_senders_drop_lane(struct bw_senders *s, uint32_t lane) {
    if (lane >= s->lanes) return;
    give_up(&s->lane[lane]);
    s->lane[lane].jobs = NULL;
    s->lane[lane].results = NULL;
}

uint64_t bw_senders_lane_waiting(const struct bw_senders *s, uint32_t lane) {
    return lane < s->lanes ? s->lane[lane].waiting : 0;
}

/* ---------------------------------------------------------------- what is known */

static struct known *bucket_of(const struct bw_senders *s, const uint8_t *hash) {
    return s->known + (bw_siphash16(s->key, hash) & s->buckets_mask) * WAYS;
}

static struct known *find(struct known *bucket, const uint8_t *hash) {
    for (struct known *k = bucket; k < bucket + WAYS; k++)
        if (k->sender != BW_SENDER_UNKNOWN && memcmp(k->hash, hash, 32) == 0) return k;
    return NULL;
}

/* The entry of `hash`, or one taken for it. */
static struct known *entry_of(struct bw_senders *s, const uint8_t *hash) {
    struct known *bucket = bucket_of(s, hash), *take = find(bucket, hash);
    if (take) return take;
    take = bucket;
    for (struct known *k = bucket; k < bucket + WAYS; k++)
        if (k->stamp < take->stamp) take = k; /* free ones are the oldest */
    if (take->sender == BW_SENDER_KNOWN || take->sender == BW_SENDER_NOBODY) s->stats.evicted++;
    memcpy(take->hash, hash, 32);
    take->sender = BW_SENDER_UNKNOWN;
    take->stamp = ++s->stamp;
    return take;
}

static enum bw_sender known(const struct known *k, uint8_t *address) {
    if (!k || k->sender == ASKED) return BW_SENDER_UNKNOWN;
    if (k->sender == BW_SENDER_KNOWN) memcpy(address, k->address, 20);
    return (enum bw_sender)k->sender;
}

enum bw_sender bw_senders_lookup(struct bw_senders *s, const uint8_t *hash, uint8_t *address) {
    return known(find(bucket_of(s, hash), hash), address);
}

void bw_senders_learn(struct bw_senders *s, const uint8_t *hash, const uint8_t *address) {
    struct known *k = entry_of(s, hash);
    k->sender = address ? BW_SENDER_KNOWN : BW_SENDER_NOBODY;
    if (address) memcpy(k->address, address, 20);
}

static void fill_in(struct bw_tx *tx, const uint8_t *address) {
    memcpy(tx->sender, address, 20);
    tx->flags |= BW_TX_SENDER;
}

/* ---------------------------------------------------------------- the hot core's side */

static struct lane *least_busy(struct bw_senders *s) {
    struct lane *least = NULL;
    for (uint32_t i = 0; i < s->lanes; i++) {
        struct lane *lane = &s->lane[i];
        if (!lane->gone && (!least || lane->waiting < least->waiting)) least = lane;
    }
    return least;
}

/* Takes a free place for one who waits; the caller has seen that there is one. */
static struct waiting *sit(struct bw_senders *s, struct bw_tx *tx, uint32_t index, uint64_t cookie,
                           int keep, uint64_t now) {
    struct waiting *w = &s->waiting[s->free];
    s->free = w->next;
    memcpy(w->hash, tx->hash, 32);
    w->tx = keep ? tx : NULL;
    w->cookie = cookie;
    w->submitted_mono_ns = now;
    w->index = index;
    w->next = s->waiting_max;
    w->uses++;
    return w;
}

/* The place of who waits for what `k` says a worker has, or NULL: that was long ago. */
static struct waiting *asked_for(struct bw_senders *s, const struct known *k) {
    uint32_t place;
    if (!k || k->sender != ASKED) return NULL;
    memcpy(&place, k->address, sizeof place);
    struct waiting *w = &s->waiting[place];
    if (!(w->uses & 1) || w->lane == NO_LANE || s->lane[w->lane].gone ||
        memcmp(w->hash, k->hash, 32))
        return NULL;
    return w;
}

/* Hands one question to a worker; false where there is no room for it. */
static int ask(struct bw_senders *s, const uint8_t *raw, struct bw_tx *tx, uint32_t index,
               uint64_t cookie, int keep, uint64_t now) {
    struct lane *lane = least_busy(s);
    if (!lane || s->free == s->waiting_max || tx->fields_len > BW_SENDER_JOB - 64 - BW_SIGNING_MORE)
        return 0;
    uint8_t *room = dpb_ring_reserve(lane->jobs, 64 + tx->fields_len + BW_SIGNING_MORE);
    if (!room) return 0;
    struct waiting *w = sit(s, tx, index, cookie, keep, now);
    const uint32_t place = (uint32_t)(w - s->waiting);
    w->lane = (uint32_t)(lane - s->lane);
    struct known *k = entry_of(s, tx->hash);
    k->sender = ASKED;
    memcpy(k->address, &place, sizeof place);
    memcpy(room, tx->r, 32);
    memcpy(room + 32, tx->s, 32);
    struct dpb_record job = {
        .len = 64 + bw_signing_bytes(raw, tx, room + 64),
        .kind = tx->y_parity,
        .user = (uint64_t)w->uses << 32 | place,
    };
    dpb_ring_commit(lane->jobs, &job, now);
    lane->waiting++;
    if (++s->stats.waiting > s->stats.waiting_most) s->stats.waiting_most = s->stats.waiting;
    return 1;
}

uint32_t bw_senders_submit(struct bw_senders *s, const struct bw_message *messages,
                           struct bw_tx *txs, uint32_t n, uint64_t cookie, int keep,
                           uint64_t now_mono_ns) {
    uint32_t queued = 0, behind = 0;
    bw_hash_burst(messages, txs, n);
    for (uint32_t i = 0; i < n; i++) {
        struct bw_tx *tx = &txs[i];
        uint8_t address[20];
        if (tx->raw_len == 0 || tx->flags & BW_TX_SENDER) continue;
        const struct known *k = find(bucket_of(s, tx->hash), tx->hash);
        enum bw_sender sender = known(k, address);
        struct waiting *first = asked_for(s, k);
        if (sender != BW_SENDER_UNKNOWN) {
            s->stats.hits++;
            if (sender == BW_SENDER_KNOWN) fill_in(tx, address);
        } else if (first && !keep) {
            s->stats.shared++;
        } else if (first && s->free != s->waiting_max) {
            struct waiting *w = sit(s, tx, i, cookie, keep, now_mono_ns);
            w->lane = NO_LANE;
            w->next = first->next;
            first->next = (uint32_t)(w - s->waiting);
            s->stats.shared++;
            behind++;
        } else if (first) {
            s->stats.refused++;
        } else if (ask(s, messages[i].data, tx, i, cookie, keep, now_mono_ns)) {
            queued++;
        } else {
            s->stats.refused++;
        }
    }
    s->stats.queued += queued;
    return queued + behind;
}

/* An answer for who sits at `place` and those behind; `address` NULL: there is none. */
static void answered(struct bw_senders *s, uint32_t place, enum bw_sender sender,
                     const uint8_t *address) {
    struct waiting *w = &s->waiting[place];
    s->told = place;
    s->answer = sender;
    if (address) memcpy(s->address, address, 20);
    s->stats.waiting--;
    s->lane[w->lane].waiting--;
}

/* Tells the last answer to those who wait for it; returns how many found room. */
static uint32_t tell(struct bw_senders *s, struct bw_sender_answer *out, uint32_t max) {
    uint32_t n = 0;
    while (s->told != s->waiting_max && n < max) {
        const uint32_t place = s->told;
        struct waiting *w = &s->waiting[place];
        if (s->answer == BW_SENDER_KNOWN && w->tx) fill_in(w->tx, s->address);
        out[n++] = (struct bw_sender_answer){
            .tx = w->tx, .cookie = w->cookie, .index = w->index, .sender = s->answer};
        s->told = w->next;
        w->uses++;
        w->next = s->free;
        s->free = place;
    }
    return n;
}

/* Takes one answer in; false where nobody waits for it. */
static int join(struct bw_senders *s, uint32_t lane, const struct dpb_record *answer,
                uint64_t now) {
    const uint32_t place = (uint32_t)answer->user, uses = (uint32_t)(answer->user >> 32);
    if (place >= s->waiting_max || (answer->len && answer->len != BW_SENDER_RESULT)) return 0;
    struct waiting *w = &s->waiting[place];
    if (w->uses != uses || !(uses & 1) || w->lane != lane) return 0;
    const uint8_t *address = answer->len ? answer->data : NULL;
    if (address)
        s->stats.recovered++;
    else
        s->stats.nobody++;
    bw_senders_learn(s, w->hash, address);
    uint64_t waited = now - w->submitted_mono_ns;
    s->stats.wait_ns += waited;
    if (waited > s->stats.wait_most_ns) s->stats.wait_most_ns = waited;
    s->stats.work_ns += answer->filter;
    answered(s, place, address ? BW_SENDER_KNOWN : BW_SENDER_NOBODY, address);
    return 1;
}

/* Tells those who wait for a lane that was given up. */
static uint32_t tell_lost(struct bw_senders *s, uint32_t lane, struct bw_sender_answer *out,
                          uint32_t max) {
    uint32_t told = 0;
    for (struct lane *l = &s->lane[lane]; l->waiting && told < max; l->lost++) {
        const struct waiting *w = &s->waiting[l->lost];
        if (!(w->uses & 1) || w->lane != lane) continue;
        s->stats.lost++;
        answered(s, l->lost, BW_SENDER_UNKNOWN, NULL);
        told += tell(s, out + told, max - told);
    }
    return told;
}

uint32_t bw_senders_collect(struct bw_senders *s, struct bw_sender_answer *out, uint32_t max,
                            uint64_t now_mono_ns) {
    uint32_t joined = tell(s, out, max);
    for (uint32_t i = 0; i < s->lanes; i++, s->turn++) {
        const uint32_t lane = s->turn % s->lanes;
        struct dpb_ring_rx *results = s->lane[lane].results;
        struct dpb_record answer[64];
        int n;
        if (s->lane[lane].gone) {
            joined += tell_lost(s, lane, out + joined, max - joined);
            continue;
        }
        do {
            uint32_t room = max - joined < 64 ? max - joined : 64;
            if (room == 0) return joined;
            n = dpb_ring_take(results, answer, (int)room);
            if (n < 0) {
                give_up(&s->lane[lane]);
                s->stats.damaged++;
            }
            for (int a = 0; a < n; a++) {
                if (joined == max) { /* several waited for one answer: the rest is taken again */
                    results->next = answer[a].seq;
                    n = a;
                } else if (join(s, lane, &answer[a], now_mono_ns)) {
                    joined += tell(s, out + joined, max - joined);
                } else {
                    s->stats.strange++;
                }
            }
            if (n > 0) dpb_ring_ack(results, answer[n - 1].seq);
        } while (n == 64);
    }
    return joined;
}

const struct bw_sender_stats *bw_senders_stats(const struct bw_senders *s) { return &s->stats; }

/* ---------------------------------------------------------------- the worker's side */

static uint64_t mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int bw_senders_work(struct dpb_ring_rx *jobs, struct dpb_ring_tx *results) {
    struct dpb_record job[TOGETHER];
    struct bw_keccak_job hashing[TOGETHER];
    uint8_t digest[TOGETHER][32];
    uint64_t begin = mono_ns();
    if (!bw_secp_path()) return BW_SENDER_ABSENT;
    int n = dpb_ring_take(jobs, job, TOGETHER);
    if (n <= 0) return n ? BW_SENDER_DAMAGED : 0;
    for (int i = 0; i < n; i++) {
        if (job[i].len < 64) return BW_SENDER_DAMAGED;
        hashing[i] = (struct bw_keccak_job){job[i].data + 64, digest[i], job[i].len - 64, -1};
    }
    bw_keccak256_many(hashing, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        uint8_t *room = dpb_ring_reserve(results, BW_SENDER_RESULT);
        if (!room) {
            jobs->next = job[i].seq; /* they are taken again, without those answered */
            return BW_SENDER_FULL;
        }
        int known = bw_secp_recover(digest[i], job[i].data, job[i].kind & 1, room) == 1;
        uint64_t end = mono_ns();
        struct dpb_record answer = {
            .len = known ? BW_SENDER_RESULT : 0, .user = job[i].user, .filter = end - begin};
        begin = end;
        dpb_ring_commit(results, &answer, end);
        dpb_ring_ack(jobs, job[i].seq);
    }
    return n;
}
