/* What a hot loop writes down about itself, for anyone to read.
 *
 * One file in shared memory for each loop, written by that loop alone with plain relaxed stores (no
 * locked instruction, no system call), and read by whoever maps it: a command, an exporter, a
 * debugger after a crash. Reading disturbs nobody. What the numbers mean is said once, in the
 * schema that gave the counters and histograms their places; its hash stands in the header, so
 * that a reader of another version says so instead of mixing names up.
 *
 * Histograms are log-linear (as HdrHistogram): integer nanoseconds, 128 steps to each power of
 * two, so that a value is known to better than 1 %, from 0 to 2^36 ns (68 s); beyond that they
 * count in the last bucket, and `max` is exact.
 *
 * Everything belongs to one writing thread. Times are CLOCK_MONOTONIC unless named otherwise.
 * Files are created and opened by native/metrics_file.c. */
#ifndef DPDK_BINDINGS_METRICS_H
#define DPDK_BINDINGS_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* <cdef> */
#define DPB_METRICS_VERSION 3
#define DPB_HISTOGRAM_BUCKETS 3840
#define DPB_LINKS 192
#define DPB_NOTED 64
#define DPB_NOTED_TEXT 216

struct dpb_histogram {
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t reserved[6];
    uint64_t buckets[DPB_HISTOGRAM_BUCKETS];
};

/* What a loop's time went into. */
enum dpb_duty_kind {
    DPB_DUTY_IDLE = 0,         /* looked, and there was nothing */
    DPB_DUTY_BUSY = 1,         /* worked */
    DPB_DUTY_HOUSEKEEPING = 2, /* heartbeats, checks, credit */
    DPB_DUTY_CALLBACK = 3,     /* someone else's code, which the loop called with what it found */
    DPB_DUTY_KINDS = 4,
};

/* Why a turn of the loop took longer than it may: what it was doing, or that it was not running. */
enum dpb_stall_cause {
    DPB_STALL_IDLE = 0,
    DPB_STALL_BUSY = 1,
    DPB_STALL_HOUSEKEEPING = 2,
    DPB_STALL_CALLBACK = 3,    /* whether it worked or slept */
    DPB_STALL_DESCHEDULED = 4, /* stopped, preempted, or waiting in the kernel */
    DPB_STALL_CAUSES = 5,
};

struct dpb_duty {
    uint64_t last_mono_ns; /* end of the last turn; 0: the next turn is the first */
    uint64_t spent_ns[4];  /* by enum dpb_duty_kind */
    uint64_t turns[4];
    uint64_t stall_ns;     /* threshold: a longer turn is a stall */
    uint64_t stalls[5];    /* by enum dpb_stall_cause */
    uint64_t longest_ns[5];
    uint64_t mark_mono_ns; /* last dpb_duty_mark(), and the thread's CPU time then */
    uint64_t mark_cpu_ns;
    uint64_t reserved[2];
};

/* What came over one link: a port's queue, a line of a feed, a ring. */
struct dpb_link {
    char name[88];     /* "" where the place is free */
    uint64_t received; /* frames, datagrams or records */
    uint64_t bytes;
    uint64_t dropped;  /* arrived and were thrown away */
    uint64_t overruns; /* overwritten or lost before they were looked at */
    uint64_t refused;  /* could not be sent: no room */
};

/* Each error once, however often it comes. */
struct dpb_noted {
    uint64_t hash; /* 0: free */
    uint64_t count;
    uint64_t first_real_ns; /* CLOCK_REALTIME */
    uint64_t last_real_ns;
    uint64_t reserved;
    char text[DPB_NOTED_TEXT];
};

struct dpb_metrics_header {
    uint8_t magic[8]; /* "dpbmetr" */
    uint32_t version;
    int32_t pid;
    uint64_t schema; /* hash of the schema that gave the places */
    uint32_t counters;
    uint32_t histograms;
    uint64_t total_bytes;
    uint64_t opened_real_ns;
    uint64_t heartbeat_mono_ns;
    uint64_t errors_lost; /* distinct errors that found no place */
    char name[32];        /* the loop's */
    uint64_t memory_bytes;       /* resident, as last looked at; 0: never */
    uint64_t memory_begin_bytes; /*   and when the loop began */
    uint8_t reserved[16];
};

/* The writer's (or a reader's) view of a mapped file. */
struct dpb_metrics {
    struct dpb_metrics_header *header;
    struct dpb_duty *duty;
    struct dpb_link *links;   /* DPB_LINKS */
    struct dpb_noted *errors; /* DPB_NOTED */
    uint64_t *counters;
    struct dpb_histogram *histograms;
    uint64_t bytes; /* mapped */
};
/* </cdef> */
_Static_assert(sizeof(struct dpb_histogram) == 64 + 8 * DPB_HISTOGRAM_BUCKETS, "whole lines");
_Static_assert(sizeof(struct dpb_duty) == 192, "three cache lines");
_Static_assert(sizeof(struct dpb_link) == 128, "two cache lines");
_Static_assert(sizeof(struct dpb_noted) == 256, "four cache lines");
_Static_assert(sizeof(struct dpb_metrics_header) == 128, "two cache lines");

