/* The calls inside a call.
 *
 * Much of what matters reaches the chain wrapped: in a router's multicall, as a command of the
 * Universal Router, through Multicall3, as the callData of an ERC-4337 user operation. A wrapper
 * is declared as where in its arguments the inner calls lie; none is coded by hand. Walking
 * lists the calls depth first, in order of appearance.
 *
 * A command (Universal Router) has no selector of its own: its command set declares a signature
 * for each command byte, and the first four bytes of that signature's Keccak-256 stand for it, so
 * that whoever looks at calls need not know the difference.
 *
 * The walk is bounded: BW_CALL_DEPTH wrappers inside each other, BW_CALLS calls and BW_CALL_STEPS
 * list elements in all, whatever the offsets say (they may all point to the same bytes). */
#ifndef BAREWIRE_CALLS_H
#define BAREWIRE_CALLS_H

#include "abi.h"
#include "txrecord.h"

/* <cdef> */
#define BW_CALL_DEPTH 4  /* wrappers inside each other */
#define BW_CALLS 64      /* inner calls of one transaction */
#define BW_CALL_STEPS 256 /* list elements looked at, undeclared commands included */
#define BW_WRAPPERS 1024 /* wrappers declared, one for each target that one is limited to */
#define BW_COMMAND_SETS 8

enum bw_wrapper_kind {
    BW_WRAPPER_ONE = 0,   /* one inner call: target, value and bytes are arguments */
    BW_WRAPPER_BYTES,     /* bytes[]: each element is the calldata of a call to oneself */
    BW_WRAPPER_TUPLES,    /* (target, value, bytes, ...)[] */
    BW_WRAPPER_ARRAYS,    /* address[], uint256[], bytes[] side by side */
    BW_WRAPPER_COMMANDS,  /* bytes of commands, bytes[] of their inputs */
    BW_WRAPPER_PACKED,    /* bytes: operation, 20 of target, 32 of value, 32 of length, calldata,
                             one call after the other without padding (Safe's MultiSend) */
};

/* Which address is called, and with what value. */
enum bw_wrapper_how {
    BW_WRAPPER_SAME = 0,  /* the wrapper's own */
    BW_WRAPPER_SLOT,      /* found at the declared slot */
    BW_WRAPPER_ZERO,      /* value only: none is passed on */
};

/* One wrapper. Slots are words of the arguments' head; with TUPLES those of `target`, `value` and
 * `data` are words of the tuple's head. */
struct bw_wrapper {
    uint32_t selector;
    uint8_t kind;         /* enum bw_wrapper_kind */
    uint8_t target_how;   /* enum bw_wrapper_how */
    uint8_t value_how;
    uint8_t command_set;  /* COMMANDS: which */
    uint8_t command_mask; /* COMMANDS: the bits of a command byte that name it */
    uint8_t limited;      /* 1: only in calls of `only`, where it goes before one that is not */
    uint16_t list;        /* BYTES, TUPLES: slot of the array. COMMANDS: of the command bytes */
    uint16_t target;
    uint16_t value;
    uint16_t data;        /* slot of the bytes, or of the bytes[] */
    uint16_t deadline;    /* slot + 1 of the second until which the calls are good; 0: none */
    uint8_t only[20];     /* zero where it is not limited */
};

/* What the commands of one set stand for: a selector, or 0 where the command is not declared. */
struct bw_command_set {
    uint32_t selectors[256];
};
/* </cdef> */
_Static_assert(sizeof(struct bw_wrapper) == 40, "as serialised");

struct bw_call {
    const uint8_t *target;  /* 20 bytes, or NULL: it creates a contract */
    const uint8_t *value;   /* 32 bytes big-endian, or NULL: the transaction's value */
    const uint8_t *deadline;/* 32 bytes big-endian, of the innermost wrapper that has one, or NULL */
    struct bw_region args;  /* behind the selector */
    uint32_t selector;
    uint8_t has_selector;
    uint8_t depth;          /* 0: the transaction's own call */
};

/* Declared wrappers, found by selector, and by target where they are limited to one. */
struct bw_wrappers {
    uint32_t count;
    uint32_t shift;          /* 32 - log2(slots) */
    uint32_t command_sets;
    uint64_t limited_first[4]; /* first bytes of selectors of limited ones, a bit each: nearly every
                                * transaction has none of them, and is looked up once */
    struct bw_wrapper *slots;/* open addressing; kind 0xff: free */
    struct bw_command_set *commands;
};

struct bw_calls {
    uint32_t n;
    uint32_t bad;   /* wrappers whose encoding is broken: walked up to there */
    uint32_t bound; /* wrappers cut off by one of the bounds */
    struct bw_call of[BW_CALLS];
};

/* Copies serialised wrappers and command sets; returns a sentence that says what is wrong, or
 * NULL. bw_wrappers_clear() gives back what it took (also of a struct that is all zero). */
const char *bw_wrappers_build(struct bw_wrappers *out, const uint8_t *wrappers, uint32_t count,
                              const uint8_t *command_sets, uint32_t set_count);
void bw_wrappers_clear(struct bw_wrappers *wrappers);

/* Where looking begins; `only` is NULL for a wrapper that is not limited. */
static inline uint32_t bw_wrapper_slot(const struct bw_wrappers *wrappers, uint32_t selector,
                                       const uint8_t *only)
{
    uint32_t key = only ? selector ^ bw_be32(only) * 0x85ebca6bu : selector;
    return (key * 0x9e3779b1u) >> wrappers->shift;
}

static inline const struct bw_wrapper *bw_wrapper_look(const struct bw_wrappers *wrappers,
                                                       uint32_t selector, const uint8_t *only)
{
    uint32_t mask = (1u << (32 - wrappers->shift)) - 1;
    for (uint32_t i = bw_wrapper_slot(wrappers, selector, only);; i = (i + 1) & mask) {
        const struct bw_wrapper *slot = &wrappers->slots[i];
        if (slot->kind == 0xff)
            return NULL;
        if (slot->selector == selector && slot->limited == (only != NULL) &&
            (!only || !memcmp(slot->only, only, 20)))
            return slot;
    }
}

/* The wrapper that a call of `target` (NULL: a creation) with this selector is, or NULL. */
static inline const struct bw_wrapper *bw_wrapper_find(const struct bw_wrappers *wrappers,
                                                       uint32_t selector, const uint8_t *target)
{
    if (!wrappers->count)
        return NULL;
    const struct bw_wrapper *found = NULL;
    if (wrappers->limited_first[selector >> 30] >> (selector >> 24 & 63) & 1 && target)
        found = bw_wrapper_look(wrappers, selector, target);
    return found ? found : bw_wrapper_look(wrappers, selector, NULL);
}

/* The 20 bytes of who is called, or NULL: it creates a contract. */
static inline const uint8_t *bw_target(const struct bw_tx *tx)
{
    return tx->flags & BW_TX_CREATE ? NULL : tx->to;
}

/* The transaction's own call; `raw` is its envelope. */
static inline struct bw_call bw_call_outer(const struct bw_tx *tx, const uint8_t *raw)
{
    bool has = tx->flags & BW_TX_HAS_SELECTOR;
    return (struct bw_call){
        .target = bw_target(tx),
        .args = {raw + tx->data_off + (has ? 4 : 0), tx->data_len - (has ? 4 : 0)},
        .selector = tx->selector,
        .has_selector = has,
    };
}

/* Lists the calls inside `outer` in out->of[0..n); out->n, bad and bound are set. */
void bw_calls_walk(const struct bw_wrappers *wrappers, const struct bw_call *outer,
                   struct bw_calls *out);

#endif
