/* Triggers: which transactions matter, as one native table.
 *
 * A trigger is a conjunction: one of these targets AND one of these selectors AND a value within
 * this range AND ... A transaction has to be held against all of them in a few nanoseconds,
 * whether there are ten or a hundred thousand, so nothing here walks a list of triggers. Loading
 * files every trigger under its exact keys, (target, selector), (target, any), (any, selector) or
 * (any, any), and, within those, under the one calldata word or sender that tells most of its
 * neighbours apart. Matching probes the four keys, follows one hash per kind of word used
 * there, and checks the remaining conditions of the few triggers found. A filter that fits the
 * second-level cache answers "no" for the keys that are absent, which is what the table says
 * nearly all of the time; a burst is looked up as a whole, so that the misses of memory overlap.
 *
 * What no key tells apart is a list after all: triggers of one bucket that differ by ranges,
 * masks or chain only are tried one by one. The loader refuses more than BW_TRIGGER_CHAIN of
 * those in one place, and more than BW_TRIGGER_INDEXES kinds of word in one bucket, and names the
 * trigger: the cost of matching is bounded by construction.
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

#include "txrecord.h"

/* <cdef> */
#define BW_TRIGGER_CHAIN 64    /* triggers in one place that no key tells apart */
#define BW_TRIGGER_INDEXES 8   /* kinds of calldata word (or sender) filed under in one bucket */
#define BW_MATCHES_PER_TX 16   /* triggers reported for one transaction; more are counted */
#define BW_NO_SHOT 0xffffffff

/* match.flags */
#define BW_MATCH_INNER 0x01         /* met by a call inside a wrapper, not by the outermost */
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

/* Holds n transactions against the table: txs[i] with its envelope at raw[i]. Writes at most
 * `max` matches, ordered by transaction, and returns how many. No trigger is reported twice for
 * one transaction. Reads nothing of a transaction but txs[i] and its calldata; needs no hash. */
int bw_triggers_match(const struct bw_triggers *table, const struct bw_tx *txs,
                      const uint8_t *const *raw, int n, struct bw_match *out, int max,
                      struct bw_match_stats *stats);

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
