#define _GNU_SOURCE
#include "presign.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "secp.h"
#include "vault.h"

#define NAP_MS 1 /* how long the thread sleeps when the pool is full */
#ifndef STACK_BYTES /* sanitizers want more */
#define STACK_BYTES (256u << 10)
#endif
#define ALIVE 0x6261726577697265u

/* The order of the group, less two, and half of it (SEC 2, section 2.4.1). */
static const uint8_t ORDER_LESS_2[32] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x3f};
static const uint8_t HALF_ORDER[32] = {
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0};

/* Two cache lines. `turn` says whose it is, as in Vyukov's bounded queue: pos: free, to be filled
 * for position pos; pos + 1: ready; pos + capacity once used. */
struct slot {
    struct bw_presignature entry;
    _Atomic uint64_t turn;
} __attribute__((aligned(128)));
_Static_assert(sizeof(struct slot) == 128, "two cache lines");

/* Everything secret, in one vault. */
struct secret {
    _Atomic uint64_t alive; /* zero once forked: the page was wiped */
    uint8_t key[32];
    struct bw_batch batch;
    struct bw_presignature made[BW_BATCH];
    _Alignas(128) _Atomic uint64_t head; /* next position to be used */
    _Alignas(128) _Atomic uint64_t tail; /* next position to be filled */
    struct slot slots[];
};

struct bw_pool {
    struct secret *secret;
    uint8_t *stack;
    size_t secret_len;
    uint32_t capacity;
    int core, generation_fd;
    pthread_t thread;
    _Atomic int stop;
    _Atomic uint64_t made, dropped, generations;
};

/* Copies of 32 bytes pass through vector registers and stay there; a core dump has them. */
static void scrub_registers(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                         "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                         "xmm15");
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile(".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
                         "vpxord %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t"
                         ".endr" ::);
#endif
}

__attribute__((noinline)) void bw_scrub(size_t stack_bytes) {
    explicit_bzero(__builtin_alloca(stack_bytes), stack_bytes);
    scrub_registers();
}

/* ---- one entry ---- */

static int multiply(uint8_t *a, const uint8_t *b) {
    return bw_secp.seckey_tweak_mul(bw_secp.context, a, b);
}

/* batch->inverse = a^-1, as a^(n-2), four bits of the exponent at a time. */
static int invert(struct bw_batch *batch, const uint8_t *a) {
    int ok = 1, started = 0;
    memcpy(batch->power[1], a, 32);
    for (int i = 2; i < 16; i++) {
        memcpy(batch->power[i], batch->power[i - 1], 32);
        ok &= multiply(batch->power[i], a);
    }
    for (int i = 0; i < 64; i++) {
        int nibble = i & 1 ? ORDER_LESS_2[i / 2] & 15 : ORDER_LESS_2[i / 2] >> 4;
        if (!started) {
            memcpy(batch->inverse, batch->power[nibble], 32); /* the first nibble is not zero */
            started = 1;
            continue;
        }
        for (int square = 0; square < 4; square++) {
            memcpy(batch->scratch, batch->inverse, 32);
            ok &= multiply(batch->inverse, batch->scratch);
        }
        if (nibble) ok &= multiply(batch->inverse, batch->power[nibble]);
    }
    return ok;
}

/* r, the parity of R.y and r d, of R = k G. */
static int commit(struct bw_presignature *entry, const uint8_t *k, const uint8_t *key) {
    uint8_t pubkey[BW_SECP_PUBKEY], point[65];
    size_t len = sizeof point;
    if (!bw_secp.pubkey_create(bw_secp.context, pubkey, k) ||
        !bw_secp.pubkey_serialize(bw_secp.context, point, &len, pubkey, BW_SECP_UNCOMPRESSED))
        return 0;
    memcpy(entry->r, point + 1, 32);
    entry->y_parity = point[64] & 1;
    memcpy(entry->rd, key, 32);
    /* An R.x at or above the order would need recovery ids that Ethereum has not. */
    return bw_secp.seckey_verify(bw_secp.context, entry->r) && multiply(entry->rd, entry->r);
}

int bw_presign(struct bw_batch *batch, int n, const uint8_t *key, struct bw_presignature *out) {
    int ok = 1;
    memcpy(batch->product[0], batch->k[0], 32);
    for (int i = 1; i < n; i++) {
        memcpy(batch->product[i], batch->product[i - 1], 32);
        ok &= multiply(batch->product[i], batch->k[i]);
    }
    ok &= invert(batch, batch->product[n - 1]);
    for (int i = n - 1; i > 0; i--) {
        memcpy(out[i].k_inverse, batch->inverse, 32);
        ok &= multiply(out[i].k_inverse, batch->product[i - 1]);
        ok &= multiply(batch->inverse, batch->k[i]);
    }
    memcpy(out[0].k_inverse, batch->inverse, 32);
    for (int i = 0; i < n; i++) ok &= commit(&out[i], batch->k[i], key);
    explicit_bzero(batch, sizeof *batch);
    if (!ok) explicit_bzero(out, (size_t)n * sizeof *out);
    return ok;
}

