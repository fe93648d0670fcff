/* Metrics as files: created by the loop that writes them, checked and read by anyone else. */
#ifndef DPDK_BINDINGS_METRICS_FILE_H
#define DPDK_BINDINGS_METRICS_FILE_H

#include <stdbool.h>

#include "metrics.h"

/* <cdef> */
#define DPB_METRICS_WHY 200
#define DPB_METRICS_PLACES 65536 /* counters, and histograms, of one file */

/* Bytes of a file with so many of each. */
uint64_t dpb_metrics_bytes(uint32_t counters, uint32_t histograms);

/* Lays metrics out in `fd`, empty, and maps them; the caller closes `fd`. */
int dpb_metrics_create(int fd, const char *name, uint64_t schema, uint32_t counters,
                       uint32_t histograms, struct dpb_metrics **out, char *why);
/* Maps metrics to be read: -EBADMSG is no such file, or one damaged, -ESTALE one of another
 * schema. */
int dpb_metrics_open(int fd, uint64_t schema, uint32_t counters, uint32_t histograms,
                     struct dpb_metrics **out, char *why);
void dpb_metrics_close(struct dpb_metrics *metrics);

/* The link called `name`, a new one if need be; -1 where there is no place left. */
int dpb_metrics_link(struct dpb_metrics *metrics, const char *name);

/* Values at quantiles[0..n) (0 .. 1), by nearest rank and rounded up by less than 1 %; returns
 * how many values there are. */
uint64_t dpb_histogram_quantiles(const struct dpb_histogram *histogram, const double *quantiles,
                                 uint64_t *values, int n);
/* counts[i]: how many values are <= bounds[i] (ascending), to within a bucket. Returns the total. */
uint64_t dpb_histogram_cumulative(const struct dpb_histogram *histogram, const uint64_t *bounds_ns,
                                  uint64_t *counts, int n);

/* The inline functions of metrics.h, for Python, which may ask for a place that there is not:
 * false, and nothing was written. */
bool dpb_metrics_count(const struct dpb_metrics *metrics, unsigned counter, uint64_t by);
bool dpb_metrics_observe(const struct dpb_metrics *metrics, unsigned histogram, uint64_t ns);
bool dpb_metrics_turn(const struct dpb_metrics *metrics, unsigned kind, uint64_t now_mono_ns);
void dpb_metrics_error(const struct dpb_metrics *metrics, const char *text);
void dpb_metrics_beat(const struct dpb_metrics *metrics);
void dpb_metrics_mark(const struct dpb_metrics *metrics, uint64_t now_mono_ns);
/* </cdef> */

#endif
