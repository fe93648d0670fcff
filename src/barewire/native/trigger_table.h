/* What a loaded table looks like inside: shared by the loader that builds it (trigger_load.c) and
 * the matcher that reads it (trigger.c).
 *
 *   keys     (target, selector) with either one open -> bucket; open addressing, exact keys
 *   buckets  triggers tried one by one, and the indexes used in this bucket
 *   indexes  some calldata words (offset, mask), perhaps the sender: hash to a chain
 *   chains   trigger numbers
 *   triggers conditions beyond target and selector, in the arena
 *
 * The filter holds a few bits for each key and each indexed value: "absent" is answered by one
 * load from it. */
#ifndef BAREWIRE_TRIGGER_TABLE_H
#define BAREWIRE_TRIGGER_TABLE_H

#include "trigger.h"

enum { /* shapes of a key */
    SHAPE_BOTH = 0, /* target and selector */
    SHAPE_TARGET = 1,
    SHAPE_SELECTOR = 2,
    SHAPE_ANY = 3, /* the one bucket of triggers with neither */
};

#define INDEX_WORDS 4 /* calldata words that one index combines */

struct key_slot {
    uint8_t target[20];
    uint32_t selector;
    uint32_t shape;  /* SHAPE_..., or UINT32_MAX: free */
    uint32_t bucket;
};

struct value_slot {
    uint64_t hash;   /* of index and values; chains of equal hashes are one, which does no harm:
                        every trigger of a chain is held against all of its conditions */
    uint32_t start;  /* in chains */
    uint32_t count;  /* 0: free */
};

/* Files triggers of one bucket by the words (and the sender) for which they want exact values. */
struct index {
    uint64_t salt;     /* makes the hashes those of this bucket and index */
    uint32_t words;    /* how many of the following */
    uint32_t sender;   /* 1: and the sender */
    uint32_t offset[INDEX_WORDS];
    uint64_t mask[INDEX_WORDS][4]; /* most significant word first, as all of a word's values */
    uint32_t example;  /* a trigger filed under it */
    uint32_t inside;   /* 1: any of them looks inside wrappers */
};

struct bucket {
    uint32_t start, count;           /* in chains: tried one by one */
    uint32_t index_start, index_count;
};

struct trigger {
    uint32_t tag, shot;
    uint32_t conditions;  /* in arena: ranges, chain ids, senders, words as below */
    uint16_t flags;       /* BW_TRIGGER_... */
    uint8_t types;
    uint8_t origins;
    uint8_t plain;        /* 1: nothing beyond target and selector */
    uint16_t chain_ids;
    uint16_t words;
    uint32_t senders;
};

/* Arena, in 64-bit words: ranges of VALUE, TIP, FEE_CAP (8 each), of GAS (2), chain ids, senders
 * (3 each), then for each word condition: offset | values << 32, mask (4), values (4 each; a range
 * has two). */

struct bw_triggers {
    uint64_t seed;
    uint32_t count;
    uint32_t shapes;          /* bit n: SHAPE n occurs */
    uint32_t inside_shapes;   /* bit n: with triggers that look inside wrappers */
    uint32_t any_bucket;
    uint32_t key_mask, value_mask, filter_mask;
    struct key_slot *keys;
    struct value_slot *values;
    uint64_t *filter;
    struct bucket *buckets;
    struct index *indexes;
    uint32_t *chains;
    struct trigger *triggers;
    uint64_t *arena;
    struct bw_wrappers wrappers;
    uint64_t bytes;
};

/* Multiplies and folds: every input bit reaches every output bit. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_target(uint64_t seed, const uint8_t *target)
{
    uint64_t a, b;
    uint32_t c;
    memcpy(&a, target, 8);
    memcpy(&b, target + 8, 8);
    memcpy(&c, target + 16, 4);
    return fold(a ^ seed, b ^ 0x9e3779b97f4a7c15) + fold(c ^ seed, 0xd6e8feb86659fd93);
}

/* `target` is hash_target(), or the seed where the target is open. */
static inline uint64_t hash_key(uint64_t seed, uint64_t target, uint32_t selector, uint32_t shape)
{
    return fold(target ^ 0xa0761d6478bd642f, (((uint64_t)selector << 2) | shape) ^ ~seed);
}

static inline uint64_t hash_value(uint64_t salt, const uint64_t value[4])
{
    return fold(fold(value[0] ^ salt, value[1] ^ 0x8ebc6af09c88c6e3) ^ value[2] ^
                    0x589965cc75374cc3,
                value[3] ^ salt ^ 0x1d8e4e27c47d124f);
}

/* Four bits of one 64-bit block. */
static inline uint64_t filter_bits(uint64_t hash)
{
    return 1ull << (hash >> 58) | 1ull << (hash >> 52 & 63) | 1ull << (hash >> 46 & 63) |
           1ull << (hash >> 40 & 63);
}

static inline bool word_less(const uint64_t a[4], const uint64_t b[4])
{
    for (int i = 0; i < 4; i++)
        if (a[i] != b[i])
            return a[i] < b[i];
    return false;
}

static inline bool word_equal(const uint64_t a[4], const uint64_t b[4])
{
    return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

/* A 32-byte big-endian number, most significant word first. */
static inline void word_load(uint64_t out[4], const uint8_t *at)
{
    for (int i = 0; i < 4; i++)
        out[i] = bw_be64(at + 8 * i);
}

/* An address as the value of an index or of a sorted list of senders. */
static inline void address_load(uint64_t out[4], const uint8_t *at)
{
    out[0] = 0;
    out[1] = bw_be32(at);
    out[2] = bw_be64(at + 4);
    out[3] = bw_be64(at + 12);
}

#endif
