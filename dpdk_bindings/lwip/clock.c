#include "stack.h"

#include <errno.h>

#define LEAST_RTO 3 /* slow ticks: sent again after 40 to 60 ms */
#define UNACKNOWLEDGED_NS (30 * SECOND_NS)

static void give_up(struct entry *c) {
    struct tcp_pcb *pcb = c->pcb;
    dpb_lwip_let_go(c);
    if (pcb)
        tcp_abort(pcb);
    dpb_lwip_lost(c, ETIMEDOUT);
}

/* The limits of stream.h, which lwIP's own clock would reach too early or too late. */
static void watch(struct entry *c, uint64_t now) {
    if (c->over)
        return;
    if (c->face.state == DPB_STREAM_CONNECTING) {
        if (now >= c->deadline_mono_ns)
            give_up(c);
        else if (c->pcb && c->pcb->nrtx > 1)
            c->pcb->nrtx = 1; /* or it would stop after six SYNs */
        return;
    }
    if (!c->pcb)
        return;
    if (c->acknowledged != c->pcb->lastack || (!c->pcb->unacked && !c->pcb->unsent)) {
        c->acknowledged = c->pcb->lastack;
        c->acknowledged_mono_ns = now;
    } else if (now - c->acknowledged_mono_ns > UNACKNOWLEDGED_NS) {
        give_up(c);
    }
}

static void tick(uint64_t now) {
    dpb_lwip_stack.ticked_mono_ns = now;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
        if (pcb->rto < LEAST_RTO)
            pcb->rto = LEAST_RTO;
        /* A peer that acknowledges bytes which went back to be sent again leaves the timer of a
         * closed window running without anything to send: lwIP would abort() the process. */
        if (pcb->persist_backoff && (!pcb->unsent || pcb->unacked))
            pcb->persist_backoff = pcb->persist_cnt = 0;
    }
    tcp_tmr();
    /* After a loss lwIP sends one segment of today's size at once, and so never one that was made
     * for a larger MTU. */
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
        if (pcb->unsent && pcb->cwnd < pcb->unsent->len) {
            pcb->cwnd = pcb->unsent->len;
            tcp_output(pcb);
        }
}

void dpb_lwip_pass_time(struct dpb_stream_lwip *e) {
    uint64_t now = mono_ns();
    if (now - dpb_lwip_stack.ticked_mono_ns >= TICK_NS)
        tick(now); /* for all endpoints; each watches over its own */
    if (now - e->watched_mono_ns < TICK_NS)
        return;
    /* Time in which nobody turned us says nothing about a peer. */
    uint64_t away = now - e->watched_mono_ns;
    e->watched_mono_ns = now;
    for (struct entry *c = e->live; c; c = c->next) {
        if (away > SECOND_NS)
            c->acknowledged_mono_ns = now;
        watch(c, now);
    }
}
