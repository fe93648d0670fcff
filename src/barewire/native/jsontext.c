#include "jsontext.h"

#include <string.h>

#include "wsframe.h"

typedef uint8_t lanes __attribute__((vector_size(16)));
typedef uint16_t pairs __attribute__((vector_size(16)));
typedef uint8_t half __attribute__((vector_size(8)));

/* ---------------------------------------------------------------- hexadecimal digits */

static const int8_t DIGIT[256] = {
    ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8,
    ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
}; /* one more than the digit, so that 0 is none */

int bw_hex(const uint8_t *digits, uint32_t len, uint8_t *out) {
    lanes wrong = {0};
    for (; len >= 8; len -= 8, digits += 16, out += 8) {
        lanes c;
        memcpy(&c, digits, 16);
        const lanes number = c - '0', letter = (c | 0x20) - 'a';
        const lanes is_number = (lanes)(number < 10), is_letter = (lanes)(letter < 6);
        wrong |= ~(is_number | is_letter);
        const pairs nibbles = (pairs)((number & is_number) | ((letter + 10) & is_letter));
        const half done = __builtin_convertvector((nibbles << 4 | nibbles >> 8) & 0xff, half);
        memcpy(out, &done, 8);
    }
    uint64_t any[2];
    memcpy(any, &wrong, 16);
    int good = !(any[0] | any[1]);
    for (; len; len--, digits += 2) {
        int high = DIGIT[digits[0]], low = DIGIT[digits[1]];
        good &= high && low;
        *out++ = (uint8_t)((uint32_t)(high - 1) << 4 | ((uint32_t)(low - 1) & 15));
    }
    return good;
}

int bw_hex_odd(const uint8_t *digits, uint32_t count, uint8_t *out) {
    if (!(count & 1)) return bw_hex(digits, count / 2, out);
    int digit = DIGIT[*digits];
    *out = (uint8_t)(digit - 1);
    return digit && bw_hex(digits + 1, count / 2, out + 1);
}

/* ---------------------------------------------------------------- strings */

/* The first byte from `at` on that ends plain text (a quote, a backslash, a control character), or
 * `end`; *high is set if any byte before it, or shortly behind it, is above 0x7f. */
static const uint8_t *plain(const uint8_t *at, const uint8_t *end, int *high) {
    lanes seen = {0};
    for (; end - at >= 16; at += 16) {
        lanes c;
        memcpy(&c, at, 16);
        const lanes stop = (lanes)(c == '"') | (lanes)(c == '\\') | (lanes)(c < 0x20);
        uint64_t word[2];
        memcpy(word, &stop, 16);
        seen |= c;
        if (word[0] | word[1]) {
            at += word[0] ? __builtin_ctzll(word[0]) / 8 : 8 + __builtin_ctzll(word[1]) / 8;
            break;
        }
    }
    uint64_t any[2];
    memcpy(any, &seen, 16);
    *high |= ((any[0] | any[1]) & 0x8080808080808080u) != 0;
    for (; at < end && *at != '"' && *at != '\\' && *at >= 0x20; at++) *high |= *at >> 7;
    return at;
}

/* Four digits of a \u escape; the cursor stands on the u. -1: not four digits. */
static int32_t unit(struct bw_json_text *t) {
    uint8_t two[2];
    if (t->end - t->at < 5 || !bw_hex(t->at + 1, 2, two)) return -1;
    t->at += 5;
    return two[0] << 8 | two[1];
}

static uint8_t *put_utf8(uint8_t *out, uint32_t c) {
    if (c < 0x80) {
        *out++ = (uint8_t)c;
        return out;
    }
    static const uint8_t LEAD[4] = {0, 0xc0, 0xe0, 0xf0};
    uint32_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *out++ = (uint8_t)(LEAD[more] | c >> 6 * more);
    while (more--) *out++ = (uint8_t)(0x80 | (c >> 6 * more & 0x3f));
    return out;
}

/* One escape; the cursor stands behind the backslash. What it means is never longer than it is. */
static enum bw_json_cause escape(struct bw_json_text *t, uint8_t **out) {
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    if (t->at == t->end) return BW_JSON_SYNTAX;
    if (*t->at != 'u') {
        const char *known = *t->at ? strchr(FROM, *t->at) : NULL;
        if (!known) return BW_JSON_SYNTAX;
        *(*out)++ = (uint8_t)TO[known - FROM];
        t->at++;
        return BW_JSON_OK;
    }
    int32_t c = unit(t), low;
    if (c < 0) return BW_JSON_SYNTAX;
    if (c >= 0xd800 && c < 0xdc00 && t->end - t->at >= 2 && t->at[0] == '\\' && t->at[1] == 'u') {
        const uint8_t *back = t->at++;
        low = unit(t);
        if (low >= 0xdc00 && low < 0xe000) c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        else t->at = back;
    }
    if (c >= 0xd800 && c < 0xe000) c = 0xfffd; /* half of a pair: grammatical, but no character */
    *out = put_utf8(*out, (uint32_t)c);
    return BW_JSON_OK;
}

