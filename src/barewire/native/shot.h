/* Shots: transactions that were decided and signed before the packet that sends them came; and the
 * gate that they share with what Python sends itself (bw_shots_send): one halt word, one journal,
 * one set of caps for everything that leaves.
 *
 * Firing is the one place where native code spends money without asking Python, so every reason
 * not to is checked here, in one call, in this order:
 *
 *   empty, fired before, disarmed    the shot itself
 *   halted                           the halt word, which any process can set, is not 0
 *   group                            another shot of its exclusion group has fired
 *   expired                          now >= expires_mono_ns
 *   not announced                    it came from a pool, a block or a retransmission, and may be of
 *                                    any age; unless its trigger asks for how it came
 *   untrusted                        anyone can put bait on a wire: the transaction that matched
 *                                    came from a source not marked trusted, and its signature was
 *                                    not checked. Recover the sender (BW_TX_SENDER), ask again
 *   capped                           a second, in all, value, fee: shots and sends together
 *   no room                          the endpoint has no transmit buffer, or knows no next hop
 *   journal                          the journal did not take the bytes: the halt word is set
 *
 * Only then do the bytes leave. A refusal changes nothing: the shot stays armed. Firing closes the
 * group by one atomic write, which disarms all its other members at that instant.
 *
 * Threads: bw_shots_fire(), bw_shots_send() and the endpoint belong to one thread. Arming,
 * disarming and reading may happen in one other thread at the same time; a shot changes state by
 * compare-and-swap.
 *
 * Value and fee are the larger of what was declared and what the bytes themselves say where they
 * are a signed transaction (bw_spends); of any other message only the declaration is known. */
#ifndef BAREWIRE_SHOT_H
#define BAREWIRE_SHOT_H

#include "datagram.h"
#include "txrecord.h"

/* <cdef> */
#define BW_SHOT_PEERS 4          /* destinations of one shot */
#define BW_SHOT_BYTES 65507      /* longest payload: what one UDP datagram carries */
#define BW_SHOT_EVENTS 4096      /* outcomes kept, the last ones */
#define BW_NO_GROUP 0xffffffff
#define BW_SENT_DIRECTLY 0xffffffff /* to the journal, for a shot's number: bw_shots_send() */

/* Values of the halt word that are set here; 0 is "go", and others are its owner's. */
#define BW_HALT_JOURNAL 0x4a4f5552

enum bw_shot_outcome {
    BW_SHOT_FIRED = 0,       /* handed to the endpoint for at least one peer */
    BW_SHOT_EMPTY,           /* nothing was ever armed under this number */
    BW_SHOT_ALREADY_FIRED,
    BW_SHOT_DISARMED,        /* by its owner */
    BW_SHOT_HALTED,
    BW_SHOT_GROUP,           /* its group has fired */
    BW_SHOT_EXPIRED,
    BW_SHOT_UNTRUSTED,
    BW_SHOT_CAP_RATE,
    BW_SHOT_CAP_TOTAL,
    BW_SHOT_CAP_VALUE,
    BW_SHOT_CAP_FEE,
    BW_SHOT_NO_ROOM,
    BW_SHOT_JOURNAL,         /* the journal refused; the halt word is set */
    BW_SHOT_SEND_FAILED,     /* journalled, then not taken (no room at this instant, the link gone):
                              * it never leaves from here, but counts as perhaps sent */
    BW_SHOT_NOT_ANNOUNCED,   /* tx.origin, which its trigger did not ask for */
    BW_SHOT_OUTCOMES
};

enum bw_shot_state {
    BW_SHOT_STATE_EMPTY = 0,
    BW_SHOT_STATE_ARMING,    /* being written */
    BW_SHOT_STATE_ARMED,
    BW_SHOT_STATE_FIRING,    /* inside bw_shots_fire() */
    BW_SHOT_STATE_FIRED,     /* also after SEND_FAILED */
    BW_SHOT_STATE_DISARMED,
};

/* What is armed. The bytes are copied. */
struct bw_shot_spec {
    const uint8_t *bytes;
    uint32_t len;
    uint32_t group;              /* number of its exclusion group, or BW_NO_GROUP */
    uint64_t expires_mono_ns;    /* CLOCK_MONOTONIC */
    uint64_t value_wei[4];       /* what it moves as declared; least significant word first */
    uint64_t max_fee_wei[4];     /* the most it can pay for gas, as declared */
    uint64_t cookie;             /* the owner's own; comes back in events and to the journal */
    int32_t peers[BW_SHOT_PEERS];/* of the endpoint that it leaves by */
    uint32_t peer_count;         /* 1 to BW_SHOT_PEERS */
};

/* What holds for shots and sends together. */
struct bw_shot_caps {
    uint32_t per_second;         /* in any second; at most 65536 */
    uint32_t reserved;
    uint64_t total;              /* since the book was made */
    uint64_t total_value_wei[4]; /* sum over all that left */
    uint64_t max_fee_wei[4];     /* of one */
};

/* One outcome of bw_shots_fire(). */
struct bw_shot_event {
    uint64_t seq;                /* 0, 1, 2, ... */
    uint64_t at_mono_ns;         /* as handed to bw_shots_fire() */
    uint64_t arrival_ns;         /* of the transaction that matched ... */
    uint64_t cookie;             /* of the shot; 0 where it is empty */
    uint8_t hash[32];            /* ... zero until known: see bw_shots_note_hash() */
    uint32_t shot;
    uint32_t group;
    uint32_t trigger;            /* which trigger asked */
    uint16_t source;
    uint8_t outcome;             /* enum bw_shot_outcome */
    uint8_t arrival_clock;       /* enum dpb_clock */
    uint8_t hashed;              /* 1: hash is filled in */
    uint8_t peers_sent;          /* how many peers it was sent to */
    uint8_t reserved[6];
};

