/* A ring in shared memory: one producer, any number of consumers, no system call on the way.
 *
 * Two kinds, because two things are carried. Market data is worth nothing late: on a *lossy* ring
 * the producer never waits, overwrites the oldest, and a consumer that was too slow finds out and
 * counts what it missed. Money is never dropped: on a *lossless* ring nothing is overwritten that
 * a consumer has not acknowledged; when there is no room, publishing is refused and the caller
 * stops sending.
 *
 * Layout (each section begins on a multiple of the granule, the page size of the file system):
 *
 *     header    geometry; then what the producer says: state, heartbeat, head, oldest
 *     seats     one for each consumer of a lossless ring: what it has acknowledged
 *     slots     depth x 64 bytes: all about a record but its payload, the filter word included,
 *               so that a consumer decides by one cache line whether it wants the rest
 *     payload   a circle of bytes; each record's are contiguous and 64-byte aligned
 *
 * Sequence numbers begin at 1; record s lives in slot s % depth. What slot.seq says:
 *
 *     s                  record s is whole
 *     less than s        record s is not there yet (s - 1: it is the next)
 *     more than s        record s is gone (s + 1: its payload space was wanted)
 *
 * The producer of a lossy ring takes the next slot from the older record in it, and says "gone" of
 * every record whose payload space it wants, before it touches either: payload is never reused
 * before its slot. A consumer copies
 * and then reads slot.seq again: only if it is unchanged was the copy whole. Both sides use C11
 * atomics: what they race for is copied by relaxed 64-bit accesses between a release fence (the
 * producer's, after "gone") and an acquire fence (the consumer's, before it looks again). The
 * protocol is checked by tests/models/ring.pml, which writes and reads the words in every order.
 *
 * What is promised on a lossless ring:
 *   - *Published*: dpb_ring_put() has counted the record. It is whole in memory, outlives the death
 *     of every process (not a loss of power) and is shown to every seat until that seat has
 *     acknowledged it. A record whose put() never returned is afterwards whole or not there.
 *   - *Acknowledged*: the consumer in a seat called dpb_ring_ack(s): it needs nothing up to s any
 *     more. Space is reused only when every seat has. Who takes over the seat of a consumer that
 *     died starts behind the last acknowledged record: what was polled but not acknowledged comes
 *     again (at least once).
 *   - A ring without seats keeps everything from the first record, until it is full.
 *   - A dead consumer's seat *holds* its records until a successor takes the seat or someone evicts
 *     it (only the dead can be evicted). Nothing frees it in silence.
 *
 * Who is alive is asked of the kernel: producer and seats hold locks on bytes of the file (open
 * file description locks), which end with the process however it died, and with which a second
 * producer is refused. (A forked child that keeps the descriptor keeps the lock.) The pids in the
 * header are for people.
 *
 * Everything here is inline, so that a native loop of another module needs only this header and
 * a pointer from native/ring_file.c, which creates, checks, opens and closes rings. One thread
 * uses one handle. No function blocks. Errors are negative errno. */
#ifndef DPDK_BINDINGS_RING_H
#define DPDK_BINDINGS_RING_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* <cdef> */
#define DPB_RING_VERSION 1
#define DPB_RING_SEATS 32
#define DPB_RING_ALIGN 64 /* of each record's payload */

enum dpb_ring_kind {
    DPB_RING_LOSSY = 1,
    DPB_RING_LOSSLESS = 2,
};

/* What a producer says of itself. A consumer that finds RUN and nobody alive knows it died. */
enum dpb_ring_state {
    DPB_RING_BOOT = 1, /* open, not yet publishing */
    DPB_RING_RUN = 2,
    DPB_RING_HALT = 3, /* closed in good order */
    DPB_RING_FAIL = 4, /* gave up, and said so */
};

enum dpb_ring_seat_state {
    DPB_RING_SEAT_FREE = 0,
    DPB_RING_SEAT_JOINING = 1, /* being taken: holds everything until it knows where it starts */
    DPB_RING_SEAT_TAKEN = 2,   /* by someone alive, gone or dead: its records are kept */
};

struct dpb_ring_geometry {
    uint32_t kind;          /* enum dpb_ring_kind */
    uint32_t depth;         /* slots, a power of two, 2 .. 2^24 */
    uint32_t mtu;           /* most payload bytes of one record, 0 .. payload_bytes / 2 */
    uint32_t granule;       /* page size of the file system */
    uint64_t payload_bytes; /* circle of payload, a power of two, 4096 .. 2^40 */
};

/* One record as it is handed to put() and by take(): a packed array of these is a burst, and what
 * was taken from one ring can be put into another as it is. */
