#include "pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "capture.h"

#define NANOSECONDS 0xa1b23c4du
#define ETHERNET 1
#define LONGEST DPB_CAPTURE_LONGEST
#define OUT_BUFFER (4u * LONGEST)

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, longest, link_type;
};
struct record {
    uint32_t seconds, fraction, len, wire_len;
};

struct dpb_pcap {
    const uint8_t *in;   /* mapped; NULL without input */
    size_t in_size;
    struct dpb_capture capture; /* reads it */
    int in_fd;           /* -1 without input */
    bool closed;
    int out_fd;          /* -1 without output */
    uint8_t *out;        /* records not yet written */
    size_t out_used;
    bool reserved;
    struct dpb_pcap_stats stats;
};

/* A file that was made shorter has lost the pages behind its end, and to touch one is a SIGBUS:
 * nothing more is read from it. */
static bool shrunk(const struct dpb_pcap *p)
{
    struct stat about;
    return fstat(p->in_fd, &about) < 0 || (size_t)about.st_size < p->in_size;
}

static int pcap_poll(void *port, struct dpb_frame *out, int max)
{
    struct dpb_pcap *p = port;
    if (p->closed)
        return -EBADF;
    struct dpb_capture *c = &p->capture;
    if (c->at < c->size && shrunk(p)) {
        c->bad = 1;
        c->at = c->size;
    }
    int n = 0;
    for (struct dpb_captured frame; n < max && dpb_capture_next(c, &frame); n++) {
        out[n] = (struct dpb_frame){
            .data = frame.data,
            .arrival_ns = frame.arrival_ns,
            .handle = frame.at,
            .len = frame.len,
            .flow = DPB_FLOW_NONE,
            .clock = DPB_CLOCK_CAPTURE,
        };
        p->stats.rx_cut_short += frame.len < frame.wire_len;
        p->stats.rx_bytes += frame.len;
    }
    p->stats.rx_bad_record = c->bad;
    p->stats.rx_outbound = c->outbound;
    p->stats.rx_other_link = c->other_link;
    p->stats.rx_frames += n;
    p->stats.rx_held += n;
    return n;
}

static void pcap_release(void *port, const struct dpb_frame *frames, int n)
{
    struct dpb_pcap *p = port;
    uint64_t known = (uint64_t)n < p->stats.rx_held ? (uint64_t)n : p->stats.rx_held;
    p->stats.rx_held -= known;
    p->stats.rx_released_twice += n - known;
}

static int pcap_flush(void *port)
{
    struct dpb_pcap *p = port;
    if (p->closed)
        return -EBADF;
    size_t written = 0;
    int result = 0;
    while (written < p->out_used) {
        ssize_t n = write(p->out_fd, p->out + written, p->out_used - written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            result = -errno;
            break;
        }
        written += n;
    }
    /* What was not written stays, so that a later flush ends the record and the file is whole. */
    memmove(p->out, p->out + written, p->out_used - written);
    p->out_used -= written;
    return result;
}

/* A capture has no link that could be late: what is in the buffer belongs into the file. */
static int pcap_withdraw(void *port)
{
    return 0;
}

static uint8_t *pcap_reserve(void *port, uint32_t len)
{
    struct dpb_pcap *p = port;
    if (p->closed) {
        errno = ENETDOWN;
        return NULL;
    }
    if (len > LONGEST) {
        p->stats.tx_too_long++;
        errno = EMSGSIZE;
        return NULL;
    }
    size_t need = sizeof(struct record) + len;
    if (p->out_fd < 0 || (p->out_used + need > OUT_BUFFER && pcap_flush(p) < 0 &&
                          p->out_used + need > OUT_BUFFER)) {
        p->stats.tx_write_failed++;
        errno = ENOBUFS;
        return NULL;
    }
    p->reserved = true;
    return p->out + p->out_used + sizeof(struct record);
}

static int pcap_commit(void *port, uint32_t len)
{
    struct dpb_pcap *p = port;
    if (p->closed)
        return -EBADF;
    if (!p->reserved || p->out_used + sizeof(struct record) + len > OUT_BUFFER)
        return -EINVAL;
    p->reserved = false;
    if (len == 0)
        return 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct record record = {now.tv_sec, now.tv_nsec, len, len};
    memcpy(p->out + p->out_used, &record, sizeof record);
    p->out_used += sizeof record + len;
    p->stats.tx_frames++;
    p->stats.tx_bytes += len;
    return 0;
}