/* How many of the last bytes are a character that is not at its end. */
static uint32_t begun(const uint8_t *from, const uint8_t *to) {
    for (uint32_t back = 1; back <= 3 && back <= (size_t)(to - from); back++) {
        const uint8_t c = to[-(int)back];
        if ((c & 0xc0) == 0x80) continue;
        return c >= 0xc0 && back < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) ? back : 0;
    }
    return 0;
}

/* Looks at what was copied since the last time, up to `to`. */
static void check(struct bw_json_text *t, const uint8_t *to) {
    if (t->high && !bw_utf8_valid(t->checked, (size_t)(to - t->checked))) t->bad = 1;
    t->checked = to;
}

/* A string that cannot stay where it is: copies it, plain text first that ends at `to`. */
static __attribute__((noinline)) enum bw_json_cause copy(struct bw_json_text *t, const uint8_t *from, const uint8_t *to,
                               int high, struct bw_json_string *out) {
    for (;;) {
        memcpy(t->write, from, (size_t)(to - from));
        t->write += to - from;
        t->at = to;
        t->high |= high != 0;
        if (to >= t->pause) {
            if (to == t->end) return BW_JSON_SYNTAX;
            check(t, t->write - begun(t->checked, t->write));
            return BW_JSON_AGAIN;
        }
        if (*to < 0x20) return BW_JSON_SYNTAX;
        t->at++;
        if (*to == '"') break;
        BW_JSON_TRY(bw_json_count(t));
        BW_JSON_TRY(escape(t, &t->write));
        from = t->at;
        to = plain(from, t->pause, &high);
    }
    check(t, t->write);
    *out = (struct bw_json_string){t->scratch, (uint32_t)(t->write - t->scratch)};
    t->scratch = t->write;
    t->part = BW_JSON_WHOLE;
    return t->bad ? BW_JSON_UTF8 : BW_JSON_OK;
}

enum bw_json_cause bw_json_string(struct bw_json_text *t, struct bw_json_string *out) {
    const uint8_t *from, *to;
    int high = 0;
    if (__builtin_expect(t->part == BW_JSON_STRING, 0)) {
        from = t->at;
        to = plain(from, t->pause, &high);
        return copy(t, from, to, high, out);
    }
    from = t->at + 1;
    to = plain(from, t->pause, &high);
    if (__builtin_expect(to >= t->pause || *to != '"', 0)) {
        t->part = BW_JSON_STRING;
        t->checked = t->write = t->scratch;
        t->high = t->bad = 0;
        return copy(t, from, to, high, out);
    }
    t->at = to + 1;
    *out = (struct bw_json_string){from, (uint32_t)(to - from)};
    return high && !bw_utf8_valid(from, out->len) ? BW_JSON_UTF8 : BW_JSON_OK;
}

/* ---------------------------------------------------------------- other values */

static int digit(const struct bw_json_text *t) {
    return t->at < t->end && (uint8_t)(*t->at - '0') < 10;
}

/* The digits of one part of a number, which may be cut anywhere between them. */
static enum bw_json_cause digits(struct bw_json_text *t, enum bw_json_part part) {
    while (t->at < t->pause && digit(t)) t->at++;
    t->part = t->at < t->pause || t->at == t->end ? BW_JSON_WHOLE : (uint8_t)part;
    return t->part == BW_JSON_WHOLE ? BW_JSON_OK : BW_JSON_AGAIN;
}

static enum bw_json_cause number(struct bw_json_text *t) {
    uint8_t part = t->part;
    if (part == BW_JSON_WHOLE) {
        if (*t->at == '-') t->at++;
        if (!digit(t)) return BW_JSON_SYNTAX;
        part = *t->at++ == '0' ? BW_JSON_ZERO : BW_JSON_INTEGER;
    }
    if (part == BW_JSON_INTEGER) BW_JSON_TRY(digits(t, BW_JSON_INTEGER));
    if (part <= BW_JSON_INTEGER && t->at < t->end && *t->at == '.') {
        t->at++;
        if (!digit(t)) return BW_JSON_SYNTAX;
        part = BW_JSON_FRACTION;
    }
    if (part == BW_JSON_FRACTION) BW_JSON_TRY(digits(t, BW_JSON_FRACTION));
    if (part != BW_JSON_EXPONENT) {
        if (t->at == t->end || (*t->at | 0x20) != 'e') return BW_JSON_OK;
        t->at++;
        if (t->at < t->end && (*t->at == '+' || *t->at == '-')) t->at++;
        if (!digit(t)) return BW_JSON_SYNTAX;
    }
    return digits(t, BW_JSON_EXPONENT);
}

static enum bw_json_cause word(struct bw_json_text *t, const char *word, uint32_t len) {
    if ((size_t)(t->end - t->at) < len || memcmp(t->at, word, len)) return BW_JSON_SYNTAX;
    t->at += len;
    return BW_JSON_OK;
}

enum bw_json_cause bw_json_word(struct bw_json_text *t) {
    if (t->part != BW_JSON_WHOLE) return number(t);
    switch (*t->at) {
    case 't': return word(t, "true", 4);
    case 'f': return word(t, "false", 5);
    case 'n': return word(t, "null", 4);
    default: return number(t);
    }
}
