/* Builds a table from its serialised form. Strict: whatever is not exactly as trigger.h says is
 * refused. Not on the hot path: it allocates, sorts, and takes its time. */
#include "trigger_table.h"

#include <stdlib.h>

#define DIRECT 8     /* so few triggers under one key are tried one by one without an index */
#define NO_INDEX 0xffffffff
#define MAX_WORDS 64

/* One trigger under one of its keys. */
struct place {
    uint32_t bucket, trigger;
    uint32_t index;     /* of struct index, or NO_INDEX: tried one by one */
    uint32_t by_sender; /* 1: words alone put too many into one chain */
};

/* One trigger under one value of its index. */
struct filed {
    uint64_t hash;
    uint32_t place;
};

struct loader {
    const uint8_t *start, *at, *end;
    struct bw_load_error *error;
    struct bw_triggers *table;
    uint32_t record; /* trigger being read */
    uint32_t arena_used;
    struct place *places;
    uint32_t place_count, place_room;
    struct filed *filed;
    uint32_t filed_count, filed_room;
    uint32_t bucket_count, bucket_room;
    uint32_t index_count, index_room;
    uint32_t chain_count;
};

static bool fail(struct loader *loader, const char *what, uint32_t limit)
{
    *loader->error = (struct bw_load_error){
        .what = what,
        .trigger = loader->record,
        .limit = limit,
        .offset = (uint64_t)(loader->at - loader->start),
    };
    return false;
}

static bool no_memory(struct loader *loader)
{
    return fail(loader, "no memory", 0);
}

/* Makes room for one more in an array that doubles; false: no memory. */
static bool grow(void **array, uint32_t count, uint32_t *room, size_t size)
{
    if (count < *room)
        return true;
    uint32_t next = *room ? *room * 2 : 64;
    void *more = realloc(*array, next * size);
    if (!more)
        return false;
    *array = more;
    *room = next;
    return true;
}

static uint32_t power_of_two(uint64_t least)
{
    uint64_t power = 1;
    while (power < least)
        power *= 2;
    return (uint32_t)power;
}

/* ---- reading ---- */

static bool take(struct loader *loader, void *out, size_t len, const uint8_t *end)
{
    if ((size_t)(end - loader->at) < len)
        return fail(loader, "it ends too early", 0);
    memcpy(out, loader->at, len);
    loader->at += len;
    return true;
}

static uint64_t *arena(struct loader *loader, uint64_t words)
{
    /* The arena was sized by the blob's length, which every word read has a share in. */
    uint64_t *at = loader->table->arena + loader->arena_used;
    loader->arena_used += (uint32_t)words;
    return at;
}

static bool take_range(struct loader *loader, uint32_t limbs, const uint8_t *end)
{
    uint64_t *range = arena(loader, 2 * limbs);
    if (!take(loader, range, 16 * limbs, end))
        return false;
    for (uint32_t i = limbs; i-- > 0;) {
        if (range[i] != range[limbs + i]) {
            if (range[i] > range[limbs + i])
                return fail(loader, "a range whose least value is above its greatest", 0);
            break;
        }
    }
    return true;
}

/* Skips over a list of `count` items of `size` bytes, which must be ascending as bytes. */
static bool take_list(struct loader *loader, uint32_t count, uint32_t size, const uint8_t *end,
                      const uint8_t **out)
{
    if ((uint64_t)(end - loader->at) < (uint64_t)count * size)
        return fail(loader, "a list is longer than what is there", 0);
    *out = loader->at;
    for (uint32_t i = 1; i < count; i++) {
        loader->at += size;
        if (memcmp(loader->at - size, loader->at, size) >= 0)
            return fail(loader, "a list is not ascending, or repeats a value", 0);
    }
    loader->at += count ? size : 0;
    return true;
}

static bool take_word(struct loader *loader, const uint8_t *end, uint32_t *last_offset, bool first)
{
    struct bw_word_record word;
    if (!take(loader, &word, sizeof word, end))
        return false;
    if (!first && word.offset < *last_offset)
        return fail(loader, "word conditions are not sorted by offset", 0);
    *last_offset = word.offset;
    const uint8_t *values;
    if (word.values) {
        if (!take_list(loader, word.values, 32, end, &values))
            return false;
    } else {
        values = loader->at;
        if ((uint64_t)(end - loader->at) < 64)
            return fail(loader, "it ends too early", 0);
        if (memcmp(values, values + 32, 32) > 0)
            return fail(loader, "a range whose least value is above its greatest", 0);
        loader->at += 64;
    }
    uint32_t count = word.values ? word.values : 2;
    *arena(loader, 1) = word.offset | (uint64_t)word.values << 32;
    uint64_t *mask = arena(loader, 4);
    word_load(mask, word.mask);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t *value = arena(loader, 4);
        word_load(value, values + 32 * i);
        for (int k = 0; k < 4; k++)
            if (value[k] & ~mask[k])
                return fail(loader, "a value has bits outside its mask", 0);
    }
    return true;
}

