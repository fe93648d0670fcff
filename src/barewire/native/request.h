/* A ready-made HTTP request that lacks only its transaction.
 *
 * A bundle goes out as JSON in an HTTP POST, its body signed with a second key (Flashbots' relay
 * protocol: X-Flashbots-Signature holds address:signature, the signature being EIP-191's over the
 * hexadecimal text of the body's Keccak-256). All of that but the transactions, the block number
 * and the signature is known ahead of time. So the request is prepared in pieces and laid down in
 * one pass into one buffer, ready for a warm connection:
 *
 *     head, to which "content-length: " belongs last | length, CRLF CRLF | body
 *     <- ends where the body begins                                        at a fixed place ->
 *
 * In the head is a place of fixed width for the signature. */
#ifndef BAREWIRE_REQUEST_H
#define BAREWIRE_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "signer.h"

/* <cdef> */
enum bw_request_piece_kind {
    BW_REQUEST_LITERAL = 0, /* `len` bytes of the body's literal, from `offset` */
    BW_REQUEST_RAW,         /* the transaction: 0x and hexadecimal digits */
    BW_REQUEST_BEFORE,      /* the transaction to be placed before it, for example what matched */
    BW_REQUEST_NUMBER,      /* a number as a JSON-RPC quantity: 0x and no leading zeros */
};

struct bw_request_piece {
    uint32_t kind; /* enum bw_request_piece_kind */
    uint32_t offset;
    uint32_t len;
};

#define BW_REQUEST_TOO_LONG -32 /* the transactions are longer than the request was made for */
#define BW_REQUEST_SIGNATURE 132 /* "0x" and 65 bytes in digits: the width of its place */

struct bw_request {
    uint8_t *out;      /* the buffer requests are laid down in, owned by the request */
    uint32_t off;      /* where in it the last one begins */
    uint32_t len;
    uint32_t body_off; /* where its body begins */
    uint32_t body_len;
    uint32_t out_len;  /* of the buffer */
};

/* A request with `head` (all lines up to and with "content-length: "), in which a place of
 * BW_REQUEST_SIGNATURE bytes at `signature_off` takes the signature (UINT32_MAX: none), and a body
 * of `pieces` over `literal`. `raw_max`: the most bytes of RAW and BEFORE together. Everything is
 * copied. NULL where a piece lies outside, or no memory. */
struct bw_request *bw_request_new(const uint8_t *head, uint32_t head_len, uint32_t signature_off,
                                  const uint8_t *literal, uint32_t literal_len,
                                  const struct bw_request_piece *pieces, uint32_t piece_count,
                                  uint32_t raw_max);
void bw_request_free(struct bw_request *request);

/* Lays the request down, its body signed by `auth` where the head has a place for that. Returns its
 * length: it begins at request->out + request->off and stays until the next time. Or
 * BW_REQUEST_TOO_LONG, or what bw_signer_sign refuses with. One thread. Allocates nothing, makes
 * no system call. */
int64_t bw_request_lay(struct bw_request *request, struct bw_signer *auth, const uint8_t *raw,
                       uint32_t raw_len, const uint8_t *before, uint32_t before_len,
                       uint64_t number);
/* </cdef> */

#endif