struct dpb_record {
    uint64_t seq;             /* its number; put() ignores it */
    uint64_t filter;          /* what a consumer may choose by without touching the payload */
    const uint8_t *data;      /* payload; from take() borrowed until the next take() (lossy) or */
                              /*   ack() (lossless) */
    uint32_t len;             /* payload bytes */
    uint16_t kind;            /* the producer's record type */
    uint16_t source;          /* the producer's number for where it came from */
    uint64_t origin_ns;       /* when it came into being; of the clock named in `clock` */
    uint64_t publish_mono_ns; /* given to put(); CLOCK_MONOTONIC */
    uint64_t user;            /* the producer's own */
    uint8_t clock;            /* enum dpb_clock */
    uint8_t reserved[7];
};

/* A record's slot in shared memory: the same, with the payload's place instead of a pointer. */
struct dpb_ring_slot {
    uint64_t seq;
    uint64_t filter;
    uint64_t payload; /* position in the stream of payload bytes; modulo payload_bytes */
    uint32_t len;
    uint16_t kind;
    uint16_t source;
    uint64_t origin_ns;
    uint64_t publish_mono_ns;
    uint64_t user;
    uint8_t clock;
    uint8_t reserved[7];
};

struct dpb_ring_header {
    uint8_t magic[8]; /* "dpbring"; written last, so that half a header is none */
    uint32_t version; /* DPB_RING_VERSION */
    uint32_t header_bytes;
    struct dpb_ring_geometry geometry;
    uint64_t seats_off;
    uint64_t slots_off;
    uint64_t payload_off;
    uint64_t total_bytes;
    uint64_t check; /* FNV-1a of all from `version` to here */
    uint8_t reserved0[48];

    uint64_t heartbeat_mono_ns; /* offset 128 */
    uint64_t opened_mono_ns;
    uint64_t epoch;             /* how many producers this ring has had */
    uint32_t state;             /* enum dpb_ring_state */
    int32_t pid;
    uint8_t reserved1[96];

    uint64_t head;   /* offset 256: newest whole record; 0: none yet. May lag behind its slot */
    uint64_t oldest; /* oldest record still to be had */
    uint64_t refused; /* records that found a lossless ring full */
    uint8_t reserved2[104];

    uint64_t reclaimed; /* offset 384: lossless: every seat has acknowledged up to here */
    uint8_t reserved3[120];
};

struct dpb_ring_seat {
    uint64_t acked;
    uint64_t heartbeat_mono_ns;
    uint32_t state; /* enum dpb_ring_seat_state */
    int32_t pid;
    char name[40];
    uint8_t reserved[64];
};

/* A mapped ring. The geometry was checked when it was opened and is not read from memory again. */
struct dpb_ring {
    struct dpb_ring_header *header;
    struct dpb_ring_seat *seats;
    struct dpb_ring_slot *slots;
    uint8_t *payload;
    struct dpb_ring_geometry geometry;
    uint64_t map_bytes;
    int32_t fd;
    int32_t lock; /* the byte of the file that this handle holds a lock on; -1: none */
};

/* The producer's handle. */
struct dpb_ring_tx {
    struct dpb_ring ring;
    uint64_t next;      /* sequence number of the next record */
    uint64_t pos;       /* where its payload goes in the stream of payload bytes */
    uint64_t floor;     /* lossy: oldest record still whole; lossless: newest that may be overwritten */
    uint64_t floor_pos; /* where the payload begins that must not be overwritten; may lag */
    uint64_t refused;
};

/* A consumer's handle. */
struct dpb_ring_rx {
    struct dpb_ring ring;
    uint64_t next;    /* sequence number to be taken next */
    uint64_t mask;    /* take() passes over records whose (filter & mask) != want */
    uint64_t want;
    uint64_t overruns; /* lossy: records that were overwritten before they were taken */
    uint64_t passed;   /* records passed over by the filter */
    uint64_t corrupt;  /* whole records that made no sense */
    uint8_t *arena;    /* lossy: payloads are copied to here */
    uint64_t arena_bytes;
    int32_t seat; /* lossless: its seat; lossy: -1 */
    uint32_t reserved;
};
/* </cdef> */
_Static_assert(sizeof(struct dpb_record) == 64, "one cache line");
_Static_assert(sizeof(struct dpb_ring_slot) == 64, "one cache line");
_Static_assert(sizeof(struct dpb_ring_seat) == 128, "no two seats in one pair of lines");
_Static_assert(sizeof(struct dpb_ring_header) == 512, "four pairs of cache lines");
_Static_assert(offsetof(struct dpb_ring_header, heartbeat_mono_ns) == 128, "as documented");
_Static_assert(offsetof(struct dpb_ring_header, head) == 256, "as documented");
_Static_assert(offsetof(struct dpb_ring_header, reclaimed) == 384, "as documented");