int bw_presign_finish(struct bw_presignature *entry, const uint8_t *hash, uint8_t *rs) {
    int parity = entry->y_parity;
    memcpy(rs, entry->r, 32);
    /* In place: s, which is public, overwrites r d, which is the key. */
    if (!bw_secp.seckey_tweak_add(bw_secp.context, entry->rd, hash) ||
        !multiply(entry->rd, entry->k_inverse)) {
        parity = BW_POOL_EMPTY;
    } else {
        if (memcmp(entry->rd, HALF_ORDER, 32) > 0) {
            bw_secp.seckey_negate(bw_secp.context, entry->rd);
            parity ^= 1;
        }
        memcpy(rs + 32, entry->rd, 32);
    }
    explicit_bzero(entry, sizeof *entry);
    bw_scrub(1024);
    return parity;
}

/* ---- the queue ---- */

/* The slot of the next position, taken for this thread alone, or NULL when none is ready. */
static struct slot *take(struct bw_pool *pool, uint64_t *position) {
    struct secret *secret = pool->secret;
    uint64_t head = atomic_load_explicit(&secret->head, memory_order_relaxed);
    for (;;) {
        struct slot *slot = &secret->slots[head % pool->capacity];
        uint64_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
        if (turn < head + 1) return NULL;
        if (turn > head + 1)
            head = atomic_load_explicit(&secret->head, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&secret->head, &head, head + 1,
                                                       memory_order_acq_rel,
                                                       memory_order_relaxed)) {
            *position = head;
            return slot;
        }
    }
}

static void give_back(struct bw_pool *pool, struct slot *slot, uint64_t position) {
    atomic_store_explicit(&slot->turn, position + pool->capacity, memory_order_release);
}

int bw_pool_sign(struct bw_pool *pool, const uint8_t *hash, uint8_t *rs) {
    uint64_t position;
    struct slot *slot = take(pool, &position);
    if (!slot) return BW_POOL_EMPTY;
    int parity = bw_presign_finish(&slot->entry, hash, rs);
    give_back(pool, slot, position);
    const char *next = (const char *)&pool->secret->slots[(position + 1) % pool->capacity];
    __builtin_prefetch(next, 1);
    __builtin_prefetch(next + 64, 1);
    return parity;
}

void bw_pool_drop(struct bw_pool *pool) {
    uint64_t position, last = atomic_load(&pool->secret->tail);
    struct slot *slot;
    while (atomic_load(&pool->secret->head) < last && (slot = take(pool, &position))) {
        explicit_bzero(&slot->entry, sizeof slot->entry);
        give_back(pool, slot, position);
        atomic_fetch_add_explicit(&pool->dropped, 1, memory_order_relaxed);
    }
}

/* ---- the thread that fills it ---- */

static int draw(uint8_t *out, size_t len) {
    while (len) {
        ssize_t got = getrandom(out, len, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        out += got;
        len -= (size_t)got;
    }
    return 1;
}

/* Fills up to one batch of free slots; returns how many. */
static int fill(struct bw_pool *pool) {
    struct secret *secret = pool->secret;
    uint64_t tail = atomic_load_explicit(&secret->tail, memory_order_relaxed);
    int n = 0;
    while (n < BW_BATCH && (uint32_t)n < pool->capacity &&
           atomic_load_explicit(&secret->slots[(tail + n) % pool->capacity].turn,
                                memory_order_acquire) == tail + n)
        n++;
    if (!n || !draw(secret->batch.k[0], 32 * (size_t)n)) return 0;
    for (int i = 0; i < n; i++)
        while (!bw_secp.seckey_verify(bw_secp.context, secret->batch.k[i]))
            if (!draw(secret->batch.k[i], 32)) return 0;
    if (!bw_presign(&secret->batch, n, secret->key, secret->made)) return 0;
    for (int i = 0; i < n; i++, tail++) {
        struct slot *slot = &secret->slots[tail % pool->capacity];
        slot->entry = secret->made[i];
        atomic_store_explicit(&secret->tail, tail + 1, memory_order_relaxed);
        atomic_store_explicit(&slot->turn, tail + 1, memory_order_release);
    }
    explicit_bzero(secret->made, sizeof secret->made);
    atomic_fetch_add_explicit(&pool->made, (uint64_t)n, memory_order_relaxed);
    return n;
}

/* Whether the kernel has announced a new generation id; sleeps up to `timeout_ms` for it. */
static int new_generation(int fd, int timeout_ms) {
    static const char WORD[] = "NEW_VMGENID=1";
    char event[4096];
    int seen = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, timeout_ms) <= 0 || !(ready.revents & POLLIN)) return 0;
    for (ssize_t len; (len = recv(fd, event, sizeof event, MSG_DONTWAIT)) > 0;)
        seen |= memmem(event, (size_t)len, WORD, sizeof WORD - 1) != NULL;
    return seen;
}

