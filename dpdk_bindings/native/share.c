#include "share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TAKEN 64 /* frames of the shared port at once */
#define NOBODY 0xff

struct member {
    struct dpb_share *share;
    uint32_t first, n; /* the queue is a circle */
    uint64_t dropped;
    int lost; /* of its frames, refused while another flushed; it was not told yet */
    struct dpb_frame waiting[DPB_SHARE_WAITING];
};

struct dpb_share {
    struct dpb_port_ref port;
    struct member *members[DPB_SHARE_MEMBERS];
    int count;
    struct member *sender; /* who queued last: what is refused is of its frames */
    int unflushed;         /* whether they may wait below */
    uint64_t unassigned;
    uint8_t member_of[DPB_FLOW_NONE + 1]; /* by flow */
};

static int take_waiting(struct member *m, struct dpb_frame *out, int max)
{
    int n = 0;
    for (; n < max && m->n; n++, m->n--)
        out[n] = m->waiting[m->first++ % DPB_SHARE_WAITING];
    return n;
}

static int share_poll(void *port, struct dpb_frame *out, int max)
{
    struct member *m = port;
    struct dpb_share *s = m->share;
    int n = take_waiting(m, out, max);
    if (n == max)
        return n;
    struct dpb_frame frames[TAKEN];
    int taken = s->port.ops->poll(s->port.port, frames, TAKEN);
    if (taken < 0)
        return n ? n : taken;
    for (int i = 0; i < taken; i++) {
        uint8_t to = s->member_of[frames[i].flow];
        struct member *other = to == NOBODY ? NULL : s->members[to];
        if (other == m && n < max) {
            out[n++] = frames[i];
        } else if (other && other->n < DPB_SHARE_WAITING) {
            other->waiting[(other->first + other->n++) % DPB_SHARE_WAITING] = frames[i];
        } else {
            if (other)
                other->dropped++;
            else
                s->unassigned++;
            s->port.ops->release(s->port.port, &frames[i], 1);
        }
    }
    return n;
}

static void share_release(void *port, const struct dpb_frame *frames, int n)
{
    struct dpb_port_ref *below = &((struct member *)port)->share->port;
    below->ops->release(below->port, frames, n);
}

static uint8_t *share_reserve(void *port, uint32_t len)
{
    struct dpb_port_ref *below = &((struct member *)port)->share->port;
    return below->ops->reserve(below->port, len);
}

/* The port below tells of what it refused once, whoever asks: it is noted for whose it is. */
static int note_lost(struct dpb_share *s, struct member *asks, int lost)
{
    s->unflushed = 0;
    struct member *whose = s->sender ? s->sender : asks;
    whose->lost += lost;
    lost = asks->lost;
    asks->lost = 0;
    return lost;
}

static int share_commit(void *port, uint32_t len)
{
    struct member *m = port;
    struct dpb_share *s = m->share;
    /* What another has queued leaves, or is refused, before this is queued behind it. Only what the
     * kernel has no room for now is mixed, and counts as of who queued last. */
    if (len && s->unflushed && s->sender != m) {
        int lost = s->port.ops->flush(s->port.port);
        if (lost > 0)
            s->sender->lost += lost;
    }
    int rc = s->port.ops->commit(s->port.port, len);
    if (len && rc >= 0) {
        s->sender = m;
        s->unflushed = 1;
    }
    return rc;
}

static int share_flush(void *port)
{
    struct member *m = port;
    int lost = m->share->port.ops->flush(m->share->port.port);
    return lost < 0 ? lost : note_lost(m->share, m, lost);
}

static int share_withdraw(void *port)
{
    struct member *m = port;
    int lost = m->share->port.ops->withdraw(m->share->port.port);
    return lost < 0 ? lost : note_lost(m->share, m, lost);
}

static const struct dpb_port_ops ops = {
    .abi = DPB_PORT_ABI,
    .size = sizeof ops,
    .poll = share_poll,
    .release = share_release,
    .reserve = share_reserve,
    .commit = share_commit,
    .flush = share_flush,
    .withdraw = share_withdraw,
};

struct dpb_share *dpb_share_new(const struct dpb_port_ref *port)
{
    struct dpb_share *s = calloc(1, sizeof *s);
    if (s) {
        s->port = *port;
        memset(s->member_of, NOBODY, sizeof s->member_of);
    }
    return s;
}

int dpb_share_add(struct dpb_share *s)
{
    struct member *m = s->count < DPB_SHARE_MEMBERS ? calloc(1, sizeof *m) : NULL;
    if (!m)
        return -ENOSPC;
    m->share = s;
    s->members[s->count] = m;
    return s->count++;
}

struct dpb_port_ref dpb_share_member(struct dpb_share *s, int member)
{
    return (struct dpb_port_ref){&ops, s->members[member]};
}

int dpb_share_assign(struct dpb_share *s, uint16_t flow, int member)
{
    if (member < -1 || member >= s->count)
        return -EINVAL;
    s->member_of[flow] = member < 0 ? NOBODY : (uint8_t)member;
    return 0;
}

void dpb_share_leave(struct dpb_share *s, int member)
{
    struct dpb_frame frame;
    while (take_waiting(s->members[member], &frame, 1))
        s->port.ops->release(s->port.port, &frame, 1);
}

void dpb_share_free(struct dpb_share *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++) {
        dpb_share_leave(s, i);
        free(s->members[i]);
    }
    free(s);
}

void dpb_share_stats(const struct dpb_share *s, int member, struct dpb_share_stats *stats)
{
    const struct member *m = s->members[member];
    *stats = (struct dpb_share_stats){m->n, m->dropped, s->unassigned};
}
