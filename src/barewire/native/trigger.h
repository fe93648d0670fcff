/* Triggers: which transactions matter, as one native table.
 *
 * A trigger is a conjunction: one of these targets AND one of these selectors AND a value within
 * this range AND ... A transaction has to be held against all of them in a few nanoseconds,
 * whether there are ten or a hundred thousand, so nothing here walks a list of triggers. Loading
 * files every trigger under its exact keys, (target, selector), (target, any), (any, selector) or
 * (any, any), and, where many share a key, once more under the calldata words for which they want
 * exact values (and the sender, where that is what tells them apart). Matching probes the four
 * keys, one hash per such set of words, and checks the remaining conditions of the few triggers
 * found. A filter that fits the second-level cache answers "no" for what is absent, which is what
 * the table says nearly all of the time; a burst is looked up as a whole, so that the misses of
 * memory overlap.
 *
 * What no exact value tells apart is a list after all: triggers of one key that differ by ranges,
 * chain or type only are tried one by one. The loader refuses more than BW_TRIGGER_CHAIN of those
 * in one place and names the trigger: the cost of matching is bounded by construction.
 *
 * A trigger marked BW_TRIGGER_INSIDE is also held against the calls inside wrappers (multicall,
 * Universal Router commands, Multicall3, handleOps: see calls.h). There the target, the selector,
 * the value and the calldata words are those of the inner call; fees, gas, chain, type and sender
 * those of the transaction.
 *
 * A table is immutable. Its owner builds the next one aside, swaps it in by one pointer, and frees
 * the old one once the matching thread has left it; matching takes no lock and allocates
 * nothing. The serialised form (bw_triggers_load) is written by barewire.mempool.triggers and
 * described there. */
#ifndef BAREWIRE_TRIGGER_H
#define BAREWIRE_TRIGGER_H

#include "calls.h"
#include "decode.h"

/* <cdef> */
#define BW_TRIGGER_CHAIN 64    /* triggers in one place that no exact value tells apart */
#define BW_TRIGGER_INDEXES 8   /* sets of words filed under, for one key; more share the list */
#define BW_TRIGGER_ENTRIES 4194304 /* keys (targets x selectors) of all triggers together, and
                                      values filed under */
#define BW_MATCHES_PER_TX 16   /* triggers reported for one transaction; more are counted */
#define BW_NO_SHOT 0xffffffff

/* match.flags */
#define BW_MATCH_INNER 0x01         /* met by a call inside a wrapper, not by the outermost */
#define BW_MATCH_ORIGIN 0x04        /* the trigger asks for how it came (BW_TRIGGER_ORIGINS) */
#define BW_MATCH_NEEDS_SENDER 0x02  /* the sender decides and is not known: recover it, ask again */

struct bw_match {
    uint32_t tx;       /* index in the burst */
    uint32_t trigger;  /* its number: its place in the order of loading. With NEEDS_SENDER one of
                          those that may match */
    uint32_t tag;      /* the user's own number of the trigger */
    uint32_t shot;     /* the shot to fire (shot.h), or BW_NO_SHOT: hand it to Python */
    uint32_t call_off; /* where the arguments of the call that met it begin in the envelope */
    uint16_t flags;    /* BW_MATCH_... */
    uint16_t call;     /* 0: the outermost; n: the nth inner call in order of appearance */
};

/* Counted by the caller's thread; never reset here. */
struct bw_match_stats {
    uint64_t transactions;     /* held against the table */
    uint64_t matches;          /* reported, without those that need the sender */
    uint64_t needs_sender;     /* reported with BW_MATCH_NEEDS_SENDER */
    uint64_t overflow;         /* matches not reported: BW_MATCHES_PER_TX, or no room in `out` */
    uint64_t inner_calls;      /* calls found inside wrappers */
    uint64_t wrapper_bad;      /* wrappers whose encoding is broken: the calls up to there count */
    uint64_t wrapper_bound;    /* wrappers cut off: too deep, or too many inner calls */
};

/* The serialised table: this header, `wrappers` of struct bw_wrapper, `command_sets` of struct
 * bw_command_set, then `triggers` records. Little-endian, without padding. */
#define BW_TRIGGER_VERSION 2
struct bw_trigger_file {
    uint8_t magic[8];       /* "BWTRIGS" and a zero */
    uint32_t version;       /* BW_TRIGGER_VERSION */
    uint32_t length;        /* bytes in all, this header included */
    uint32_t triggers;
    uint32_t wrappers;
    uint32_t command_sets;
    uint32_t reserved;
};

