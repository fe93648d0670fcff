/* Walking a JSON text (RFC 8259) that nobody vouches for, and hexadecimal digits in it.
 *
 * There is no tree and no list of tokens: the caller walks forward and either looks at a value or
 * steps over it, and in both cases every byte has been checked when it is behind. Strings are
 * looked at sixteen bytes at a time, which is where the time goes: nearly all of a transaction is
 * hexadecimal digits in quotes. */
#ifndef BAREWIRE_JSONTEXT_H
#define BAREWIRE_JSONTEXT_H

#include <stdint.h>

#include "txjson.h"

#define BW_JSON_TRY(expression)                                             \
    do {                                                                    \
        enum bw_json_cause cause_try_ = (expression);                       \
        if (__builtin_expect(cause_try_ != BW_JSON_OK, 0)) return cause_try_; \
    } while (0)

struct bw_json_text {
    const uint8_t *at, *end;
    uint8_t *scratch;   /* where strings with escapes are written without them; as long as the text */
    uint32_t depth;
    uint32_t left;      /* values, and escapes in strings, that may still come */
};

/* What stands between the quotes, escapes undone: in the text, or in the scratch. */
struct bw_json_string {
    const uint8_t *at;
    uint32_t len;
};

/* Steps over white space; BW_JSON_SYNTAX at the end of the text, else *at can be looked at. */
static inline enum bw_json_cause bw_json_space(struct bw_json_text *t) {
    while (t->at < t->end) {
        uint8_t c = *t->at;
        if (c > ' ') return BW_JSON_OK;
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return BW_JSON_SYNTAX;
        t->at++;
    }
    return BW_JSON_SYNTAX;
}

/* The string that begins at the cursor. */
enum bw_json_cause bw_json_string(struct bw_json_text *t, struct bw_json_string *out);

/* Steps over any value. */
enum bw_json_cause bw_json_skip(struct bw_json_text *t);

/* Steps into an object or array at the cursor; *more: it has a first member. */
enum bw_json_cause bw_json_open(struct bw_json_text *t, uint8_t bracket, int *more);

/* Behind a member: steps over the comma (*more = 1) or the closing bracket (*more = 0). */
enum bw_json_cause bw_json_more(struct bw_json_text *t, uint8_t bracket, int *more);

/* A member's name; the cursor then stands on its value. */
enum bw_json_cause bw_json_key(struct bw_json_text *t, struct bw_json_string *out);

/* 2 * len digits into len bytes; 0 where one is no digit. */
int bw_hex(const uint8_t *digits, uint32_t len, uint8_t *out);

/* `count` digits, odd or even, into (count + 1) / 2 bytes; 0 where one is no digit. */
int bw_hex_odd(const uint8_t *digits, uint32_t count, uint8_t *out);

#endif
