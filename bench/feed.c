// The receive path of src/barewire/native/mold.c, timed; built and run by bench_feed.py.
//
// Datagrams of one 400-byte message lie one behind the other, as in a receive ring, and are taken
// in batches of 64. Prints one line a batch: nanoseconds a datagram.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mold.h"

enum { BATCH = 64, MESSAGE = 400, STRIDE = 448, ROUNDS = 4000 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void write_datagram(uint8_t *out, uint64_t sequence) {
    uint64_t sequence_be = __builtin_bswap64(sequence);
    memcpy(out, "BENCH     ", 10);
    memcpy(out + 10, &sequence_be, 8);
    memcpy(out + 18, (uint8_t[]){0, 1, MESSAGE >> 8, MESSAGE & 255}, 4);
}

// first: line A alone. copy: line B's copies of what A brought (A untimed). both: A and B in turn.
// lossy: as both, with a seeded 1 % missing on each line, and requests asked for.
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "first";
    int copy = !strcmp(what, "copy"), both = !strcmp(what, "both"), lossy = !strcmp(what, "lossy");
    struct bw_mold_config config;
    bw_mold_defaults(&config);
    struct bw_mold *m = bw_mold_new(&config);
    uint8_t *ring = aligned_alloc(64, STRIDE * BATCH);
    memset(ring, 7, STRIDE * BATCH);
    struct bw_mold_message out[16];
    struct bw_mold_request request[16];
    uint64_t sequence = 1, seed = 7, sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int lines = both || lossy ? 2 : 1, given = 0;
        uint32_t line[BATCH];
        uint8_t *datagram[BATCH];
        uint64_t began = now_ns();
        for (int i = 0; i < BATCH; i++) {
            datagram[given] = ring + STRIDE * i;
            line[given] = copy ? 1 : (uint32_t)(i % lines);
            write_datagram(datagram[given], sequence + (uint64_t)(i / lines));
            if (copy) bw_mold_receive(m, 0, datagram[given], 22 + MESSAGE, began, out, 16);
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            if (!lossy || (seed >> 33) % 100) given++;
        }
        sequence += BATCH / (uint64_t)lines;
        uint64_t before = now_ns();
        for (int i = 0; i < given; i++) {
            int n = bw_mold_receive(m, line[i], datagram[i], 22 + MESSAGE, before, out, 16);
            for (int k = 0; k < n; k++) sum += out[k].sequence + out[k].len;
        }
        sum += (uint64_t)bw_mold_requests(m, before, request, 16);
        printf("%.3f\n", (double)(now_ns() - before) / given);
    }
    const struct bw_mold_stats *s = bw_mold_stats(m);
    fprintf(stderr, "delivered %llu of %llu, gaps %llu, sum %llu\n", (unsigned long long)s->delivered,
            (unsigned long long)(s->next_sequence - 1), (unsigned long long)s->gaps,
            (unsigned long long)sum);
    bw_mold_free(m);
    free(ring);
    return 0;
}