struct bw_shot_status {
    uint32_t state;              /* enum bw_shot_state */
    uint32_t group;
    uint32_t group_closed;
    uint32_t last_outcome;       /* of the last time it was asked for; BW_SHOT_OUTCOMES: never */
    uint64_t expires_mono_ns;
    uint64_t asked;              /* how often it was asked for since it was armed */
    uint64_t fired_mono_ns;      /* 0: not fired */
    uint64_t cookie;
};

/* Takes the exact bytes before they leave: returns 0 once they are safe, or a negative errno,
 * in which case nothing leaves. Called by bw_shots_fire(), and by bw_shots_send() with the number
 * BW_SENT_DIRECTLY and a cause that may be NULL, in their thread; must not block. */
typedef int (*bw_shot_journal_fn)(void *context, uint32_t shot, const struct bw_shot_spec *spec,
                                  const struct bw_tx *cause, uint64_t now_mono_ns);

struct bw_shot_config {
    uint32_t capacity;           /* shots, numbered from 0; as many groups */
    uint32_t unjournalled;       /* 1: firing without a journal was permitted, explicitly */
    struct bw_shot_caps caps;
    uint64_t *halt;              /* the halt word, aligned, outliving the book; may be shared */
    bw_shot_journal_fn journal;
    void *journal_context;
};

struct bw_shots;

/* A book of shots. Returns NULL where the configuration is wrong: capacity 0 or above 1,048,576,
 * no halt word, a rate of 0 or above 65536, or no journal and not `unjournalled`; or no memory. */
struct bw_shots *bw_shots_new(const struct bw_shot_config *config);
void bw_shots_free(struct bw_shots *book);

/* Arms shot number `shot`, which must not be armed at the moment (-EBUSY). -EINVAL: number, length,
 * group or peers out of range; -E2BIG: a fee above the cap, declared or in the bytes (it could never
 * fire); -EALREADY: its group has fired; -ENOMEM. */
int bw_shots_arm(struct bw_shots *book, uint32_t shot, const struct bw_shot_spec *spec);

/* 0, or -ENOENT where it was not armed (then it has fired, or never will), -EAGAIN while it is
 * being fired at this very moment: ask again. */
int bw_shots_disarm(struct bw_shots *book, uint32_t shot);

/* Opens a group that has fired for a new use. The caller knows that the outcome of what was fired
 * is settled. -EBUSY while any shot of the group is armed. */
int bw_shots_reopen_group(struct bw_shots *book, uint32_t group);

/* Fires shot number `shot` because `cause` met trigger number `trigger`, whose own condition on how
 * `cause` came was met where `any_origin`; returns an enum bw_shot_outcome. Flushes the endpoint when
 * it sends. Allocates nothing. */
int bw_shots_fire(struct bw_shots *book, uint32_t shot, uint32_t trigger,
                  const struct bw_tx *cause, int any_origin, uint64_t now_mono_ns,
                  const struct dpb_datagram_ref *out);

/* Sends spec->bytes to spec->peers[0] at once, through the same gate as a shot but for what only a
 * shot has (state, group, expiry, trust; those fields of *spec are not read). `cause` may be NULL.
 * Returns BW_SHOT_FIRED, or the outcome that says why nothing left: HALTED, CAP_*, NO_ROOM, JOURNAL
 * or SEND_FAILED; NO_ROOM too where the length or the peer is none that an endpoint takes. Flushes
 * the endpoint. Allocates nothing. */
int bw_shots_send(struct bw_shots *book, const struct bw_shot_spec *spec,
                  const struct bw_tx *cause, uint64_t now_mono_ns,
                  const struct dpb_datagram_ref *out);

/* Raises value_wei and max_fee_wei to what the bytes spend, where they are one signed transaction
 * of whatever chain and fork: its value; gas x fee cap, and blob gas x blob fee cap (EIP-4844).
 * Least significant word first; a fee of more than 256 bits becomes 2^256 - 1. */
void bw_spends(const uint8_t *bytes, uint32_t len, uint64_t *value_wei, uint64_t *max_fee_wei);

/* A shot can fire before its cause is hashed: the number of the next event before firing, and the
 * hash for events [seq, seq + n) afterwards (those no longer kept are passed over). */
uint64_t bw_shots_next_event(const struct bw_shots *book);
void bw_shots_note_hash(struct bw_shots *book, uint64_t seq, uint32_t n, const uint8_t *hash);

/* Copies events from number `seq` on, at most `max`, oldest first; returns how many. Starts at the
 * oldest kept where `seq` is gone. One that is overwritten while it is copied is left out. */
int bw_shots_events(const struct bw_shots *book, uint64_t seq, struct bw_shot_event *out, int max);
void bw_shots_counts(const struct bw_shots *book, uint64_t *out); /* out[BW_SHOT_OUTCOMES] */
void bw_shots_send_counts(const struct bw_shots *book, uint64_t *out); /* of bw_shots_send() */
int bw_shots_status(const struct bw_shots *book, uint32_t shot, struct bw_shot_status *out);

/* What was last armed under this number; NULL where it never was. In the firing thread, and until
 * it is armed anew. */
const struct bw_shot_spec *bw_shots_spec(const struct bw_shots *book, uint32_t shot);
/* </cdef> */

#endif
