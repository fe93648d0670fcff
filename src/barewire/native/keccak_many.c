/* Many messages over the lanes of the widest permutation there is. */
#include <errno.h>
#include <string.h>

#include "keccak_lanes.h"

#define RATE BW_KECCAK_RATE
#define CHUNK 64      /* messages that are ordered among each other */
#define LONGEST 31    /* blocks from which on messages count as equally long */

/* A message on its way through a lane. */
struct lane {
    const uint8_t *at;   /* the next block */
    uint8_t *out;        /* NULL: idle */
    uint32_t left;       /* bytes from `at` on */
    int32_t first;       /* as in the job; -1 once it is used */
    uint8_t block[RATE]; /* a block that had to be put together */
};

static int chosen; /* 0: not yet */

static int widest(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return 8;
    if (__builtin_cpu_supports("avx2")) return 4;
#endif
    return 1;
}

int bw_keccak_width(void) {
    int width = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (__builtin_expect(width == 0, 0)) {
        width = widest();
        __atomic_store_n(&chosen, width, __ATOMIC_RELAXED);
    }
    return width;
}

int bw_keccak_force(int width) {
    const int most = widest();
    if (width == 0) width = most;
    if ((width != 1 && width != 4 && width != 8) || width > most) return -EINVAL;
    __atomic_store_n(&chosen, width, __ATOMIC_RELAXED);
    return 0;
}

static void assign(struct lane *lane, const struct bw_keccak_job *job) {
    lane->at = job->data;
    lane->out = job->out;
    lane->left = job->len;
    lane->first = job->first;
}

/* The block that the lane absorbs next; *last is set where it is the message's last. */
static inline const uint8_t *next_block(struct lane *lane, int *last) {
    const uint8_t *at = lane->at;
    *last = lane->left < RATE;
    if (__builtin_expect(!*last, 1)) {
        lane->at += RATE;
        lane->left -= RATE;
        if (__builtin_expect(lane->first < 0, 1)) return at;
        memcpy(lane->block, at, RATE);
    } else {
        memset(lane->block, 0, RATE);
        if (lane->left) memcpy(lane->block, at, lane->left);
        lane->block[lane->left] = 0x01;
        lane->block[RATE - 1] |= 0x80;
    }
    if (__builtin_expect(lane->first >= 0, 0)) {
        lane->block[0] = (uint8_t)lane->first;
        lane->first = -1;
    }
    return lane->block;
}

/* One message, or what is left of one, by itself. */
static void finish_alone(struct lane *lane, uint64_t state[25]) {
    int last;
    do {
        const uint8_t *block = next_block(lane, &last);
        bw_keccak_absorb(state, block);
    } while (!last);
    memcpy(lane->out, state, 32);
}

/* Where each message stands when the longest come first. */
static void order(const struct bw_keccak_job *jobs, uint32_t n, uint8_t by_length[CHUNK]) {
    uint8_t starts[LONGEST + 1] = {0}, rank[CHUNK];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t blocks = jobs[i].len / RATE;
        rank[i] = (uint8_t)(LONGEST - (blocks < LONGEST ? blocks : LONGEST));
        starts[rank[i]]++;
    }
    for (uint32_t r = 0, sum = 0; r <= LONGEST; r++) {
        uint32_t count = starts[r];
        starts[r] = (uint8_t)sum;
        sum += count;
    }
    for (uint32_t i = 0; i < n; i++) by_length[starts[rank[i]]++] = (uint8_t)i;
}

#if defined(__x86_64__)
/* A lane that has finished takes the next message at once, so lanes idle only at the end. */
static inline __attribute__((always_inline)) void pack(const struct bw_keccak_job *jobs,
                                                       uint32_t n, uint32_t width,
                                                       bw_keccak_step *step) {
    static const uint8_t IDLE[RATE];
    uint64_t state[25 * BW_KECCAK_LANES] __attribute__((aligned(64)));
    const uint8_t *blocks[BW_KECCAK_LANES];
    struct lane lanes[BW_KECCAK_LANES];
    uint8_t by_length[CHUNK];
    uint32_t taken = 0, busy = 0, fresh = (1u << width) - 1;
    order(jobs, n, by_length);
    memset(state, 0, sizeof state); /* a fresh lane's words are not used, but they are read */
    for (uint32_t l = 0; l < width; l++) {
        blocks[l] = IDLE;
        if (taken < n) {
            assign(&lanes[l], &jobs[by_length[taken++]]);
            busy |= 1u << l;
        }
    }
    while (busy & (busy - 1)) {
        uint32_t ended = 0;
        for (uint32_t rest = busy; rest; rest &= rest - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(rest);
            int last;
            blocks[l] = next_block(&lanes[l], &last);
            ended |= (uint32_t)last << l;
        }
        step(state, blocks, fresh);
        fresh = ended;
        for (; ended; ended &= ended - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(ended);
            for (uint32_t i = 0; i < 4; i++) memcpy(lanes[l].out + 8 * i, &state[width * i + l], 8);
            if (taken < n) {
                assign(&lanes[l], &jobs[by_length[taken++]]);
            } else {
                busy &= ~(1u << l);
                blocks[l] = IDLE;
            }
        }
    }
    if (busy) { /* one message is left: alone it is cheaper than in a lane */
        uint32_t l = (uint32_t)__builtin_ctz(busy);
        uint64_t alone[25] = {0};
        if (!(fresh >> l & 1))
            for (uint32_t i = 0; i < 25; i++) alone[i] = state[width * i + l];
        finish_alone(&lanes[l], alone);
    }
}
#endif

static void one_by_one(const struct bw_keccak_job *jobs, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        struct lane lane;
        uint64_t state[25] = {0};
        assign(&lane, &jobs[i]);
        finish_alone(&lane, state);
    }
}

void bw_keccak256_many(const struct bw_keccak_job *jobs, uint32_t n) {
    const int width = bw_keccak_width();
    for (uint32_t chunk; n; n -= chunk, jobs += chunk) {
        chunk = n < CHUNK ? n : CHUNK;
#if defined(__x86_64__)
        if (width == 8 && chunk > 1) {
            pack(jobs, chunk, 8, bw_keccak_step_avx512);
            continue;
        }
        if (width == 4 && chunk > 1) {
            pack(jobs, chunk, 4, bw_keccak_step_avx2);
            continue;
        }
#endif
        one_by_one(jobs, chunk);
    }
}
