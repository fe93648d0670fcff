#include "endpoint_outbox.h"

#include <time.h>

static uint64_t now_mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int outbox_recv(void *endpoint, struct dpb_datagram *out, int max) { return 0; }

static void outbox_release(void *endpoint, const struct dpb_datagram *datagrams, int n) {}

static uint8_t *outbox_reserve(void *endpoint, int peer, uint32_t len) {
    struct dpb_outbox *outbox = endpoint;
    outbox->peer = peer;
    outbox->room = 0;
    outbox->expires_mono_ns = 0;
    uint8_t *room = peer < 0 || !len ? NULL : dpb_ring_reserve(outbox->ring, len);
    if (room) outbox->room = len;
    return room;
}

static int outbox_commit(void *endpoint, uint32_t len) {
    struct dpb_outbox *outbox = endpoint;
    if (len > outbox->room) return -EINVAL;
    outbox->room = 0;
    if (!len) return 0; /* the next reservation takes the room over */
    uint64_t now = now_mono_ns(), expires = outbox->expires_mono_ns;
    struct dpb_record record = {.len = len,
                                .source = outbox->endpoint,
                                .user = (uint64_t)outbox->peer,
                                .origin_ns = expires ? expires : now + DPB_OUTBOX_OLD_NS};
    dpb_ring_commit(outbox->ring, &record, now);
    return 0;
}

static int outbox_flush(void *endpoint) { return 0; }

/* What was written is the other core's, which gives it up when it is old. */
static int outbox_withdraw(void *endpoint) { return 0; }

static void outbox_expires(void *endpoint, uint64_t at_mono_ns) {
    ((struct dpb_outbox *)endpoint)->expires_mono_ns = at_mono_ns;
}

static const struct dpb_datagram_ops OPS = {
    .abi = DPB_DATAGRAM_ABI,
    .size = sizeof(struct dpb_datagram_ops),
    .recv = outbox_recv,
    .release = outbox_release,
    .reserve = outbox_reserve,
    .commit = outbox_commit,
    .flush = outbox_flush,
    .withdraw = outbox_withdraw,
    .expires = outbox_expires,
};

void dpb_outbox_open(struct dpb_outbox *outbox, struct dpb_ring_tx *ring, uint16_t endpoint) {
    *outbox = (struct dpb_outbox){.ring = ring, .endpoint = endpoint};
}

void dpb_outbox_ref(struct dpb_outbox *outbox, struct dpb_datagram_ref *ref) {
    *ref = (struct dpb_datagram_ref){.ops = &OPS, .endpoint = outbox};
}

int dpb_outbox_send(struct dpb_outbox *outbox, int peer, const uint8_t *bytes, uint32_t len) {
    uint8_t *room = outbox_reserve(outbox, peer, len);
    if (!room) return 0;
    memcpy(room, bytes, len);
    return outbox_commit(outbox, len) >= 0;
}
