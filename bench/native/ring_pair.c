/* One record at a time through a lossy ring, from a process on one core to a process on another:
 * ring_pair RING COUNT PRODUCER_CORE CONSUMER_CORE
 *
 * Writes COUNT native 64-bit words to stdout: nanoseconds of CLOCK_MONOTONIC from before publish
 * to the record in the consumer's hand, payload copied; then COUNT more: what two readings of the
 * clock, one right after the other, are apart. The producer waits for the consumer each time. */
#define _GNU_SOURCE
#include "ring_file.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 256

static uint64_t mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    uint64_t count = strtoull(argv[2], NULL, 10);
    uint64_t *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *apart = malloc(2 * count * sizeof *apart), *bias = apart + count;
    struct dpb_ring_rx *rx;
    int32_t before;
    char why[DPB_RING_WHY] = "";
    if (dpb_ring_rx_open(open(argv[1], O_RDONLY), "", DPB_RING_NEXT, &rx, &before, why)) {
        fprintf(stderr, "ring_pair: %s\n", why);
        return 1;
    }
    if (!fork()) {
        static uint8_t payload[PAYLOAD];
        struct dpb_record record = {.data = payload, .len = PAYLOAD};
        struct dpb_ring_tx *tx;
        uint32_t previous;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(atoi(argv[3]));
        if (dpb_ring_tx_open(open(argv[1], O_RDWR), &tx, &previous, why))
            _exit(1);
        for (uint64_t i = 0; i < count; i++) {
            while (__atomic_load_n(taken, __ATOMIC_ACQUIRE) != i)
                ;
            for (uint64_t pause = mono_ns() + 500 + i % 512; mono_ns() < pause;)
                ;
            uint64_t now = mono_ns();
            memcpy(payload, &now, sizeof now);
            dpb_ring_put(tx, &record, 1, now);
        }
        dpb_ring_tx_close(tx, DPB_RING_HALT);
        _exit(0);
    }
    pin(atoi(argv[4]));
    for (uint64_t i = 0; i < count; i++) {
        struct dpb_record record;
        uint64_t sent;
        while (!dpb_ring_take(rx, &record, 1))
            ;
        memcpy(&sent, record.data, sizeof sent);
        apart[i] = mono_ns() - sent;
        __atomic_store_n(taken, i + 1, __ATOMIC_RELEASE);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t first = mono_ns();
        bias[i] = mono_ns() - first;
    }
    fwrite(apart, sizeof *apart, 2 * count, stdout);
    return 0;
}
