/* Times the metric calls of dpdk_bindings/metrics.h in isolation: `calls` of each, back to back, on
 * the metrics of a real file; returns nanoseconds for all of them. The values observed differ, as
 * they do on a path, so that not one bucket's line is hit over and over. */
#include <stdint.h>
#include <time.h>

#include "metric_places.h"
#include "metrics.h"

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_value(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return 5000 + (*seed >> 52); /* 5 to 9 us */
}

uint64_t bench_record(struct dpb_metrics *m, int calls) {
    uint64_t seed = 1, begin = now_ns();
    for (int i = 0; i < calls; i++) dpb_histogram_record(&m->histograms[0], next_value(&seed));
    return now_ns() - begin;
}

/* As native/pump.c and pump_judge.c do for a turn with one datagram that fires and is matched. */
uint64_t bench_packet(struct dpb_metrics *m, int calls) {
    uint64_t shown[BW_COUNTER_SENDS_REFUSED + 1] = {0}, seed = 1, at = now_ns(), begin = at;
    for (int i = 0; i < calls; i++) {
        uint64_t took = next_value(&seed);
        dpb_observe(m, BW_HISTOGRAM_WIRE_TO_WIRE_SECONDS, took);
        dpb_observe(m, BW_HISTOGRAM_WIRE_TO_MATCH_SECONDS, took + 500);
        dpb_observe(m, BW_HISTOGRAM_TURN_SECONDS, took - 300);
        for (unsigned c = 0; c < sizeof shown / sizeof shown[0]; c++) {
            __asm__ volatile("" : "+m"(shown[c])); /* the pump's words live in memory */
            __atomic_store_n(&m->counters[c], shown[c], __ATOMIC_RELAXED);
        }
        dpb_duty_turn(m->duty, DPB_DUTY_BUSY, at += 900);
    }
    return now_ns() - begin;
}

uint64_t bench_idle(struct dpb_metrics *m, int calls) {
    uint64_t at = now_ns(), begin = at;
    m->duty->last_mono_ns = at;
    for (int i = 0; i < calls; i++) dpb_duty_turn(m->duty, DPB_DUTY_IDLE, at += 90);
    return now_ns() - begin;
}

uint64_t bench_clock(struct dpb_metrics *m, int calls) {
    uint64_t begin = now_ns(), last = 0;
    for (int i = 0; i < calls; i++) last ^= now_ns();
    m->duty->mark_cpu_ns = last;
    return now_ns() - begin;
}
