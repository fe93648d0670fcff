/* What went wrong, in words for a person: C knows at which step and why, so C writes the sentence.
 * Python raises it. */
#ifndef DPB_ERROR_H
#define DPB_ERROR_H

#include <stdint.h>

/* <cdef> */
struct dpb_error {
    int code;        /* a positive errno; 0: nothing happened */
    char what[512];  /* what was wrong, with name and value */
    char hint[512];  /* what to do about it, or empty */
    char log[16384]; /* the verifier's own words, or empty */
};
/* </cdef> */

/* Fills in `what` and `code`; gives -code back, so that `return dpb_fail(...)` reads well.
 * `error` may be NULL. The errno's own text is appended. */
int dpb_fail(struct dpb_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills in `hint` with those of these capabilities that the process lacks, as the kernel says now
 * (capabilities(7)); where it lacks none of them, that something else forbids it. */
#define DPB_CAP_NET_ADMIN (UINT64_C(1) << 12) /* linux/capability.h */
#define DPB_CAP_NET_RAW (UINT64_C(1) << 13)
#define DPB_CAP_IPC_LOCK (UINT64_C(1) << 14)
#define DPB_CAP_BPF (UINT64_C(1) << 39)
void dpb_hint_capabilities(struct dpb_error *error, uint64_t needed);

/* Fills in `hint`. */
void dpb_hint(struct dpb_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
