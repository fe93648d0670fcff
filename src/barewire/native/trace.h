/* The flight recorder: what came, what became of it, and when, for the last seconds.
 *
 * A spike cannot be explained from counters, and not be reproduced either. So every datagram and
 * every transaction's way leave a record in a lossy ring in shared memory, after the shots have
 * left: bounded, overwritten from its oldest end, readable by anyone (`barewire record`,
 * `barewire why`) while the loop runs and after it died.
 *
 * Records of the ring, by `kind`; `source` is the number of the source:
 *
 *     DATAGRAM   struct bw_recorded, then `headers` bytes of frame headers and the payload
 *     TRACE      struct bw_trace, then the envelope; `filter` is the hash's first eight bytes
 *     REFUSED    the same for what the decoder refused: no hash, and `verdict` says why
 *
 * Bytes that do not fit into the ring's mtu are cut off. Times of steps are CLOCK_MONOTONIC; those
 * of arrival are of the clock that they name. */
#ifndef BAREWIRE_TRACE_H
#define BAREWIRE_TRACE_H

#include "datagram.h"
#include "decode.h"
#include "trigger.h"

/* <cdef> */
#define BW_TRACE_MATCHES 16 /* as BW_MATCHES_PER_TX */

enum bw_record_kind {
    BW_RECORD_DATAGRAM = 1,
    BW_RECORD_TRACE = 2,
    BW_RECORD_REFUSED = 3,
};

/* When a transaction passed the stages, by CLOCK_MONOTONIC; 0: it did not, or nobody looked. */
struct bw_steps {
    uint64_t received_mono_ns; /* its datagram was taken from the endpoint */
    uint64_t fed_mono_ns;      /* delivered by the feed */
    uint64_t decoded_mono_ns;
    uint64_t matched_mono_ns;  /* held against the triggers */
    uint64_t fired_mono_ns;    /* its shots were handed to the endpoint, or refused */
    uint64_t settled_mono_ns;  /* hashed and de-duplicated: in Python's hand */
};

/* One datagram, in or out. */
struct bw_recorded {
    uint8_t address[16];  /* in: the sender's, network order, IPv4 in the first four bytes */
    uint16_t port;        /* in: the sender's */
    uint16_t place;       /* in: the channel; out: the peer */
    uint16_t headers;     /* bytes of Ethernet, IP and UDP headers in front of the payload; 0: none */
    uint8_t family;       /* in: 4 or 6 */
    uint8_t out;          /* 1: it was sent */
    uint8_t cause[32];    /* out: hash of the transaction that it answers; zero: none */
    uint32_t len;         /* of headers and payload, before anything was cut off */
    uint32_t reserved;
};

struct bw_traced_match {
    uint32_t trigger;     /* number in the table */
    int32_t outcome;      /* enum bw_shot_outcome, or -1 where the trigger has no shot */
    uint32_t shot;        /* or BW_NO_SHOT */
    uint32_t flags;       /* BW_MATCH_... */
};

/* One transaction's way. */
struct bw_trace {
    uint8_t hash[32];
    uint64_t arrival_ns;
    struct bw_steps steps;
    uint32_t raw_len;
    uint16_t source;
    uint8_t arrival_clock; /* enum dpb_clock */
    uint8_t verdict;       /* enum bw_verdict; 0 but for REFUSED */
    uint8_t duplicate;     /* 1: its hash had been seen before, and its matches were not reported */
    uint8_t matches;       /* of match[] */
    uint8_t trusted;       /* its source is trusted */
    uint8_t sender_known;  /* its sender was recovered */
    uint8_t sender[20];
    uint64_t known_ns;     /* as tx.known_ns, of known_clock */
    uint8_t origin;        /* enum bw_origin */
    uint8_t known_clock;
    uint8_t reserved[6];
    struct bw_traced_match match[BW_TRACE_MATCHES];
};
/* </cdef> */

#include "ring.h"

static inline void bw_trace_put(struct dpb_ring_tx *ring, const void *head, uint32_t head_len,
                                const uint8_t *bytes, uint32_t len, struct dpb_record *about,
                                uint64_t now)
{
    uint32_t room = ring->ring.geometry.mtu - head_len;
    if (len > room) len = room;
    about->len = head_len + len;
    uint8_t *to = dpb_ring_reserve(ring, about->len);
    if (!to) return; /* not on a lossy ring */
    dpb_ring_copy_in(to, head, head_len); /* a multiple of eight */
    dpb_ring_copy_in(to + head_len, bytes, len);
    dpb_ring_commit(ring, about, now);
}

void bw_record_datagram(struct dpb_ring_tx *ring, uint16_t source, const struct dpb_datagram *d,
                        uint64_t now);
void bw_record_sent(struct dpb_ring_tx *ring, uint16_t source, const uint8_t *cause, int32_t peer,
                    const uint8_t *bytes, uint32_t len, uint64_t now);
/* `trace` is whole but for hash, sender, source, arrival, origin, trust and raw_len, which are those
 * of `tx`. */
void bw_record_trace(struct dpb_ring_tx *ring, struct bw_trace *trace, const struct bw_tx *tx,
                     const uint8_t *raw, uint64_t now);
void bw_record_refused(struct dpb_ring_tx *ring, const struct bw_message *message,
                       const struct bw_steps *steps, uint8_t verdict, uint64_t now);

_Static_assert(sizeof(struct bw_recorded) % 8 == 0 && sizeof(struct bw_trace) % 8 == 0,
               "what follows lies on whole words");

#endif
