#include "xsk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define BUSY_PATIENCE_MS 200 /* a few tens are usual */
#define BUSY_POLL_US 20
#define BUSY_POLL_BUDGET 64

/* Bytes of [base, base + size) that transparent huge pages cover: said by /proc only. */
static size_t transparent(const void *base)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[256];
    bool ours = false;
    size_t kib = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start;
        char dash;
        if (sscanf(line, "%lx%c", &start, &dash) == 2 && dash == '-')
            ours = start == (uintptr_t)base;
        else if (ours && sscanf(line, "AnonHugePages: %zu", &kib) == 1)
            break;
    }
    if (maps)
        fclose(maps);
    return kib << 10;
}

/* Ordinary memory, aligned so that the kernel can make it of huge pages if it wants to. */
static void *map_aligned(size_t size)
{
    char *room = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    if (room == MAP_FAILED)
        return room;
    char *base = (char *)(((uintptr_t)room + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    if (base > room)
        munmap(room, base - room);
    munmap(base + size, room + HUGE_PAGE - base);
    madvise(base, size, MADV_HUGEPAGE); /* a wish: a kernel without them goes on with small ones */
    for (size_t at = 0; at < size; at += 4096)
        ((volatile char *)base)[at] = 0;
    return base;
}

int dpb_umem_map(struct dpb_umem *umem, uint32_t chunks, uint32_t chunk_shift,
                 struct dpb_error *error)
{
    size_t size = (size_t)chunks << chunk_shift;
    size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_HUGETLB, -1, 0);
    const char *pages = "reserved 2M";
    if (base == MAP_FAILED) {
        base = map_aligned(size);
        pages = base != MAP_FAILED && transparent(base) == size ? "transparent 2M" : "4K";
    }
    if (base == MAP_FAILED) {
        dpb_fail(error, errno, "mapping %zu MiB for frames", size >> 20);
        dpb_hint(error, "free memory, or ask for smaller rings (ring=512)");
        return -error->code;
    }
    *umem = (struct dpb_umem){base, size, chunks, chunk_shift, pages};
    return 0;
}

void dpb_umem_unmap(struct dpb_umem *umem)
{
    if (umem->base)
        munmap(umem->base, umem->size);
    umem->base = NULL;
}

static int map_ring(struct dpb_xsk *xsk, struct dpb_xsk_ring *ring,
                    const struct xdp_ring_offset *at, uint32_t entries, size_t entry, off_t which)
{
    ring->map_size = at->desc + entries * entry;
    ring->map = mmap(NULL, ring->map_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                     xsk->fd, which);
    if (ring->map == MAP_FAILED) {
        ring->map = NULL;
        return -errno;
    }
    char *base = ring->map;
    ring->producer = (uint32_t *)(base + at->producer);
    ring->consumer = (uint32_t *)(base + at->consumer);
    ring->flags = (uint32_t *)(base + at->flags);
    ring->entries = base + at->desc;
    ring->mask = entries - 1;
    return 0;
}

static int make_rings(struct dpb_xsk *xsk, const struct dpb_xsk_bind *how)
{
    const struct {
        struct dpb_xsk_ring *ring;
        int option;
        uint32_t entries;
        size_t entry;
        off_t page;
    } rings[] = {
        {&xsk->fill, XDP_UMEM_FILL_RING, how->fill_entries, 8, XDP_UMEM_PGOFF_FILL_RING},
        {&xsk->done, XDP_UMEM_COMPLETION_RING, how->done_entries, 8,
         XDP_UMEM_PGOFF_COMPLETION_RING},
        {&xsk->rx, XDP_RX_RING, how->rx_entries, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING},
        {&xsk->tx, XDP_TX_RING, how->tx_entries, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING},
    };
    for (int i = 0; i < 4; i++)
        if (setsockopt(xsk->fd, SOL_XDP, rings[i].option, &rings[i].entries, 4) < 0)
            return -errno;
    struct xdp_mmap_offsets offsets;
    socklen_t size = sizeof offsets;
    if (getsockopt(xsk->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) < 0)
        return -errno;
    const struct xdp_ring_offset *at[] = {&offsets.fr, &offsets.cr, &offsets.rx, &offsets.tx};
    for (int i = 0; i < 4; i++) {
        int result = map_ring(xsk, rings[i].ring, at[i], rings[i].entries, rings[i].entry,
                              rings[i].page);
        if (result < 0)
            return result;
    }
    return 0;
}

static int set_busy_poll(int fd)
{
    int prefer = 1, us = BUSY_POLL_US, budget = BUSY_POLL_BUDGET;
    return setsockopt(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &prefer, sizeof prefer) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof us) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof budget) < 0
               ? -errno
               : 0;
}

