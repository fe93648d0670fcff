/* Transactions in JSON, as nodes and relays announce them, made into signed envelopes.
 *
 * A node that announces a pending transaction does not send the bytes that were signed: it sends
 * their fields, spelled out. What this reader does is to spell them back: it walks the text once,
 * remembers where the fields lie, in whatever order they come, and writes the RLP envelope from
 * them. It is judged by whoever called: the envelope goes through the strict decoder, and its
 * Keccak-256 must be the hash that was announced, so a reader (or a node) that gets a field wrong
 * is found out and never believed.
 *
 * The forms that are known:
 *
 *     {"method": "eth_subscription", "params": {"subscription": "0x..", "result": {TX} or "0xHASH"}}
 *     {"method": "subscribe", "params": {"subscription": "..", "result":
 *         {"txHash": "0x..", "txContents": {TX}, "rawTx": "0x.."}}}      (bloXroute's newTxs)
 *     {"id": 7, "result": {TX}}      an answer to eth_getTransactionByHash, alone or in a batch
 *     {TX}                                     alone (BW_JSON_BARE)
 *     {"pending": {"SENDER": {"NONCE": {TX}}}} what a node holds (BW_JSON_POOL)
 *     {"transactions": [{TX}]}                 what is in a block (BW_JSON_BLOCK)
 *
 * The first three come alone, in a batch, or one behind another. What nodes leave out is put in
 * where it can be known: the type by the fields that are there, the chain by what is configured.
 *
 * Anything else that is JSON is handed to the caller as it is. The text is checked in full (RFC
 * 8259, and UTF-8 in its strings); of members that come twice the last counts, as in Python's json
 * and in msgspec. Nothing is read beyond the text, the time is linear in its length, values are
 * nested BW_JSON_DEPTH deep at most, and there are no more of them, escapes in strings counted as
 * well, than BW_JSON_VALUES_MIN and one for every BW_JSON_BYTES_A_VALUE bytes: transactions and
 * lists of hashes have fewer by far, and whoever reads what is handed out pays for each. What stands
 * in a batch beside objects ends it. */
#ifndef BAREWIRE_TXJSON_H
#define BAREWIRE_TXJSON_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_JSON_DEPTH 64
#define BW_JSON_VALUES_MIN 4096
#define BW_JSON_BYTES_A_VALUE 16
#define BW_JSON_OBJECT 4194304 /* bytes: a blob transaction in its wrapper, nine blobs, has 2.4 million */

/* Why a text, or a transaction in it, was not accepted. */
enum bw_json_cause {
    BW_JSON_OK = 0,
    BW_JSON_SYNTAX,        /* not JSON */
    BW_JSON_UTF8,          /* a string that is not UTF-8 */
    BW_JSON_DEEP,          /* nested too deep */
    BW_JSON_MISSING,       /* a transaction that lacks a field of its type */
    BW_JSON_KIND,          /* a field that is not a string, or not a list, where it has to be */
    BW_JSON_HEX,           /* not 0x and hexadecimal digits, or half a byte too many */
    BW_JSON_WIDTH,         /* more bytes than the field has, or fewer */
    BW_JSON_TYPE,          /* an EIP-2718 type that Ethereum does not have (an L2's own) */
    BW_JSON_ROOM,          /* an envelope longer than the room for it */
    BW_JSON_TRANSACTION,   /* the decoder refused what the fields give; its counters say why */
    BW_JSON_HASH,          /* what the fields give has another hash than the announced one */
    BW_JSON_VALUES,        /* more values, or escapes, than such a text can need */
    BW_JSON_LONG,          /* an object that is longer than any transaction */
    BW_JSON_CAUSES,
    BW_JSON_AGAIN = 64,    /* none of them: there is more than may be walked through now */
};

/* What a text is. */
enum bw_json_form {
    BW_JSON_STREAM = 0,    /* a message: a notification, an answer, a batch of them */
    BW_JSON_BARE = 1,      /* one transaction object */
    BW_JSON_POOL = 2,      /* the result of txpool_content: by state, by sender, by nonce */
    BW_JSON_BLOCK = 3,     /* the result of eth_getBlockByNumber with whole transactions */
};

enum bw_json_kind {
    BW_JSON_NONE = 0,
    BW_JSON_TX = 1,        /* a transaction: `raw` and `hash` */
    BW_JSON_ANNOUNCED = 2, /* a hash without its transaction */
    BW_JSON_OTHER = 3,     /* an answer, an error, another subscription: `text` */
};

/* One object of the text; pointers into it, `raw` into the room. */
struct bw_json_item {
    const uint8_t *text;   /* the whole object */
    const uint8_t *raw;    /* the envelope, made anew */
    const uint8_t *result; /* of an answer (kind OTHER): the value of its "result"; or NULL */
    uint32_t text_len;
    uint32_t raw_len;
    uint32_t result_len;
    uint32_t walked;       /* bytes of the text that this call went through, whatever it returned */
    uint8_t hash[32];      /* as announced */
    uint8_t kind;          /* enum bw_json_kind */
    uint8_t cause;         /* enum bw_json_cause: why this is no transaction (kind NONE) */
    uint8_t queued;        /* its pool cannot execute it: it lies behind a gap in the nonces */
    uint8_t reserved;
};

struct bw_json;

/* A reader of texts of `max_text` bytes at most (1..2^30); `chain_id` is that of transactions which
 * do not say theirs, or 0. NULL: no memory, or out of range. */
struct bw_json *bw_json_new(uint32_t max_text, uint64_t chain_id);
void bw_json_free(struct bw_json *j);

/* Begins a text, which stays where it is until it is read to its end; `form`: enum bw_json_form. */
void bw_json_begin(struct bw_json *j, const uint8_t *text, uint32_t len, int form);

/* The next object of the text: 1, with `cause` set where it is a transaction that cannot be made
 * (in a pool or a block everything that stands in a transaction's place is one);
 * 0 at the end of the text; BW_JSON_AGAIN where `budget` bytes (1 or more) were walked through and a
 * few, and there is neither yet; or a negative enum bw_json_cause: the text is not what it should be,
 * and nothing more of it is read. Envelopes are written to `room`, and are at most half as long as
 * the object that they come from. */
int bw_json_next(struct bw_json *j, uint32_t budget, uint8_t *room, uint32_t room_len,
                 struct bw_json_item *out);

/* The cause in lower case ("syntax"), as counters spell it; "?" for a number that is none. */
const char *bw_json_cause_name(uint32_t cause);

/* Where the first JSON value of a stream of them ends (a node's IPC socket puts nothing between
 * them). Zero it to begin. */
struct bw_json_split {
    uint32_t depth;
    uint8_t in_string;
    uint8_t escaped;
    uint8_t begun;
    uint8_t reserved;
};

/* Looks at `len` further bytes; returns how many belong to the value that ends in them (and begins
 * anew), or 0 when it goes on. Only objects and arrays are values here; bytes before one are
 * skipped as part of it. */
size_t bw_json_split(struct bw_json_split *s, const uint8_t *data, size_t len);
/* </cdef> */

#endif