static const struct dpb_port_ops ops = {
    .abi = DPB_PORT_ABI,
    .size = sizeof ops,
    .poll = pcap_poll,
    .release = pcap_release,
    .reserve = pcap_reserve,
    .commit = pcap_commit,
    .flush = pcap_flush,
    .withdraw = pcap_withdraw,
};

const struct dpb_port_ops *dpb_pcap_ops(void)
{
    return &ops;
}

static int read_file_header(struct dpb_pcap *p, const char *path, struct dpb_error *error)
{
    uint32_t link_type = 0;
    switch (dpb_capture_open(&p->capture, p->in, p->in_size, &link_type)) {
    case DPB_CAPTURE_NONE:
        dpb_fail(error, EINVAL, "\"%s\" is no pcap or pcapng file", path);
        dpb_hint(error, "a capture of tcpdump, dumpcap or `barewire record`");
        return -EINVAL;
    case DPB_CAPTURE_LINK_TYPE:
        dpb_fail(error, EINVAL, "\"%s\" holds frames of link type %u", path, link_type);
        dpb_hint(error, "only Ethernet (1) is read; capture on an interface, not on \"any\"");
        return -EINVAL;
    default:
        return 0;
    }
}

static int open_in(struct dpb_pcap *p, const char *path, struct dpb_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
    struct stat about;
    if (fd < 0 || fstat(fd, &about) < 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return dpb_fail(error, code, "opening \"%s\"", path);
    }
    if (!S_ISREG(about.st_mode)) {
        close(fd);
        dpb_fail(error, EINVAL, "\"%s\" is no regular file", path);
        dpb_hint(error, "write the capture to a file first");
        return -EINVAL;
    }
    void *map = about.st_size ? mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int code = errno;
    if (map == MAP_FAILED) {
        close(fd);
        return dpb_fail(error, code, "mapping \"%s\"", path);
    }
    p->in_fd = fd;
    p->in = map;
    p->in_size = about.st_size;
    return read_file_header(p, path, error);
}

static int open_out(struct dpb_pcap *p, const char *path, struct dpb_error *error)
{
    p->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (p->out_fd < 0)
        return dpb_fail(error, errno, "opening \"%s\" for writing", path);
    p->out = malloc(OUT_BUFFER);
    if (!p->out)
        return dpb_fail(error, ENOMEM, "opening \"%s\" for writing", path);
    struct file_header header = {.magic = NANOSECONDS, .major = 2, .minor = 4, .longest = LONGEST,
                                 .link_type = ETHERNET};
    memcpy(p->out, &header, sizeof header);
    p->out_used = sizeof header;
    return 0;
}

struct dpb_pcap *dpb_pcap_open(const char *in, const char *out, struct dpb_error *error)
{
    memset(error, 0, sizeof *error);
    struct dpb_pcap *p = calloc(1, sizeof *p);
    if (!p) {
        dpb_fail(error, ENOMEM, "opening a capture");
        return NULL;
    }
    p->out_fd = p->in_fd = -1;
    if ((in && open_in(p, in, error) < 0) || (out && open_out(p, out, error) < 0)) {
        dpb_pcap_free(p);
        return NULL;
    }
    return p;
}

void dpb_pcap_stats(const struct dpb_pcap *p, struct dpb_pcap_stats *stats)
{
    *stats = p->stats;
}

int dpb_pcap_exhausted(const struct dpb_pcap *p)
{
    return p->closed || p->capture.at >= p->capture.size;
}

int dpb_pcap_close(struct dpb_pcap *p)
{
    if (p->closed)
        return 0;
    int result = p->out_fd >= 0 ? pcap_flush(p) : 0;
    p->closed = true;
    if (p->out_fd >= 0 && close(p->out_fd) < 0 && result == 0)
        result = -errno;
    p->out_fd = -1;
    return result;
}

void dpb_pcap_free(struct dpb_pcap *p)
{
    if (!p)
        return;
    dpb_pcap_close(p);
    if (p->in)
        munmap((void *)p->in, p->in_size);
    if (p->in_fd >= 0)
        close(p->in_fd);
    free(p->out);
    free(p);
}
