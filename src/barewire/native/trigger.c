#include "trigger_table.h"

#include <stdatomic.h>
#include <stdlib.h>

#define BATCH 32 /* transactions whose memory is fetched ahead together */

/* What is held against the triggers: the transaction's own call, or one inside it. */
struct subject {
    const struct bw_tx *tx;
    const uint8_t *envelope;
    struct bw_call call;
    uint32_t number; /* 0: the transaction's own call */
};

struct matcher {
    const struct bw_triggers *table;
    struct bw_match *out;
    uint32_t n, max;
    uint32_t first;  /* of the current transaction's matches */
    struct bw_match_stats *stats;
};

enum verdict { NO, YES, NEEDS_SENDER };

/* 256-bit comparison of numbers with the least significant word first. */
static inline bool amount_less(const uint64_t a[4], const uint64_t b[4])
{
    for (int i = 3; i >= 0; i--)
        if (a[i] != b[i])
            return a[i] < b[i];
    return false;
}

static inline bool amount_within(const uint64_t amount[4], const uint64_t *range)
{
    return !amount_less(amount, range) && !amount_less(range + 4, amount);
}

/* Whether the sorted list of `count` values, `stride` words each, holds `value` (of 4 words, of
 * which the last `stride` are compared). */
static bool listed(const uint64_t *list, uint32_t count, uint32_t stride, const uint64_t value[4])
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint64_t at[4] = {0};
        memcpy(at + 4 - stride, list + (uint64_t)middle * stride, stride * 8);
        if (word_less(at, value))
            low = middle + 1;
        else if (word_equal(at, value))
            return true;
        else
            high = middle;
    }
    return false;
}

static inline bool masked_word(const struct subject *subject, uint32_t offset,
                               const uint64_t mask[4], uint64_t out[4])
{
    const uint8_t *at = bw_abi_word(subject->call.args, offset);
    if (!at)
        return false;
    word_load(out, at);
    for (int i = 0; i < 4; i++)
        out[i] &= mask[i];
    return true;
}

static bool words_met(const struct trigger *trigger, const struct subject *subject,
                      const uint64_t *at)
{
    for (uint32_t i = 0; i < trigger->words; i++) {
        uint32_t offset = (uint32_t)*at, values = (uint32_t)(*at >> 32);
        const uint64_t *mask = at + 1, *list = at + 5;
        uint64_t word[4];
        if (!masked_word(subject, offset, mask, word))
            return false;
        if (!values) {
            if (word_less(word, list) || word_less(list + 4, word))
                return false;
        } else if (!listed(list, values, 4, word)) {
            return false;
        }
        at = list + 4 * (values ? values : 2);
    }
    return true;
}

static enum verdict conditions_met(const struct bw_triggers *table, const struct trigger *trigger,
                                   const struct subject *subject)
{
    const struct bw_tx *tx = subject->tx;
    if (subject->number && !(trigger->flags & BW_TRIGGER_INSIDE))
        return NO;
    if (trigger->plain)
        return YES;
    if ((trigger->flags & BW_TRIGGER_TYPES) && (tx->type > 7 || !(trigger->types >> tx->type & 1)))
        return NO;
    if ((trigger->flags & BW_TRIGGER_ORIGINS) && !(trigger->origins >> tx->origin & 1))
        return NO;
    const uint64_t *at = table->arena + trigger->conditions;
    if (trigger->flags & BW_TRIGGER_VALUE) {
        uint64_t inner[4];
        const uint64_t *value = tx->value_wei;
        if (subject->call.value) {
            for (int i = 0; i < 4; i++)
                inner[i] = bw_be64(subject->call.value + 24 - 8 * i);
            value = inner;
        }
        if (!amount_within(value, at))
            return NO;
        at += 8;
    }
    if (trigger->flags & BW_TRIGGER_TIP) {
        if (!amount_within(tx->tip_wei, at))
            return NO;
        at += 8;
    }
    if (trigger->flags & BW_TRIGGER_FEE_CAP) {
        if (!amount_within(tx->fee_cap_wei, at))
            return NO;
        at += 8;
    }
    if (trigger->flags & BW_TRIGGER_GAS) {
        if (tx->gas < at[0] || tx->gas > at[1])
            return NO;
        at += 2;
    }
    if (trigger->chain_ids) {
        uint64_t chain[4] = {0, 0, 0, tx->chain_id};
        /* 0 stands for a transaction that names none, not for one that names 0 */
        if ((!tx->chain_id && tx->flags & BW_TX_PROTECTED) ||
            !listed(at, trigger->chain_ids, 1, chain))
            return NO;
        at += trigger->chain_ids;
    }
    const uint64_t *senders = at;
    if (!words_met(trigger, subject, at + (uint64_t)trigger->senders * 3))
        return NO;
    if (!trigger->senders)
        return YES;
    if (!(tx->flags & BW_TX_SENDER))
        return NEEDS_SENDER;
    uint64_t sender[4];
    address_load(sender, tx->sender);
    return listed(senders, trigger->senders, 3, sender) ? YES : NO;
}

