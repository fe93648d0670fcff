/* The far end of the `wire` benchmark: sends a packet, spins for the reply, notes how long it took.
 *
 *     wire_sender CORE DEST_IP DEST_PORT LOCAL_PORT GAP_US FILE
 *
 * FILE holds packets, each behind its length (32 bits, native). "go N\n" on standard input sends
 * the next N, one at a time with GAP_US of quiet between reply and next send, and answers with N
 * round trips in nanoseconds (64 bits, native) on standard output; UINT64_MAX is a reply that did
 * not come within 50 ms. It is a plain spinning kernel socket, so that it is the same stick for all
 * who are measured with it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_NS 50000000u

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: wire_sender CORE DEST_IP DEST_PORT LOCAL_PORT GAP_US FILE\n");
        return 2;
    }
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(atoi(argv[1]), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) < 0) die("sched_setaffinity");

    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
    if (fd < 0 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) die("address");
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    uint64_t gap_ns = strtoull(argv[5], NULL, 10) * 1000;

    int file = open(argv[6], O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(argv[6]);
    const uint8_t *next = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE,
                               file, 0);
    if (next == MAP_FAILED) die("mmap");
    const uint8_t *end = next + about.st_size;

    int n;
    while (scanf(" go %d", &n) == 1) {
        uint64_t *took = malloc((size_t)n * sizeof *took);
        if (!took) die("malloc");
        for (int i = 0; i < n; i++) {
            uint8_t reply[2048];
            uint32_t len;
            if (next >= end) {
                fprintf(stderr, "wire_sender: out of packets\n");
                return 1;
            }
            memcpy(&len, next, sizeof len);
            for (uint64_t until = now_ns() + gap_ns; now_ns() < until;) {}
            while (recv(fd, reply, sizeof reply, 0) >= 0) {} /* a reply that came too late */
            uint64_t start = now_ns();
            if (sendto(fd, next + sizeof len, len, 0, (struct sockaddr *)&to, sizeof to) < 0)
                die("sendto");
            next += sizeof len + len;
            for (;;) {
                ssize_t got = recv(fd, reply, sizeof reply, 0);
                uint64_t now = now_ns();
                took[i] = now - start;
                if (got >= 0) break;
                if (errno != EAGAIN && errno != ECONNREFUSED) die("recv");
                if (took[i] > TIMEOUT_NS) {
                    took[i] = UINT64_MAX;
                    break;
                }
            }
        }
        if (fwrite(took, sizeof *took, (size_t)n, stdout) != (size_t)n || fflush(stdout)) die("write");
        free(took);
    }
    return 0;
}
