/* What one message of a feed holds: a signed transaction, or a piece of one.
 *
 * A datagram carries 1,472 bytes over plain Ethernet and some transactions are longer: contract
 * creations by tens of kilobytes, blob transactions in their network form by hundreds. IP
 * fragmentation would lose all of one with any piece of it and is passed to the kernel by the XDP
 * program, so long envelopes are cut here, where each piece has a sequence number of its own and is
 * recovered on its own. Format: docs/feed-format.md.
 *
 *      'T' envelope                                                 a whole EIP-2718 envelope
 *      'O' origin envelope                                          one that was not announced
 *      'F' origin index[2] count[2] total[4] id[8] piece            one of `count` pieces
 *
 * Big-endian. All pieces but the last are ceil(total / count) bytes, so that a piece's place
 * follows from its index: pieces cannot overlap, nor leave holes between them.
 *
 * Hostile input is bounded, not believed: `slots` envelopes are assembled at once, each of
 * `max_bytes` at most, each for `max_age_ns` at most; a newcomer evicts the oldest. What is refused
 * is counted by cause and the last of each cause is kept. Memory is reserved once and touched as
 * it is used. Ids of different sources never mix. One thread at a time. */
#ifndef BAREWIRE_FRAGMENT_H
#define BAREWIRE_FRAGMENT_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_FEED_WHOLE 0x54     /* 'T' */
#define BW_FEED_ORIGIN 0x4f    /* 'O' */
#define BW_FEED_FRAGMENT 0x46  /* 'F' */
#define BW_FRAGMENT_HEADER_BYTES 18
#define BW_FRAGMENT_COUNT_MAX 4096
#define BW_FRAGMENT_SAMPLE_BYTES 64

/* Why a message gave no envelope and never will. */
enum bw_fragment_cause {
    BW_FRAGMENT_OK = 0,
    BW_FRAGMENT_EMPTY = 1,     /* a message without bytes, or a type byte alone */
    BW_FRAGMENT_TYPE = 2,      /* a type byte that is not known */
    BW_FRAGMENT_HEADER = 3,    /* a header is cut off or does not add up, or an origin is none */
    BW_FRAGMENT_LENGTH = 4,    /* a piece is not as long as its header says */
    BW_FRAGMENT_TOO_LONG = 5,  /* an envelope longer than max_bytes, or of too many pieces */
    BW_FRAGMENT_CONFLICT = 6,  /* contradicts an earlier piece: other total, count or bytes */
    BW_FRAGMENT_BUSY = 7,      /* every slot holds an envelope that is still lent out */
    BW_FRAGMENT_CAUSES = 8,
};

struct bw_fragment_config {
    uint32_t slots;          /* envelopes in assembly or lent out at once; 1..4096 */
    uint32_t max_bytes;      /* of one envelope */
    uint64_t max_age_ns;     /* an envelope whose pieces take longer is dropped */
};

struct bw_fragment_sample {
    uint64_t at_mono_ns;
    uint32_t len;            /* of the message; as many of its bytes as fit are kept */
    uint32_t source;
    uint8_t bytes[64];
};

struct bw_fragment_stats {
    uint64_t whole;          /* messages that were a whole envelope */
    uint64_t pieces;         /* fragments taken */
    uint64_t completed;      /* envelopes put together of them */
    uint64_t duplicate;      /* pieces that were there already, or whose envelope was completed */
    uint64_t expired;        /* envelopes dropped: too old */
    uint64_t evicted;        /* envelopes dropped: their slot was needed for a newer one */
    uint32_t assembling;     /* now */
    uint32_t lent;           /* now: completed, not released yet */
    uint64_t refused[8];     /* by enum bw_fragment_cause */
    struct bw_fragment_sample sample[8];
};

/* A whole envelope. */
struct bw_envelope {
    const uint8_t *data;
    uint32_t len;
    int32_t slot;            /* >= 0: lent by the reassembler; -1: lies in the message itself */
    uint8_t origin;          /* enum bw_origin, as the publisher has it */
    uint8_t reserved[7];
};

struct bw_fragments;

/* 64 slots, 1 MiB, 5 s: longer than a gap in the sequence is waited for. */
void bw_fragment_defaults(struct bw_fragment_config *config);

/* NULL: no memory, or a value out of range. */
struct bw_fragments *bw_fragments_new(const struct bw_fragment_config *config);
void bw_fragments_free(struct bw_fragments *f);

/* Takes one message of `source`. Returns 1: *out is an envelope; 0: a piece was taken, more are
 * needed; or a negative enum bw_fragment_cause, counted. A whole envelope points into the message
 * (slot -1); one put together is lent until bw_fragments_release(). */
int bw_fragments_push(struct bw_fragments *f, uint32_t source, const uint8_t *message,
                      uint32_t len, uint64_t now_mono_ns, struct bw_envelope *out);

/* Gives a lent envelope back; one of slot -1 is left alone. */
void bw_fragments_release(struct bw_fragments *f, const struct bw_envelope *envelope);

/* Drops what is too old; returns how many. Push does this too, when it needs a slot. */
int bw_fragments_expire(struct bw_fragments *f, uint64_t now_mono_ns);

/* The counters, updated in place; valid as long as `f`. */
const struct bw_fragment_stats *bw_fragments_stats(const struct bw_fragments *f);

/* How many messages an envelope of `len` bytes and that origin (enum bw_origin) takes where a message
 * may have `max_message` bytes: 1 when it fits whole; 0 when it cannot be sent. */
uint32_t bw_fragments_needed(uint32_t len, uint8_t origin, uint32_t max_message);

/* Writes message `index` of `count` (as bw_fragments_needed() gave it) to `out`, which has room for
 * it; returns its length. `id` tells one envelope's pieces from another's: unique among those of one
 * source that may be under way together. */
uint32_t bw_fragments_write(const uint8_t *envelope, uint32_t len, uint8_t origin, uint64_t id,
                            uint32_t index, uint32_t count, uint8_t *out);
/* </cdef> */

#endif