/* ---- keys ---- */

static struct key_slot *find_key(const struct bw_triggers *table, const uint8_t *target,
                                 uint32_t selector, uint32_t shape)
{
    uint64_t part = shape == SHAPE_SELECTOR ? table->seed : hash_target(table->seed, target);
    uint32_t at = (uint32_t)hash_key(table->seed, part, selector, shape) & table->key_mask;
    for (;; at = (at + 1) & table->key_mask) {
        struct key_slot *slot = &table->keys[at];
        if (slot->shape == UINT32_MAX || (slot->shape == shape && slot->selector == selector &&
                                          !memcmp(slot->target, target, 20)))
            return slot;
    }
}

static bool new_keys(struct bw_triggers *table, uint64_t count)
{
    uint32_t slots = power_of_two(2 * count + 2);
    table->keys = malloc(slots * sizeof *table->keys);
    if (!table->keys)
        return false;
    memset(table->keys, 0xff, slots * sizeof *table->keys);
    table->key_mask = slots - 1;
    return true;
}

/* Allocates the table of keys anew for `count` of them; what is filed moves. */
static bool size_keys(struct loader *loader, uint64_t count)
{
    struct bw_triggers *table = loader->table;
    struct key_slot *old = table->keys;
    uint32_t old_slots = table->key_mask + 1;
    if (!new_keys(table, count)) {
        table->keys = old;
        return no_memory(loader);
    }
    for (uint32_t i = 0; old && i < old_slots; i++)
        if (old[i].shape != UINT32_MAX)
            *find_key(table, old[i].target, old[i].selector, old[i].shape) = old[i];
    free(old);
    return true;
}

static bool add_bucket(struct loader *loader, uint32_t *out)
{
    if (!grow((void **)&loader->table->buckets, loader->bucket_count, &loader->bucket_room,
              sizeof(struct bucket)))
        return no_memory(loader);
    loader->table->buckets[loader->bucket_count] = (struct bucket){0};
    *out = loader->bucket_count++;
    return true;
}

/* Files the trigger being read under one key. */
static bool place(struct loader *loader, const uint8_t *target, const uint8_t *selector)
{
    static const uint8_t open[20];
    struct bw_triggers *table = loader->table;
    uint32_t shape = target ? selector ? SHAPE_BOTH : SHAPE_TARGET
                            : selector ? SHAPE_SELECTOR : SHAPE_ANY;
    uint32_t number = selector ? bw_be32(selector) : 0, bucket = 0;
    if (loader->place_count == BW_TRIGGER_ENTRIES)
        return fail(loader, "too many keys (targets x selectors)", BW_TRIGGER_ENTRIES);
    if (shape == SHAPE_ANY) {
        if (table->any_bucket == UINT32_MAX && !add_bucket(loader, &table->any_bucket))
            return false;
        bucket = table->any_bucket;
    } else {
        if (loader->bucket_count >= table->key_mask / 2 &&
            !size_keys(loader, loader->bucket_count * 2ull))
            return false;
        struct key_slot *slot = find_key(table, target ? target : open, number, shape);
        if (slot->shape == UINT32_MAX) {
            if (!add_bucket(loader, &bucket))
                return false;
            memcpy(slot->target, target ? target : open, 20);
            slot->selector = number;
            slot->shape = shape;
            slot->bucket = bucket;
        }
        bucket = slot->bucket;
    }
    table->shapes |= 1u << shape;
    if (table->triggers[loader->record].flags & BW_TRIGGER_INSIDE)
        table->inside_shapes |= 1u << shape;
    if (!grow((void **)&loader->places, loader->place_count, &loader->place_room,
              sizeof(struct place)))
        return no_memory(loader);
    loader->places[loader->place_count++] =
        (struct place){.bucket = bucket, .trigger = loader->record, .index = NO_INDEX};
    return true;
}

