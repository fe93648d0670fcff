/* One end of a ring under load, made to be killed: ring_worker ROLE RING BOARD
 *
 *   produce   publishes records whose every 64-bit word is the record's sequence number
 *   journal   a lossless consumer in the seat "journal": checks every word and that no number is
 *             missing, acknowledges now and then
 *   watch     a lossy consumer: checks every word, and that what it got and what it missed add up
 *
 * BOARD is a file shared with the test; it survives the kill, and holds what each end knows. SIGTERM
 * ends a producer at once and a consumer when it has everything. */
#include "ring_file.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct board {
    uint64_t returned;       /* newest record whose publish returned */
    uint64_t consumed;       /* newest record that the journal took */
    uint64_t started;        /* processes that got as far as their loop */
    uint64_t torn;           /* records that were not whole: must stay 0 */
    uint64_t gaps;           /* records missing, or sums that do not add up: must stay 0 */
    uint64_t producer_died;  /* epoch of the newest producer whose death a consumer was told of */
    uint64_t consumer_died;  /* how often a producer found that its journal was gone */
    uint64_t watched;        /* records taken by lossy consumers */
    uint64_t missed;         /* and overrun */
};

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
    (void)signal;
    stop = 1;
}

static int produce(int fd, struct board *board)
{
    static uint64_t words[64][256];
    struct dpb_record records[64] = {0};
    struct dpb_ring_tx *tx;
    uint32_t previous;
    uint64_t noise = (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
    int32_t told = 0; /* of whose death: the next one may die before it is seen alive */
    char why[DPB_RING_WHY];
    if (dpb_ring_tx_open(fd, &tx, &previous, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    if (tx->next <= board->returned)
        board->gaps++; /* a published record was lost */
    dpb_ring_tx_state(tx, DPB_RING_RUN);
    __atomic_add_fetch(&board->started, 1, __ATOMIC_RELAXED);
    while (!stop) {
        noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
        int n = 1 + noise % 64;
        for (int i = 0; i < n; i++) {
            records[i].len = 8 + (uint32_t)(noise >> (i % 32)) % 2041;
            records[i].data = (const uint8_t *)words[i];
            records[i].filter = tx->next + (uint64_t)i;
            for (uint32_t j = 0; j <= records[i].len / 8 && j < 256; j++)
                words[i][j] = tx->next + (uint64_t)i;
        }
        int done = dpb_ring_publish_burst(tx, records, n);
        if (done > 0)
            __atomic_store_n(&board->returned, tx->next - 1, __ATOMIC_RELAXED);
        dpb_ring_heartbeat(tx, NULL);
        if (done == n)
            continue;
        struct dpb_ring_seat_status seats[DPB_RING_SEATS];
        if (dpb_ring_seats(&tx->ring, seats) != 1) {
            board->gaps++; /* the journal's seat must stay */
        } else if (!seats[0].alive && told != seats[0].pid) {
            told = seats[0].pid;
            __atomic_add_fetch(&board->consumer_died, 1, __ATOMIC_RELAXED);
        }
        sched_yield();
    }
    dpb_ring_tx_close(tx, DPB_RING_HALT);
    return 0;
}

static int consume(int fd, struct board *board, int lossless)
{
    struct dpb_record records[64];
    struct dpb_ring_status status;
    struct dpb_ring_rx *rx;
    uint64_t got = 0, last = 0, from;
    int32_t previous;
    char why[DPB_RING_WHY];
    if (dpb_ring_rx_open(fd, "journal", DPB_RING_OLDEST, &rx, &previous, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    from = rx->next;
    last = from - 1;
    if (lossless && from > board->consumed + 1)
        board->gaps++; /* began behind what the predecessor took */
    __atomic_add_fetch(&board->started, 1, __ATOMIC_RELAXED);
    for (;;) {
        int finish = stop, n = dpb_ring_poll(rx, records, 64);
        if (n < 0)
            board->gaps++;
        for (int i = 0; i < n; i++) {
            uint64_t word = records[i].seq;
            int bad = records[i].filter != word || records[i].len < 8;
            for (uint32_t at = 0; at < records[i].len; at += 8)
                bad |= memcmp(records[i].data + at, &word,
                              records[i].len - at < 8 ? records[i].len - at : 8) != 0;
            if (bad)
                __atomic_add_fetch(&board->torn, 1, __ATOMIC_RELAXED);
            if (word <= last || (lossless && word != last + 1))
                __atomic_add_fetch(&board->gaps, 1, __ATOMIC_RELAXED);
            last = word;
            got++;
        }
        if (got + rx->overruns + rx->corrupt != rx->next - from || rx->corrupt)
            __atomic_add_fetch(&board->gaps, 1, __ATOMIC_RELAXED);
        if (n > 0) {
            if (lossless) {
                __atomic_store_n(&board->consumed, last, __ATOMIC_RELAXED);
                if (last % 3)
                    dpb_ring_acknowledge(rx, last - last % 5);
            }
            continue;
        }
        if (lossless)
            dpb_ring_acknowledge(rx, last);
        dpb_ring_status(&rx->ring, &status);
        if (!status.alive && status.state == DPB_RING_RUN)
            __atomic_store_n(&board->producer_died, status.epoch, __ATOMIC_RELAXED);
        if (finish)
            break;
        sched_yield();
    }
    if (!lossless) {
        __atomic_add_fetch(&board->watched, got, __ATOMIC_RELAXED);
        __atomic_add_fetch(&board->missed, rx->overruns, __ATOMIC_RELAXED);
    }
    dpb_ring_rx_close(rx, 0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int ring = open(argv[2], O_RDWR), shared = open(argv[3], O_RDWR);
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (ring < 0 || board == MAP_FAILED)
        return 2;
    signal(SIGTERM, on_term);
    return *argv[1] == 'p' ? produce(ring, board) : consume(ring, board, *argv[1] == 'j');
}
