/* Walking a JSON text (RFC 8259) that nobody vouches for, and hexadecimal digits in it.
 *
 * There is no tree and no list of tokens: the caller walks forward, and every byte has been checked
 * when it is behind. Strings are looked at sixteen bytes at a time, which is where the time goes:
 * nearly all of a transaction is hexadecimal digits in quotes.
 *
 * A walk stops at `pause`, however long the white space, the string or the number is that goes on
 * there: whatever met it returns BW_JSON_AGAIN, and the same call goes on once `pause` is moved.
 * What is no longer than a dozen bytes (a word, an escape) is read to its end, across it. */
#ifndef BAREWIRE_JSONTEXT_H
#define BAREWIRE_JSONTEXT_H

#include <stdint.h>

#include "txjson.h"

#define BW_JSON_TRY(expression)                                             \
    do {                                                                    \
        enum bw_json_cause cause_try_ = (expression);                       \
        if (__builtin_expect(cause_try_ != BW_JSON_OK, 0)) return cause_try_; \
    } while (0)

/* What the pause cut in two. */
enum bw_json_part { BW_JSON_WHOLE = 0, BW_JSON_STRING, BW_JSON_ZERO, BW_JSON_INTEGER, BW_JSON_FRACTION,
                    BW_JSON_EXPONENT };

struct bw_json_text {
    const uint8_t *at, *end;
    const uint8_t *pause; /* until here it is walked for now: `end`, or before it */
    uint8_t *scratch;     /* for strings with escapes, and those that were cut; as long as the text */
    uint8_t *write;       /* of a string that is being copied there: its end so far, */
    const uint8_t *checked; /* and from where on it is not known to be UTF-8 */
    uint32_t left;        /* values, and escapes in strings, that may still come */
    uint8_t part;         /* enum bw_json_part: the cursor is in the middle of it */
    uint8_t high;         /* that string has bytes above 0x7f, */
    uint8_t bad;          /* and they are not UTF-8 */
};

/* What stands between the quotes, escapes undone: in the text, or in the scratch. */
struct bw_json_string {
    const uint8_t *at;
    uint32_t len;
};

/* Steps over white space; BW_JSON_SYNTAX at the end of the text, else *at can be looked at. */
static inline enum bw_json_cause bw_json_space(struct bw_json_text *t) {
    while (t->at < t->pause) {
        uint8_t c = *t->at;
        if (c > ' ') return BW_JSON_OK;
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return BW_JSON_SYNTAX;
        t->at++;
    }
    return t->at < t->end ? BW_JSON_AGAIN : BW_JSON_SYNTAX;
}

/* One more value begins, or an escape, which costs as much. */
static inline enum bw_json_cause bw_json_count(struct bw_json_text *t) {
    if (!t->left) return BW_JSON_VALUES;
    t->left--;
    return BW_JSON_OK;
}

/* The string that begins at the cursor, or goes on there. */
enum bw_json_cause bw_json_string(struct bw_json_text *t, struct bw_json_string *out);

/* Steps over the number that begins at the cursor, or goes on there, or over true, false or null. */
enum bw_json_cause bw_json_word(struct bw_json_text *t);

/* 2 * len digits into len bytes; 0 where one is no digit. */
int bw_hex(const uint8_t *digits, uint32_t len, uint8_t *out);

/* `count` digits, odd or even, into (count + 1) / 2 bytes; 0 where one is no digit. */
int bw_hex_odd(const uint8_t *digits, uint32_t count, uint8_t *out);

#endif