#define DPB_RING_AHEAD 2048 /* bytes of payload whose lines are fetched before they are written */

static inline uint64_t dpb_ring_space(uint32_t len)
{
    return ((uint64_t)len + DPB_RING_ALIGN - 1) & ~(uint64_t)(DPB_RING_ALIGN - 1);
}

/* Copies into and out of memory that the other side may be using: 64 bits at a time, relaxed, so
 * that the race is one C11 gives a meaning to. Payload space is padded to whole words. */
typedef uint64_t __attribute__((may_alias)) dpb_ring_word;

static inline void dpb_ring_copy_in(uint8_t *to, const uint8_t *from, uint32_t len)
{
    dpb_ring_word *words = (dpb_ring_word *)to;
    uint64_t word;
    uint32_t i = 0;
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, from + i, 8);
        __atomic_store_n(&words[i / 8], word, __ATOMIC_RELAXED);
    }
    if (i < len) {
        word = 0;
        memcpy(&word, from + i, len - i);
        __atomic_store_n(&words[i / 8], word, __ATOMIC_RELAXED);
    }
}

static inline void dpb_ring_copy_out(uint8_t *to, const uint8_t *from, uint32_t len)
{
    const dpb_ring_word *words = (const dpb_ring_word *)from;
    uint64_t word;
    uint32_t i = 0;
    for (; i + 8 <= len; i += 8) {
        word = __atomic_load_n(&words[i / 8], __ATOMIC_RELAXED);
        memcpy(to + i, &word, 8);
    }
    if (i < len) {
        word = __atomic_load_n(&words[i / 8], __ATOMIC_RELAXED);
        memcpy(to + i, &word, len - i);
    }
}

static inline struct dpb_ring_slot *dpb_ring_slot_of(const struct dpb_ring *ring, uint64_t seq)
{
    return &ring->slots[seq & (ring->geometry.depth - 1)];
}

/* What every seat has acknowledged: UINT64_MAX without seats. A seat that claims more than was
 * ever published has been scribbled on; it gives no credit. */
static inline uint64_t dpb_ring_acked(const struct dpb_ring *ring, uint64_t head)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < DPB_RING_SEATS; i++) {
        struct dpb_ring_seat *seat = &ring->seats[i];
        uint32_t state = __atomic_load_n(&seat->state, __ATOMIC_ACQUIRE);
        uint64_t acked = 0;
        if (state == DPB_RING_SEAT_FREE)
            continue;
        if (state == DPB_RING_SEAT_TAKEN)
            acked = __atomic_load_n(&seat->acked, __ATOMIC_ACQUIRE);
        if (acked > head)
            acked = 0;
        if (acked < least)
            least = acked;
    }
    return least;
}

/* Looks for new credit. It is said in `reclaimed` before it is used, and the seats are read again
 * after that: a consumer that takes a seat says so before it reads `reclaimed`. So either it sees
 * the new value and starts behind it, or it is seen here and the credit is not used. */
static inline void dpb_ring_reclaim(struct dpb_ring_tx *tx)
{
    uint64_t head = tx->next - 1, acked = dpb_ring_acked(&tx->ring, head);
    if (acked == UINT64_MAX || acked <= tx->floor)
        return;
    __atomic_store_n(&tx->ring.header->reclaimed, acked, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (dpb_ring_acked(&tx->ring, head) < acked) {
        __atomic_store_n(&tx->ring.header->reclaimed, tx->floor, __ATOMIC_RELAXED);
        return;
    }
    tx->floor = acked;
    tx->floor_pos = acked == head ? tx->pos : dpb_ring_slot_of(&tx->ring, acked + 1)->payload;
}

/* Lossy: takes the slot of the next record from the record that is in it, ahead of time: a consumer
 * that waits on it is not disturbed while the record is written. (On a lossless ring nobody reads
 * a record that may be overwritten, so it needs no mark.) */
static inline void dpb_ring_mark(struct dpb_ring_tx *tx)
{
    if (tx->ring.geometry.kind != DPB_RING_LOSSY)
        return;
    __atomic_store_n(&dpb_ring_slot_of(&tx->ring, tx->next)->seq, tx->next - 1, __ATOMIC_RELAXED);
    if (tx->next - tx->floor >= tx->ring.geometry.depth)
        tx->floor = tx->next - tx->ring.geometry.depth + 1;
}

static inline void dpb_ring_want(const void *line)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}