/* Reports trigger number `number`, unless this transaction has it already. */
static void report(struct matcher *matcher, const struct subject *subject, uint32_t tx,
                   uint32_t number, enum verdict verdict)
{
    for (uint32_t i = matcher->first; i < matcher->n; i++)
        if (matcher->out[i].trigger == number)
            return;
    if (matcher->n == matcher->max || matcher->n - matcher->first == BW_MATCHES_PER_TX) {
        matcher->stats->overflow++;
        return;
    }
    const struct trigger *trigger = &matcher->table->triggers[number];
    matcher->out[matcher->n++] = (struct bw_match){
        .tx = tx,
        .trigger = number,
        .tag = trigger->tag,
        .shot = trigger->shot,
        .call_off = (uint32_t)(subject->call.args.at - subject->envelope),
        .flags = (subject->number ? BW_MATCH_INNER : 0) |
                 (trigger->flags & BW_TRIGGER_ORIGINS ? BW_MATCH_ORIGIN : 0) |
                 (verdict == NEEDS_SENDER ? BW_MATCH_NEEDS_SENDER : 0),
        .call = (uint16_t)subject->number,
    };
    if (verdict == NEEDS_SENDER)
        matcher->stats->needs_sender++;
    else
        matcher->stats->matches++;
}

static void try_chain(struct matcher *matcher, const struct subject *subject, uint32_t tx,
                      uint32_t start, uint32_t count)
{
    for (uint32_t i = start; i < start + count; i++) {
        uint32_t number = matcher->table->chains[i];
        enum verdict verdict =
            conditions_met(matcher->table, &matcher->table->triggers[number], subject);
        if (verdict != NO)
            report(matcher, subject, tx, number, verdict);
    }
}

static inline bool maybe_there(const struct bw_triggers *table, uint64_t hash)
{
    uint64_t bits = filter_bits(hash);
    return (table->filter[hash & table->filter_mask] & bits) == bits;
}

/* The hash of what `subject` has where the index looks; false: its calldata ends before. */
static bool index_hash(const struct index *index, const struct subject *subject, uint64_t *out)
{
    uint64_t hash = index->salt, value[4];
    for (uint32_t i = 0; i < index->words; i++) {
        if (!masked_word(subject, index->offset[i], index->mask[i], value))
            return false;
        hash = hash_value(hash, value);
    }
    if (index->sender) {
        address_load(value, subject->tx->sender);
        hash = hash_value(hash, value);
    }
    *out = hash;
    return true;
}

