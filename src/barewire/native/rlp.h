/* Strict RLP, read forward through a cursor.
 *
 * The rules are geth's (rlp/decode.go) and the yellow paper's (appendix B): a length in as few
 * bytes as it fits, a single byte below 0x80 without a prefix, integers without leading zeros. An
 * item never reaches beyond the list that it is in, so no byte past the cursor's end is read.
 *
 * Each function consumes one item and returns BW_OK, or says what is wrong with it; after a refusal
 * the cursor stands where it stood or somewhere in the item, and is of no more use. */
#ifndef BAREWIRE_RLP_H
#define BAREWIRE_RLP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "decode.h"

struct bw_cursor {
    const uint8_t *at;
    const uint8_t *end;
};

#define BW_TRY(expression)                                              \
    do {                                                                \
        enum bw_verdict verdict_ = (expression);                        \
        if (__builtin_expect(verdict_ != BW_OK, 0)) return verdict_;    \
    } while (0)

static inline size_t bw_left(const struct bw_cursor *c) { return (size_t)(c->end - c->at); }

static inline uint64_t bw_load_be64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return __builtin_bswap64(word);
}

/* The header of the next item: steps over it, gives the payload's length and whether it is a list.
 * A single byte below 0x80 is its own payload. */
static inline enum bw_verdict bw_rlp_header(struct bw_cursor *c, int *is_list, size_t *len) {
    if (c->at == c->end) return BW_FIELDS_FEW;
    uint8_t prefix = *c->at;
    *is_list = prefix >= 0xc0;
    if (prefix < 0x80) {
        *len = 1;
        return BW_OK;
    }
    c->at++;
    uint32_t small = prefix & 0x3f;
    if (small < 56) {
        if (small > bw_left(c)) return BW_RLP_TRUNCATED;
        if (prefix == 0x81 && *c->at < 0x80) return BW_RLP_BYTE;
        *len = small;
        return BW_OK;
    }
    uint32_t width = small - 55;
    if (width > bw_left(c)) return BW_RLP_TRUNCATED;
    if (*c->at == 0) return BW_RLP_LENGTH;
    uint64_t wide = 0;
    for (uint32_t i = 0; i < width; i++) wide = wide << 8 | c->at[i];
    if (wide < 56) return BW_RLP_LENGTH;
    c->at += width;
    if (wide > bw_left(c)) return BW_RLP_TRUNCATED;
    *len = wide;
    return BW_OK;
}

/* A string: its bytes are at *data, still in the message. */
static inline enum bw_verdict bw_rlp_string(struct bw_cursor *c, const uint8_t **data,
                                            uint32_t *len) {
    int is_list;
    size_t n;
    BW_TRY(bw_rlp_header(c, &is_list, &n));
    if (__builtin_expect(is_list, 0)) return BW_RLP_KIND;
    *data = c->at;
    *len = (uint32_t)n;
    c->at += n;
    return BW_OK;
}

/* A list: *inner walks its items. */
static inline enum bw_verdict bw_rlp_list(struct bw_cursor *c, struct bw_cursor *inner) {
    int is_list;
    size_t n;
    BW_TRY(bw_rlp_header(c, &is_list, &n));
    if (__builtin_expect(!is_list, 0)) return BW_RLP_KIND;
    inner->at = c->at;
    inner->end = c->at + n;
    c->at += n;
    return BW_OK;
}

/* An integer of at most 256 bits as four words, least significant first. */
static inline enum bw_verdict bw_rlp_u256(struct bw_cursor *c, uint64_t words[4]) {
    const uint8_t *data;
    uint32_t n;
    words[0] = words[1] = words[2] = words[3] = 0;
    BW_TRY(bw_rlp_string(c, &data, &n));
    if (n == 0) return BW_OK;
    if (__builtin_expect(data[0] == 0, 0)) return BW_INT_ZEROS;
    if (n < 8) {
        if (n == 1) {
            words[0] = data[0];
        } else if (c->end - data >= 8) {
            words[0] = bw_load_be64(data) >> (64 - 8 * n);
        } else {
            for (uint32_t i = 0; i < n; i++) words[0] = words[0] << 8 | data[i];
        }
        return BW_OK;
    }
    if (__builtin_expect(n > 32, 0)) return BW_INT_WIDTH;
    uint32_t word = 0, left = n;
    for (; left >= 8; left -= 8) words[word++] = bw_load_be64(data + left - 8);
    if (left) words[word] = bw_load_be64(data) >> (64 - 8 * left);
    return BW_OK;
}

/* An integer of at most 64 bits. */
static inline enum bw_verdict bw_rlp_u64(struct bw_cursor *c, uint64_t *value) {
    const uint8_t *data;
    uint32_t n;
    BW_TRY(bw_rlp_string(c, &data, &n));
    *value = 0;
    if (n == 0) return BW_OK;
    if (__builtin_expect(data[0] == 0, 0)) return BW_INT_ZEROS;
    if (__builtin_expect(n > 8, 0)) return BW_INT_WIDTH;
    if (c->end - data >= 8) {
        *value = bw_load_be64(data) >> (64 - 8 * n);
    } else {
        for (uint32_t i = 0; i < n; i++) *value = *value << 8 | data[i];
    }
    return BW_OK;
}

/* A string of exactly `width` bytes; any other width is `otherwise`. */
static inline enum bw_verdict bw_rlp_fixed(struct bw_cursor *c, uint32_t width,
                                           enum bw_verdict otherwise, const uint8_t **data) {
    uint32_t n;
    if (width > 1 && width < 56 && bw_left(c) > width && *c->at == 0x80 + width) {
        *data = c->at + 1;
        c->at += 1 + width;
        return BW_OK;
    }
    BW_TRY(bw_rlp_string(c, data, &n));
    return __builtin_expect(n == width, 1) ? BW_OK : otherwise;
}

/* An integer of at most `width` bytes whose value nobody needs. */
static inline enum bw_verdict bw_rlp_integer(struct bw_cursor *c, uint32_t width) {
    const uint8_t *data;
    uint32_t n;
    if (c->at < c->end && (uint8_t)(*c->at - 1) < 0x80) { /* 1 to 0x7f, or the empty string */
        c->at++;
        return BW_OK;
    }
    BW_TRY(bw_rlp_string(c, &data, &n));
    if (n && data[0] == 0) return BW_INT_ZEROS;
    return n > width ? BW_INT_WIDTH : BW_OK;
}

/* A list of strings of exactly `width` bytes each: how many, and where the first begins. */
static inline enum bw_verdict bw_rlp_fixed_list(struct bw_cursor *c, uint32_t width,
                                                enum bw_verdict otherwise,
                                                struct bw_cursor *inner, uint32_t *count) {
    BW_TRY(bw_rlp_list(c, inner));
    struct bw_cursor items = *inner;
    uint32_t n = 0;
    for (; items.at < items.end; n++) {
        const uint8_t *data;
        BW_TRY(bw_rlp_fixed(&items, width, otherwise, &data));
    }
    *count = n;
    return BW_OK;
}

#endif