static int bind_patiently(int fd, const struct sockaddr_xdp *address)
{
    for (int ms = 0;; ms++) {
        if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0)
            return 0;
        if (errno != EBUSY || ms >= BUSY_PATIENCE_MS)
            return -errno;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

int dpb_xsk_open(struct dpb_xsk *xsk, const struct dpb_umem *umem, const struct dpb_nic *nic,
                 uint32_t queue, const struct dpb_xsk_bind *how, struct dpb_error *error)
{
    memset(xsk, 0, sizeof *xsk);
    xsk->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (xsk->fd < 0) {
        int code = errno;
        dpb_fail(error, code, "opening an AF_XDP socket");
        if (code == EPERM)
            dpb_hint_capabilities(error, DPB_CAP_NET_RAW);
        else if (code == EAFNOSUPPORT)
            dpb_hint(error, "this kernel was built without CONFIG_XDP_SOCKETS");
        return -code;
    }
    int result;
    if (how->shared_with < 0) {
        struct xdp_umem_reg memory = {.addr = (uintptr_t)umem->base,
                                      .len = (uint64_t)umem->chunks << umem->chunk_shift,
                                      .chunk_size = 1u << umem->chunk_shift,
                                      .headroom = how->headroom};
        if (setsockopt(xsk->fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof memory) < 0) {
            result = dpb_fail(error, errno, "registering %llu KiB of frame memory",
                              (unsigned long long)memory.len >> 10);
            if (result == -ENOBUFS || result == -EPERM || result == -ENOMEM)
                dpb_hint(error, "the process lacks CAP_IPC_LOCK, or raise its `ulimit -l` "
                                "(systemd: LimitMEMLOCK=infinity)");
            goto fail;
        }
    }
    if ((result = make_rings(xsk, how)) < 0) {
        dpb_fail(error, -result, "making the rings of queue %u", queue);
        goto fail;
    }
    if (how->busy_poll && (result = set_busy_poll(xsk->fd)) < 0) {
        dpb_fail(error, -result, "asking for busy polling on queue %u", queue);
        if (result == -EPERM)
            dpb_hint_capabilities(error, DPB_CAP_NET_ADMIN);
        goto fail;
    }
    struct sockaddr_xdp address = {.sxdp_family = AF_XDP, .sxdp_ifindex = nic->ifindex,
                                   .sxdp_queue_id = queue};
    if (how->shared_with >= 0) {
        /* Everything else is as the first socket asked. */
        address.sxdp_flags = XDP_SHARED_UMEM;
        address.sxdp_shared_umem_fd = how->shared_with;
    } else {
        address.sxdp_flags = (how->zero_copy ? XDP_ZEROCOPY : XDP_COPY) | XDP_USE_NEED_WAKEUP |
                             (how->several_buffers ? XDP_USE_SG : 0);
    }
    if ((result = bind_patiently(xsk->fd, &address)) < 0) {
        dpb_fail(error, -result, "binding queue %u of interface \"%s\"", queue, nic->name);
        if (result == -EBUSY)
            dpb_hint(error, "another AF_XDP socket holds this queue; `ss --xdp -p` shows whose");
        goto fail;
    }
    return 0;
fail:
    dpb_xsk_close(xsk);
    return result;
}

void dpb_xsk_close(struct dpb_xsk *xsk)
{
    struct dpb_xsk_ring *rings[] = {&xsk->rx, &xsk->tx, &xsk->fill, &xsk->done};
    for (int i = 0; i < 4; i++)
        if (rings[i]->map)
            munmap(rings[i]->map, rings[i]->map_size);
    if (xsk->fd >= 0)
        close(xsk->fd);
    *xsk = (struct dpb_xsk){.fd = -1};
}