static __attribute__((noinline)) void work(struct bw_pool *pool) {
    while (!atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
        int filled = fill(pool);
        bw_scrub(16 << 10);
        if (new_generation(pool->generation_fd, filled ? 0 : NAP_MS)) {
            atomic_fetch_add_explicit(&pool->generations, 1, memory_order_relaxed);
            bw_pool_drop(pool);
        }
    }
}

/* The whole stack is locked and out of dumps, but the C library keeps this thread's descriptor at
 * its top and reads it in a forked child: what is to be wiped there begins a page below this
 * frame, and the work is done below that. */
static void *run(void *argument) {
    struct bw_pool *pool = argument;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint8_t *frame = __builtin_frame_address(0);
    uint8_t *wiped_above = (uint8_t *)(((uintptr_t)frame & ~(page - 1)) - page);
    volatile uint8_t *gap = __builtin_alloca((size_t)(frame - wiped_above));
    gap[0] = 0;
    if (madvise(pool->stack, (size_t)(wiped_above - pool->stack), MADV_WIPEONFORK) == 0) work(pool);
    return NULL;
}

static int start(struct bw_pool *pool) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    error = pthread_attr_setstack(&attributes, pool->stack, STACK_BYTES);
    if (!error && pool->core >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(pool->core, &cpus);
        error = pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
    }
    if (!error) {
        sigfillset(&all); /* signals are for the threads that know Python */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&pool->thread, &attributes, run, pool);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    if (!error) pthread_setname_np(pool->thread, "bw-presign");
    return error;
}

static void release(struct bw_pool *pool) {
    bw_vault_free(pool->secret, pool->secret_len);
    bw_vault_free(pool->stack, STACK_BYTES);
    free(pool);
}

struct bw_pool *bw_pool_new(const uint8_t *key, uint32_t capacity, int core, int generation_fd) {
    if (capacity < 2 || core >= CPU_SETSIZE || !bw_secp.context) {
        errno = EINVAL;
        return NULL;
    }
    struct bw_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->capacity = capacity;
    pool->core = core;
    pool->generation_fd = generation_fd;
    pool->secret_len = sizeof(struct secret) + (size_t)capacity * sizeof(struct slot);
    pool->secret = bw_vault_new(pool->secret_len);
    pool->stack = pool->secret ? bw_vault_new(STACK_BYTES) : NULL;
    int error = pool->stack ? 0 : errno;
    /* All of the stack but its top is wiped on fork, see run(). */
    if (!error && madvise(pool->stack, STACK_BYTES, MADV_KEEPONFORK)) error = errno;
    if (!error) {
        memcpy(pool->secret->key, key, 32);
        for (uint32_t i = 0; i < capacity; i++) atomic_init(&pool->secret->slots[i].turn, i);
        atomic_store(&pool->secret->alive, ALIVE);
        error = start(pool);
    }
    if (error) {
        release(pool);
        errno = error;
        return NULL;
    }
    return pool;
}

void bw_pool_free(struct bw_pool *pool) {
    if (!pool) return;
    if (!bw_pool_dead(pool)) {
        atomic_store(&pool->stop, 1);
        pthread_join(pool->thread, NULL);
    }
    release(pool);
}

int bw_pool_dead(const struct bw_pool *pool) {
    return atomic_load_explicit(&pool->secret->alive, memory_order_relaxed) != ALIVE;
}

void bw_pool_counts(const struct bw_pool *pool, struct bw_pool_counts *counts) {
    uint64_t head = atomic_load(&pool->secret->head), tail = atomic_load(&pool->secret->tail);
    counts->level = tail > head ? tail - head : 0;
    counts->made = atomic_load(&pool->made);
    counts->dropped = atomic_load(&pool->dropped);
    counts->generations = atomic_load(&pool->generations);
    counts->bytes = bw_vault_size(pool->secret_len) + bw_vault_size(STACK_BYTES);
}
