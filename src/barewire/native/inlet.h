/* The streams of a loop, read without returning to Python: poll, receive, records, matches.
 *
 *     poll every endpoint -> for each readable line: recv -> txfeed -> offer -> turn of the pump
 *
 * Lines take turns, each with one burst or one buffer at a time, however much one of them has.
 *
 * A line that only brings transactions, which is a live subscription nearly all of the time, never
 * needs Python between the wire and a match. Whatever else happens on a line (an answer, a control
 * frame, its end; a line without `feed`, whose bytes have to be decrypted first, say) is told and
 * left to the caller: bytes that were lent to the feed are read on by whoever is next.
 *
 * The caller owns everything here and fills it in: connections come and go between two calls. A
 * line's stream must be valid, or NULL. One thread; nothing blocks, nothing is allocated. */
#ifndef BAREWIRE_INLET_H
#define BAREWIRE_INLET_H

#include "pump.h"
#include "stream.h"
#include "txfeed.h"

/* <cdef> */
#define BW_INLET_LINES 16

enum bw_inlet_what {
    BW_INLET_TIME = 0,     /* nothing, and it is time */
    BW_INLET_RECORDS = 1,  /* `count` records, where there is no pump */
    BW_INLET_FOUND = 2,    /* the pump found `count` matches */
    BW_INLET_EVENT = 3,    /* line `at` has read `event`; call bw_txfeed_read() on */
    BW_INLET_READABLE = 4, /* line `at` has bytes or news that are not the feed's */
};

struct bw_inlet_line {
    struct dpb_stream *stream;  /* NULL: not connected, or read by other means */
    struct bw_txfeed *feed;     /* NULL: its bytes are the caller's */
    uint8_t *buffer;
    uint32_t room;              /* of the buffer */
    uint32_t endpoint;          /* which endpoint's it is */
    uint32_t reading;           /* it has bytes that were lent to the feed and not read */
    uint32_t paused;            /* the caller reads what it was lent: left alone */
};

struct bw_inlet {
    struct dpb_stream_ref endpoint[BW_INLET_LINES];
    struct bw_inlet_line line[BW_INLET_LINES];
    uint32_t endpoints, lines;
    struct bw_pump *pump;       /* takes the records; NULL: they are the caller's */
    struct bw_message *messages;/* room for BW_TXFEED_BURST */
    struct bw_tx *txs;          /* too */
    struct bw_txfeed_event event;
    uint32_t next;              /* the line that is asked first: they take turns */
    uint32_t at;
    uint32_t count;
    uint32_t told;              /* `event`, of line `at`, is still to be told */
    uint32_t held;              /* the pump still looks at what it was offered, for one turn more */
};

/* Turns at least once, until there is something or it is `until_mono_ns`: an enum bw_inlet_what.
 * Time is looked at between two bursts, so that a line which never ends holds up nobody. */
int bw_inlet_run(struct bw_inlet *in, uint64_t until_mono_ns);
/* </cdef> */

#endif
