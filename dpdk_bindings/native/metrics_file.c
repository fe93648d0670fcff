#define _GNU_SOURCE
#include "metrics_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t MAGIC[8] = "dpbmetr";

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((format(printf, 3, 4))) static int fail(char *why, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, DPB_METRICS_WHY, format, args);
    va_end(args);
    return -error;
}

uint64_t dpb_metrics_bytes(uint32_t counters, uint32_t histograms)
{
    return sizeof(struct dpb_metrics_header) + sizeof(struct dpb_duty) +
           DPB_LINKS * sizeof(struct dpb_link) + DPB_NOTED * sizeof(struct dpb_noted) +
           ((uint64_t)counters * 8 + 63) / 64 * 64 + histograms * sizeof(struct dpb_histogram);
}

static struct dpb_metrics *map_metrics(int fd, int protection, uint32_t counters,
                                       uint32_t histograms)
{
    struct dpb_metrics *metrics = calloc(1, sizeof *metrics);
    uint64_t bytes = dpb_metrics_bytes(counters, histograms);
    uint8_t *at = metrics ? mmap(NULL, bytes, protection, MAP_SHARED | MAP_POPULATE, fd, 0)
                          : MAP_FAILED;
    if (at == MAP_FAILED) {
        free(metrics);
        return NULL;
    }
    metrics->bytes = bytes;
    metrics->header = (struct dpb_metrics_header *)at;
    at += sizeof *metrics->header;
    metrics->duty = (struct dpb_duty *)at;
    at += sizeof *metrics->duty;
    metrics->links = (struct dpb_link *)at;
    at += DPB_LINKS * sizeof *metrics->links;
    metrics->errors = (struct dpb_noted *)at;
    at += DPB_NOTED * sizeof *metrics->errors;
    metrics->counters = (uint64_t *)at;
    at += ((uint64_t)counters * 8 + 63) / 64 * 64;
    metrics->histograms = (struct dpb_histogram *)at;
    return metrics;
}

int dpb_metrics_create(int fd, const char *name, uint64_t schema, uint32_t counters,
                       uint32_t histograms, struct dpb_metrics **out, char *why)
{
    if (counters > DPB_METRICS_PLACES || histograms > DPB_METRICS_PLACES)
        return fail(why, EINVAL, "%u counters and %u histograms: at most %u of each", counters,
                    histograms, DPB_METRICS_PLACES);
    uint64_t bytes = dpb_metrics_bytes(counters, histograms);
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error)
        return fail(why, error, "no room for %llu bytes: %s", (unsigned long long)bytes,
                    strerror(error));
    struct dpb_metrics *metrics = map_metrics(fd, PROT_READ | PROT_WRITE, counters, histograms);
    if (!metrics)
        return fail(why, errno, "it cannot be mapped: %s", strerror(errno));
    struct dpb_metrics_header *header = metrics->header;
    header->version = DPB_METRICS_VERSION;
    header->pid = getpid();
    header->schema = schema;
    header->counters = counters;
    header->histograms = histograms;
    header->total_bytes = bytes;
    header->opened_real_ns = clock_ns(CLOCK_REALTIME);
    header->heartbeat_mono_ns = clock_ns(CLOCK_MONOTONIC);
    strncpy(header->name, name, sizeof header->name - 1);
    metrics->duty->stall_ns = 1000000;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(header->magic, MAGIC, sizeof MAGIC);
    *out = metrics;
    return 0;
}

int dpb_metrics_open(int fd, uint64_t schema, uint32_t counters, uint32_t histograms,
                     struct dpb_metrics **out, char *why)
{
    struct stat file;
    struct dpb_metrics_header header;
    uint64_t bytes = dpb_metrics_bytes(counters, histograms);
    if (fstat(fd, &file))
        return fail(why, errno, "%s", strerror(errno));
    if (!S_ISREG(file.st_mode) || pread(fd, &header, sizeof header, 0) != sizeof header ||
        memcmp(header.magic, MAGIC, sizeof MAGIC))
        return fail(why, EBADMSG, "no metrics: it does not begin with \"dpbmetr\"");
    if (header.version != DPB_METRICS_VERSION || header.schema != schema ||
        header.counters != counters || header.histograms != histograms)
        return fail(why, ESTALE, "written by another version, whose metrics have other places");
    if (header.total_bytes != bytes || (uint64_t)file.st_size != bytes)
        return fail(why, EBADMSG, "damaged: %lld bytes, and it takes %llu", (long long)file.st_size,
                    (unsigned long long)bytes);
    *out = map_metrics(fd, PROT_READ, counters, histograms);
    return *out ? 0 : fail(why, errno, "it cannot be mapped: %s", strerror(errno));
}

