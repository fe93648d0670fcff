#include "arbiter.h"

#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "txrecord.h"

struct place {
    struct bw_arbiter_source counts;
    struct dpb_histogram lead, lag;
};

struct bw_arbiter {
    struct bw_dedup *dedup;
    uint32_t sources;
    struct place place[];
};

struct bw_arbiter *bw_arbiter_new(struct bw_dedup *dedup, uint32_t sources) {
    if (sources == 0 || sources > BW_DEDUP_SOURCES) return NULL;
    const size_t size = sizeof(struct bw_arbiter) + sources * sizeof(struct place);
    struct bw_arbiter *a = malloc(size);
    if (!a) return NULL;
    memset(a, 0, size); /* touched now, not on the path */
    a->dedup = dedup;
    a->sources = sources;
    return a;
}

void bw_arbiter_free(struct bw_arbiter *a) { free(a); }

/* `source` brought at `arrival_ns` what `first` says came before. */
static void compare(struct bw_arbiter *a, uint32_t source, uint64_t arrival_ns, uint8_t clock,
                    const struct bw_dedup_first *first) {
    struct place *late = &a->place[source], *early = &a->place[first->source];
    const int second = (first->sources & (first->sources - 1)) == 0; /* one source before us */
    uint64_t by;
    if (first->clock != clock) {
        late->counts.unlike_clocks++;
        return;
    }
    if (arrival_ns >= first->arrival_ns) {
        by = arrival_ns - first->arrival_ns;
    } else {
        struct place *swap = late;
        late = early;
        early = swap;
        by = first->arrival_ns - arrival_ns;
        late->counts.overtaken++;
        late->counts.earliest--;
        early->counts.earliest++;
    }
    dpb_histogram_record(&late->lag, by);
    if (second) dpb_histogram_record(&early->lead, by);
}

/* `source` has what `first` says somebody brought before. */
static void note_again(struct bw_arbiter *a, uint32_t source, uint64_t arrival_ns, uint8_t clock,
                       int filled, const struct bw_dedup_first *first) {
    struct bw_arbiter_source *counts = &a->place[source].counts;
    if (first->sources >> source & 1) {
        counts->repeated++;
        return;
    }
    counts->behind++;
    if (!filled && first->arrival_ns && first->source < a->sources)
        compare(a, source, arrival_ns, clock, first);
}

int bw_arbiter_take(struct bw_arbiter *a, uint32_t source, const uint8_t *hash,
                    uint64_t arrival_ns, uint8_t clock, uint8_t origin, uint64_t now_mono_ns) {
    struct bw_dedup_first first;
    const int filled = origin >= BW_ORIGIN_POOL;
    if (source >= a->sources) source = a->sources - 1;
    struct bw_arbiter_source *counts = &a->place[source].counts;
    if (!filled) counts->last_mono_ns = now_mono_ns;
    int known = filled ? bw_dedup_read(a->dedup, hash, source, origin == BW_ORIGIN_QUEUED,
                                       now_mono_ns, &first)
                       : bw_dedup_arrived(a->dedup, hash, source, arrival_ns, clock, now_mono_ns,
                                          &first);
    if (known) {
        note_again(a, source, arrival_ns, clock, filled, &first);
        return 0;
    }
    counts->first += !filled;
    counts->earliest += !filled;
    counts->filled += filled;
    if (!filled) counts->last_first_mono_ns = now_mono_ns;
    return 1;
}

int bw_arbiter_heard(struct bw_arbiter *a, uint32_t source, const uint8_t *hash,
                     uint64_t arrival_ns, uint8_t clock, uint64_t now_mono_ns) {
    struct bw_dedup_first first;
    if (source >= a->sources) source = a->sources - 1;
    a->place[source].counts.last_mono_ns = now_mono_ns;
    if (!bw_dedup_heard(a->dedup, hash, source, arrival_ns, clock, now_mono_ns, &first)) return 0;
    note_again(a, source, arrival_ns, clock, 0, &first);
    return 1;
}

const struct bw_arbiter_source *bw_arbiter_source(const struct bw_arbiter *a, uint32_t source) {
    return &a->place[source].counts;
}
const struct dpb_histogram *bw_arbiter_lead(const struct bw_arbiter *a, uint32_t source) {
    return &a->place[source].lead;
}
const struct dpb_histogram *bw_arbiter_lag(const struct bw_arbiter *a, uint32_t source) {
    return &a->place[source].lag;
}
