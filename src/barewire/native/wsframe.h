/* WebSocket frames (RFC 6455, section 5), the client's side, without I/O.
 *
 * A subscription is one long stream of text messages in which, now and then, a control frame
 * stands between two messages or between the fragments of one. Bytes are lent to the reader in
 * whatever pieces the transport had; it hands out whole messages and control frames, one at a time.
 * A message that came in one frame and in one piece, which is nearly all of them, is handed out
 * where it lies; anything else is put together in a buffer of the reader's.
 *
 * What the server may not do fails the connection, for good, with the close code that RFC 6455
 * (7.4.1) names and that the `websockets` library sends: 1002 for a frame that breaks a rule, 1007
 * for a close reason that is no UTF-8, 1009 for a message that is too long (already when its header
 * says so). After a failure or a close frame everything further is thrown away. Text is not checked
 * to be UTF-8 here: whoever reads the text does that.
 *
 * permessage-deflate (RFC 7692) is not undone here either: with `deflate` the reserved bit is
 * allowed on the first frame of a message, which is then handed out as compressed.
 *
 * Memory is taken once. One thread at a time. */
#ifndef BAREWIRE_WSFRAME_H
#define BAREWIRE_WSFRAME_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_WS_HEAD_BYTES 14      /* longest header, with a mask */
#define BW_WS_CONTROL_BYTES 125  /* longest payload of a control frame */
#define BW_WS_ELSEWHERE 0xffffffff

enum bw_ws_kind {
    BW_WS_NONE = 0,
    BW_WS_TEXT = 1,
    BW_WS_BINARY = 2,
    BW_WS_CLOSE = 8,   /* `code` is the server's, 1005 where it gave none; data: the whole payload */
    BW_WS_PING = 9,    /* to be answered by a pong of the same payload */
    BW_WS_PONG = 10,
    BW_WS_FAIL = 16,   /* the server broke a rule: send `code` in a close frame and hang up */
};

/* Valid until the next call with the same reader; what is not in the reader's buffer points into
 * the bytes that were lent. */
struct bw_ws_event {
    const uint8_t *data;
    uint32_t len;
    uint16_t code;      /* close code, of CLOSE and FAIL */
    uint8_t kind;       /* enum bw_ws_kind */
    uint8_t compressed; /* the payload of a message is still deflated */
    uint32_t at;        /* where `data` is in the bytes that were lent, or BW_WS_ELSEWHERE */
    uint32_t rest;      /* lent bytes behind it */
};

struct bw_ws_stats {
    uint64_t bytes;     /* lent so far */
    uint64_t messages;
    uint64_t fragmented;/* of these, came in more than one frame */
    uint64_t copied;    /* of these, were put together in the buffer */
    uint64_t controls;
    uint64_t payload;   /* bytes of messages in `bytes`: no headers, no control frames */
};

struct bw_ws;

/* NULL: no memory, or max_message not in 1..2^30. Of the buffer only what is used is touched. */
struct bw_ws *bw_ws_new(uint32_t max_message, int deflate);
void bw_ws_free(struct bw_ws *ws);

/* Forgets the connection for a new one; the counters go on. */
void bw_ws_restart(struct bw_ws *ws);

/* Lends `len` bytes, which stay where they are until bw_ws_next() has returned 0. */
void bw_ws_lend(struct bw_ws *ws, const uint8_t *data, size_t len);

/* The next message, control frame or failure: 1; or 0 when all lent bytes are used up. */
int bw_ws_next(struct bw_ws *ws, struct bw_ws_event *out);

/* bw_ws_lend() and the first bw_ws_next() in one call, for callers to whom a call is dear. */
int bw_ws_first(struct bw_ws *ws, const uint8_t *data, size_t len, struct bw_ws_event *out);

/* What the last failure was about, for people; "" before one. */
const char *bw_ws_why(const struct bw_ws *ws);

const struct bw_ws_stats *bw_ws_stats(const struct bw_ws *ws);

/* Writes one masked frame with FIN set to `out`, which has room for BW_WS_HEAD_BYTES + len, and
 * returns its length. `mask` are four bytes that nobody could foresee (RFC 6455, 5.3). */
size_t bw_ws_write(uint8_t opcode, int compressed, const uint8_t *payload, size_t len,
                   const uint8_t *mask, uint8_t *out);
/* </cdef> */

/* 1 if the bytes are UTF-8 (RFC 3629: no surrogates, nothing overlong, nothing above U+10FFFF). */
int bw_utf8_valid(const uint8_t *data, size_t len);

#endif