void dpb_metrics_close(struct dpb_metrics *metrics)
{
    munmap(metrics->header, metrics->bytes);
    free(metrics);
}

int dpb_metrics_link(struct dpb_metrics *metrics, const char *name)
{
    for (int i = 0; i < DPB_LINKS; i++) {
        char *there = metrics->links[i].name;
        if (!*there)
            strncpy(there, name, sizeof metrics->links[i].name - 1);
        if (!strncmp(there, name, sizeof metrics->links[i].name - 1))
            return i;
    }
    return -1;
}

static uint64_t total_of(const struct dpb_histogram *histogram)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < DPB_HISTOGRAM_BUCKETS; i++)
        total += __atomic_load_n(&histogram->buckets[i], __ATOMIC_RELAXED);
    return total;
}

uint64_t dpb_histogram_quantiles(const struct dpb_histogram *histogram, const double *quantiles,
                                 uint64_t *values, int n)
{
    uint64_t total = total_of(histogram);
    uint64_t max = __atomic_load_n(&histogram->max_ns, __ATOMIC_RELAXED);
    for (int q = 0; q < n; q++) {
        uint64_t rank = (uint64_t)ceil(quantiles[q] * (double)total), seen = 0;
        values[q] = max;
        for (unsigned i = 0; total && i + 1 < DPB_HISTOGRAM_BUCKETS; i++) {
            seen += __atomic_load_n(&histogram->buckets[i], __ATOMIC_RELAXED);
            if (seen >= rank && seen) {
                uint64_t last = dpb_histogram_value(i + 1) - 1;
                values[q] = last < max ? last : max;
                break;
            }
        }
    }
    return total;
}

uint64_t dpb_histogram_cumulative(const struct dpb_histogram *histogram, const uint64_t *bounds_ns,
                                  uint64_t *counts, int n)
{
    uint64_t seen = 0;
    unsigned bucket = 0;
    for (int i = 0; i < n; i++) {
        for (; bucket < DPB_HISTOGRAM_BUCKETS && dpb_histogram_value(bucket) <= bounds_ns[i];
             bucket++)
            seen += __atomic_load_n(&histogram->buckets[bucket], __ATOMIC_RELAXED);
        counts[i] = seen;
    }
    for (; bucket < DPB_HISTOGRAM_BUCKETS; bucket++)
        seen += __atomic_load_n(&histogram->buckets[bucket], __ATOMIC_RELAXED);
    return seen;
}

bool dpb_metrics_count(const struct dpb_metrics *metrics, unsigned counter, uint64_t by)
{
    if (counter >= metrics->header->counters)
        return false;
    dpb_count(metrics, counter, by);
    return true;
}

bool dpb_metrics_observe(const struct dpb_metrics *metrics, unsigned histogram, uint64_t ns)
{
    if (histogram >= metrics->header->histograms)
        return false;
    dpb_observe(metrics, histogram, ns);
    return true;
}

void dpb_metrics_error(const struct dpb_metrics *metrics, const char *text)
{
    dpb_note(metrics, text, clock_ns(CLOCK_REALTIME));
}

void dpb_metrics_beat(const struct dpb_metrics *metrics)
{
    __atomic_store_n(&metrics->header->heartbeat_mono_ns, clock_ns(CLOCK_MONOTONIC),
                     __ATOMIC_RELAXED);
}

bool dpb_metrics_turn(const struct dpb_metrics *metrics, unsigned kind, uint64_t now_mono_ns)
{
    if (kind >= DPB_DUTY_KINDS)
        return false;
    dpb_duty_turn(metrics->duty, (enum dpb_duty_kind)kind, now_mono_ns);
    return true;
}

void dpb_metrics_mark(const struct dpb_metrics *metrics, uint64_t now_mono_ns)
{
    dpb_duty_mark(metrics->duty, now_mono_ns);
}
