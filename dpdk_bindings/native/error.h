/* What went wrong, in words for a person: C knows at which step and why, so C writes the sentence.
 * Python raises it. */
#ifndef DPB_ERROR_H
#define DPB_ERROR_H

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

/* Fills in `hint`. */
void dpb_hint(struct dpb_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