static void try_bucket(struct matcher *matcher, const struct subject *subject, uint32_t tx,
                       uint32_t number)
{
    const struct bw_triggers *table = matcher->table;
    const struct bucket *bucket = &table->buckets[number];
    try_chain(matcher, subject, tx, bucket->start, bucket->count);
    for (uint32_t i = 0; i < bucket->index_count; i++) {
        const struct index *index = &table->indexes[bucket->index_start + i];
        uint64_t hash;
        if (subject->number && !index->inside)
            continue;
        if (index->sender && !(subject->tx->flags & BW_TX_SENDER)) {
            report(matcher, subject, tx, index->example, NEEDS_SENDER);
            continue;
        }
        if (!index_hash(index, subject, &hash))
            continue;
        if (!maybe_there(table, hash))
            continue;
        for (uint32_t at = (uint32_t)hash & table->value_mask; table->values[at].count;
             at = (at + 1) & table->value_mask) {
            if (table->values[at].hash == hash) {
                try_chain(matcher, subject, tx, table->values[at].start, table->values[at].count);
                break;
            }
        }
    }
}

static void try_key(struct matcher *matcher, const struct subject *subject, uint32_t tx,
                    uint64_t hash, uint32_t shape)
{
    const struct bw_triggers *table = matcher->table;
    for (uint32_t at = (uint32_t)hash & table->key_mask; table->keys[at].shape != UINT32_MAX;
         at = (at + 1) & table->key_mask) {
        const struct key_slot *slot = &table->keys[at];
        if (slot->shape == shape &&
            (shape == SHAPE_TARGET || slot->selector == subject->call.selector) &&
            (shape == SHAPE_SELECTOR || !memcmp(slot->target, subject->call.target, 20))) {
            try_bucket(matcher, subject, tx, slot->bucket);
            return;
        }
    }
}

/* The keys of one call: which shapes it can have, and their hashes. */
struct keys {
    uint64_t hash[3];
    uint32_t shapes;
};

static inline struct keys keys_of(const struct bw_triggers *table, const struct bw_call *call,
                                  uint32_t shapes)
{
    struct keys keys = {.shapes = shapes & 7};
    uint64_t seed = table->seed;
    if (!call->target)
        keys.shapes &= 1u << SHAPE_SELECTOR;
    if (!call->has_selector)
        keys.shapes &= 1u << SHAPE_TARGET;
    uint64_t target = 0;
    if (keys.shapes & (1u << SHAPE_BOTH | 1u << SHAPE_TARGET))
        target = hash_target(seed, call->target);
    keys.hash[SHAPE_BOTH] = hash_key(seed, target, call->selector, SHAPE_BOTH);
    keys.hash[SHAPE_TARGET] = hash_key(seed, target, 0, SHAPE_TARGET);
    keys.hash[SHAPE_SELECTOR] = hash_key(seed, seed, call->selector, SHAPE_SELECTOR);
    return keys;
}

static inline uint32_t present(const struct bw_triggers *table, const struct keys *keys)
{
    uint32_t found = 0;
    for (uint32_t shape = 0; shape < 3; shape++)
        if (keys->shapes >> shape & 1 && maybe_there(table, keys->hash[shape]))
            found |= 1u << shape;
    return found;
}

static void try_call(struct matcher *matcher, const struct subject *subject, uint32_t tx,
                     const struct keys *keys, uint32_t found, uint32_t shapes)
{
    for (uint32_t shape = 0; shape < 3; shape++)
        if (found >> shape & 1)
            try_key(matcher, subject, tx, keys->hash[shape], shape);
    if (shapes >> SHAPE_ANY & 1)
        try_bucket(matcher, subject, tx, matcher->table->any_bucket);
}

static void try_inside(struct matcher *matcher, const struct subject *outer, uint32_t tx)
{
    const struct bw_triggers *table = matcher->table;
    struct bw_calls calls;
    bw_calls_walk(&table->wrappers, &outer->call, &calls);
    matcher->stats->inner_calls += calls.n;
    matcher->stats->wrapper_bad += calls.bad;
    matcher->stats->wrapper_bound += calls.bound;
    for (uint32_t i = 0; i < calls.n; i++) {
        struct subject inner = {outer->tx, outer->envelope, calls.of[i], i + 1};
        struct keys keys = keys_of(table, &inner.call, table->inside_shapes);
        try_call(matcher, &inner, tx, &keys, present(table, &keys), table->inside_shapes);
    }
}

