#define _GNU_SOURCE
#include "ring_file.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

static const uint8_t MAGIC[8] = "dpbring";

/* Bytes of the file that locks stand on; nothing is read or written there for their sake. */
enum { LOCK_PRODUCER = 0, LOCK_JOIN = 1, LOCK_SEAT0 = 2 };

static uint64_t mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((format(printf, 3, 4))) static int fail(char *why, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, DPB_RING_WHY, format, args);
    va_end(args);
    return -error;
}

static int lock_byte(int fd, int at, int command)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, command, &lock) ? -errno : 0;
}

static void unlock_byte(int fd, int at)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    fcntl(fd, F_OFD_SETLK, &lock);
}

/* Whether anyone holds the byte. (A description is never told of its own lock.) */
static int locked(const struct dpb_ring *ring, int at)
{
    if (ring->lock == at)
        return 1;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return !fcntl(ring->fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

static uint64_t up(uint64_t value, uint64_t granule)
{
    return (value + granule - 1) & ~(granule - 1);
}

static int power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

uint64_t dpb_ring_bytes(const struct dpb_ring_geometry *g, char *why)
{
    uint64_t granule = g->granule;
    if (g->kind != DPB_RING_LOSSY && g->kind != DPB_RING_LOSSLESS)
        fail(why, EINVAL, "kind %u is neither lossy nor lossless", g->kind);
    else if (!power_of_two(g->depth) || g->depth < 2 || g->depth > 1u << 24)
        fail(why, EINVAL, "depth %u is not a power of two from 2 to %u", g->depth, 1u << 24);
    else if (!power_of_two(granule) || granule < 4096 || granule > 1u << 30)
        fail(why, EINVAL, "granule %u is not a page size", g->granule);
    else if (!power_of_two(g->payload_bytes) || g->payload_bytes < 4096 ||
             g->payload_bytes > 1ull << 40)
        fail(why, EINVAL, "payload_bytes %llu is not a power of two from 4096 to 2^40",
             (unsigned long long)g->payload_bytes);
    else if (g->mtu > g->payload_bytes / 2 || g->mtu > 1u << 30)
        fail(why, EINVAL, "mtu %u is more than half of payload_bytes (%llu), or 2^30", g->mtu,
             (unsigned long long)g->payload_bytes);
    else
        return 2 * granule + up((uint64_t)g->depth * sizeof(struct dpb_ring_slot), granule) +
               up(g->payload_bytes, granule);
    return 0;
}

static void lay_out(struct dpb_ring_header *header, const struct dpb_ring_geometry *g)
{
    char why[DPB_RING_WHY];
    header->version = DPB_RING_VERSION;
    header->header_bytes = sizeof *header;
    header->geometry = *g;
    header->seats_off = g->granule;
    header->slots_off = 2ull * g->granule;
    header->payload_off =
        header->slots_off + up((uint64_t)g->depth * sizeof(struct dpb_ring_slot), g->granule);
    header->total_bytes = dpb_ring_bytes(g, why);
    header->check = 0xcbf29ce484222325u;
    for (size_t i = offsetof(struct dpb_ring_header, version);
         i < offsetof(struct dpb_ring_header, check); i++)
        header->check = (header->check ^ ((uint8_t *)header)[i]) * 0x100000001b3u;
}

int64_t dpb_ring_filesystem(int fd)
{
    struct statfs about;
    return fstatfs(fd, &about) ? 0 : (int64_t)(uint32_t)about.f_type;
}

int dpb_ring_format(int fd, const struct dpb_ring_geometry *g, char *why)
{
    uint64_t bytes = dpb_ring_bytes(g, why);
    if (!bytes)
        return -EINVAL;
    /* Reserved, not only promised: a tmpfs that runs full later would be a SIGBUS. */
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error)
        return fail(why, error, "no room for %llu bytes: %s", (unsigned long long)bytes,
                    strerror(error));
    struct dpb_ring_header *header =
        mmap(NULL, g->granule, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return fail(why, errno, "the header cannot be mapped: %s", strerror(errno));
    lay_out(header, g);
    header->oldest = 1;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(header->magic, MAGIC, sizeof MAGIC);
    munmap(header, g->granule);
    return 0;
}

int dpb_ring_inspect(int fd, struct dpb_ring_geometry *geometry, char *why)
{
    struct stat file;
    struct dpb_ring_header header, expected = {0};
    if (fstat(fd, &file))
        return fail(why, errno, "%s", strerror(errno));
    if (!S_ISREG(file.st_mode))
        return fail(why, EBADMSG, "not a regular file");
    if (file.st_uid != geteuid() && file.st_uid != 0)
        return fail(why, EPERM, "owned by uid %u, and this process is uid %u", file.st_uid,
                    geteuid());
    if (file.st_mode & (S_IWGRP | S_IWOTH))
        return fail(why, EPERM, "mode %04o: others may write to it", file.st_mode & 07777);
    if ((uint64_t)file.st_size < sizeof header)
        return fail(why, EBADMSG, "%lld bytes are too few to be a ring", (long long)file.st_size);
    /* Mapped, not read: a file of a hugetlbfs cannot always be read. */
    uint64_t window = up(sizeof header, (uint64_t)file.st_blksize);
    void *map = mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return fail(why, errno, "it cannot be mapped: %s", strerror(errno));
    memcpy(&header, map, sizeof header);
    munmap(map, window);
    if (memcmp(header.magic, MAGIC, sizeof MAGIC))
        return fail(why, EBADMSG, "not a ring: it does not begin with \"dpbring\"");
    if (header.version != DPB_RING_VERSION || header.header_bytes != sizeof header)
        return fail(why, EBADMSG, "a ring of version %u (%u bytes of header), and this is version %u",
                    header.version, header.header_bytes, DPB_RING_VERSION);
    uint64_t bytes = dpb_ring_bytes(&header.geometry, why);
    if (!bytes)
        return -EBADMSG;
    lay_out(&expected, &header.geometry);
    if (memcmp(&header.version, &expected.version,
               offsetof(struct dpb_ring_header, reserved0) -
                   offsetof(struct dpb_ring_header, version)))
        return fail(why, EBADMSG, "damaged: its header does not agree with itself");
    if ((uint64_t)file.st_size != bytes)
        return fail(why, EBADMSG, "%lld bytes, and its geometry makes %llu", (long long)file.st_size,
                    (unsigned long long)bytes);
    *geometry = header.geometry;
    return 0;
}

enum role { PRODUCER, CONSUMER, WATCHER };

/* Maps the ring: all of it to be written by its producer, the seats by the consumers of a lossless
 * ring; everything else to be read alone. */
static int map_ring(int fd, enum role role, struct dpb_ring *ring, char *why)
{
    int error = dpb_ring_inspect(fd, &ring->geometry, why);
    if (error)
        return error;
    const struct dpb_ring_geometry *g = &ring->geometry;
    ring->map_bytes = dpb_ring_bytes(g, why);
    uint8_t *base =
        mmap(NULL, ring->map_bytes, role == PRODUCER ? PROT_READ | PROT_WRITE : PROT_READ,
             MAP_SHARED | (role == WATCHER ? 0 : MAP_POPULATE), fd, 0);
    if (base == MAP_FAILED)
        return fail(why, errno, "%llu bytes cannot be mapped: %s",
                    (unsigned long long)ring->map_bytes, strerror(errno));
    if (role == CONSUMER && g->kind == DPB_RING_LOSSLESS &&
        mmap(base + g->granule, g->granule, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, g->granule) == MAP_FAILED) {
        error = errno;
        munmap(base, ring->map_bytes);
        return fail(why, error, "its seats cannot be mapped: %s", strerror(error));
    }
    struct dpb_ring_header expected = {0};
    lay_out(&expected, g);
    ring->fd = fd;
    ring->lock = -1;
    ring->header = (struct dpb_ring_header *)base;
    ring->seats = (struct dpb_ring_seat *)(base + expected.seats_off);
    ring->slots = (struct dpb_ring_slot *)(base + expected.slots_off);
    ring->payload = base + expected.payload_off;
    return 0;
}

/* Whether the slot of record `seq` says `said`, and its payload is where one can be. */
static int says(const struct dpb_ring *ring, uint64_t seq, uint64_t said)
{
    const struct dpb_ring_slot *slot = dpb_ring_slot_of(ring, seq);
    uint64_t offset = slot->payload & (ring->geometry.payload_bytes - 1);
    return __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE) == said &&
           slot->len <= ring->geometry.mtu && offset % DPB_RING_ALIGN == 0 &&
           offset + dpb_ring_space(slot->len) <= ring->geometry.payload_bytes;
}

static int whole(const struct dpb_ring *ring, uint64_t seq)
{
    return says(ring, seq, seq);
}

/* Takes up where a predecessor stopped. The slots alone are believed: it may have died between any
 * two stores, and `head` is stored last. */
static int recover(struct dpb_ring_tx *tx, char *why)
{
    const struct dpb_ring *ring = &tx->ring;
    uint64_t head = ring->header->head, depth = ring->geometry.depth, oldest, end;
    int lossless = ring->geometry.kind == DPB_RING_LOSSLESS;
    /* Gone, too, is in order: a large record wanted its space, and who wrote that one died. */
    int gone = !lossless && says(ring, head, head + 1);
    if (head > UINT64_MAX / 2 || (head && !gone && !whole(ring, head)))
        return fail(why, EBADMSG, "damaged: its newest record, %llu, is not there",
                    (unsigned long long)head);
    for (uint64_t i = 0; i < depth && whole(ring, head + 1); i++)
        head++;
    end = head ? dpb_ring_slot_of(ring, head)->payload +
                     dpb_ring_space(dpb_ring_slot_of(ring, head)->len)
               : 0;
    for (oldest = head + 1; oldest > 1 && head + 1 - oldest < depth && whole(ring, oldest - 1);
         oldest--) {
        uint64_t payload = dpb_ring_slot_of(ring, oldest - 1)->payload;
        if (payload > end || end - payload > ring->geometry.payload_bytes)
            break;
    }
    tx->floor = oldest;
    if (lossless) {
        /* `reclaimed` is said before it is used, and may never have been: what a seat still needs
         * is the truth. (We hold LOCK_JOIN: nobody is on the way to a seat.) */
        uint64_t reclaimed = ring->header->reclaimed;
        for (int i = 0; i < DPB_RING_SEATS; i++) {
            if (__atomic_load_n(&ring->seats[i].state, __ATOMIC_ACQUIRE) != DPB_RING_SEAT_TAKEN)
                continue;
            /* Loaded once: it may grow while we look, and the second look would be at another. */
            uint64_t acked = __atomic_load_n(&ring->seats[i].acked, __ATOMIC_ACQUIRE);
            if (acked < reclaimed)
                reclaimed = acked;
        }
        if (reclaimed > head || reclaimed + 1 < oldest)
            return fail(why, EBADMSG,
                        "damaged: records %llu to %llu are owed to its consumers, and only %llu "
                        "and later are whole",
                        (unsigned long long)reclaimed + 1, (unsigned long long)head,
                        (unsigned long long)oldest);
        __atomic_store_n(&ring->header->reclaimed, reclaimed, __ATOMIC_RELAXED);
        tx->floor = reclaimed;
        oldest = reclaimed + 1;
    }
    tx->next = head + 1;
    tx->pos = end;
    tx->floor_pos = oldest <= head ? dpb_ring_slot_of(ring, oldest)->payload : end;
    tx->refused = ring->header->refused;
    dpb_ring_mark(tx);
    __atomic_store_n(&ring->header->oldest, lossless ? oldest : tx->floor, __ATOMIC_RELAXED);
    __atomic_store_n(&ring->header->head, head, __ATOMIC_RELEASE);
    return 0;
}

int dpb_ring_tx_open(int fd, struct dpb_ring_tx **out, uint32_t *previous, char *why)
{
    struct dpb_ring_tx *tx = calloc(1, sizeof *tx);
    int error = tx ? lock_byte(fd, LOCK_PRODUCER, F_OFD_SETLK) : fail(why, ENOMEM, "out of memory");
    if (error == -EAGAIN || error == -EACCES)
        error = fail(why, EBUSY, "it has a producer, which lives");
    else if (error && tx)
        error = fail(why, -error, "it cannot be locked: %s", strerror(-error));
    if (!error)
        error = map_ring(fd, PRODUCER, &tx->ring, why);
    if (!error && (error = lock_byte(fd, LOCK_JOIN, F_OFD_SETLKW)))
        error = fail(why, -error, "it cannot be locked: %s", strerror(-error));
    if (!error && (error = recover(tx, why)))
        munmap(tx->ring.header, tx->ring.map_bytes);
    unlock_byte(fd, LOCK_JOIN);
    if (error) {
        free(tx);
        close(fd);
        return error;
    }
    tx->ring.lock = LOCK_PRODUCER;
    struct dpb_ring_header *header = tx->ring.header;
    *previous = __atomic_load_n(&header->state, __ATOMIC_ACQUIRE);
    header->pid = getpid();
    header->opened_mono_ns = mono_ns();
    dpb_ring_beat(tx, header->opened_mono_ns);
    __atomic_store_n(&header->epoch, header->epoch + 1, __ATOMIC_RELEASE);
    dpb_ring_tx_state(tx, DPB_RING_BOOT);
    *out = tx;
    return 0;
}

void dpb_ring_tx_state(struct dpb_ring_tx *tx, uint32_t state)
{
    __atomic_store_n(&tx->ring.header->state, state, __ATOMIC_RELEASE);
}

void dpb_ring_tx_close(struct dpb_ring_tx *tx, uint32_t state)
{
    dpb_ring_tx_state(tx, state);
    munmap(tx->ring.header, tx->ring.map_bytes);
    unlock_byte(tx->ring.fd, LOCK_PRODUCER); /* a copy of the descriptor may be around */
    close(tx->ring.fd);
    free(tx);
}

/* Finds the seat called `name`, or a free one; with LOCK_JOIN held. */
static int take_seat(struct dpb_ring_rx *rx, const char *name, int start, int32_t *previous,
                     char *why)
{
    struct dpb_ring *ring = &rx->ring;
    int chosen = -1, error;
    for (int i = 0; i < DPB_RING_SEATS; i++) {
        struct dpb_ring_seat *seat = &ring->seats[i];
        uint32_t state = __atomic_load_n(&seat->state, __ATOMIC_ACQUIRE);
        if (state != DPB_RING_SEAT_FREE && !strncmp(seat->name, name, sizeof seat->name)) {
            chosen = i;
            break;
        }
        if (state == DPB_RING_SEAT_FREE && chosen < 0 && !locked(ring, LOCK_SEAT0 + i))
            chosen = i;
    }
    if (chosen < 0)
        return fail(why, ENOSPC, "all %d seats are taken", DPB_RING_SEATS);
    struct dpb_ring_seat *seat = &ring->seats[chosen];
    if ((error = lock_byte(ring->fd, LOCK_SEAT0 + chosen, F_OFD_SETLK)))
        return fail(why, EBUSY, "its seat \"%s\" is taken, by process %d, which lives", name,
                    seat->pid);
    ring->lock = LOCK_SEAT0 + chosen;
    if (seat->state == DPB_RING_SEAT_TAKEN) {
        uint64_t head = __atomic_load_n(&ring->header->head, __ATOMIC_ACQUIRE);
        if (seat->acked > head + 1) /* one more: `head` is stored after the record */
            return fail(why, EBADMSG, "damaged: seat \"%s\" acknowledged %llu of %llu records", name,
                        (unsigned long long)seat->acked, (unsigned long long)head);
        *previous = seat->pid;
    } else {
        /* Held back first, then asked how far the producer has gone: see dpb_ring_reclaim(). */
        uint64_t from;
        memset(seat->name, 0, sizeof seat->name);
        memcpy(seat->name, name, strlen(name));
        __atomic_store_n(&seat->state, DPB_RING_SEAT_JOINING, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        from = __atomic_load_n(&ring->header->reclaimed, __ATOMIC_RELAXED);
        if (start == DPB_RING_NEXT)
            from = __atomic_load_n(&ring->header->head, __ATOMIC_ACQUIRE);
        __atomic_store_n(&seat->acked, from, __ATOMIC_RELEASE);
        __atomic_store_n(&seat->state, DPB_RING_SEAT_TAKEN, __ATOMIC_RELEASE);
    }
    rx->seat = chosen;
    seat->pid = getpid();
    dpb_ring_seat_beat(rx, mono_ns());
    rx->next = seat->acked + 1;
    return 0;
}

int dpb_ring_rx_open(int fd, const char *name, int start, struct dpb_ring_rx **out,
                     int32_t *previous, char *why)
{
    struct dpb_ring_rx *rx = calloc(1, sizeof *rx);
    struct dpb_ring_geometry geometry;
    int error = rx ? dpb_ring_inspect(fd, &geometry, why) : fail(why, ENOMEM, "out of memory");
    if (!error && geometry.kind == DPB_RING_LOSSLESS &&
        (!*name || strlen(name) >= sizeof rx->ring.seats->name))
        error = fail(why, EINVAL,
                     "lossless, and a seat on it has a name of 1 to %zu bytes: \"%s\" has %zu",
                     sizeof rx->ring.seats->name - 1, name, strlen(name));
    if (!error)
        error = map_ring(fd, CONSUMER, &rx->ring, why);
    if (error) {
        free(rx);
        close(fd);
        return error;
    }
    rx->seat = -1;
    *previous = 0;
    if (rx->ring.geometry.kind == DPB_RING_LOSSLESS) {
        if ((error = lock_byte(fd, LOCK_JOIN, F_OFD_SETLKW)))
            error = fail(why, -error, "it cannot be locked: %s", strerror(-error));
        else
            error = take_seat(rx, name, start, previous, why);
        unlock_byte(fd, LOCK_JOIN);
    } else {
        struct dpb_ring_header *header = rx->ring.header;
        rx->next = start == DPB_RING_NEXT ? __atomic_load_n(&header->head, __ATOMIC_ACQUIRE) + 1
                                          : __atomic_load_n(&header->oldest, __ATOMIC_RELAXED);
        rx->arena_bytes = up(dpb_ring_space(rx->ring.geometry.mtu) + (128 << 10), 4096);
        rx->arena = aligned_alloc(4096, rx->arena_bytes);
        if (!rx->arena)
            error = fail(why, ENOMEM, "out of memory");
        else
            memset(rx->arena, 0, rx->arena_bytes); /* pre-faulted */
    }
    if (error) {
        dpb_ring_rx_close(rx, 0);
        return error;
    }
    *out = rx;
    return 0;
}

void dpb_ring_rx_close(struct dpb_ring_rx *rx, int leave)
{
    if (rx->seat >= 0 && leave)
        __atomic_store_n(&rx->ring.seats[rx->seat].state, DPB_RING_SEAT_FREE, __ATOMIC_RELEASE);
    munmap(rx->ring.header, rx->ring.map_bytes);
    if (rx->ring.lock >= 0)
        unlock_byte(rx->ring.fd, rx->ring.lock);
    close(rx->ring.fd);
    free(rx->arena);
    free(rx);
}

void dpb_ring_status(const struct dpb_ring *ring, struct dpb_ring_status *out)
{
    const struct dpb_ring_header *header = ring->header;
    /* The lock before the state: a producer says HALT before it lets go. */
    int alive = locked(ring, LOCK_PRODUCER);
    *out = (struct dpb_ring_status){
        .heartbeat_mono_ns = __atomic_load_n(&header->heartbeat_mono_ns, __ATOMIC_RELAXED),
        .opened_mono_ns = __atomic_load_n(&header->opened_mono_ns, __ATOMIC_RELAXED),
        .epoch = __atomic_load_n(&header->epoch, __ATOMIC_RELAXED),
        .head = __atomic_load_n(&header->head, __ATOMIC_RELAXED),
        .oldest = __atomic_load_n(&header->oldest, __ATOMIC_RELAXED),
        .refused = __atomic_load_n(&header->refused, __ATOMIC_RELAXED),
        .reclaimed = __atomic_load_n(&header->reclaimed, __ATOMIC_RELAXED),
        .pid = header->pid,
        .alive = alive,
        .state = __atomic_load_n(&header->state, __ATOMIC_ACQUIRE),
    };
}

int dpb_ring_seats(const struct dpb_ring *ring, struct dpb_ring_seat_status *out)
{
    int n = 0;
    for (int i = 0; i < DPB_RING_SEATS; i++) {
        const struct dpb_ring_seat *seat = &ring->seats[i];
        uint32_t state = __atomic_load_n(&seat->state, __ATOMIC_ACQUIRE);
        if (state == DPB_RING_SEAT_FREE)
            continue;
        out[n] = (struct dpb_ring_seat_status){
            .acked = __atomic_load_n(&seat->acked, __ATOMIC_RELAXED),
            .heartbeat_mono_ns = __atomic_load_n(&seat->heartbeat_mono_ns, __ATOMIC_RELAXED),
            .state = state,
            .pid = seat->pid,
            .alive = locked(ring, LOCK_SEAT0 + i),
            .seat = i,
        };
        memcpy(out[n].name, seat->name, sizeof out[n].name - 1);
        n++;
    }
    return n;
}

int dpb_ring_look(int fd, struct dpb_ring_status *out, struct dpb_ring_seat_status *seats, char *why)
{
    struct dpb_ring ring;
    int result = map_ring(fd, WATCHER, &ring, why);
    if (!result) {
        dpb_ring_status(&ring, out);
        result = dpb_ring_seats(&ring, seats);
        munmap(ring.header, ring.map_bytes);
    }
    close(fd);
    return result;
}

int dpb_ring_evict(struct dpb_ring_tx *tx, int seat, const char *name)
{
    struct dpb_ring *ring = &tx->ring;
    int error = lock_byte(ring->fd, LOCK_JOIN, F_OFD_SETLKW);
    if (error)
        return error;
    if (seat < 0 || seat >= DPB_RING_SEATS || strncmp(ring->seats[seat].name, name, 40)) {
        error = -ESTALE;
    } else if (lock_byte(ring->fd, LOCK_SEAT0 + seat, F_OFD_SETLK)) {
        error = -EBUSY;
    } else {
        __atomic_store_n(&ring->seats[seat].state, DPB_RING_SEAT_FREE, __ATOMIC_RELEASE);
        unlock_byte(ring->fd, LOCK_SEAT0 + seat);
    }
    unlock_byte(ring->fd, LOCK_JOIN);
    return error;
}

int64_t dpb_ring_publish(struct dpb_ring_tx *tx, const uint8_t *data, uint32_t len, uint64_t filter,
                         uint16_t kind, uint64_t user)
{
    struct dpb_record record = {
        .data = data, .len = len, .filter = filter, .kind = kind, .user = user};
    if (!tx)
        return -EBADF;
    int done = dpb_ring_put(tx, &record, 1, mono_ns());
    return done == 1 ? (int64_t)(tx->next - 1) : done ? done : -EAGAIN;
}

int dpb_ring_publish_burst(struct dpb_ring_tx *tx, const struct dpb_record *records, int n)
{
    return tx ? dpb_ring_put(tx, records, n, mono_ns()) : -EBADF;
}

int dpb_ring_poll(struct dpb_ring_rx *rx, struct dpb_record *out, int max)
{
    return rx ? dpb_ring_take(rx, out, max) : -EBADF;
}

void dpb_ring_acknowledge(struct dpb_ring_rx *rx, uint64_t seq)
{
    dpb_ring_ack(rx, seq);
}

void dpb_ring_heartbeat(struct dpb_ring_tx *tx, struct dpb_ring_rx *rx)
{
    uint64_t now = mono_ns();
    if (tx)
        dpb_ring_beat(tx, now);
    if (rx)
        dpb_ring_seat_beat(rx, now);
}

uint64_t dpb_records_sum(const struct dpb_record *records, int n)
{
    uint64_t sum = 0, word;
    for (int i = 0; i < n; i++) {
        uint32_t len = records[i].len, at = 0;
        for (; at + 8 <= len; at += 8) {
            memcpy(&word, records[i].data + at, 8);
            sum += word;
        }
        word = 0;
        memcpy(&word, records[i].data + at, len - at);
        sum += word + len;
    }
    return sum;
}
