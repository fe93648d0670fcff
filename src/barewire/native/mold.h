/* MoldUDP64 1.00 (NASDAQ): the receiving side, many copies of one sequence made into one.
 *
 * A site fans its transactions out over multicast because one publisher then serves any number of
 * machines at the cost of one packet, and twice, over lines A and B, because multicast loses
 * packets. What a receiver is for is therefore: take the first copy of each message, whichever line
 * brings it, ignore the others, know at any moment what is missing, and ask for it.
 *
 * Messages are handed out *in the order of arrival*, each sequence number exactly once. Nothing
 * waits behind a gap: a pending transaction is worth most in its first microseconds and its meaning
 * does not depend on its neighbours (docs/decisions/0003-arrival-order.md). What is known about
 * order is kept beside the path: a watermark, below which every number was delivered or given up,
 * and the gaps between it and the highest number heard of.
 *
 *      delivered or lost      |     window: a bit a number, a gap record a hole    |   not yet sent
 *      -----------------------+---------------------------------------------------+--------------
 *                         watermark                                               next
 *
 * While nothing is missing the two are equal and the bitmap is not touched at all.
 *
 * A *gap* opens when a number beyond `next` is heard of (by data, heartbeat or end of session). It
 * closes when all of it has arrived (reordered on the line that showed it, by the other line, by
 * retransmission) or when it is given up. Asking for it starts after a grace, in which the
 * other line mostly has brought it; is repeated with doubling pauses; and ends when nothing came
 * for `give_up_ns`. Nothing waits for a gap, so patience costs only a table entry.
 *
 * Nothing authenticates a datagram, and publishers die and begin anew. So there is the *current
 * stream* (a session and where its numbers are), and one *candidate*: what would be current if it
 * were believed. A datagram of another session, or of the current one beyond the window, is refused
 * and is a vote for the candidate it agrees with; a sign of life of the current stream (a datagram
 * at or above the watermark) takes all votes away. Eight put the candidate in its place, two while
 * the current stream has itself given fewer than eight signs of life (it is *unconfirmed*), one
 * after its end or a silence. What passed meanwhile is missing, and is asked for. An unconfirmed
 * stream delivers, but loses nothing: what it gives up is counted apart until it is confirmed, and
 * as displaced when another takes its place. Numbers that go back under the same session name are
 * followed only after a silence, for a late line looks the same.
 *
 * Sans-I/O: datagrams and a clock reading in, messages and request packets out. Memory is taken
 * once, in bw_mold_new(). Any bytes may be handed in: what is wrong is counted by cause and the last
 * of each cause is kept. No input makes a call take longer than the window's bitmap (32 KiB by
 * default) takes to clear. One thread at a time.
 *
 * Wire format (all big-endian): session[10] sequence[8] count[2], then count times length[2] and
 * that many bytes. count 0 is a heartbeat, 0xffff the end of the session; both carry the next number
 * to be sent. A request is the same 20 bytes with the first number wanted and how many. */
#ifndef BAREWIRE_MOLD_H
#define BAREWIRE_MOLD_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_MOLD_HEADER_BYTES 20
#define BW_MOLD_SESSION_BYTES 10
#define BW_MOLD_END_OF_SESSION 0xffff
#define BW_MOLD_LINES 8            /* lines are numbered 0..7 */
#define BW_MOLD_RETRANSMISSION 8   /* the "line" on which the retransmission server answers */
#define BW_MOLD_SAMPLE_BYTES 128

/* Why a datagram was not accepted, or was odd. */
enum bw_mold_cause {
    BW_MOLD_OK = 0,
    BW_MOLD_SHORT = 1,      /* fewer than 20 bytes */
    BW_MOLD_SESSION = 2,    /* of a session that is not the current one (yet) */
    BW_MOLD_SEQUENCE = 3,   /* number 0, or numbers that pass 2^64 */
    BW_MOLD_TRUNCATED = 4,  /* its blocks end beyond its bytes; nothing of it is delivered */
    BW_MOLD_TRAILING = 5,   /* bytes after its last block; its messages are delivered */
    BW_MOLD_JUMP = 6,       /* too far from where the sequence is, and not believed (yet) */
    BW_MOLD_LINE = 7,       /* the caller named a line that is not configured */
    BW_MOLD_CAUSES = 8,
};