/* record.flags: which conditions there are, besides the lists that are not empty */
#define BW_TRIGGER_INSIDE 0x01
#define BW_TRIGGER_VALUE 0x02
#define BW_TRIGGER_TIP 0x04
#define BW_TRIGGER_FEE_CAP 0x08
#define BW_TRIGGER_GAS 0x10
#define BW_TRIGGER_TYPES 0x20
#define BW_TRIGGER_ORIGINS 0x40

/* One trigger. Behind it, in this order and only where present: the ranges of VALUE, TIP and
 * FEE_CAP (uint64_t[2][4] each: least and greatest, both inclusive), of GAS (uint64_t[2]), then
 * uint64_t chain_ids[], uint8_t targets[][20], uint32_t selectors[], uint8_t senders[][20] and the
 * word conditions. Lists are sorted ascending, without repetition. */
struct bw_trigger_record {
    uint32_t length;        /* bytes of it in all, this header included */
    uint32_t tag;
    uint32_t shot;          /* or BW_NO_SHOT */
    uint16_t flags;         /* BW_TRIGGER_... */
    uint8_t types;          /* bit n: type n is wanted; 0 without BW_TRIGGER_TYPES */
    uint8_t origins;        /* bit n: enum bw_origin n is wanted; 0 without BW_TRIGGER_ORIGINS */
    uint32_t chain_ids;     /* at most 65535 */
    uint32_t targets;
    uint32_t selectors;
    uint32_t senders;
    uint32_t words;         /* at most 64, sorted by offset */
};

/* A condition on one word of calldata: behind it `values` times 32 bytes, each within the mask,
 * of which one must be equal; or, where `values` is 0, least and greatest (inclusive). Words are
 * big-endian numbers, as the ABI has them. A word that calldata does not have in full meets
 * nothing. */
struct bw_word_record {
    uint32_t offset;        /* bytes behind the selector */
    uint32_t values;
    uint8_t mask[32];       /* applied before comparing */
};

/* Why a serialised table was refused. */
struct bw_load_error {
    const char *what;   /* a sentence; static */
    uint32_t trigger;   /* which, or 0xffffffff where it is none of them */
    uint32_t limit;     /* the bound that was exceeded, or 0 */
    uint64_t offset;    /* of the byte that was being read */
};

struct bw_triggers;      /* one immutable table */
struct bw_trigger_slot;  /* where the matching thread finds the current one */

/* Builds a table from its serialised form; `seed` keys its hashes (any random number). Returns
 * NULL and fills *error (never NULL) when anything is wrong: nothing is guessed or skipped.
 * Copies what it needs; the caller frees with bw_triggers_free(). */
struct bw_triggers *bw_triggers_load(const uint8_t *blob, size_t len, uint64_t seed,
                                     struct bw_load_error *error);
void bw_triggers_free(struct bw_triggers *table);
uint32_t bw_triggers_count(const struct bw_triggers *table);
uint64_t bw_triggers_bytes(const struct bw_triggers *table); /* memory it takes */
uint64_t bw_triggers_seed(const struct bw_triggers *table);  /* as loaded: tells tables apart */

/* Holds a burst against the table: txs[0..n), decoded from messages[0..n); a record with raw_len 0
 * is passed over. Writes at most `max` matches, ordered by transaction, and returns how many. No
 * trigger is reported twice for one transaction. Needs no hash.
 *
 * BW_MATCH_NEEDS_SENDER is no match yet. Recover the sender into the record, set BW_TX_SENDER and
 * hold the transaction against the table again: the second answer is whole, it repeats what the
 * first one said. */
uint32_t bw_triggers_match(const struct bw_triggers *table, const struct bw_message *messages,
                           const struct bw_tx *txs, uint32_t n, struct bw_match *out,
                           uint32_t max, struct bw_match_stats *stats);

/* The slot. One thread matches; one thread (the same or another) owns the tables.
 *
 *   matching thread, per burst        owner
 *   t = bw_trigger_slot_enter(s)      old = bw_trigger_slot_swap(s, new)
 *   if (t) bw_triggers_match(t, ...)  later, when !bw_trigger_slot_busy(s, old):
 *   bw_trigger_slot_leave(s)              bw_triggers_free(old)
 *
 * enter() gives NULL where no table was set. free() frees the slot, not the table in it. */
struct bw_trigger_slot *bw_trigger_slot_new(void);
void bw_trigger_slot_free(struct bw_trigger_slot *slot);
const struct bw_triggers *bw_trigger_slot_enter(struct bw_trigger_slot *slot);
void bw_trigger_slot_leave(struct bw_trigger_slot *slot);
struct bw_triggers *bw_trigger_slot_swap(struct bw_trigger_slot *slot, struct bw_triggers *next);
int bw_trigger_slot_busy(const struct bw_trigger_slot *slot, const struct bw_triggers *table);
/* </cdef> */
_Static_assert(sizeof(struct bw_match) == 24, "packed");

#endif
