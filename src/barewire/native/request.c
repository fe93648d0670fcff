#include "request.h"

#include <stdlib.h>
#include <string.h>

#include "keccak.h"

#define LENGTH_MAX 14 /* ten digits and the end of the head */
#define NUMBER_MAX 18 /* 0x and sixteen digits */

struct whole {
    struct bw_request open; /* first: what callers see */
    uint32_t head_len, signature_off, piece_count, raw_max;
    uint8_t *head, *literal;
    struct bw_request_piece *pieces;
};

static const char DIGITS[] = "0123456789abcdef";

/* Two digits a byte. The loop has a fixed shape that compilers turn into vector code. */
static uint8_t *put_hex(uint8_t *p, const uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        uint8_t high = bytes[i] >> 4, low = bytes[i] & 15;
        p[2 * i] = (uint8_t)(high + (high > 9 ? 'a' - 10 : '0'));
        p[2 * i + 1] = (uint8_t)(low + (low > 9 ? 'a' - 10 : '0'));
    }
    return p + 2 * len;
}

static uint8_t *put_0x(uint8_t *p, const uint8_t *bytes, size_t len) {
    *p++ = '0';
    *p++ = 'x';
    return put_hex(p, bytes, len);
}

static uint8_t *put_quantity(uint8_t *p, uint64_t x) {
    *p++ = '0';
    *p++ = 'x';
    for (int shift = x ? (63 - __builtin_clzll(x)) / 4 * 4 : 0; shift >= 0; shift -= 4)
        *p++ = (uint8_t)DIGITS[x >> shift & 15];
    return p;
}

static int fits(uint32_t offset, uint32_t len, uint32_t all) {
    return offset <= all && len <= all - offset;
}

static void *copied(const void *from, size_t len) {
    void *to = malloc(len ? len : 1);
    if (to && len) memcpy(to, from, len);
    return to;
}

struct bw_request *bw_request_new(const uint8_t *head, uint32_t head_len, uint32_t signature_off,
                                  const uint8_t *literal, uint32_t literal_len,
                                  const struct bw_request_piece *pieces, uint32_t piece_count,
                                  uint32_t raw_max) {
    uint64_t out_len = (uint64_t)head_len + LENGTH_MAX;
    if (signature_off != UINT32_MAX && !fits(signature_off, BW_REQUEST_SIGNATURE, head_len))
        return NULL;
    for (uint32_t i = 0; i < piece_count; i++) {
        const struct bw_request_piece *piece = &pieces[i];
        switch (piece->kind) {
        case BW_REQUEST_LITERAL:
            if (!fits(piece->offset, piece->len, literal_len)) return NULL;
            out_len += piece->len;
            break;
        case BW_REQUEST_RAW:
        case BW_REQUEST_BEFORE: out_len += 2 + 2 * (uint64_t)raw_max; break;
        case BW_REQUEST_NUMBER: out_len += NUMBER_MAX; break;
        default: return NULL;
        }
    }
    if (out_len > UINT32_MAX) return NULL;
    struct whole *request = calloc(1, sizeof *request);
    if (!request) return NULL;
    request->head_len = head_len;
    request->signature_off = signature_off;
    request->piece_count = piece_count;
    request->raw_max = raw_max;
    request->open.body_off = head_len + LENGTH_MAX;
    request->open.out_len = (uint32_t)out_len;
    request->open.out = calloc(1, out_len);
    request->head = copied(head, head_len);
    request->literal = copied(literal, literal_len);
    request->pieces = copied(pieces, piece_count * sizeof *pieces);
    if (!request->open.out || !request->head || !request->literal || !request->pieces) {
        bw_request_free(&request->open);
        return NULL;
    }
    return &request->open;
}

void bw_request_free(struct bw_request *open) {
    struct whole *request = (struct whole *)open;
    if (!request) return;
    free(request->open.out);
    free(request->head);
    free(request->literal);
    free(request->pieces);
    free(request);
}

/* Signs the body as EIP-191's personal message: the text 0x + digits of its Keccak-256. */
static int sign_body(const struct whole *request, struct bw_signer *auth, uint8_t *place) {
    static const char PREFIX[] = "\x19" "Ethereum Signed Message:\n66";
    uint8_t hash[32], message[sizeof PREFIX - 1 + 66], signature[65];
    bw_keccak256(request->open.out + request->open.body_off, request->open.body_len, hash);
    memcpy(message, PREFIX, sizeof PREFIX - 1);
    put_0x(message + sizeof PREFIX - 1, hash, 32);
    bw_keccak256(message, sizeof message, hash);
    int y_parity = bw_signer_sign(auth, hash, signature);
    if (y_parity < 0) return y_parity;
    signature[64] = (uint8_t)(27 + y_parity);
    put_0x(place, signature, sizeof signature);
    return 0;
}

/* Puts the head before the body: head, digits of the length, two line ends. */
static uint8_t *put_head(const struct whole *request) {
    uint8_t *p = request->open.out + request->open.body_off - 4;
    uint32_t left = request->open.body_len;
    memcpy(p, "\r\n\r\n", 4);
    do *--p = (uint8_t)('0' + left % 10);
    while (left /= 10);
    p -= request->head_len;
    memcpy(p, request->head, request->head_len);
    return p;
}

int64_t bw_request_lay(struct bw_request *open, struct bw_signer *auth, const uint8_t *raw,
                       uint32_t raw_len, const uint8_t *before, uint32_t before_len,
                       uint64_t number) {
    struct whole *request = (struct whole *)open;
    uint8_t *p = request->open.out + request->open.body_off;
    if ((uint64_t)raw_len + before_len > request->raw_max) return BW_REQUEST_TOO_LONG;
    for (uint32_t i = 0; i < request->piece_count; i++) {
        const struct bw_request_piece *piece = &request->pieces[i];
        switch (piece->kind) {
        case BW_REQUEST_LITERAL:
            memcpy(p, request->literal + piece->offset, piece->len);
            p += piece->len;
            break;
        case BW_REQUEST_RAW: p = put_0x(p, raw, raw_len); break;
        case BW_REQUEST_BEFORE: p = put_0x(p, before, before_len); break;
        case BW_REQUEST_NUMBER: p = put_quantity(p, number); break;
        }
    }
    request->open.body_len = (uint32_t)(p - request->open.out) - request->open.body_off;
    uint8_t *first = put_head(request);
    if (request->signature_off != UINT32_MAX) {
        int refused = sign_body(request, auth, first + request->signature_off);
        if (refused) return refused;
    }
    request->open.off = (uint32_t)(first - request->open.out);
    request->open.len = request->open.body_off + request->open.body_len - request->open.off;
    return request->open.len;
}
