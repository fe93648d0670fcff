#include "afxdp.h"

#include "xsk.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define HEADROOM ((uint32_t)sizeof(struct dpb_xdp_stamp)) /* stamp and headers share a line */
#define ETHERNET_AND_VLAN 18
#define LINEAR_BUFFERS 1024
#define LINEAR (1u << 31) /* in a handle: a linearising buffer, not a chunk */
#define KICKS_PER_FLUSH 256
#define MAX_QUEUES DPB_XDP_MAX_QUEUES
#define WHOLE_BUFFER 1024 /* see struct dpb_afxdp_shape */

struct dpb_afxdp {
    struct dpb_xsk queues[MAX_QUEUES];
    uint16_t queue_ids[MAX_QUEUES];
    uint32_t queue_count;
    uint32_t next_queue;   /* polled first by the next poll() */
    uint32_t home_shift;   /* log2 of receive chunks a queue */
    uint32_t rx_chunks;    /* of all queues; transmit chunks follow */
    uint32_t chunk_shift;  /* that of `shape` */
    uint8_t *base;
    uint32_t *generation;  /* of each receive chunk: odd while with the application */
    bool closed;
    bool busy_poll;

    /* Transmit: slots of `slot_chunks` chunks, on the first queue's socket. */
    uint32_t slot_chunks;
    uint32_t slot_bytes;
    uint32_t free_slots;
    uint32_t slot_count;
    uint32_t *free_slot;   /* stack of slot numbers */
    uint8_t *slot_pending; /* chunks of each slot that the kernel has not completed */
    int64_t reserved;      /* slot that reserve() gave, or -1 */
    bool unflushed;        /* descriptors that the kernel was not told about, or refused */
    bool refused;          /* it was told, and had no room: it is told again when we next poll */
    bool littered;         /* descriptors that were withdrawn are still in the ring */
    uint32_t lost;         /* frames that will never leave and that nobody was told of yet */

    /* Frames of several buffers are copied into these. */
    uint8_t *linear;
    uint32_t linear_bytes;
    uint32_t *linear_free;
    uint32_t linear_free_count;
    uint32_t *linear_generation;

    bool taken_off;        /* the program was, and is not attached again yet */
    bool may_go_over;      /* to the driver's hook, for a sender that merges */
    struct dpb_afxdp_stats stats;

    struct dpb_afxdp_shape shape; /* what the memory was made for */
    struct dpb_umem umem;
    struct dpb_xdp xdp;
    struct dpb_nic nic;
    struct dpb_afxdp_info info;
    struct dpb_flow flows[DPB_XDP_MAX_FLOWS];
    bool flow_used[DPB_XDP_MAX_FLOWS];
};

/* ---- receive ---- */

/* Gives a receive chunk to the kernel again; shown to it by dpb_ring_produced. */
static inline void refill(struct dpb_afxdp *p, uint32_t chunk)
{
    struct dpb_xsk_ring *fill = &p->queues[chunk >> p->home_shift].fill;
    ((uint64_t *)fill->entries)[fill->mine++ & fill->mask] = (uint64_t)chunk << p->chunk_shift;
}

/* Reads the program's stamp in front of a frame, and wipes it: the next frame in this chunk may
 * come without one. */
static inline void read_stamp(struct dpb_afxdp *p, struct dpb_frame *frame, uint8_t *data)
{
    struct dpb_xdp_stamp *stamp = (void *)(data - sizeof *stamp);
    if (__builtin_expect(stamp->magic == DPB_XDP_MAGIC, 1)) {
        frame->arrival_ns = stamp->arrival_ns;
        frame->flow = stamp->flow;
        frame->clock = stamp->clock;
        stamp->magic = 0;
    } else {
        frame->arrival_ns = 0;
        frame->flow = DPB_FLOW_NONE;
        frame->clock = DPB_CLOCK_NONE;
        p->stats.rx_unstamped++;
    }
}

/* The frame at the head of the ring goes on in further descriptors, `have` of them readable.
 * Returns how many it took, 0 if its end has not arrived; *made says whether it became a frame. */
