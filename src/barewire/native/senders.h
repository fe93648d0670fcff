/* Senders: who signed a transaction, found out by other cores.
 *
 * A signature takes about 30 us to check, a thousand times what matching takes, and libsecp256k1
 * checks one at a time. So the hot core only copies what is signed (a few hundred bytes) into a
 * ring; a worker process on another core hashes, recovers and answers over a second ring; and the
 * sender is joined to the record when it comes. Nothing waits for it: a ring without room leaves
 * the sender unknown, and that is counted.
 *
 *     hot core                          worker, one a lane
 *     submit  -> jobs (lossless ring) ->  hash 8 at once, recover each
 *     collect <- results (lossless)   <-  publish, then acknowledge the jobs
 *
 * A worker that dies leaves its unacknowledged jobs in the ring; its successor takes the seat and
 * is given them again. What it had already answered is answered twice: a ticket is taken once, the
 * second answer is counted as `strange` and dropped.
 *
 * What is known is kept in a cache under the transaction's hash. That is sound, and why: the hash
 * is Keccak-256 of all of the envelope (of a blob transaction: of all but the blobs), the signature
 * included, and the decoder is strict, so equal hashes mean equal bytes, and the sender is a
 * function of these bytes alone. The hash that was signed would be no such key: anyone can put
 * another signature under it and so choose who is cached. A signature that nobody can have made is
 * cached too. Forgetting costs a recovery, never a wrong sender.
 *
 * The cache is bounded as the de-duplication is: one bucket of eight, chosen by SipHash under a
 * random key, the oldest goes. What a worker has been asked for stands there too, so that who asks
 * for it again waits for the same answer. (Where that entry had to go it is recovered twice.)
 *
 * Memory is taken once, in bw_senders_new(). One thread; the rings are borrowed. */
#ifndef BAREWIRE_SENDERS_H
#define BAREWIRE_SENDERS_H

#include "decode.h"
#include "ring.h"

/* <cdef> */
struct dpb_ring_tx;
struct dpb_ring_rx;

#define BW_SENDER_LANES 16
#define BW_SENDER_RESULT 20    /* payload of an answer: the address; of "nobody" it is empty */
#define BW_SENDER_JOB 131200   /* payload of a job at most: r, s, and what is signed */

enum bw_sender {
    BW_SENDER_UNKNOWN = 0,
    BW_SENDER_KNOWN = 1,
    BW_SENDER_NOBODY = 2,      /* no key can have made this signature */
};

struct bw_sender_stats {
    uint64_t hits;             /* found in the cache when asked for */
    uint64_t queued;           /* handed to a worker */
    uint64_t refused;          /* not: every ring or the waiting list is full, or the transaction
                                * too long for a ring; the sender stays unknown */
    uint64_t recovered;        /* answers that named a sender */
    uint64_t nobody;           /* answers that there is none */
    uint64_t strange;          /* answers that nobody waits for */
    uint64_t damaged;          /* lanes given up because their ring holds what no worker writes */
    uint64_t shared;           /* asked for again while a worker had it: one answer is for all */
    uint64_t lost;             /* jobs whose lane was given up: the sender stays unknown */
    uint64_t evicted;          /* senders forgotten: the cache is too small */
    uint64_t waiting;          /* jobs without an answer, now */
    uint64_t waiting_most;     /*   and at worst */
    uint64_t work_ns;          /* time that workers spent on what they answered */
    uint64_t wait_ns;          /* from submit to collect, all answers together (CLOCK_MONOTONIC) */
    uint64_t wait_most_ns;     /*   and the longest */
};

/* One answer that was joined. */
struct bw_sender_answer {
    struct bw_tx *tx;          /* the record, filled in; NULL where it was not kept */
    uint64_t cookie;           /* as submitted */
    uint32_t index;            /* of the record in what was submitted */
    uint32_t sender;           /* enum bw_sender; UNKNOWN: its lane was given up */
};

struct bw_senders;

/* Caches `entries` senders (a power of two from 8 to 2^26, 64 bytes each) and waits for `waiting`
 * answers at most (1 to 2^20); `key` are 16 random bytes. NULL: no memory, or out of range. */
struct bw_senders *bw_senders_new(uint32_t entries, uint32_t waiting, const uint8_t *key);
void bw_senders_free(struct bw_senders *s);

/* Adds a worker's rings, both lossless. Returns the lane's number, or -ENOSPC. */
int bw_senders_add_lane(struct bw_senders *s, struct dpb_ring_tx *jobs,
                        struct dpb_ring_rx *results);
/* Gives the rings of a lane back: from now on they are not touched. Its jobs are lost, which the
 * next collecting tells. */
void bw_senders_drop_lane(struct bw_senders *s, uint32_t lane);
/* Jobs of a lane that have no answer yet. */
uint64_t bw_senders_lane_waiting(const struct bw_senders *s, uint32_t lane);

/* Asks for the senders of txs[0..n), decoded from messages[0..n); a record with raw_len 0 or a
 * sender is passed over, one without a hash is hashed. Those in the cache are filled in at once,
 * the others go to the lane that waits for least, or join those who wait for the same transaction.
 * Where `keep` is not 0 the records must stay where they are until their answers were collected;
 * otherwise only the cache learns. Returns how many answers will come for them. */
uint32_t bw_senders_submit(struct bw_senders *s, const struct bw_message *messages,
                           struct bw_tx *txs, uint32_t n, uint64_t cookie, int keep,
                           uint64_t now_mono_ns);

/* Takes the answers that have come, fills in the records, and tells which in out[0..max). Returns
 * how many; as many as `max` means that there may be more. */
uint32_t bw_senders_collect(struct bw_senders *s, struct bw_sender_answer *out, uint32_t max,
                            uint64_t now_mono_ns);

/* Who signed the transaction of this hash (32 bytes), into address[20] where that is known. */
enum bw_sender bw_senders_lookup(struct bw_senders *s, const uint8_t *hash, uint8_t *address);
/* Remembers it; `address` NULL: nobody. */
void bw_senders_learn(struct bw_senders *s, const uint8_t *hash, const uint8_t *address);

const struct bw_sender_stats *bw_senders_stats(const struct bw_senders *s);

/* The worker's side: takes up to 8 jobs, answers them, acknowledges them. Returns how many; 0: none
 * now; or one of the numbers below. */
#define BW_SENDER_FULL -1      /* no room for an answer; only what was answered is acknowledged */
#define BW_SENDER_DAMAGED -2   /* the ring of jobs holds what nobody submits */
#define BW_SENDER_ABSENT -3    /* no libsecp256k1 is loaded */
int bw_senders_work(struct dpb_ring_rx *jobs, struct dpb_ring_tx *results);
/* </cdef> */
_Static_assert(sizeof(struct bw_sender_answer) == 24, "packed");

#endif
