// sources: src/barewire/native/request.c src/barewire/native/keccak*.c
// max_len: 2048
//
// Ready-made requests with pieces that lie anywhere: refused, or laid down inside their buffer,
// with the length in the head that the body has, and the transactions' digits in it. The signer is
// a stand-in.
#include <stdlib.h>
#include <string.h>

#include "keccak.h"
#include "request.h"

static void insist(int truth) {
    if (!truth) abort();
}

struct input {
    const uint8_t *at;
    size_t left;
};

static uint64_t number(struct input *in, size_t bytes) {
    uint64_t value = 0;
    size_t have = bytes < in->left ? bytes : in->left;
    if (have) memcpy(&value, in->at, have);
    in->at += have;
    in->left -= have;
    return value;
}

/* A copy of up to `len` bytes of the input, in an allocation of exactly that size. */
static uint8_t *piece(struct input *in, size_t len, uint32_t *out_len) {
    *out_len = (uint32_t)(len < in->left ? len : in->left);
    uint8_t *copy = malloc(*out_len ? *out_len : 1);
    if (*out_len) memcpy(copy, in->at, *out_len);
    in->at += *out_len;
    in->left -= *out_len;
    return copy;
}

struct bw_signer {
    int parity;
};

int bw_signer_sign(struct bw_signer *signer, const uint8_t *hash, uint8_t *rs) {
    if (!signer) return BW_SIGN_NOBODY;
    memcpy(rs, hash, 32);
    memcpy(rs + 32, hash, 32);
    return signer->parity;
}

static void check(const struct bw_request *request, int64_t len, const uint8_t *head,
                  uint32_t head_len, uint32_t signature_off) {
    static const char DIGITS[] = "0123456789abcdef";
    insist(request->len == len && request->off <= request->out_len);
    insist(request->len <= request->out_len - request->off);
    insist(request->off + request->len == request->body_off + request->body_len);
    const uint8_t *out = request->out + request->off, *end = out + head_len;
    uint32_t said = 0;
    while (*end != '\r') said = said * 10 + (uint32_t)(*end++ - '0');
    insist(said == request->body_len && !memcmp(end, "\r\n\r\n", 4));
    insist(end + 4 == request->out + request->body_off);
    for (uint32_t i = 0; i < head_len; i++)
        insist(out[i] == head[i] ||
               (i - signature_off < BW_REQUEST_SIGNATURE &&
                (i - signature_off == 1 ? out[i] == 'x' : strchr(DIGITS, out[i]) != NULL)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct bw_signer signer = {(int)number(&in, 1) & 1};
    struct bw_request_piece pieces[6];
    uint32_t piece_count = (uint32_t)number(&in, 1) % 7, raw_max = (uint32_t)number(&in, 2);
    uint32_t signature_off = number(&in, 1) & 1 ? UINT32_MAX : (uint32_t)number(&in, 1);
    size_t head_size = number(&in, 2) & 511, literal_size = number(&in, 1);
    uint64_t block = number(&in, 8) >> (number(&in, 1) & 63);
    size_t raw_size = number(&in, 2) & 1023, before_size = number(&in, 1);
    for (int i = 0; i < 6; i++)
        pieces[i] = (struct bw_request_piece){
            (uint32_t)number(&in, 1) % 5, (uint32_t)number(&in, 1), (uint32_t)number(&in, 1)};
    uint32_t head_len, literal_len, raw_len, before_len;
    uint8_t *head = piece(&in, head_size, &head_len);
    uint8_t *literal = piece(&in, literal_size, &literal_len);
    uint8_t *raw = piece(&in, raw_size, &raw_len), *before = piece(&in, before_size, &before_len);
    struct bw_request *request = bw_request_new(head, head_len, signature_off, literal, literal_len,
                                                pieces, piece_count, raw_max);
    if (request) {
        int64_t len = bw_request_lay(request, &signer, raw, raw_len, before, before_len, block);
        if (raw_len + before_len > raw_max) {
            insist(len == BW_REQUEST_TOO_LONG);
        } else {
            check(request, len, head, head_len, signature_off);
            insist(bw_request_lay(request, NULL, raw, raw_len, before, before_len, block) ==
                   (signature_off == UINT32_MAX ? len : BW_SIGN_NOBODY));
            /* Nothing of a longer one is left in a shorter one. */
            len = bw_request_lay(request, &signer, raw, 0, before, 0, 0);
            check(request, len, head, head_len, signature_off);
        }
    }
    bw_request_free(request);
    free(head);
    free(literal);
    free(raw);
    free(before);
    return 0;
}