static __attribute__((noinline)) uint32_t linearise(struct dpb_afxdp *p, struct dpb_xsk_ring *rx,
                                                    uint32_t have, struct dpb_frame *frame,
                                                    bool *made)
{
    const struct xdp_desc *entries = rx->entries;
    uint32_t parts = 0, total = 0;
    for (;; parts++) {
        if (parts == have)
            return 0;
        const struct xdp_desc *part = &entries[(rx->mine + parts) & rx->mask];
        total += part->len;
        if (!(part->options & XDP_PKT_CONTD))
            break;
    }
    parts++;
    *made = false;
    if (total > p->linear_bytes)
        p->stats.rx_too_long++;
    else if (p->linear_free_count == 0)
        p->stats.rx_no_linear_buffer++;
    else
        *made = true;

    uint8_t *to = NULL;
    if (*made) {
        uint32_t buffer = p->linear_free[--p->linear_free_count];
        to = p->linear + (size_t)buffer * p->linear_bytes;
        frame->data = to;
        frame->len = total;
        frame->handle = (uint64_t)++p->linear_generation[buffer] << 32 | LINEAR | buffer;
        frame->flags = DPB_FRAME_LINEARISED;
        p->stats.rx_linearised++;
    }
    for (uint32_t i = 0; i < parts; i++) {
        const struct xdp_desc *part = &entries[(rx->mine + i) & rx->mask];
        if (*made) {
            if (i == 0)
                read_stamp(p, frame, p->base + part->addr);
            memcpy(to, p->base + part->addr, part->len);
            to += part->len;
        }
        refill(p, part->addr >> p->chunk_shift);
    }
    dpb_ring_produced(&p->queues[(entries[rx->mine & rx->mask].addr >> p->chunk_shift) >>
                                 p->home_shift].fill);
    return parts;
}

static inline int receive(struct dpb_afxdp *p, uint32_t queue, struct dpb_frame *out, int max)
{
    struct dpb_xsk *xsk = &p->queues[queue];
    struct dpb_xsk_ring *rx = &xsk->rx;
    uint32_t have = dpb_ring_readable(rx, max);
    if (have == 0) {
        if (p->busy_poll || dpb_ring_needs_wakeup(&xsk->fill))
            recvfrom(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL); /* runs the driver; no data */
        return 0;
    }
    const struct xdp_desc *entries = rx->entries;
    uint64_t bytes = 0;
    int n = 0;
    for (uint32_t seen = 0; seen < have && n < max;) {
        const struct xdp_desc *desc = &entries[rx->mine & rx->mask];
        struct dpb_frame *frame = &out[n];
        frame->queue = p->queue_ids[queue];
        if (__builtin_expect(desc->options & XDP_PKT_CONTD, 0)) {
            bool made;
            uint32_t parts = linearise(p, rx, have - seen, frame, &made);
            if (parts == 0)
                break;
            rx->mine += parts;
            seen += parts;
            if (made) {
                bytes += frame->len;
                n++;
            }
            continue;
        }
        if (seen + 4 < have)
            __builtin_prefetch(p->base + entries[(rx->mine + 4) & rx->mask].addr - HEADROOM, 1);
        uint8_t *data = p->base + desc->addr;
        uint32_t chunk = desc->addr >> p->chunk_shift;
        frame->data = data;
        frame->len = desc->len;
        frame->handle = (uint64_t)++p->generation[chunk] << 32 | chunk;
        frame->flags = 0;
        read_stamp(p, frame, data);
        bytes += desc->len;
        rx->mine++;
        seen++;
        n++;
    }
    dpb_ring_consumed(rx);
    p->stats.rx_frames += n;
    p->stats.rx_bytes += bytes;
    p->stats.rx_held += n;
    return n;
}

static void hand_over(struct dpb_afxdp *p);
static bool clear_ring(struct dpb_afxdp *p);

static int afxdp_poll(void *port, struct dpb_frame *out, int max)
{
    struct dpb_afxdp *p = port;
    if (p->closed)
        return -EBADF;
    if (__builtin_expect(p->refused, 0))
        hand_over(p);
    if (__builtin_expect(p->littered, 0))
        clear_ring(p);
    int n = 0;
    for (uint32_t i = 0; i < p->queue_count && n < max; i++) {
        uint32_t queue = p->next_queue;
        p->next_queue = queue + 1 == p->queue_count ? 0 : queue + 1;
        n += receive(p, queue, out + n, max - n);
    }
    return n;
}

static __attribute__((noinline)) void release_odd(struct dpb_afxdp *p, uint64_t handle)
{
    uint32_t buffer = (uint32_t)handle & ~LINEAR;
    if ((uint32_t)handle & LINEAR && p->linear && buffer < LINEAR_BUFFERS &&
        p->linear_generation[buffer] == handle >> 32 && handle >> 32 & 1) {
        p->linear_generation[buffer]++;
        p->linear_free[p->linear_free_count++] = buffer;
        p->stats.rx_held--;
    } else {
        p->stats.rx_released_twice++;
    }
}