/* One writer: no locked instruction is needed for a reader never to see half a number. */
static inline void dpb_add(uint64_t *word, uint64_t by)
{
    __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
}

static inline void dpb_count(const struct dpb_metrics *metrics, unsigned counter, uint64_t by)
{
    dpb_add(&metrics->counters[counter], by);
}

/* Bucket of a value: its power of two, and the seven bits behind the first. */
static inline unsigned dpb_histogram_bucket(uint64_t ns)
{
    unsigned shift = 56 - (unsigned)__builtin_clzll(ns | 128);
    unsigned bucket = (shift << 7) + (unsigned)(ns >> shift);
    return bucket < DPB_HISTOGRAM_BUCKETS ? bucket : DPB_HISTOGRAM_BUCKETS - 1;
}

/* Smallest value of a bucket; the next bucket's is one more than its largest. */
static inline uint64_t dpb_histogram_value(unsigned bucket)
{
    unsigned shift = bucket < 256 ? 0 : (bucket >> 7) - 1;
    return (uint64_t)(bucket - (shift << 7)) << shift;
}

static inline void dpb_histogram_record(struct dpb_histogram *histogram, uint64_t ns)
{
    dpb_add(&histogram->buckets[dpb_histogram_bucket(ns)], 1);
    dpb_add(&histogram->sum_ns, ns);
    if (ns > histogram->max_ns)
        __atomic_store_n(&histogram->max_ns, ns, __ATOMIC_RELAXED);
}

static inline void dpb_observe(const struct dpb_metrics *metrics, unsigned histogram, uint64_t ns)
{
    dpb_histogram_record(&metrics->histograms[histogram], ns);
}

static inline uint64_t dpb_thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Housekeeping: notes how much this thread has run (one system call), so that a stall can be told
 * from an absence. Call it at least every few milliseconds, from the thread of the loop. */
static inline void dpb_duty_mark(struct dpb_duty *duty, uint64_t now_mono_ns)
{
    duty->mark_mono_ns = now_mono_ns;
    duty->mark_cpu_ns = dpb_thread_cpu_ns();
}

__attribute__((cold, noinline, unused)) static void dpb_duty_stall(struct dpb_duty *duty,
                                                                   enum dpb_duty_kind kind,
                                                                   uint64_t spent_ns,
                                                                   uint64_t now_mono_ns)
{
    unsigned cause = kind;
    if (duty->mark_mono_ns && kind != DPB_DUTY_CALLBACK) {
        uint64_t passed = now_mono_ns - duty->mark_mono_ns;
        uint64_t ran = dpb_thread_cpu_ns() - duty->mark_cpu_ns;
        if (passed > ran && passed - ran > spent_ns / 2)
            cause = DPB_STALL_DESCHEDULED;
    }
    dpb_add(&duty->stalls[cause], 1);
    if (spent_ns > duty->longest_ns[cause])
        __atomic_store_n(&duty->longest_ns[cause], spent_ns, __ATOMIC_RELAXED);
    dpb_duty_mark(duty, now_mono_ns);
}

/* The end of one turn of the loop, or of one part of it: the time since the last one was `kind`. */
static inline void dpb_duty_turn(struct dpb_duty *duty, enum dpb_duty_kind kind,
                                 uint64_t now_mono_ns)
{
    uint64_t last = duty->last_mono_ns;
    duty->last_mono_ns = now_mono_ns;
    if (__builtin_expect(!last, 0))
        return;
    uint64_t spent = now_mono_ns - last;
    dpb_add(&duty->spent_ns[kind], spent);
    dpb_add(&duty->turns[kind], 1);
    if (__builtin_expect(spent > duty->stall_ns, 0))
        dpb_duty_stall(duty, kind, spent, now_mono_ns);
}

/* Counts an error under its text (cut to DPB_NOTED_TEXT - 1 bytes), which must not hold what varies
 * from one time to the next: numbers belong into counters. */
static inline void dpb_note(const struct dpb_metrics *metrics, const char *text,
                                  uint64_t now_real_ns)
{
    uint64_t hash = 0xcbf29ce484222325u;
    size_t len = strnlen(text, DPB_NOTED_TEXT - 1);
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    hash |= 1;
    for (int i = 0; i < DPB_NOTED; i++) {
        struct dpb_noted *error = &metrics->errors[i];
        if (!error->hash) {
            memcpy(error->text, text, len);
            error->first_real_ns = now_real_ns;
            __atomic_store_n(&error->hash, hash, __ATOMIC_RELEASE);
        }
        if (error->hash == hash) {
            __atomic_store_n(&error->last_real_ns, now_real_ns, __ATOMIC_RELAXED);
            dpb_add(&error->count, 1);
            return;
        }
    }
    dpb_add(&metrics->header->errors_lost, 1);
}

#endif