/* Asks the other core for the cache lines that the records after this one will be written to. */
static inline void dpb_ring_ahead(const struct dpb_ring_tx *tx, uint32_t len)
{
    uint64_t mask = tx->ring.geometry.payload_bytes - 1, pos = tx->pos + DPB_RING_AHEAD;
    dpb_ring_want(dpb_ring_slot_of(&tx->ring, tx->next + 8));
    for (uint32_t at = 0; at < len && at < DPB_RING_AHEAD; at += 64)
        dpb_ring_want(tx->ring.payload + ((pos + at) & mask));
}

/* Makes room for `len` bytes and the slot of record tx->next: for the caller alone to write until
 * dpb_ring_commit(). NULL where `len` is more than the mtu, and on a lossless ring where there is
 * no room (counted in `refused`). */
static inline uint8_t *dpb_ring_reserve(struct dpb_ring_tx *tx, uint32_t len)
{
    const struct dpb_ring_geometry *g = &tx->ring.geometry;
    uint64_t seq = tx->next, pos = tx->pos, size = dpb_ring_space(len);
    uint64_t offset = pos & (g->payload_bytes - 1);
    if (len > g->mtu)
        return NULL;
    if (offset + size > g->payload_bytes)
        pos += g->payload_bytes - offset;
    uint64_t end = pos + size;

    if (g->kind == DPB_RING_LOSSLESS) {
        if (seq - tx->floor > g->depth || end - tx->floor_pos > g->payload_bytes) {
            dpb_ring_reclaim(tx);
            if (seq - tx->floor > g->depth || end - tx->floor_pos > g->payload_bytes) {
                __atomic_store_n(&tx->ring.header->refused, ++tx->refused, __ATOMIC_RELAXED);
                return NULL;
            }
        }
    }
    if (g->kind == DPB_RING_LOSSY) {
        while (end - tx->floor_pos > g->payload_bytes) {
            struct dpb_ring_slot *old = dpb_ring_slot_of(&tx->ring, tx->floor);
            if (tx->floor == seq) {
                tx->floor_pos = tx->pos;
                break;
            }
            tx->floor_pos = old->payload;
            if (end - tx->floor_pos <= g->payload_bytes)
                break;
            __atomic_store_n(&old->seq, ++tx->floor, __ATOMIC_RELAXED);
        }
    }
    __atomic_thread_fence(__ATOMIC_RELEASE);
    tx->pos = pos;
    return tx->ring.payload + (pos & (g->payload_bytes - 1));
}

/* Publishes what dpb_ring_reserve() gave room for. `record.len` as reserved or less; its `data`
 * and `seq` are not looked at. Returns the sequence number. */
static inline uint64_t dpb_ring_commit(struct dpb_ring_tx *tx, const struct dpb_record *record,
                                       uint64_t now_mono_ns)
{
    uint64_t seq = tx->next++;
    struct dpb_ring_slot *slot = dpb_ring_slot_of(&tx->ring, seq);
    struct dpb_ring_slot meta = {
        .filter = record->filter,
        .payload = tx->pos,
        .len = record->len,
        .kind = record->kind,
        .source = record->source,
        .origin_ns = record->origin_ns,
        .publish_mono_ns = now_mono_ns,
        .user = record->user,
        .clock = record->clock,
    };
    dpb_ring_copy_in((uint8_t *)&slot->filter, (const uint8_t *)&meta.filter, sizeof meta - 8);
    __atomic_store_n(&slot->seq, seq, __ATOMIC_RELEASE);
    tx->pos += dpb_ring_space(record->len);
    dpb_ring_mark(tx);
    dpb_ring_ahead(tx, record->len);
    __atomic_store_n(&tx->ring.header->oldest,
                     tx->floor + (tx->ring.geometry.kind == DPB_RING_LOSSLESS), __ATOMIC_RELAXED);
    __atomic_store_n(&tx->ring.header->head, seq, __ATOMIC_RELEASE);
    return seq;
}

/* Publishes records[0..n), copying their payloads. Returns how many: all of a lossy ring's, those
 * that found room on a lossless one; or -EMSGSIZE where records[0].len is more than the mtu. */
static inline int dpb_ring_put(struct dpb_ring_tx *tx, const struct dpb_record *records, int n,
                               uint64_t now_mono_ns)
{
    for (int i = 0; i < n; i++) {
        if (records[i].len > tx->ring.geometry.mtu)
            return i ? i : -EMSGSIZE;
        uint8_t *room = dpb_ring_reserve(tx, records[i].len);
        if (!room)
            return i;
        dpb_ring_copy_in(room, records[i].data, records[i].len);
        dpb_ring_commit(tx, &records[i], now_mono_ns);
    }
    return n;
}