static void afxdp_release(void *port, const struct dpb_frame *frames, int n)
{
    struct dpb_afxdp *p = port;
    if (p->closed)
        return;
    for (int i = 0; i < n; i++) {
        uint64_t handle = frames[i].handle;
        uint32_t chunk = (uint32_t)handle, generation = handle >> 32;
        if (__builtin_expect(chunk >= p->rx_chunks || p->generation[chunk] != generation ||
                                 !(generation & 1),
                             0)) {
            release_odd(p, handle);
            continue;
        }
        p->generation[chunk]++;
        p->stats.rx_held--;
        refill(p, chunk);
    }
    for (uint32_t queue = 0; queue < p->queue_count; queue++)
        dpb_ring_produced(&p->queues[queue].fill);
}

/* ---- transmit ---- */

static void reap(struct dpb_afxdp *p)
{
    struct dpb_xsk_ring *done = &p->queues[0].done;
    uint32_t have = dpb_ring_readable(done, 1);
    if (have == 0)
        return;
    const uint64_t *entries = done->entries;
    for (; have; have--) {
        uint64_t chunk = (entries[done->mine++ & done->mask] >> p->chunk_shift) - p->rx_chunks;
        uint32_t slot = p->slot_chunks == 1 ? chunk : chunk / p->slot_chunks;
        if (slot < p->slot_count && p->slot_pending[slot] && --p->slot_pending[slot] == 0)
            p->free_slot[p->free_slots++] = slot;
    }
    dpb_ring_consumed(done);
}

static uint8_t *slot_address(struct dpb_afxdp *p, uint32_t slot)
{
    return p->base + ((size_t)(p->rx_chunks + slot * p->slot_chunks) << p->chunk_shift);
}

static uint8_t *afxdp_reserve(void *port, uint32_t len)
{
    struct dpb_afxdp *p = port;
    if (p->closed) {
        errno = ENETDOWN;
        return NULL;
    }
    if (len > p->slot_bytes) {
        p->stats.tx_too_long++;
        errno = EMSGSIZE;
        return NULL;
    }
    if (__builtin_expect(p->littered, 0) && !clear_ring(p)) {
        p->stats.tx_link_down++;
        errno = ENETDOWN;
        return NULL;
    }
    if (p->reserved < 0) {
        reap(p); /* the slot freed last is the one whose lines are still in the cache */
        if (p->free_slots == 0) {
            p->stats.tx_ring_full++;
            errno = ENOBUFS;
            return NULL;
        }
        p->reserved = p->free_slot[--p->free_slots];
    }
    return slot_address(p, p->reserved);
}

static int afxdp_commit(void *port, uint32_t len)
{
    struct dpb_afxdp *p = port;
    if (p->closed)
        return -EBADF;
    if (p->reserved < 0 || len > p->slot_bytes)
        return -EINVAL;
    uint32_t slot = p->reserved;
    p->reserved = -1;
    if (len == 0) {
        p->free_slot[p->free_slots++] = slot;
        return 0;
    }
    struct dpb_xsk_ring *tx = &p->queues[0].tx;
    struct xdp_desc *entries = tx->entries;
    uint64_t at = (uint64_t)(p->rx_chunks + slot * p->slot_chunks) << p->chunk_shift;
    uint32_t chunk_bytes = 1u << p->chunk_shift, left = len;
    p->slot_pending[slot] = 0;
    while (left) {
        uint32_t part = left < chunk_bytes ? left : chunk_bytes;
        left -= part;
        entries[tx->mine++ & tx->mask] =
            (struct xdp_desc){.addr = at, .len = part, .options = left ? XDP_PKT_CONTD : 0};
        at += chunk_bytes;
        p->slot_pending[slot]++;
    }
    p->stats.tx_frames++;
    p->stats.tx_bytes += len;
    p->unflushed = true;
    return 0;
}

/* Why withdrawing is possible, and how. The kernel reads a descriptor when it takes it, and in copy
 * mode it does so inside our sendto() only (xsk_generic_xmit); with the link down it takes none
 * (ENETDOWN), and would take them all when the link is back, however late. The producer's index
 * cannot be put back, as the kernel may have read it; but a descriptor whose address lies outside
 * of the memory is passed over and counted (tx_invalid_descs), in both modes. Its slot is free at
 * once, for nobody will complete it; its place in the ring is not, until the kernel has passed.
 *
 * A zero-copy driver reads descriptors whenever it runs, a batch at a time, and moves the consumer's
 * index a moment later: addresses are changed by one store each, and only what is not taken some
 * time after that counts as withdrawn. */
