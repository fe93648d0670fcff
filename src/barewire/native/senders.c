#include "senders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keccak.h"
#include "secp.h"
#include "siphash.h"

#define WAYS 8
#define TOGETHER 8 /* jobs whose hashes fill the widest unit */

struct known {
    uint8_t hash[32];
    uint8_t address[20];
    uint32_t sender; /* enum bw_sender; BW_SENDER_UNKNOWN: free */
    uint64_t stamp;  /* order of learning */
};
_Static_assert(sizeof(struct known) == 64, "an entry a cache line");

/* One question without an answer. Its ticket is its place and how often the place was used. */
struct waiting {
    uint8_t hash[32];
    struct bw_tx *tx;
    uint64_t cookie;
    uint64_t submitted_mono_ns;
    uint32_t index;
    uint32_t next_free;
    uint32_t uses;  /* odd: in use */
    uint32_t lane;
};

struct lane {
    struct dpb_ring_tx *jobs;
    struct dpb_ring_rx *results;
    uint64_t waiting;
    int damaged; /* its answers cannot be read: it gets no more questions */
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
    for (uint32_t i = 0; i < waiting; i++) s->waiting[i].next_free = i + 1;
    memcpy(s->key, key, sizeof s->key);
    s->buckets_mask = entries / WAYS - 1;
    s->waiting_max = waiting;
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
    if (s->lanes == BW_SENDER_LANES) return -ENOSPC;
    s->lane[s->lanes] = (struct lane){.jobs = jobs, .results = results};
    return (int)s->lanes++;
}

uint64_t bw_senders_lane_waiting(const struct bw_senders *s, uint32_t lane) {
    return lane < s->lanes ? s->lane[lane].waiting : 0;
}

/* ---------------------------------------------------------------- what is known */

static struct known *bucket_of(const struct bw_senders *s, const uint8_t *hash) {
    return s->known + (bw_siphash16(s->key, hash) & s->buckets_mask) * WAYS;
}

enum bw_sender bw_senders_lookup(struct bw_senders *s, const uint8_t *hash, uint8_t *address) {
    const struct known *bucket = bucket_of(s, hash);
    for (const struct known *k = bucket; k < bucket + WAYS; k++)
        if (k->sender != BW_SENDER_UNKNOWN && memcmp(k->hash, hash, 32) == 0) {
            if (k->sender == BW_SENDER_KNOWN) memcpy(address, k->address, 20);
            return (enum bw_sender)k->sender;
        }
    return BW_SENDER_UNKNOWN;
}

void bw_senders_learn(struct bw_senders *s, const uint8_t *hash, const uint8_t *address) {
    struct known *bucket = bucket_of(s, hash), *take = bucket;
    for (struct known *k = bucket; k < bucket + WAYS; k++) {
        if (k->sender != BW_SENDER_UNKNOWN && memcmp(k->hash, hash, 32) == 0) return;
        if (k->stamp < take->stamp) take = k; /* free ones are the oldest */
    }
    if (take->sender != BW_SENDER_UNKNOWN) s->stats.evicted++;
    memcpy(take->hash, hash, 32);
    take->sender = address ? BW_SENDER_KNOWN : BW_SENDER_NOBODY;
    if (address) memcpy(take->address, address, 20);
    take->stamp = ++s->stamp;
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
        if (!lane->damaged && (!least || lane->waiting < least->waiting)) least = lane;
    }
    return least;
}

/* Hands one question to a worker; false where there is no room for it. */
static int ask(struct bw_senders *s, const uint8_t *raw, struct bw_tx *tx, uint32_t index,
               uint64_t cookie, int keep, uint64_t now) {
    struct lane *lane = least_busy(s);
    if (!lane || s->free == s->waiting_max || tx->fields_len > BW_SENDER_JOB - 64 - BW_SIGNING_MORE)
        return 0;
    uint8_t *room = dpb_ring_reserve(lane->jobs, 64 + tx->fields_len + BW_SIGNING_MORE);
    if (!room) return 0;
    const uint32_t place = s->free;
    struct waiting *w = &s->waiting[place];
    s->free = w->next_free;
    memcpy(w->hash, tx->hash, 32);
    w->tx = keep ? tx : NULL;
    w->cookie = cookie;
    w->submitted_mono_ns = now;
    w->index = index;
    w->uses++;
    w->lane = (uint32_t)(lane - s->lane);
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
    uint32_t queued = 0;
    bw_hash_burst(messages, txs, n);
    for (uint32_t i = 0; i < n; i++) {
        struct bw_tx *tx = &txs[i];
        uint8_t address[20];
        if (tx->raw_len == 0 || tx->flags & BW_TX_SENDER) continue;
        enum bw_sender sender = bw_senders_lookup(s, tx->hash, address);
        if (sender != BW_SENDER_UNKNOWN) {
            s->stats.hits++;
            if (sender == BW_SENDER_KNOWN) fill_in(tx, address);
        } else if (ask(s, messages[i].data, tx, i, cookie, keep, now_mono_ns)) {
            queued++;
        } else {
            s->stats.refused++;
        }
    }
    s->stats.queued += queued;
    return queued;
}

/* Joins one answer; false where nobody waits for it. */
static int join(struct bw_senders *s, uint32_t lane, const struct dpb_record *answer,
                struct bw_sender_answer *out, uint64_t now) {
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
    if (address && w->tx) fill_in(w->tx, address);
    *out = (struct bw_sender_answer){
        .tx = w->tx,
        .cookie = w->cookie,
        .index = w->index,
        .sender = address ? BW_SENDER_KNOWN : BW_SENDER_NOBODY,
    };
    uint64_t waited = now - w->submitted_mono_ns;
    s->stats.wait_ns += waited;
    if (waited > s->stats.wait_most_ns) s->stats.wait_most_ns = waited;
    s->stats.work_ns += answer->filter;
    s->stats.waiting--;
    s->lane[lane].waiting--;
    w->uses++;
    w->next_free = s->free;
    s->free = place;
    return 1;
}

uint32_t bw_senders_collect(struct bw_senders *s, struct bw_sender_answer *out, uint32_t max,
                            uint64_t now_mono_ns) {
    uint32_t joined = 0;
    for (uint32_t i = 0; i < s->lanes; i++, s->turn++) {
        const uint32_t lane = s->turn % s->lanes;
        struct dpb_ring_rx *results = s->lane[lane].results;
        struct dpb_record answer[64];
        int n;
        if (s->lane[lane].damaged) continue;
        do {
            uint32_t room = max - joined < 64 ? max - joined : 64;
            if (room == 0) return joined;
            n = dpb_ring_take(results, answer, (int)room);
            if (n < 0) {
                s->lane[lane].damaged = 1;
                s->stats.damaged++;
            }
            for (int a = 0; a < n; a++) {
                if (join(s, lane, &answer[a], &out[joined], now_mono_ns))
                    joined++;
                else
                    s->stats.strange++;
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