uint32_t bw_triggers_match(const struct bw_triggers *table, const struct bw_message *messages,
                           const struct bw_tx *txs, uint32_t n, struct bw_match *out,
                           uint32_t max, struct bw_match_stats *stats)
{
    struct matcher matcher = {.table = table, .out = out, .max = max, .stats = stats};
    struct keys keys[BATCH];
    uint32_t found[BATCH];
    for (uint32_t base = 0; base < n; base += BATCH) {
        uint32_t count = n - base < BATCH ? n - base : BATCH;
        for (uint32_t i = 0; i < count; i++) {
            struct bw_call call = bw_call_outer(&txs[base + i], messages[base + i].data);
            keys[i] = keys_of(table, &call, table->shapes);
            for (uint32_t shape = 0; shape < 3; shape++)
                if (keys[i].shapes >> shape & 1)
                    __builtin_prefetch(&table->filter[keys[i].hash[shape] & table->filter_mask]);
        }
        for (uint32_t i = 0; i < count; i++) {
            found[i] = present(table, &keys[i]);
            for (uint32_t shape = 0; shape < 3; shape++)
                if (found[i] >> shape & 1)
                    __builtin_prefetch(&table->keys[keys[i].hash[shape] & table->key_mask]);
        }
        for (uint32_t i = 0; i < count; i++) {
            const struct bw_tx *tx = &txs[base + i];
            if (!tx->raw_len)
                continue;
            stats->transactions++;
            matcher.first = matcher.n;
            bool inside = table->inside_shapes && (tx->flags & BW_TX_HAS_SELECTOR) &&
                          bw_wrapper_find(&table->wrappers, tx->selector, bw_target(tx));
            if (!found[i] && !(table->shapes >> SHAPE_ANY & 1) && !inside)
                continue;
            const uint8_t *raw = messages[base + i].data;
            struct subject subject = {tx, raw, bw_call_outer(tx, raw), 0};
            try_call(&matcher, &subject, base + i, &keys[i], found[i], table->shapes);
            if (inside)
                try_inside(&matcher, &subject, base + i);
        }
    }
    return matcher.n;
}

uint32_t bw_triggers_count(const struct bw_triggers *table)
{
    return table->count;
}

uint64_t bw_triggers_seed(const struct bw_triggers *table)
{
    return table->seed;
}

uint64_t bw_triggers_bytes(const struct bw_triggers *table)
{
    return table->bytes;
}

/* `in_use` is a hazard pointer: the reader says what it is about to use, then checks that it is
 * still current. An owner that has swapped and then sees another value in it knows that the
 * reader can no longer come to the old table. */
struct bw_trigger_slot {
    _Atomic(struct bw_triggers *) current;
    _Atomic(struct bw_triggers *) in_use;
};

struct bw_trigger_slot *bw_trigger_slot_new(void)
{
    return calloc(1, sizeof(struct bw_trigger_slot));
}

void bw_trigger_slot_free(struct bw_trigger_slot *slot)
{
    free(slot);
}

const struct bw_triggers *bw_trigger_slot_enter(struct bw_trigger_slot *slot)
{
    for (;;) {
        struct bw_triggers *table = atomic_load(&slot->current);
        atomic_store(&slot->in_use, table);
        if (atomic_load(&slot->current) == table)
            return table;
    }
}

void bw_trigger_slot_leave(struct bw_trigger_slot *slot)
{
    atomic_store_explicit(&slot->in_use, NULL, memory_order_release);
}

struct bw_triggers *bw_trigger_slot_swap(struct bw_trigger_slot *slot, struct bw_triggers *next)
{
    return atomic_exchange(&slot->current, next);
}

int bw_trigger_slot_busy(const struct bw_trigger_slot *slot, const struct bw_triggers *table)
{
    struct bw_trigger_slot *at = (struct bw_trigger_slot *)slot;
    return atomic_load(&at->in_use) == table;
}