enum bw_mold_state {
    BW_MOLD_WAITING = 0, /* no session yet */
    BW_MOLD_ACTIVE = 1,
    BW_MOLD_ENDED = 2,   /* end of session heard; gaps are still being filled; a new session, if
                          * none is configured, is taken at once */
};

struct bw_mold_config {
    uint8_t session[10];     /* take only this session; all zero: the first heard, then the next
                              * (after its end, after `silence_ns` without it, or by votes) */
    uint16_t lines;          /* 1..BW_MOLD_LINES */
    uint32_t window;         /* numbers between watermark and next at most; a power of two, 128.. */
    uint64_t start;          /* first number wanted; 0: whatever is heard first. Of a session that
                              * follows a confirmed one all are wanted from 1 on, where the window
                              * holds them */
    uint32_t ask;            /* 1: a retransmission server exists; 0: gaps can only wait */
    uint32_t reserved;
    uint64_t grace_ns;       /* from opening a gap to the first request */
    uint64_t retry_ns;       /* to the second request; doubled for each further, 32-fold at most */
    uint64_t give_up_ns;     /* a gap is lost when nothing of it came for so long */
    uint64_t silence_ns;     /* a session not heard for so long is replaced at once, and a publisher
                              * that went back (restarted under its old name) followed */
};

/* One message, borrowed from the datagram that brought it. */
struct bw_mold_message {
    const uint8_t *data;
    uint64_t sequence;
    uint32_t len;
    uint32_t line;           /* which line was first, or BW_MOLD_RETRANSMISSION */
    uint64_t missed_mono_ns; /* when it was found missing; 0: it came in its place */
};

/* One request packet, ready to be sent to the retransmission server. */
struct bw_mold_request {
    uint64_t sequence;
    uint16_t count;
    uint16_t attempt;        /* 1 for the first */
    uint8_t packet[20];
};

/* A hole in the sequence. It may span numbers that did arrive (holes that could not have an entry
 * each share one), so `missing` counts, not end - first. */
struct bw_mold_gap {
    uint64_t first;          /* first number of it */
    uint64_t end;            /* one past its last number */
    uint64_t opened_mono_ns;
    uint64_t closed_mono_ns; /* 0 while open */
    uint64_t missing;        /* how many had not come when it opened (or its entry grew) */
    uint64_t reordered;      /* of these, came late on the line that showed the gap, */
    uint64_t other_line;     /*   by another line, */
    uint64_t retransmitted;  /*   by retransmission, */
    uint64_t lost;           /*   or were given up; all four sum to `missing` when closed */
    uint16_t attempts;       /* rounds of requests */
    uint16_t line;           /* which line showed it */
    uint32_t reserved;
};

struct bw_mold_line_stats {
    uint64_t datagrams;      /* accepted: data, heartbeats and ends of session */
    uint64_t heartbeats;
    uint64_t messages;       /* in accepted datagrams */
    uint64_t first;          /* delivered: this line brought them first */
    uint64_t duplicate;      /* had been delivered or given up before */
    uint64_t next_sequence;  /* one past the highest number heard on it; how far the line is behind
                              * is the receiver's next_sequence less this */
    uint64_t last_mono_ns;   /* when it was heard last */
    uint64_t refused;        /* datagrams not accepted, of any cause */
};

struct bw_mold_sample {
    uint64_t at_mono_ns;
    uint32_t len;            /* of the datagram; as many of its bytes as fit are kept */
    uint32_t line;
    uint8_t bytes[128];
};