static bool read_trigger(struct loader *loader)
{
    const uint8_t *start = loader->at, *end, *chain_ids, *targets, *selectors, *senders;
    struct bw_trigger_record record;
    if (!take(loader, &record, sizeof record, loader->end))
        return false;
    if (record.length < sizeof record || record.length > (size_t)(loader->end - start))
        return fail(loader, "its length does not fit", 0);
    end = start + record.length;
    if (record.flags & ~0x7f)
        return fail(loader, "unknown flags", 0);
    if (!(record.flags & BW_TRIGGER_TYPES) != !record.types)
        return fail(loader, "transaction types without their flag", 0);
    if (!(record.flags & BW_TRIGGER_ORIGINS) != !record.origins || record.origins >> BW_ORIGINS)
        return fail(loader, "origins without their flag, or none that there is", BW_ORIGINS - 1);
    if (record.chain_ids > 0xffff)
        return fail(loader, "too many chain ids", 0xffff);
    if (record.words > MAX_WORDS)
        return fail(loader, "too many word conditions", MAX_WORDS);

    struct trigger *trigger = &loader->table->triggers[loader->record];
    *trigger = (struct trigger){
        .tag = record.tag,
        .shot = record.shot,
        .conditions = loader->arena_used,
        .flags = record.flags,
        .types = record.types,
        .origins = record.origins,
        .chain_ids = (uint16_t)record.chain_ids,
        .words = (uint16_t)record.words,
        .senders = record.senders,
    };
    for (uint32_t flag = BW_TRIGGER_VALUE; flag <= BW_TRIGGER_FEE_CAP; flag <<= 1)
        if ((record.flags & flag) && !take_range(loader, 4, end))
            return false;
    if ((record.flags & BW_TRIGGER_GAS) && !take_range(loader, 1, end))
        return false;
    chain_ids = loader->at;
    if ((size_t)(end - loader->at) < record.chain_ids * 8ull)
        return fail(loader, "a list is longer than what is there", 0);
    for (uint32_t i = 0; i < record.chain_ids; i++) {
        uint64_t *id = arena(loader, 1);
        memcpy(id, chain_ids + 8 * i, 8);
        loader->at += 8;
        if (i && id[-1] >= *id)
            return fail(loader, "a list is not ascending, or repeats a value", 0);
    }
    if (!take_list(loader, record.targets, 20, end, &targets) ||
        !take_list(loader, record.selectors, 4, end, &selectors) ||
        !take_list(loader, record.senders, 20, end, &senders))
        return false;
    for (uint32_t i = 0; i < record.senders; i++) {
        uint64_t sender[4];
        address_load(sender, senders + 20 * i);
        memcpy(arena(loader, 3), sender + 1, 24);
    }
    uint32_t offset = 0;
    for (uint32_t i = 0; i < record.words; i++)
        if (!take_word(loader, end, &offset, !i))
            return false;
    if (loader->at != end)
        return fail(loader, "bytes are left over behind it", 0);
    trigger->plain = !((record.flags & ~BW_TRIGGER_INSIDE) | record.chain_ids | record.senders |
                       record.words);
    for (uint32_t i = 0; i < (record.targets ? record.targets : 1); i++)
        for (uint32_t k = 0; k < (record.selectors ? record.selectors : 1); k++)
            if (!place(loader, record.targets ? targets + 20 * i : NULL,
                       record.selectors ? selectors + 4 * k : NULL))
                return false;
    return true;
}

/* ---- indexes ---- */

/* The word conditions of a trigger that can file it: those that want one exact value, or else the
 * one with the fewest values. */
struct plan {
    uint32_t words;
    const uint64_t *at[INDEX_WORDS]; /* in the arena: offset | values << 32, mask, values */
    const uint64_t *senders;
    uint32_t sender_count;
};

