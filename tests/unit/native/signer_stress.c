/* A signer under load, to be built with sanitizers: signer_stress LIBRARY THREADS EACH FORKS
 *
 * THREADS threads make EACH signatures from a small pool, while the main thread drops the pool,
 * announces new generation ids and forks FORKS times. Every signature must lead back to the key, no
 * r may be seen twice, and no child may sign. Prints how many were presigned. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "secp.h"
#include "signer.h"

#define CAPACITY 64

struct one {
    uint8_t rs[64], hash[32];
    int parity;
};

struct work {
    struct bw_signer *signer;
    struct one *ones;
    int each, number;
};

static void insist(int truth, const char *what) {
    if (truth) return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

static void *sign(void *argument) {
    struct work *work = argument;
    for (int i = 0; i < work->each; i++) {
        struct one *one = &work->ones[i];
        memcpy(one->hash, &i, sizeof i);
        memcpy(one->hash + 4, &work->number, sizeof work->number);
        one->parity = bw_signer_sign(work->signer, one->hash, one->rs);
    }
    return NULL;
}

/* In a child nothing signs, and everything can be freed. */
static void try_in_a_child(struct bw_signer *signer, struct bw_key *key) {
    uint8_t hash[32] = {1}, rs[64];
    int why, status;
    pid_t child = fork();
    if (child == 0) {
        int refused = bw_signer_sign(signer, hash, rs) == BW_SIGN_FORKED &&
                      !bw_key_reveal(key, rs) && !bw_signer_new(key, 0, -1, -1, &why);
        bw_signer_drop(signer);
        bw_signer_free(signer);
        bw_key_free(key);
        _exit(refused ? 0 : 1);
    }
    insist(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a child cannot sign");
}

static int by_r(const void *a, const void *b) {
    return memcmp(((const struct one *)a)->rs, ((const struct one *)b)->rs, 32);
}

static struct bw_key *read_key(const char *text, size_t len, int *why) {
    int ends[2];
    insist(pipe(ends) == 0 && write(ends[1], text, len) == (ssize_t)len, "a pipe");
    close(ends[1]);
    struct bw_key *key = bw_key_read(ends[0], why);
    close(ends[0]);
    return key;
}

static struct bw_key *keys(void) {
    char text[80];
    int why;
    memset(text, '7', sizeof text);
    for (size_t len = 0; len <= sizeof text; len++) {
        struct bw_key *key = read_key(text, len, &why);
        insist((key != NULL) == (len == 32 || len == 64), "only 32 bytes or 64 digits are a key");
        bw_key_free(key);
    }
    return read_key(text, 64, &why);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    static const char CHANGE[] = "change@/devices/x\0ACTION=change\0NEW_VMGENID=1";
    int threads = atoi(argv[2]), each = atoi(argv[3]), forks = atoi(argv[4]), ends[2], why;
    int total = threads * each;
    uint8_t address[20], signer_of[20];
    insist(bw_secp_load(argv[1]) == 0, bw_secp_error());
    insist(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0, "a pair of sockets");
    struct bw_key *key = keys();
    bw_key_address(key, address);
    struct bw_signer *signer = bw_signer_new(key, CAPACITY, -1, ends[1], &why);
    insist(signer != NULL, "a signer");
    struct one *ones = calloc((size_t)total, sizeof *ones);
    struct work *works = calloc((size_t)threads, sizeof *works);
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    for (int i = 0; i < threads; i++) {
        works[i] = (struct work){signer, ones + i * each, each, i};
        insist(pthread_create(&ids[i], NULL, sign, &works[i]) == 0, "a thread");
    }
    for (int i = 0; i < 20 || i < forks; i++) {
        bw_signer_drop(signer);
        insist(send(ends[0], CHANGE, sizeof CHANGE, 0) == sizeof CHANGE || i > 0, "an announcement");
        if (i < forks) try_in_a_child(signer, key);
        usleep(2000);
    }
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    struct bw_signer_counts counts;
    bw_signer_counts(signer, &counts);
    insist(counts.presigned + counts.rfc6979 == (uint64_t)total, "each was counted");
    insist(counts.generations > 0 && counts.dropped > 0, "announcements were heard");
    for (int i = 0; i < total; i++)
        insist(bw_secp_recover(ones[i].hash, ones[i].rs, ones[i].parity, signer_of) == 1 &&
                   !memcmp(signer_of, address, 20),
               "a signature leads back to the key");
    qsort(ones, (size_t)total, sizeof *ones, by_r);
    for (int i = 1; i < total; i++) insist(by_r(&ones[i - 1], &ones[i]) != 0, "no r twice");
    bw_signer_free(signer);
    bw_key_free(key);
    free(ones);
    free(works);
    free(ids);
    close(ends[0]);
    close(ends[1]);
    printf("%llu\n", (unsigned long long)counts.presigned);
    return 0;
}