/* The record wanted was overwritten: goes on in the middle of what is left, so that the next one is
 * not overwritten at once as well, and counts what was missed. */
static inline void dpb_ring_resync(struct dpb_ring_rx *rx)
{
    uint64_t head = __atomic_load_n(&rx->ring.header->head, __ATOMIC_ACQUIRE);
    uint64_t oldest = __atomic_load_n(&rx->ring.header->oldest, __ATOMIC_RELAXED);
    uint64_t resume = rx->next + 1;
    if (oldest <= head && oldest + (head + 1 - oldest) / 2 > resume)
        resume = oldest + (head + 1 - oldest) / 2;
    rx->overruns += resume - rx->next;
    rx->next = resume;
}

/* Takes up to `max` records that pass the filter, in order. Returns how many (0: none now), or
 * -EBADMSG where memory holds what no producer writes (lossless: it stays so; lossy: counted,
 * passed over). Payloads: lossy, copies in the arena, until the next take(); lossless, in the
 * ring itself, until acknowledged. */
static inline int dpb_ring_take(struct dpb_ring_rx *rx, struct dpb_record *out, int max)
{
    const struct dpb_ring_geometry *g = &rx->ring.geometry;
    uint64_t used = 0;
    int n = 0;
    while (n < max) {
        struct dpb_ring_slot *slot = dpb_ring_slot_of(&rx->ring, rx->next), meta;
        int64_t ahead = (int64_t)(__atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE) - rx->next);
        if (ahead < 0)
            break;
        if (ahead > 0) {
            if (g->kind == DPB_RING_LOSSLESS)
                return n ? n : -EBADMSG;
            dpb_ring_resync(rx);
            continue;
        }
        dpb_ring_copy_out((uint8_t *)&meta.filter, (const uint8_t *)&slot->filter,
                          sizeof meta - 8);
        int wanted = (meta.filter & rx->mask) == rx->want;
        uint64_t offset = meta.payload & (g->payload_bytes - 1), size = dpb_ring_space(meta.len);
        int sound = meta.len <= g->mtu && offset % DPB_RING_ALIGN == 0 &&
                    offset + size <= g->payload_bytes;
        const uint8_t *data = rx->ring.payload + offset;
        if (g->kind == DPB_RING_LOSSY) {
            if (wanted && sound) {
                if (used + size > rx->arena_bytes)
                    break;
                dpb_ring_copy_out(rx->arena + used, data, meta.len);
                data = rx->arena + used;
            }
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(&slot->seq, __ATOMIC_RELAXED) != rx->next) {
                dpb_ring_resync(rx);
                continue;
            }
        }
        if (!sound) {
            if (g->kind == DPB_RING_LOSSLESS)
                return n ? n : -EBADMSG;
            rx->corrupt++;
        } else if (!wanted) {
            rx->passed++;
        } else {
            out[n++] = (struct dpb_record){
                .seq = rx->next,
                .filter = meta.filter,
                .data = data,
                .len = meta.len,
                .kind = meta.kind,
                .source = meta.source,
                .origin_ns = meta.origin_ns,
                .publish_mono_ns = meta.publish_mono_ns,
                .user = meta.user,
                .clock = meta.clock,
            };
            used += size;
        }
        rx->next++;
    }
    return n;
}

/* Lossless: this consumer needs nothing up to record `seq` any more. `seq` beyond what was taken
 * counts as all that was taken; one already acknowledged changes nothing. */
static inline void dpb_ring_ack(struct dpb_ring_rx *rx, uint64_t seq)
{
    struct dpb_ring_seat *seat = &rx->ring.seats[rx->seat];
    if (seq >= rx->next)
        seq = rx->next - 1;
    if (seq > seat->acked)
        __atomic_store_n(&seat->acked, seq, __ATOMIC_RELEASE);
}

static inline void dpb_ring_beat(struct dpb_ring_tx *tx, uint64_t now_mono_ns)
{
    __atomic_store_n(&tx->ring.header->heartbeat_mono_ns, now_mono_ns, __ATOMIC_RELAXED);
}

static inline void dpb_ring_seat_beat(struct dpb_ring_rx *rx, uint64_t now_mono_ns)
{
    if (rx->seat >= 0)
        __atomic_store_n(&rx->ring.seats[rx->seat].heartbeat_mono_ns, now_mono_ns,
                         __ATOMIC_RELAXED);
}

#endif