struct bw_mold_stats {
    uint32_t state;          /* enum bw_mold_state */
    uint32_t gaps_open;
    uint8_t session[10];     /* current session, zero while waiting */
    uint8_t reserved[6];
    uint64_t watermark;      /* every number below was delivered or given up */
    uint64_t next_sequence;  /* one past the highest number heard of */
    uint64_t delivered;
    uint64_t missing;        /* now. delivered + lost + unconfirmed + missing + displaced are the
                              * numbers heard of, all streams together */
    uint64_t lost;           /* given up, of confirmed streams; stays at 2^64-1 */
    uint64_t unconfirmed;    /* now: given up, of a stream that is not confirmed yet */
    uint64_t displaced;      /* missing or given up when their stream, never confirmed, was replaced;
                              * stays at 2^64-1 */
    uint64_t displacements;  /* streams replaced so */
    uint64_t reordered;      /* recovered on the same line, */
    uint64_t other_line;     /*   by another line, */
    uint64_t retransmitted;  /*   by retransmission */
    uint64_t gaps;           /* opened so far */
    uint64_t gap_age_max_ns; /* of those recovered in full */
    uint64_t requests;       /* request packets handed out */
    uint64_t sessions;       /* taken so far */
    uint64_t resyncs;        /* jumps followed within a session */
    uint64_t overflowed;     /* of `lost`: numbers pushed out of the window */
    uint64_t reports_dropped;/* closed gaps that nobody fetched in time */
    uint64_t refused[8];     /* by enum bw_mold_cause; TRAILING counts but is accepted */
    struct bw_mold_line_stats line[9];   /* [BW_MOLD_RETRANSMISSION] is the server's answers */
    struct bw_mold_sample sample[8];     /* the last of each cause */
};

struct bw_mold;

/* Fills `config` with the defaults: two lines, any session from what is heard first, a window of
 * 262144 numbers, grace 200 us, retry 2 ms, give up 3 s, silence 3 s, asking. */
void bw_mold_defaults(struct bw_mold_config *config);

/* NULL: no memory, or a value out of range. `config` is copied. */
struct bw_mold *bw_mold_new(const struct bw_mold_config *config);
void bw_mold_free(struct bw_mold *m);

/* Takes one datagram that came on `line` at `now_mono_ns` (never less than before) and writes the
 * messages in it that are new to out[0..max), max > 0. Returns how many (0: heartbeat, or all
 * duplicates), or a negative enum bw_mold_cause: refused and counted. When it returns `max` there
 * may be more: call bw_mold_more() until it returns less. What is not fetched is not delivered and
 * stays missing. Messages point into the datagram. */
int bw_mold_receive(struct bw_mold *m, uint32_t line, const uint8_t *datagram, size_t len,
                    uint64_t now_mono_ns, struct bw_mold_message *out, int max);

/* Goes on with the datagram of the last bw_mold_receive(), which must still be there. */
int bw_mold_more(struct bw_mold *m, struct bw_mold_message *out, int max);

/* Writes the requests that are due to out[0..max) and gives up what is too old; returns how many
 * were written (max: call again). Costs a comparison while nothing is due: call it every turn. */
int bw_mold_requests(struct bw_mold *m, uint64_t now_mono_ns, struct bw_mold_request *out, int max);

/* When bw_mold_requests() next has something to do; UINT64_MAX: not before another datagram. */
uint64_t bw_mold_due_mono_ns(const struct bw_mold *m);

/* Moves up to `max` reports of closed gaps, oldest first, to out; returns how many. The last 256
 * are kept. */
int bw_mold_closed_gaps(struct bw_mold *m, struct bw_mold_gap *out, int max);

/* Copies up to `max` open gaps, lowest numbers first; returns how many. */
int bw_mold_open_gaps(const struct bw_mold *m, struct bw_mold_gap *out, int max);

/* The counters, updated in place; valid as long as `m`. */
const struct bw_mold_stats *bw_mold_stats(const struct bw_mold *m);
/* </cdef> */

#endif
