// sources: src/barewire/native/senders.c src/barewire/native/decode.c src/barewire/native/sha256.c src/barewire/native/secp.c src/barewire/native/keccak*.c dpdk_bindings/native/ring_file.c
// runs: 1000000
// max_len: 2048
//
// Both ends of a sender worker's rings, with whatever lies in shared memory. Input: steps, each one
// byte and what it needs: 0 asks (hash byte, length byte, bytes), 1 lets the worker work, 2 collects,
// 3 publishes an answer (ticket of 8 bytes, length byte, bytes), 4 a job (length byte, bytes), 5 drops
// the lane and adds it anew.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "ring_file.h"
#include "secp.h"
#include "senders.h"

#define ASKED 32

#define insist(truth) ((truth) ? (void)0 : (fprintf(stderr, "line %d\n", __LINE__), abort()))

static struct dpb_ring_tx *jobs, *answers;
static struct dpb_ring_rx *asked, *results;

static void ring(uint32_t mtu, struct dpb_ring_tx **tx, struct dpb_ring_rx **rx) {
    char why[DPB_RING_WHY];
    struct dpb_ring_geometry geometry = {DPB_RING_LOSSLESS, 16, mtu, 4096, 1 << 20};
    uint32_t state;
    int32_t previous;
    int fd = memfd_create("fuzz", 0);
    char path[64];
    insist(fchmod(fd, 0600) == 0 && dpb_ring_format(fd, &geometry, why) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    insist(dpb_ring_tx_open(open(path, O_RDWR), tx, &state, why) == 0);
    insist(dpb_ring_rx_open(open(path, O_RDWR), "one", DPB_RING_OLDEST, rx, &previous, why) == 0);
}

static void publish(struct dpb_ring_tx *tx, const uint8_t *data, uint32_t len, uint64_t user) {
    struct dpb_record record = {.data = data, .len = len, .user = user};
    dpb_ring_put(tx, &record, 1, 1);
}

static void drain(struct dpb_ring_rx *rx) {
    struct dpb_record record[16];
    while (dpb_ring_take(rx, record, 16) > 0)
        ;
    dpb_ring_ack(rx, UINT64_MAX);
}

/* `want` bytes of the input as a copy of exactly that size, or fewer where it ends. */
static uint8_t *take(const uint8_t **data, size_t *size, size_t *want) {
    if (*want > *size) *want = *size;
    uint8_t *copy = malloc(*want ? *want : 1);
    memcpy(copy, *data, *want);
    *data += *want;
    *size -= *want;
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!jobs) {
        ring(BW_SENDER_JOB, &jobs, &asked);
        ring(BW_SENDER_RESULT, &answers, &results);
        bw_secp_load("libsecp256k1.so.1");
    }
    static const uint8_t key[16];
    struct bw_senders *senders = bw_senders_new(8, 12, key);
    const struct bw_sender_stats *stats = bw_senders_stats(senders);
    struct bw_tx tx[ASKED] = {0};
    uint8_t *raw[ASKED];
    uint32_t n = 0;
    int lane = 0;
    insist(senders && bw_senders_add_lane(senders, jobs, results) == 0);
    for (size_t want; size; ) {
        uint8_t step = *data++ % 6;
        size--;
        if (step == 0 && size > 1 && n < ASKED) {
            tx[n].hash[0] = data[0];
            want = data[1];
            data += 2;
            size -= 2;
            raw[n] = take(&data, &size, &want);
            tx[n].raw_len = 1;
            tx[n].flags = BW_TX_HASHED;
            tx[n].fields_len = (uint32_t)want;
            memset(tx[n].r, 1, 32);
            memset(tx[n].s, 1, 32);
            struct bw_message message = {.data = raw[n]};
            bw_senders_submit(senders, &message, &tx[n], 1, n, 1, 5);
            n++;
        } else if (step == 1) {
            insist(bw_senders_work(asked, answers) <= 8);
        } else if (step == 2) {
            struct bw_sender_answer out[8];
            uint32_t got = bw_senders_collect(senders, out, 8, 9);
            insist(got <= 8);
            for (uint32_t i = 0; i < got; i++) {
                insist(out[i].tx == &tx[out[i].cookie] && out[i].index == 0);
                insist(out[i].sender != BW_SENDER_UNKNOWN || stats->lost);
                insist(!!(out[i].tx->flags & BW_TX_SENDER) == (out[i].sender == BW_SENDER_KNOWN));
            }
        } else if (step == 3 && size > 8) {
            uint64_t ticket;
            memcpy(&ticket, data, 8);
            want = data[8];
            data += 9;
            size -= 9;
            uint8_t *payload = take(&data, &size, &want);
            publish(answers, payload, (uint32_t)want, ticket);
            free(payload);
        } else if (step == 4 && size) {
            want = *data++;
            size--;
            uint8_t *payload = take(&data, &size, &want);
            publish(jobs, payload, (uint32_t)want, 0);
            free(payload);
        }
        if (step == 5 && lane >= 0) {
            bw_senders_drop_lane(senders, (uint32_t)lane);
            lane = bw_senders_add_lane(senders, jobs, results);
        }
        uint64_t waiting = 0;
        for (uint32_t i = 0; i < BW_SENDER_LANES; i++) waiting += bw_senders_lane_waiting(senders, i);
        insist(waiting == stats->waiting && waiting <= 12);
        insist(waiting == stats->queued - stats->recovered - stats->nobody - stats->lost);
        insist(stats->damaged == 0);
    }
    bw_senders_free(senders);
    while (n) free(raw[--n]);
    drain(asked);
    drain(results);
    return 0;
}