static struct plan plan_of(const struct bw_triggers *table, uint32_t number)
{
    const struct trigger *trigger = &table->triggers[number];
    const uint64_t *at = table->arena + trigger->conditions, *fewest = NULL;
    for (uint32_t flag = BW_TRIGGER_VALUE; flag <= BW_TRIGGER_FEE_CAP; flag <<= 1)
        at += trigger->flags & flag ? 8 : 0;
    at += (trigger->flags & BW_TRIGGER_GAS ? 2 : 0) + trigger->chain_ids;
    struct plan plan = {.senders = at, .sender_count = trigger->senders};
    at += (uint64_t)trigger->senders * 3;
    for (uint32_t i = 0; i < trigger->words; i++) {
        uint32_t values = (uint32_t)(*at >> 32);
        if (values == 1 && plan.words < INDEX_WORDS)
            plan.at[plan.words++] = at;
        if (values && (!fewest || values < *fewest >> 32))
            fewest = at;
        at += 5 + 4 * (uint64_t)(values ? values : 2);
    }
    if (!plan.words && fewest)
        plan.at[plan.words++] = fewest;
    return plan;
}

static bool index_fits(const struct index *index, const struct plan *plan, bool by_sender)
{
    if (index->words != plan->words || index->sender != by_sender)
        return false;
    for (uint32_t i = 0; i < plan->words; i++)
        if (index->offset[i] != (uint32_t)*plan->at[i] ||
            memcmp(index->mask[i], plan->at[i] + 1, 32))
            return false;
    return true;
}

/* Finds or makes the index of `place` among its bucket's, which are the last ones made. */
static bool choose_index(struct loader *loader, struct place *place)
{
    struct bw_triggers *table = loader->table;
    struct bucket *bucket = &table->buckets[place->bucket];
    struct plan plan = plan_of(table, place->trigger);
    bool by_sender = plan.sender_count && (place->by_sender || !plan.words);
    place->index = NO_INDEX;
    if (!plan.words && !by_sender)
        return true;
    uint32_t i = bucket->index_start;
    while (i < loader->index_count && !index_fits(&table->indexes[i], &plan, by_sender))
        i++;
    if (i == loader->index_count) {
        if (bucket->index_count == BW_TRIGGER_INDEXES)
            return true;
        if (!grow((void **)&table->indexes, loader->index_count, &loader->index_room,
                  sizeof(struct index)))
            return no_memory(loader);
        struct index *index = &table->indexes[loader->index_count++];
        memset(index, 0, sizeof *index);
        bucket->index_count++;
        index->salt = fold(table->seed ^ (i + 1), 0xe7037ed1a0b428db);
        index->words = plan.words;
        index->sender = by_sender;
        index->example = place->trigger;
        for (uint32_t k = 0; k < plan.words; k++) {
            index->offset[k] = (uint32_t)*plan.at[k];
            memcpy(index->mask[k], plan.at[k] + 1, 32);
        }
    }
    place->index = i;
    if (table->triggers[place->trigger].flags & BW_TRIGGER_INSIDE)
        table->indexes[i].inside = 1;
    return true;
}

static bool file_value(struct loader *loader, uint64_t hash, uint32_t place)
{
    if (loader->filed_count == BW_TRIGGER_ENTRIES)
        return fail(loader, "too many values to file triggers under", BW_TRIGGER_ENTRIES);
    if (!grow((void **)&loader->filed, loader->filed_count, &loader->filed_room,
              sizeof(struct filed)))
        return no_memory(loader);
    loader->filed[loader->filed_count++] = (struct filed){hash, place};
    return true;
}

static bool file_place(struct loader *loader, uint32_t number)
{
    const struct place *place = &loader->places[number];
    const struct index *index = &loader->table->indexes[place->index];
    struct plan plan = plan_of(loader->table, place->trigger);
    loader->record = place->trigger;
    /* Only a lone word can have more than one value. */
    uint32_t values = plan.words == 1 ? (uint32_t)(*plan.at[0] >> 32) : 1;
    for (uint32_t v = 0; v < values; v++) {
        uint64_t hash = index->salt;
        for (uint32_t i = 0; i < plan.words; i++)
            hash = hash_value(hash, plan.at[i] + 5 + 4 * v);
        if (!index->sender) {
            if (!file_value(loader, hash, number))
                return false;
            continue;
        }
        for (uint32_t i = 0; i < plan.sender_count; i++) {
            uint64_t sender[4] = {0};
            memcpy(sender + 1, plan.senders + 3 * i, 24);
            if (!file_value(loader, hash_value(hash, sender), number))
                return false;
        }
    }
    return true;
}

static int by_bucket(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->bucket != y->bucket)
        return x->bucket < y->bucket ? -1 : 1;
    return x->trigger < y->trigger ? -1 : x->trigger > y->trigger;
}

