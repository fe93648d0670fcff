/* Rings as files: laid out, checked, opened, closed; and what Python calls on the way of a record.
 *
 * A file may be anybody's leftovers: everything in it that an address is computed from is checked
 * here, once, against the size of the file, and copied out of reach. What was wrong is written into
 * `why`, in words, beside the negative errno.
 *
 * The functions that open take over `fd` (each ring handle has an open file description of its
 * own, or the locks that say who lives would not be its own): closed by dpb_ring_tx_close() and
 * dpb_ring_rx_close(), and by a failed open. */
#ifndef DPDK_BINDINGS_RING_FILE_H
#define DPDK_BINDINGS_RING_FILE_H

#include "ring.h"

/* <cdef> */
#define DPB_RING_WHY 200

/* Who produces, as far as anyone can tell from outside. */
struct dpb_ring_status {
    uint64_t heartbeat_mono_ns;
    uint64_t opened_mono_ns;
    uint64_t epoch;
    uint64_t head;
    uint64_t oldest;
    uint64_t refused;
    uint64_t reclaimed;
    uint32_t state; /* enum dpb_ring_state */
    int32_t pid;
    int32_t alive; /* someone holds the producer's lock */
    uint32_t reserved;
};

struct dpb_ring_seat_status {
    uint64_t acked;
    uint64_t heartbeat_mono_ns;
    uint32_t state; /* enum dpb_ring_seat_state */
    int32_t pid;
    int32_t alive; /* someone holds the seat's lock */
    int32_t seat;
    char name[40];
};

/* Where a consumer begins. A seat that exists goes on behind what it acknowledged. */
enum dpb_ring_start {
    DPB_RING_NEXT = 0,   /* the next record published */
    DPB_RING_OLDEST = 1, /* the oldest still to be had */
};

/* Bytes a ring of this geometry takes; 0 and `why` where it cannot be. */
uint64_t dpb_ring_bytes(const struct dpb_ring_geometry *geometry, char *why);

/* statfs.f_type of the file system `fd` is on; 0 where it will not say. */
int64_t dpb_ring_filesystem(int fd);

/* Lays an empty ring out in an empty file and reserves its memory. */
int dpb_ring_format(int fd, const struct dpb_ring_geometry *geometry, char *why);

/* The geometry of the ring in `fd`, checked: -EBADMSG is no ring, or a damaged one. */
int dpb_ring_inspect(int fd, struct dpb_ring_geometry *geometry, char *why);

/* The only producer: -EBUSY where there is one. Goes on behind the last whole record. *previous is
 * the state its predecessor left (0: none), so RUN or BOOT says that it died. */
int dpb_ring_tx_open(int fd, struct dpb_ring_tx **tx, uint32_t *previous, char *why);
void dpb_ring_tx_close(struct dpb_ring_tx *tx, uint32_t state);
void dpb_ring_tx_state(struct dpb_ring_tx *tx, uint32_t state);

/* A consumer. Lossless: in the seat called `name`, which is taken over where its holder is gone:
 * *previous is that one's pid, 0 where the seat is new; -EBUSY where its holder lives, -ENOSPC
 * without a free seat. Lossy: `name` is not looked at, the mapping is read-only. */
int dpb_ring_rx_open(int fd, const char *name, int start, struct dpb_ring_rx **rx,
                     int32_t *previous, char *why);
/* leave: lossless: gives the seat up; otherwise it keeps what it did not acknowledge. */
void dpb_ring_rx_close(struct dpb_ring_rx *rx, int leave);

void dpb_ring_status(const struct dpb_ring *ring, struct dpb_ring_status *out);
/* Fills out[0..DPB_RING_SEATS) with the seats that are taken; returns how many. */
int dpb_ring_seats(const struct dpb_ring *ring, struct dpb_ring_seat_status *out);
/* Both at once for someone who is neither producer nor consumer: nothing is written. Takes `fd`
 * over. Returns the number of seats. */
int dpb_ring_look(int fd, struct dpb_ring_status *out, struct dpb_ring_seat_status *seats, char *why);
/* Frees a seat and all that it held. -EBUSY while its holder lives; -ESTALE if it is not `name`'s. */
int dpb_ring_evict(struct dpb_ring_tx *tx, int seat, const char *name);

/* The inline functions of ring.h, for Python: times are read here, and a closed handle
 * (NULL) is -EBADF; no room is -EAGAIN. */
int64_t dpb_ring_publish(struct dpb_ring_tx *tx, const uint8_t *data, uint32_t len, uint64_t filter,
                         uint16_t kind, uint64_t user);
int dpb_ring_publish_burst(struct dpb_ring_tx *tx, const struct dpb_record *records, int n);
int dpb_ring_poll(struct dpb_ring_rx *rx, struct dpb_record *out, int max);
void dpb_ring_acknowledge(struct dpb_ring_rx *rx, uint64_t seq);
void dpb_ring_heartbeat(struct dpb_ring_tx *tx, struct dpb_ring_rx *rx);

/* Sum of all payloads, as little-endian 64-bit words (the last one filled up with zeros), and of the
 * lengths, modulo 2^64: a reader that touches everything, in one call. */
uint64_t dpb_records_sum(const struct dpb_record *records, int n);
/* </cdef> */

#endif
