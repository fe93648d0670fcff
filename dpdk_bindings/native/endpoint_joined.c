#include "endpoint_joined.h"

#include <errno.h>
#include <stdlib.h>

enum { MEMBERS = DPB_JOINED_MEMBERS, CHANNELS = 64, PEERS = 4096 };

struct member {
    struct dpb_datagram_ref ref;
    int channels;
    uint16_t channel[CHANNELS]; /* of the whole, by the member's own number */
};

struct peer {
    uint16_t member;
    uint16_t number; /* the member's own */
};

struct dpb_joined {
    int members, channels, peers;
    int lost;                  /* refused by members, and nobody was told yet */
    int first;                 /* the member that the next recv() asks first */
    struct member *reserved;   /* whose the reservation is, or NULL */
    struct member member[MEMBERS];
    struct peer peer[PEERS];
};

struct dpb_joined *dpb_joined_open(const struct dpb_datagram_ref *members, int count) {
    struct dpb_joined *e = count <= MEMBERS ? calloc(1, sizeof *e) : NULL;
    if (!e)
        return NULL;
    e->members = count;
    for (int m = 0; m < count; m++)
        e->member[m].ref = members[m];
    return e;
}

void dpb_joined_close(struct dpb_joined *e) { free(e); }

int dpb_joined_add_channel(struct dpb_joined *e, int member) {
    struct member *m = &e->member[member];
    if (m->channels == CHANNELS || e->channels == CHANNELS)
        return -ENOSPC;
    m->channel[m->channels++] = (uint16_t)e->channels;
    return e->channels++;
}

int dpb_joined_add_peer(struct dpb_joined *e, int member, int peer) {
    if (e->peers == PEERS)
        return -ENOSPC;
    e->peer[e->peers] = (struct peer){(uint16_t)member, (uint16_t)peer};
    return e->peers++;
}

static int joined_recv(void *endpoint, struct dpb_datagram *out, int max) {
    struct dpb_joined *e = endpoint;
    int got = 0, failed = 0, why = 0;
    for (int i = 0; i < e->members && got < max; i++) {
        int number = (e->first + i) % e->members;
        struct member *m = &e->member[number];
        int n = m->ref.ops->recv(m->ref.endpoint, out + got, max - got);
        if (n < 0) { /* one NIC that is broken does not silence the others */
            failed++;
            why = n;
            continue;
        }
        for (int d = got; d < got + n; d++) {
            out[d].channel = m->channel[out[d].channel];
            out[d].member = (uint8_t)number;
        }
        got += n;
    }
    if (++e->first >= e->members)
        e->first = 0;
    return failed == e->members ? why : got;
}

static void joined_release(void *endpoint, const struct dpb_datagram *datagrams, int n) {
    struct dpb_joined *e = endpoint;
    for (int from = 0, to; from < n; from = to) {
        uint8_t member = datagrams[from].member;
        for (to = from + 1; to < n && datagrams[to].member == member;)
            to++;
        struct dpb_datagram_ref *ref = &e->member[member].ref;
        ref->ops->release(ref->endpoint, datagrams + from, to - from);
    }
}

static uint8_t *joined_reserve(void *endpoint, int peer, uint32_t len) {
    struct dpb_joined *e = endpoint;
    e->reserved = NULL;
    if (peer < 0 || peer >= e->peers)
        return NULL;
    struct member *m = &e->member[e->peer[peer].member];
    uint8_t *room = m->ref.ops->reserve(m->ref.endpoint, e->peer[peer].number, len);
    if (room)
        e->reserved = m;
    return room;
}

static int joined_commit(void *endpoint, uint32_t len) {
    struct dpb_joined *e = endpoint;
    struct member *m = e->reserved;
    if (!m)
        return -EINVAL;
    e->reserved = NULL;
    return m->ref.ops->commit(m->ref.endpoint, len);
}

static int tell_lost(struct dpb_joined *e) {
    int lost = e->lost;
    e->lost = 0;
    return lost;
}

static int joined_flush(void *endpoint) {
    struct dpb_joined *e = endpoint;
    int worst = 0;
    for (int m = 0; m < e->members; m++) {
        struct dpb_datagram_ref *ref = &e->member[m].ref;
        int rc = ref->ops->flush(ref->endpoint);
        if (rc > 0)
            e->lost += rc;
        else if (rc < 0 && (worst == 0 || worst == -EAGAIN))
            worst = rc;
    }
    return worst ? worst : tell_lost(e);
}

static int joined_withdraw(void *endpoint) {
    struct dpb_joined *e = endpoint;
    int worst = 0;
    for (int m = 0; m < e->members; m++) {
        struct dpb_datagram_ref *ref = &e->member[m].ref;
        int rc = ref->ops->withdraw(ref->endpoint);
        if (rc > 0)
            e->lost += rc;
        else if (rc < 0)
            worst = rc;
    }
    return worst ? worst : tell_lost(e);
}

static const struct dpb_datagram_ops OPS = {
    .abi = DPB_DATAGRAM_ABI,
    .size = sizeof(struct dpb_datagram_ops),
    .recv = joined_recv,
    .release = joined_release,
    .reserve = joined_reserve,
    .commit = joined_commit,
    .flush = joined_flush,
    .withdraw = joined_withdraw,
};

void dpb_joined_ref(struct dpb_joined *e, struct dpb_datagram_ref *ref) {
    *ref = (struct dpb_datagram_ref){.ops = &OPS, .endpoint = e};
}
