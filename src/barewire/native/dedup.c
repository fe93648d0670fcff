#include "dedup.h"

#include <stdlib.h>
#include <string.h>

#include "siphash.h"

struct entry {
    uint8_t hash[32];
    uint64_t last_mono_ns; /* 0: free */
    uint64_t sources;
    uint64_t arrival_ns;
    uint16_t source;
    uint8_t clock;
    uint8_t queued;        /* nobody has announced it: it was read, behind a gap of nonces */
    uint8_t pad[4];
};
_Static_assert(sizeof(struct entry) == 64, "an entry a cache line");

struct bw_dedup {
    struct entry *entry;
    uint64_t key[2];
    uint64_t buckets_mask;
    uint64_t max_age_ns;
    struct bw_dedup_stats stats;
};

static uint64_t bucket_of(const struct bw_dedup *d, const uint8_t *hash) {
    return bw_siphash16(d->key, hash) & d->buckets_mask;
}

struct bw_dedup *bw_dedup_new(uint32_t entries, uint64_t max_age_ns, const uint8_t *key) {
    if (entries < BW_DEDUP_WAYS || entries > 1u << 28 || (entries & (entries - 1))) return NULL;
    struct bw_dedup *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->entry = aligned_alloc(64, (size_t)entries * sizeof *d->entry);
    if (!d->entry) {
        free(d);
        return NULL;
    }
    memset(d->entry, 0, (size_t)entries * sizeof *d->entry); /* touched now, not on the path */
    memcpy(d->key, key, sizeof d->key);
    d->buckets_mask = entries / BW_DEDUP_WAYS - 1;
    d->max_age_ns = max_age_ns;
    return d;
}

void bw_dedup_free(struct bw_dedup *d) {
    if (!d) return;
    free(d->entry);
    free(d);
}

/* A time before the last is no reason to forget: whoever asks may have read his clock earlier. */
static int within_age(const struct bw_dedup *d, const struct entry *e, uint64_t now_mono_ns) {
    return now_mono_ns < e->last_mono_ns || now_mono_ns - e->last_mono_ns < d->max_age_ns;
}

static uint64_t time_of(uint64_t now_mono_ns) { return now_mono_ns ? now_mono_ns : 1; }

/* The entry of `hash`, or NULL; *oldest is then the one to be forgotten for it. */
static struct entry *find(struct bw_dedup *d, const uint8_t *hash, struct entry **oldest) {
    struct entry *bucket = d->entry + bucket_of(d, hash) * BW_DEDUP_WAYS;
    *oldest = bucket;
    for (struct entry *e = bucket; e < bucket + BW_DEDUP_WAYS; e++) {
        if (e->last_mono_ns && memcmp(e->hash, hash, 32) == 0) return e;
        if (e->last_mono_ns < (*oldest)->last_mono_ns) *oldest = e; /* free ones are the oldest */
    }
    return NULL;
}

/* `source` has it too. */
static int again(struct bw_dedup *d, struct entry *e, uint32_t source, uint64_t now_mono_ns,
                 struct bw_dedup_first *first) {
    *first = (struct bw_dedup_first){e->arrival_ns, e->sources, e->source, e->clock, {0}};
    e->sources |= (uint64_t)1 << source;
    if (now_mono_ns > e->last_mono_ns) e->last_mono_ns = now_mono_ns;
    d->stats.seen++;
    d->stats.seen_of[source]++;
    return 1;
}

/* Read later than another's copy, and there before it. */
static void keep_earliest(struct entry *e, uint32_t source, uint64_t arrival_ns, uint8_t clock,
                          const struct bw_dedup_first *first) {
    if (first->sources >> source & 1 || clock != e->clock || !arrival_ns ||
        arrival_ns >= e->arrival_ns)
        return;
    e->arrival_ns = arrival_ns;
    e->source = (uint16_t)source;
}

static int remember(struct bw_dedup *d, struct entry *e, const uint8_t *hash, uint32_t source,
                    uint64_t arrival_ns, uint8_t clock, uint64_t now_mono_ns) {
    memcpy(e->hash, hash, 32);
    e->last_mono_ns = time_of(now_mono_ns);
    e->sources = (uint64_t)1 << source;
    e->arrival_ns = arrival_ns;
    e->source = (uint16_t)source;
    e->clock = clock;
    e->queued = 0;
    d->stats.first++;
    d->stats.first_of[source]++;
    return 0;
}

static uint32_t told_apart(uint32_t source) {
    return source < BW_DEDUP_SOURCES ? source : BW_DEDUP_SOURCES - 1;
}

int bw_dedup_seen(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t now_mono_ns) {
    struct bw_dedup_first first;
    return bw_dedup_arrived(d, hash, source, 0, 0, now_mono_ns, &first);
}

int bw_dedup_arrived(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t arrival_ns,
                     uint8_t clock, uint64_t now_mono_ns, struct bw_dedup_first *first) {
    struct entry *oldest, *e = find(d, hash, &oldest);
    source = told_apart(source);
    const int live = e && within_age(d, e, now_mono_ns);
    if (live && !e->queued) {
        again(d, e, source, now_mono_ns, first);
        keep_earliest(e, source, arrival_ns, clock, first);
        return 1;
    }
    if (e)
        d->stats.expired += !live;
    else if (oldest->last_mono_ns && within_age(d, oldest, now_mono_ns))
        d->stats.evicted++;
    return remember(d, e ? e : oldest, hash, source, arrival_ns, clock, now_mono_ns);
}

int bw_dedup_read(struct bw_dedup *d, const uint8_t *hash, uint32_t source, int queued,
                  uint64_t now_mono_ns, struct bw_dedup_first *first) {
    struct entry *oldest, *e = find(d, hash, &oldest);
    source = told_apart(source);
    if (e) {
        e->queued &= queued != 0;
        return again(d, e, source, now_mono_ns, first);
    }
    if (oldest->last_mono_ns && within_age(d, oldest, now_mono_ns)) d->stats.evicted++;
    remember(d, oldest, hash, source, 0, 0, now_mono_ns);
    oldest->queued = queued != 0;
    return 0;
}

int bw_dedup_heard(struct bw_dedup *d, const uint8_t *hash, uint32_t source, uint64_t arrival_ns,
                   uint8_t clock, uint64_t now_mono_ns, struct bw_dedup_first *first) {
    struct entry *oldest, *e = find(d, hash, &oldest);
    source = told_apart(source);
    if (!e || e->queued || !within_age(d, e, now_mono_ns)) return 0;
    again(d, e, source, now_mono_ns, first);
    keep_earliest(e, source, arrival_ns, clock, first);
    return 1;
}

uint64_t bw_dedup_sources(const struct bw_dedup *d, const uint8_t *hash) {
    const struct entry *bucket = d->entry + bucket_of(d, hash) * BW_DEDUP_WAYS;
    for (const struct entry *e = bucket; e < bucket + BW_DEDUP_WAYS; e++)
        if (e->last_mono_ns && memcmp(e->hash, hash, 32) == 0) return e->sources;
    return 0;
}

const struct bw_dedup_stats *bw_dedup_stats(const struct bw_dedup *d) { return &d->stats; }