#define WITHDRAWING (1ull << 62) /* set in an address: its slot is still to be given back */
#define WITHDRAWN (1ull << 63)
#define DRIVER_BATCH_NS 50000

static void withdraw_descriptors(struct dpb_afxdp *p)
{
    struct dpb_xsk_ring *tx = &p->queues[0].tx;
    struct xdp_desc *entries = tx->entries;
    reap(p); /* first: what was completed is not ours to give back */
    uint32_t from = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);
    for (uint32_t at = from; at != tx->mine; at++) {
        uint64_t *addr = (uint64_t *)&entries[at & tx->mask].addr;
        if (!(*addr & WITHDRAWN))
            __atomic_store_n(addr, *addr | WITHDRAWING, __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (p->info.mode == DPB_AFXDP_ZEROCOPY && from != tx->mine) {
        nanosleep(&(struct timespec){.tv_nsec = DRIVER_BATCH_NS}, NULL);
        reap(p);
        from = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE);
    }
    for (uint32_t at = from; at != tx->mine; at++) {
        struct xdp_desc *desc = &entries[at & tx->mask];
        if (!(desc->addr & WITHDRAWING))
            continue;
        uint32_t slot = (((desc->addr & ~WITHDRAWING) >> p->chunk_shift) - p->rx_chunks) /
                        p->slot_chunks;
        __atomic_store_n((uint64_t *)&desc->addr, WITHDRAWN, __ATOMIC_RELAXED);
        if (!p->slot_pending[slot])
            continue; /* taken and dropped: completed, although the index does not say so yet */
        if (--p->slot_pending[slot] == 0)
            p->free_slot[p->free_slots++] = slot;
        if (!(desc->options & XDP_PKT_CONTD)) {
            p->stats.tx_withdrawn++;
            p->lost++;
        }
    }
    tx->mine = *tx->producer; /* what the kernel was not told of yet need not be passed over */
    p->unflushed = p->refused = false;
    p->littered = __atomic_load_n(tx->consumer, __ATOMIC_ACQUIRE) != tx->mine;
}

/* Has the kernel pass over withdrawn descriptors before anything is queued behind them; false: it
 * does not (the link is still down), or has not yet. */