static int by_hash(const void *a, const void *b)
{
    const struct filed *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static uint32_t equal_hashes(const struct loader *loader, uint32_t start)
{
    uint32_t end = start + 1;
    while (end < loader->filed_count && loader->filed[end].hash == loader->filed[start].hash)
        end++;
    return end - start;
}

/* Chooses the index of every place and files it under its values. The places are sorted by
 * bucket. */
static bool file_all(struct loader *loader)
{
    struct bw_triggers *table = loader->table;
    loader->index_count = loader->filed_count = 0;
    for (uint32_t start = 0, end; start < loader->place_count; start = end) {
        struct bucket *bucket = &table->buckets[loader->places[start].bucket];
        for (end = start; end < loader->place_count &&
                          loader->places[end].bucket == loader->places[start].bucket;)
            end++;
        bucket->index_start = loader->index_count;
        bucket->index_count = 0;
        for (uint32_t i = start; end - start > DIRECT && i < end; i++)
            if (!choose_index(loader, &loader->places[i]) ||
                (loader->places[i].index != NO_INDEX && !file_place(loader, i)))
                return false;
    }
    if (loader->filed_count)
        qsort(loader->filed, loader->filed_count, sizeof *loader->filed, by_hash);
    return true;
}

static bool build_indexes(struct loader *loader)
{
    if (loader->place_count)
        qsort(loader->places, loader->place_count, sizeof *loader->places, by_bucket);
    if (!file_all(loader))
        return false;
    bool again = false;
    for (uint32_t start = 0, n; start < loader->filed_count; start += n) {
        n = equal_hashes(loader, start);
        for (uint32_t i = start; n > BW_TRIGGER_CHAIN && i < start + n; i++) {
            struct place *place = &loader->places[loader->filed[i].place];
            if (loader->table->triggers[place->trigger].senders && !place->by_sender)
                place->by_sender = again = true;
        }
    }
    return !again || file_all(loader);
}

static bool build_chains(struct loader *loader)
{
    struct bw_triggers *table = loader->table;
    uint64_t total = (uint64_t)loader->place_count + loader->filed_count, groups = 0;
    table->chains = malloc((total + 1) * sizeof *table->chains);
    if (!table->chains)
        return no_memory(loader);
    for (uint32_t i = 0; i < loader->place_count; i++) {
        const struct place *place = &loader->places[i];
        struct bucket *bucket = &table->buckets[place->bucket];
        if (place->index != NO_INDEX)
            continue;
        loader->record = place->trigger;
        if (!bucket->count)
            bucket->start = loader->chain_count;
        if (bucket->count++ == BW_TRIGGER_CHAIN)
            return fail(loader, bucket->index_count == BW_TRIGGER_INDEXES
                                    ? "too many triggers of one target and selector whose exact "
                                      "calldata words lie in too many different places"
                                    : "too many triggers of one target and selector without an "
                                      "exact calldata word or sender to tell them apart",
                        BW_TRIGGER_CHAIN);
        table->chains[loader->chain_count++] = place->trigger;
    }
    for (uint32_t start = 0; start < loader->filed_count; groups++)
        start += equal_hashes(loader, start);
    uint32_t slots = power_of_two(2 * groups + 1);
    table->values = calloc(slots, sizeof *table->values);
    table->value_mask = slots - 1;
    table->filter_mask = power_of_two((groups + loader->bucket_count) / 4 + 1) - 1;
    table->filter = calloc(table->filter_mask + 1ull, sizeof *table->filter);
    if (!table->values || !table->filter)
        return no_memory(loader);
    for (uint32_t start = 0, n; start < loader->filed_count; start += n) {
        n = equal_hashes(loader, start);
        uint64_t hash = loader->filed[start].hash;
        uint32_t at = (uint32_t)hash & table->value_mask;
        while (table->values[at].count)
            at = (at + 1) & table->value_mask;
        table->values[at] = (struct value_slot){hash, loader->chain_count, n};
        table->filter[hash & table->filter_mask] |= filter_bits(hash);
        for (uint32_t i = start; i < start + n; i++) {
            uint32_t number = loader->places[loader->filed[i].place].trigger;
            loader->record = number;
            if (i - start == BW_TRIGGER_CHAIN)
                return fail(loader, "too many triggers that want the same calldata words of one "
                                    "target and selector", BW_TRIGGER_CHAIN);
            table->chains[loader->chain_count++] = number;
        }
    }
    for (uint32_t i = 0; i <= table->key_mask; i++) {
        const struct key_slot *slot = &table->keys[i];
        if (slot->shape == UINT32_MAX)
            continue;
        uint64_t part =
            slot->shape == SHAPE_SELECTOR ? table->seed : hash_target(table->seed, slot->target);
        uint64_t hash = hash_key(table->seed, part, slot->selector, slot->shape);
        table->filter[hash & table->filter_mask] |= filter_bits(hash);
    }
    table->bytes = sizeof *table + (table->key_mask + 1ull) * sizeof *table->keys +
                   slots * sizeof *table->values +
                   (table->filter_mask + 1ull) * sizeof *table->filter +
                   loader->bucket_room * sizeof *table->buckets +
                   loader->index_room * sizeof *table->indexes + total * sizeof *table->chains +
                   table->count * sizeof *table->triggers +
                   loader->arena_used * sizeof *table->arena;
    return true;
}

static bool read_all(struct loader *loader)
{
    struct bw_trigger_file file;
    struct bw_triggers *table = loader->table;
    size_t len = (size_t)(loader->end - loader->start);
    if (!take(loader, &file, sizeof file, loader->end))
        return false;
    if (memcmp(file.magic, "BWTRIGS", 8))
        return fail(loader, "not a table of triggers", 0);
    if (file.version != BW_TRIGGER_VERSION)
        return fail(loader, "a version of the format that is not known here", BW_TRIGGER_VERSION);
    if (file.length != len)
        return fail(loader, "the length in its header is not its length", 0);
    if (file.reserved)
        return fail(loader, "reserved bytes are not zero", 0);
    uint64_t wrappers = (uint64_t)file.wrappers * sizeof(struct bw_wrapper);
    uint64_t sets = (uint64_t)file.command_sets * sizeof(struct bw_command_set);
    uint64_t records = (uint64_t)file.triggers * sizeof(struct bw_trigger_record);
    if (wrappers + sets + records > (size_t)(loader->end - loader->at))
        return fail(loader, "it ends too early", 0);
    const char *wrong = bw_wrappers_build(&table->wrappers, loader->at, file.wrappers,
                                          loader->at + wrappers, file.command_sets);
    if (wrong)
        return fail(loader, wrong, 0);
    loader->at += wrappers + sets;

    /* A sender takes 20 bytes there and 24 here, nothing else grows. */
    table->count = file.triggers;
    table->triggers = calloc(file.triggers + 1ull, sizeof *table->triggers);
    table->arena = malloc((len / 4 + 8) * sizeof *table->arena);
    if (!table->triggers || !table->arena || !new_keys(table, 32))
        return no_memory(loader);
    for (uint32_t i = 0; i < file.triggers; i++) {
        loader->record = i;
        if (!read_trigger(loader))
            return false;
    }
    loader->record = UINT32_MAX;
    if (loader->at != loader->end)
        return fail(loader, "bytes are left over at the end", 0);
    uint64_t *fitted = realloc(table->arena, (loader->arena_used + 1ull) * sizeof *table->arena);
    if (fitted)
        table->arena = fitted;
    return size_keys(loader, loader->bucket_count) && build_indexes(loader) &&
           build_chains(loader);
}

struct bw_triggers *bw_triggers_load(const uint8_t *blob, size_t len, uint64_t seed,
                                     struct bw_load_error *error)
{
    struct loader loader = {
        .start = blob, .at = blob, .end = blob + len, .error = error, .record = UINT32_MAX};
    *error = (struct bw_load_error){.what = "", .trigger = UINT32_MAX};
    if (len > UINT32_MAX / 2) {
        fail(&loader, "longer than 2 GiB", UINT32_MAX / 2);
        return NULL;
    }
    loader.table = calloc(1, sizeof *loader.table);
    if (!loader.table) {
        no_memory(&loader);
        return NULL;
    }
    loader.table->seed = seed;
    loader.table->any_bucket = UINT32_MAX;
    bool good = read_all(&loader);
    free(loader.places);
    free(loader.filed);
    if (good)
        return loader.table;
    bw_triggers_free(loader.table);
    return NULL;
}

void bw_triggers_free(struct bw_triggers *table)
{
    if (!table)
        return;
    bw_wrappers_clear(&table->wrappers);
    free(table->keys);
    free(table->values);
    free(table->filter);
    free(table->buckets);
    free(table->indexes);
    free(table->chains);
    free(table->triggers);
    free(table->arena);
    free(table);
}
