/* A subscription's bytes in, checked transaction records out: one native call a burst.
 *
 *     bytes -> frames (wsframe) or values (an IPC socket) -> JSON (txjson) -> decoder -> Keccak
 *
 * A record leaves here only if the strict decoder accepted the envelope that its JSON describes and
 * the envelope's hash is the announced one. Whatever is wrong is counted by cause, and the last bad
 * text of each cause is kept. What is not a transaction (answers, control frames, hashes without a
 * body, deflated messages) is handed to the caller in its place in the stream.
 *
 * What one call does is bounded by what it hands out and by BW_TXFEED_WORK, whatever the bytes are:
 * that many are walked through at most, and a dozen, wherever in a text that ends; the next call goes
 * on there. Only the envelope of one object is made, decoded and hashed at once (BW_JSON_OBJECT).
 *
 * The feed borrows the bytes that it is lent until it has read them all, and owns the envelopes that
 * it hands out until the next call that reads. Memory is taken once. One thread. */
#ifndef BAREWIRE_TXFEED_H
#define BAREWIRE_TXFEED_H

#include "decode.h"
#include "txjson.h"
#include "wsframe.h"

/* <cdef> */
#define BW_TXFEED_BURST 64        /* transactions that one call hands out at most */
#define BW_TXFEED_SAMPLE_BYTES 1016
#define BW_TXFEED_WORK 262144 /* bytes that one call walks through, about: then it is MORE */

enum bw_txfeed_kind {
    BW_TXFEED_NONE = 0,           /* all bytes are used up */
    BW_TXFEED_FRAME = 1,          /* `frame` needs attention: control, failure, or deflated */
    BW_TXFEED_ANNOUNCED = 2,      /* `hash` alone was announced */
    BW_TXFEED_OTHER = 3,          /* `text`: one JSON object that is no transaction */
    BW_TXFEED_MORE = 4,           /* there is more than one call can take */
};

/* What is not a transaction. Pointers are valid until the next call. */
struct bw_txfeed_event {
    struct bw_ws_event frame;
    const uint8_t *text;
    const uint8_t *result;        /* in `text`: the value of an answer's "result"; or NULL */
    uint32_t text_len;
    uint32_t result_len;
    uint32_t kind;                /* enum bw_txfeed_kind */
    uint8_t hash[32];
};

struct bw_txfeed_sample {
    uint64_t count;
    uint32_t len;                 /* of the last bad text; as many of its bytes as fit are kept */
    uint32_t kept;
    uint8_t text[1016];
};

struct bw_txfeed_stats {
    uint64_t bytes;               /* of the stream, lent so far */
    uint64_t texts;               /* messages of JSON */
    uint64_t transactions;        /* handed out */
    uint64_t announced;           /* hashes without a body */
    uint64_t others;
    uint64_t entries;             /* of pools and blocks, whatever they were */
    uint64_t walked;              /* bytes of texts that were gone through */
    struct bw_txfeed_sample refused[16]; /* by enum bw_json_cause */
};

struct bw_txfeed_config {
    struct bw_ws *ws;             /* frames; NULL: the bytes are JSON values, one behind the other */
    struct bw_rules rules;
    struct bw_refusals *refusals; /* counts what the decoder refuses; may be NULL */
    uint32_t max_text;            /* of one message */
    uint32_t work;                /* instead of BW_TXFEED_WORK; 0: that */
    uint16_t source;              /* tx.source */
    uint8_t trusted;
    uint8_t reserved;
};

struct bw_txfeed;

/* NULL: no memory, or a value out of range. */
struct bw_txfeed *bw_txfeed_new(const struct bw_txfeed_config *config);
void bw_txfeed_free(struct bw_txfeed *f);

/* Forgets what was lent, for a new connection (of whose frames bw_ws_restart() was told); the
 * counters go on. */
void bw_txfeed_restart(struct bw_txfeed *f);

/* Lends bytes of the stream, which came at `arrival_ns` of `clock`. What was lent before must have
 * been read. */
void bw_txfeed_lend(struct bw_txfeed *f, const uint8_t *data, size_t len, uint64_t arrival_ns,
                    uint8_t clock);

/* Lends one whole text that came another way (inflated, over HTTP, in an answer); `form`: enum
 * bw_json_form. Its transactions came as `origin` says (enum bw_origin), but for those that a pool
 * says are queued; those of the stream itself are announced. It is read before the stream goes on. */
void bw_txfeed_lend_text(struct bw_txfeed *f, const uint8_t *text, uint32_t len, int form,
                         uint8_t origin, uint64_t arrival_ns, uint8_t clock);

/* Reads on. Writes transactions, hashed, to txs[0..n) and their envelopes to messages[0..n), n <= max
 * <= BW_TXFEED_BURST, and returns n. Call it again until event->kind is NONE. */
uint32_t bw_txfeed_read(struct bw_txfeed *f, struct bw_message *messages, struct bw_tx *txs,
                        uint32_t max, struct bw_txfeed_event *event);

const struct bw_txfeed_stats *bw_txfeed_stats(const struct bw_txfeed *f);
/* </cdef> */

#endif