static __attribute__((noinline)) bool clear_ring(struct dpb_afxdp *p)
{
    struct dpb_xsk *xsk = &p->queues[0];
    for (int kick = 0; kick < KICKS_PER_FLUSH && p->littered; kick++) {
        if (sendto(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN)
            return false;
        p->littered = __atomic_load_n(xsk->tx.consumer, __ATOMIC_ACQUIRE) != xsk->tx.mine;
        if (p->info.mode == DPB_AFXDP_ZEROCOPY)
            break; /* the driver does it when it runs */
    }
    return !p->littered;
}

/* Tells the kernel of what was queued, and has it taken as far as it goes. */
static void hand_over(struct dpb_afxdp *p)
{
    p->refused = false;
    struct dpb_xsk *xsk = &p->queues[0];
    dpb_ring_produced(&xsk->tx);
    if (!dpb_ring_needs_wakeup(&xsk->tx)) {
        p->unflushed = false;
        return;
    }
    bool dropped = false;
    bool zero_copy = p->info.mode == DPB_AFXDP_ZEROCOPY;
    /* In copy mode a call sends a batch (32) and says EAGAIN if there is more. */
    for (int kick = 0; kick < KICKS_PER_FLUSH; kick++) {
        if (sendto(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0) {
            p->unflushed = __atomic_load_n(xsk->tx.consumer, __ATOMIC_ACQUIRE) != xsk->tx.mine;
            if (!p->unflushed || zero_copy)
                return;
        } else if (errno == EAGAIN) {
            reap(p); /* a full completion ring says EAGAIN too */
        } else if (errno == EBUSY && !zero_copy) {
            dropped = true; /* a frame was taken, and thrown away: no carrier, or a full peer */
            p->stats.tx_dropped++;
            p->lost++;
        } else if (errno == EBUSY || errno == ENOBUFS || errno == EINTR) {
            break;
        } else { /* ENETDOWN: the link is down; ENXIO: the interface is gone */
            withdraw_descriptors(p);
            return;
        }
    }
    if (dropped) { /* more of them than kicks */
        withdraw_descriptors(p);
        return;
    }
    p->stats.tx_kernel_busy++;
    p->refused = true;
}

static int tell_lost(struct dpb_afxdp *p)
{
    int lost = (int)p->lost;
    p->lost = 0;
    return lost;
}

static int afxdp_flush(void *port)
{
    struct dpb_afxdp *p = port;
    if (p->closed)
        return -EBADF;
    if (p->unflushed)
        hand_over(p);
    if (__builtin_expect(p->refused, 0))
        return -EAGAIN;
    return __builtin_expect(p->lost, 0) ? tell_lost(p) : 0;
}

static int afxdp_withdraw(void *port)
{
    struct dpb_afxdp *p = port;
    if (p->closed)
        return -EBADF;
    withdraw_descriptors(p);
    return tell_lost(p);
}

static const struct dpb_port_ops ops = {
    .abi = DPB_PORT_ABI,
    .size = sizeof ops,
    .poll = afxdp_poll,
    .release = afxdp_release,
    .reserve = afxdp_reserve,
    .commit = afxdp_commit,
    .flush = afxdp_flush,
    .withdraw = afxdp_withdraw,
};

const struct dpb_port_ops *dpb_afxdp_ops(void)
{
    return &ops;
}

/* ---- opening and closing ---- */

void dpb_afxdp_shape_of(enum dpb_afxdp_mode mode, uint32_t mtu, struct dpb_afxdp_shape *shape)
{
    uint32_t frame = mtu + ETHERNET_AND_VLAN;
    uint32_t small = 2048 - XDP_PACKET_HEADROOM - HEADROOM;
    uint32_t large = 4096 - XDP_PACKET_HEADROOM - HEADROOM;
    bool zero_copy = mode == DPB_AFXDP_ZEROCOPY;
    if (zero_copy)
        large -= large % WHOLE_BUFFER;
    *shape = (struct dpb_afxdp_shape){
        .frame_bytes = frame,
        .chunk_shift = frame <= small && !zero_copy ? 11 : 12,
        .several_buffers = frame > large,
    };
}

static void free_memory(struct dpb_afxdp *p)
{
    dpb_umem_unmap(&p->umem);
    if (p->linear)
        munmap(p->linear, (size_t)p->linear_bytes * LINEAR_BUFFERS);
    free(p->linear_free);
    free(p->linear_generation);
    free(p->generation);
    free(p->free_slot);
    free(p->slot_pending);
    p->linear = NULL;
    p->linear_free = p->linear_generation = p->generation = p->free_slot = NULL;
    p->slot_pending = NULL;
    p->free_slots = p->linear_free_count = 0;
}

static int allocate(struct dpb_afxdp *p, const struct dpb_afxdp_shape *shape, uint32_t ring,
                    struct dpb_error *error)
{
    uint32_t frame = shape->frame_bytes;
    p->shape = *shape;
    p->chunk_shift = shape->chunk_shift;
    p->home_shift = __builtin_ctz(ring) + 1; /* one ring full, and as much with the application */
    p->rx_chunks = p->queue_count << p->home_shift;
    p->slot_chunks = (frame + (1u << p->chunk_shift) - 1) >> p->chunk_shift;
    p->slot_bytes = frame;
    p->slot_count = ring / p->slot_chunks;
    uint32_t chunks = p->rx_chunks + p->slot_count * p->slot_chunks;
    int result = dpb_umem_map(&p->umem, chunks, p->chunk_shift, error);
    if (result < 0)
        return result;
    p->base = p->umem.base;
    p->generation = calloc(p->rx_chunks, sizeof *p->generation);
    p->free_slot = calloc(p->slot_count, sizeof *p->free_slot);
    p->slot_pending = calloc(p->slot_count, sizeof *p->slot_pending);
    if (!p->generation || !p->free_slot || !p->slot_pending)
        return dpb_fail(error, ENOMEM, "opening interface \"%s\"", p->nic.name);
    p->reserved = -1;
    for (uint32_t slot = p->slot_count; slot-- > 0;)
        p->free_slot[p->free_slots++] = slot;
    if (shape->several_buffers) {
        p->linear_bytes = (frame + 63) & ~63u;
        p->linear = mmap(NULL, (size_t)p->linear_bytes * LINEAR_BUFFERS, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (p->linear == MAP_FAILED)
            p->linear = NULL;
        p->linear_free = calloc(LINEAR_BUFFERS, sizeof *p->linear_free);
        p->linear_generation = calloc(LINEAR_BUFFERS, sizeof *p->linear_generation);
        if (!p->linear || !p->linear_free || !p->linear_generation)
            return dpb_fail(error, ENOMEM, "opening interface \"%s\"", p->nic.name);
        for (uint32_t i = LINEAR_BUFFERS; i-- > 0;)
            p->linear_free[p->linear_free_count++] = i;
    }
    return 0;
}

/* The memory that `mode` needs, in place of that of a mode that was not to be had. */
static int provide_memory(struct dpb_afxdp *p, enum dpb_afxdp_mode mode, uint32_t ring,
                          struct dpb_error *error)
{
    struct dpb_afxdp_shape shape;
    dpb_afxdp_shape_of(mode, p->nic.mtu, &shape);
    if (p->umem.base && shape.chunk_shift == p->shape.chunk_shift &&
        shape.several_buffers == p->shape.several_buffers)
        return 0;
    free_memory(p);
    return allocate(p, &shape, ring, error);
}

static void take_down(struct dpb_afxdp *p)
{
    dpb_xdp_close(&p->xdp); /* first: from here the kernel gets everything */
    for (uint32_t i = p->queue_count; i-- > 0;)
        dpb_xsk_close(&p->queues[i]);
}

static enum dpb_xdp_mode hook_of(enum dpb_afxdp_mode mode)
{
    return mode == DPB_AFXDP_SKB ? DPB_XDP_SKB : DPB_XDP_DRV;
}

static int attach_program(struct dpb_afxdp *p, enum dpb_afxdp_mode mode, struct dpb_error *error)
{
    int result = dpb_xdp_attach(&p->xdp, &p->nic, hook_of(mode));
    if (result < 0)
        dpb_fail(error, -result, "attaching the XDP program to interface \"%s\" (%s mode)",
                 p->nic.name, mode == DPB_AFXDP_SKB ? "skb" : "drv");
    if (result == -EPERM)
        dpb_hint_capabilities(error, DPB_CAP_NET_ADMIN);
    return result;
}

/* Memory, sockets, program, attachment in one mode; takes all but the memory down again on failure. */
static int bring_up(struct dpb_afxdp *p, enum dpb_afxdp_mode mode, uint32_t ring,
                    struct dpb_error *error)
{
    int result = provide_memory(p, mode, ring, error);
    if (result < 0)
        return result;
    struct dpb_xsk_bind how = {
        .zero_copy = mode == DPB_AFXDP_ZEROCOPY,
        .several_buffers = p->linear != NULL,
        .headroom = HEADROOM,
        .rx_entries = ring,
        .tx_entries = ring,
        .fill_entries = 1u << p->home_shift,
        .done_entries = ring,
        .busy_poll = p->busy_poll,
        .shared_with = -1,
    };
    result = dpb_xdp_load(&p->xdp, &p->nic, hook_of(mode), how.several_buffers, error);
    for (uint32_t i = 0; i < p->queue_count && result == 0; i++) {
        result = dpb_xsk_open(&p->queues[i], &p->umem, &p->nic, p->queue_ids[i], &how, error);
        how.shared_with = p->queues[0].fd;
        if (result == 0) {
            for (uint32_t c = i << p->home_shift; c < (i + 1) << p->home_shift; c++)
                refill(p, c);
            dpb_ring_produced(&p->queues[i].fill);
            result = dpb_xdp_serve(&p->xdp, p->queue_ids[i], p->queues[i].fd);
            if (result < 0)
                dpb_fail(error, -result, "serving queue %u of interface \"%s\"", p->queue_ids[i],
                         p->nic.name);
        }
    }
    if (result == 0)
        result = attach_program(p, mode, error);
    if (result < 0)
        take_down(p);
    return result;
}

static bool worth_a_lesser_mode(int result)
{
    return result == -EOPNOTSUPP || result == -EINVAL || result == -ENOTSUP || result == -ENOSPC;
}

static int choose_mode(struct dpb_afxdp *p, enum dpb_afxdp_mode asked, uint32_t ring,
                       struct dpb_error *error)
{
    char *why = p->info.why;
    size_t room = sizeof p->info.why;
    int result;
    bool veth = strcmp(p->nic.driver, "veth") == 0;
    /* Nothing in such a frame tells, and nobody in this namespace can ask the other end. */
    static const char merged[] = "; datagrams that a sender merges (UDP_SEGMENT) come merged, "
                                 "without mode=drv or `ethtool -K PEER tx-udp-segmentation off`";
    if (asked != DPB_AFXDP_AUTO) {
        result = bring_up(p, asked, ring, error);
        if (worth_a_lesser_mode(result))
            dpb_hint(error, "driver \"%s\" does not offer this mode with MTU %u; mode=auto finds "
                            "the best one it does offer", p->nic.driver, p->nic.mtu);
        p->info.mode = asked;
        snprintf(why, room, "asked for%s", veth && asked == DPB_AFXDP_SKB ? merged : "");
        return result;
    }
    if (veth) {
        p->info.mode = DPB_AFXDP_SKB;
        p->may_go_over = true;
        snprintf(why, room, "on veth the generic hook is the quicker one%s", merged);
        return bring_up(p, DPB_AFXDP_SKB, ring, error);
    }
    static const enum dpb_afxdp_mode best_first[] = {DPB_AFXDP_ZEROCOPY, DPB_AFXDP_DRV,
                                                     DPB_AFXDP_SKB};
    static const char *const name[] = {"zerocopy", "drv", "skb"};
    size_t said = 0;
    for (int i = 0; i < 3; i++) {
        result = bring_up(p, best_first[i], ring, error);
        p->info.mode = best_first[i];
        if (result == 0 && i == 0)
            snprintf(why, room, "the best there is");
        if (!worth_a_lesser_mode(result))
            return result;
        int n = snprintf(why + said, room - said, "%s%s: %s", said ? "; " : "", name[i],
                         strerror(-result));
        said += n > 0 && (size_t)n < room - said ? (size_t)n : 0;
    }
    return result;
}

struct dpb_afxdp *dpb_afxdp_open(const struct dpb_afxdp_options *options, struct dpb_error *error)
{
    memset(error, 0, sizeof *error);
    struct dpb_afxdp *p = calloc(1, sizeof *p);
    if (!p) {
        dpb_fail(error, ENOMEM, "opening interface \"%s\"", options->interface);
        return NULL;
    }
    p->xdp = (struct dpb_xdp){.flows = -1, .sockets = -1, .counters = -1, .program = -1, .link = -1};
    for (int i = 0; i < MAX_QUEUES; i++)
        p->queues[i].fd = -1;
    if (dpb_nic_ask(&p->nic, options->interface, error) < 0)
        goto fail;
    p->busy_poll = options->busy_poll;
    p->queue_count = options->queue_count ? options->queue_count : p->nic.rx_queues;
    if (p->queue_count > MAX_QUEUES) {
        dpb_fail(error, EINVAL, "interface \"%s\" has %u queues, a port serves at most %d",
                 p->nic.name, p->queue_count, MAX_QUEUES);
        dpb_hint(error, "choose some (queues=0-15), or `ethtool -L %s combined N`", p->nic.name);
        goto fail;
    }
    for (uint32_t i = 0; i < p->queue_count; i++) {
        p->queue_ids[i] = options->queue_count ? options->queues[i] : i;
        if (p->queue_ids[i] >= p->nic.rx_queues) {
            dpb_fail(error, EINVAL, "queue %u of interface \"%s\": it has queues 0 to %u",
                     p->queue_ids[i], p->nic.name, p->nic.rx_queues - 1);
            goto fail;
        }
    }
    if (choose_mode(p, options->mode, options->ring, error) < 0)
        goto fail;
    return p;
fail:
    dpb_afxdp_free(p);
    return NULL;
}

/* A sender on the other end of the veth pair merges datagrams, and by the generic hook they come so.
 * An interface has one hook or the other, never both: that ours is in the way is what the driver's
 * is refused for, if nothing else is (no right to attach, say). */
static int go_over(struct dpb_afxdp *p, struct dpb_error *error)
{
    p->may_go_over = false;
    struct dpb_xdp probe = {.program = p->xdp.program, .link = -1};
    int result = dpb_xdp_attach(&probe, &p->nic, DPB_XDP_DRV);
    if (result != -EEXIST && result != -EBUSY)
        return 0;
    result = attach_program(p, DPB_AFXDP_DRV, error);
    if (result < 0) /* as it was: an MTU too long for the driver, too few queues, ... */
        return attach_program(p, DPB_AFXDP_SKB, error);
    p->info.mode = DPB_AFXDP_DRV;
    snprintf(p->info.why, sizeof p->info.why,
             "a sender merges datagrams (UDP_SEGMENT), which are cut for the driver's hook only");
    return 2;
}

int dpb_afxdp_look_after(struct dpb_afxdp *p, struct dpb_error *error)
{
    memset(error, 0, sizeof *error);
    if (p->closed)
        return 0;
    int attached = dpb_xdp_is_attached(&p->xdp);
    if (attached < 0)
        return dpb_fail(error, -attached, "asking after the XDP program of interface \"%s\"",
                        p->nic.name);
    if (attached) {
        struct dpb_xdp_passed passed = {0};
        if (p->may_go_over && dpb_xdp_read_passed(&p->xdp, &passed) == 0 && passed.merged)
            return go_over(p, error);
        return 0;
    }
    char name[IF_NAMESIZE];
    if (!if_indextoname(p->nic.ifindex, name) || strcmp(name, p->nic.name) != 0)
        return dpb_fail(error, ENODEV, "interface \"%s\"", p->nic.name);
    if (!p->taken_off)
        p->stats.program_taken_off++;
    int result = attach_program(p, p->info.mode, error);
    p->taken_off = result < 0;
    return result < 0 ? result : 1;
}

void dpb_afxdp_close(struct dpb_afxdp *p)
{
    if (p->closed)
        return;
    dpb_afxdp_stats(p, &p->stats); /* the last word of the kernel's counters */
    p->closed = true;
    take_down(p);
}

void dpb_afxdp_free(struct dpb_afxdp *p)
{
    if (!p)
        return;
    if (!p->closed)
        take_down(p);
    free_memory(p);
    free(p);
}

/* ---- flows, counters ---- */

int dpb_afxdp_add_flow(struct dpb_afxdp *p, const struct dpb_flow *flow, struct dpb_error *error)
{
    memset(error, 0, sizeof *error);
    if (p->closed)
        return dpb_fail(error, EBADF, "adding a flow");
    int number = 0;
    while (number < DPB_XDP_MAX_FLOWS && p->flow_used[number])
        number++;
    if (number == DPB_XDP_MAX_FLOWS)
        return dpb_fail(error, ENOSPC, "adding a flow: there are %d already", DPB_XDP_MAX_FLOWS);
    int result = dpb_xdp_put_flow(&p->xdp, flow, number);
    if (result < 0) {
        dpb_fail(error, -result, "adding a flow on interface \"%s\"", p->nic.name);
        return result;
    }
    p->flows[number] = *flow;
    p->flow_used[number] = true;
    return number;
}

int dpb_afxdp_remove_flow(struct dpb_afxdp *p, int number)
{
    if (p->closed)
        return -EBADF;
    if (number < 0 || number >= DPB_XDP_MAX_FLOWS || !p->flow_used[number])
        return -ENOENT;
    p->flow_used[number] = false;
    return dpb_xdp_delete_flow(&p->xdp, &p->flows[number]);
}

void dpb_afxdp_info(const struct dpb_afxdp *p, struct dpb_afxdp_info *info)
{
    *info = p->info;
    strcpy(info->interface, p->nic.name);
    strcpy(info->driver, p->nic.driver);
    info->mtu = p->nic.mtu;
    info->interface_queues = p->nic.rx_queues;
    info->queues = p->queue_count;
    info->chunk_bytes = 1u << p->chunk_shift;
    info->chunks = p->umem.chunks;
    info->longest_tx = p->slot_bytes;
    info->program_id = p->xdp.program_id;
    strcpy(info->pages, p->umem.pages);
    info->several_buffers = p->linear != NULL;
    info->asks_driver_time = p->xdp.asks_driver;
    info->busy_poll = p->busy_poll;
}

void dpb_afxdp_stats(struct dpb_afxdp *p, struct dpb_afxdp_stats *stats)
{
    *stats = p->stats;
    if (p->closed)
        return;
    reap(p);
    stats->tx_pending = p->slot_count - p->free_slots - (p->reserved >= 0);
    for (uint32_t i = 0; i < p->queue_count; i++) {
        struct xdp_statistics kernel = {0};
        socklen_t size = sizeof kernel;
        if (getsockopt(p->queues[i].fd, SOL_XDP, XDP_STATISTICS, &kernel, &size) < 0)
            continue;
        stats->kernel_rx_dropped += kernel.rx_dropped;
        stats->kernel_rx_ring_full += kernel.rx_ring_full;
        stats->kernel_rx_fill_ring_empty += kernel.rx_fill_ring_empty_descs;
        stats->kernel_rx_invalid_descs += kernel.rx_invalid_descs;
        stats->kernel_tx_invalid_descs += kernel.tx_invalid_descs;
    }
    struct dpb_xdp_passed passed = {0};
    if (dpb_xdp_read_passed(&p->xdp, &passed) == 0) {
        stats->passed_unbound_queue = passed.unbound_queue;
        stats->passed_fragments = passed.fragments;
        stats->passed_options = passed.options;
        stats->passed_tags = passed.tags;
        stats->passed_merged = passed.merged;
    }
}
