#include "mold.h"

#include <stdlib.h>
#include <string.h>

#define GAPS 256    /* open at once; more share the youngest entry */
#define REPORTS 256 /* a power of two */
#define REQUEST_MAX 0xfffe /* numbers asked for at once; 0xffff has a meaning of its own */
#define WORD 64
#define BACK_OFF_MAX 5 /* 2^5: pauses grow 32-fold at most */
#define WINDOW_MAX (1u << 26)

/* Signs of life that confirm a stream, and in a row that put another in the place of a confirmed
 * one. Stray and corrupt datagrams come alone, or as two copies; a spoofer has to get so many
 * between two of the publisher's. A restart waits for four messages on two lines, and those are
 * asked for. */
#define CONFIRMED 8
/* The same, while the current stream is no better founded, or has fallen silent. */
#define AGREEING 2
/* A jump that pushes awaited numbers out of the window is believed at once up to a part of it: the
 * next loss when the window is full, but not a stepping stone. */
#define NEAR_PART 64

/* What only gaps or refusals need stays out of line: inlined, it costs every datagram registers. */
#define APART __attribute__((noinline))
#define COLD __attribute__((noinline, cold))

struct gap {
    struct bw_mold_gap g;
    uint64_t progress_mono_ns; /* when it was opened, or something of it came last */
    uint64_t due_mono_ns;      /* of the next request */
    uint64_t cursor;           /* a round of requests goes on here; 0: between rounds */
};

/* What would be the current stream if it were believed. */
struct candidate {
    uint8_t session[BW_MOLD_SESSION_BYTES];
    uint64_t first, next; /* lowest number heard of it, and one past the highest */
    uint32_t streak;      /* datagrams for it, less those for others; 0: there is none */
};

struct bw_mold {
    struct bw_mold_stats s;
    struct bw_mold_config config;
    int fixed; /* the configured session and no other */

    uint64_t now;   /* latest reading handed in: line A's stamp may lie before line B's */
    uint64_t heard; /* when the current stream last gave a sign of life */
    uint64_t due;

    uint32_t own;        /* signs of life of the current stream, up to CONFIRMED */
    uint32_t successor;  /* one was confirmed before: those that follow began while we listened */
    uint64_t overflowed; /* of s.unconfirmed */
    uint64_t landed;     /* where the current stream was heard first */
    struct candidate candidate;

    /* The last confirmed stream before the current one (the first one heard, if none was). */
    uint8_t previous[BW_MOLD_SESSION_BYTES];
    uint64_t previous_next; /* 0: there was none */
    uint32_t previous_own;

    /* The datagram being handed out. */
    const uint8_t *at;
    uint64_t sequence;
    uint32_t left;
    uint32_t line;

    uint64_t span; /* next - watermark never exceeds it: a word less than the bitmap holds */
    uint64_t word_mask;
    uint64_t *bits; /* of numbers in [watermark, next) only; from next to the end of its word, 0 */

    struct gap gap[GAPS]; /* s.gaps_open of them, ascending and disjoint */
    struct bw_mold_gap report[REPORTS];
    uint64_t reports, fetched;
};

static inline uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint64_t be64(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

static inline uint64_t max64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Stays at the end: sequence numbers of garbage add up to more than there are. */
static void add(uint64_t *sum, uint64_t x) { *sum = x > UINT64_MAX - *sum ? UINT64_MAX : *sum + x; }

/* ---- the bitmap ---- */

static inline uint64_t *word_of(const struct bw_mold *m, uint64_t n) {
    return &m->bits[(n / WORD) & m->word_mask];
}

static inline int seen(const struct bw_mold *m, uint64_t n) {
    return *word_of(m, n) >> (n % WORD) & 1;
}

static inline void see(struct bw_mold *m, uint64_t n) { *word_of(m, n) |= 1ull << (n % WORD); }

/* The bits of n's word that belong to [n, end). */
static inline uint64_t part(uint64_t n, uint64_t end) {
    uint64_t low = n % WORD, count = min64(WORD - low, end - n);
    return (count == WORD ? ~0ull : (1ull << count) - 1) << low;
}

/* First number in [n, end) whose bit is `value`, or end. */
static uint64_t find(const struct bw_mold *m, uint64_t n, uint64_t end, int value) {
    while (n < end) {
        uint64_t bits = (value ? *word_of(m, n) : ~*word_of(m, n)) & part(n, end);
        if (bits) return n - n % WORD + (uint64_t)__builtin_ctzll(bits);
        if (end - n <= WORD - n % WORD) break;
        n += WORD - n % WORD;
    }
    return end;
}

/* Marks [n, end) as no longer awaited; returns how many of it were. */
static uint64_t write_off(struct bw_mold *m, uint64_t n, uint64_t end) {
    uint64_t count = 0;
    while (n < end) {
        uint64_t *word = word_of(m, n), bits = part(n, end), step = WORD - n % WORD;
        count += (uint64_t)__builtin_popcountll(~*word & bits);
        *word |= bits;
        if (end - n <= step) break;
        n += step;
    }
    return count;
}

/* ---- gaps ---- */

static uint64_t remaining(const struct bw_mold_gap *g) {
    return g->missing - g->reordered - g->other_line - g->retransmitted - g->lost;
}

static void close_gap(struct bw_mold *m, uint32_t i) {
    struct bw_mold_gap *g = &m->gap[i].g;
    g->closed_mono_ns = m->now;
    if (!g->lost) m->s.gap_age_max_ns = max64(m->s.gap_age_max_ns, m->now - g->opened_mono_ns);
    if (m->reports - m->fetched == REPORTS) {
        m->fetched++;
        m->s.reports_dropped++;
    }
    m->report[m->reports++ % REPORTS] = *g;
    m->s.gaps_open--;
    memmove(&m->gap[i], &m->gap[i + 1], (m->s.gaps_open - i) * sizeof m->gap[0]);
}

/* Moves the watermark up to the first number that is missing. */
static void settle(struct bw_mold *m) {
    const struct bw_mold_gap *g = &m->gap[0].g;
    if (!m->s.gaps_open)
        m->s.watermark = m->s.next_sequence;
    else
        m->s.watermark = find(m, max64(m->s.watermark, g->first), g->end, 0);
}

/* What a stream that is not confirmed has lost is not counted as lost yet. */
static void count_lost(struct bw_mold *m, uint64_t count) {
    add(m->own < CONFIRMED ? &m->s.unconfirmed : &m->s.lost, count);
}

static void count_overflowed(struct bw_mold *m, uint64_t count) {
    add(m->own < CONFIRMED ? &m->overflowed : &m->s.overflowed, count);
}

static uint64_t lose(struct bw_mold *m, struct bw_mold_gap *g, uint64_t end) {
    uint64_t count = write_off(m, max64(g->first, m->s.watermark), end);
    g->lost += count;
    m->s.missing -= count;
    count_lost(m, count);
    return count;
}

/* Nothing below `end` is awaited any more; returns how many were. */
COLD static uint64_t give_up_below(struct bw_mold *m, uint64_t end) {
    uint64_t lost = 0;
    while (m->s.gaps_open && m->gap[0].g.first < end) {
        struct bw_mold_gap *g = &m->gap[0].g;
        lost += lose(m, g, min64(end, g->end));
        if (remaining(g)) break;
        close_gap(m, 0);
    }
    m->s.watermark = max64(m->s.watermark, end);
    settle(m);
    return lost;
}

/* Makes `next` the next number, everything between it and the old one missing. */
APART static void open_gap(struct bw_mold *m, uint64_t next, uint32_t line) {
    uint64_t first = m->s.next_sequence;
    if (next - m->s.watermark > m->span) {
        count_overflowed(m, give_up_below(m, min64(first, next - m->span)));
        if (next - first > m->span) { /* not even the new gap fits */
            count_lost(m, next - m->span - first);
            count_overflowed(m, next - m->span - first);
            first = m->s.watermark = m->s.next_sequence = next - m->span;
        }
    }
    if (m->s.watermark == first) *word_of(m, first) = 0; /* the bitmap was not in use */
    for (uint64_t n = first - first % WORD + WORD; n <= next && n > first; n += WORD)
        *word_of(m, n) = 0;
    m->s.next_sequence = next;
    m->s.missing += next - first;
    m->s.gaps++;
    if (m->s.gaps_open == GAPS) {
        struct bw_mold_gap *g = &m->gap[GAPS - 1].g;
        g->end = next;
        g->missing += next - first;
        return;
    }
    struct gap *g = &m->gap[m->s.gaps_open++];
    *g = (struct gap){
        .g = {.first = first,
              .end = next,
              .opened_mono_ns = m->now,
              .missing = next - first,
              .line = (uint16_t)line},
        .progress_mono_ns = m->now,
        .due_mono_ns = m->now + m->config.grace_ns,
    };
    m->due = min64(m->due, min64(m->config.ask ? g->due_mono_ns : UINT64_MAX,
                                 m->now + m->config.give_up_ns));
}

/* `n`, which was missing, has come; gives the time when its gap opened. */
APART static uint64_t fill(struct bw_mold *m, uint64_t n, uint32_t line) {
    uint32_t low = 0, high = m->s.gaps_open; /* the last gap that starts at or before n */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (m->gap[middle].g.first <= n)
            low = middle;
        else
            high = middle;
    }
    struct gap *gap = &m->gap[low];
    const uint64_t missed = gap->g.opened_mono_ns;
    see(m, n);
    m->s.missing--;
    gap->progress_mono_ns = m->now;
    if (line == BW_MOLD_RETRANSMISSION) {
        gap->g.retransmitted++;
        m->s.retransmitted++;
        /* The server is at it: wait for the rest before asking again. */
        gap->due_mono_ns = max64(gap->due_mono_ns, m->now + m->config.retry_ns);
        gap->g.attempts = gap->g.attempts ? 1 : 0;
    } else if (line == gap->g.line) {
        gap->g.reordered++;
        m->s.reordered++;
    } else {
        gap->g.other_line++;
        m->s.other_line++;
    }
    if (!remaining(&gap->g)) close_gap(m, low);
    if (n == m->s.watermark) settle(m);
    return missed;
}

/* ---- datagrams ---- */

COLD static int refuse(struct bw_mold *m, enum bw_mold_cause cause, uint32_t line,
                       const uint8_t *data, size_t len) {
    struct bw_mold_sample *sample = &m->s.sample[cause];
    sample->at_mono_ns = m->now;
    sample->len = (uint32_t)len;
    sample->line = line;
    if (len) memcpy(sample->bytes, data, min64(len, BW_MOLD_SAMPLE_BYTES));
    m->s.refused[cause]++;
    if (line <= BW_MOLD_RETRANSMISSION && cause != BW_MOLD_TRAILING) m->s.line[line].refused++;
    return -(int)cause;
}

/* ---- streams ---- */

static int same_session(const uint8_t *a, const uint8_t *b) {
    return !memcmp(a, b, BW_MOLD_SESSION_BYTES);
}

static int is_previous(const struct bw_mold *m, const uint8_t *session) {
    return m->previous_next && same_session(session, m->previous);
}

static int silent(const struct bw_mold *m) { return m->now - m->heard >= m->config.silence_ns; }

static void confirm(struct bw_mold *m) {
    if (++m->own < CONFIRMED) return;
    m->successor = 1;
    add(&m->s.lost, m->s.unconfirmed);
    add(&m->s.overflowed, m->overflowed);
    m->s.unconfirmed = m->overflowed = 0;
}

/* Of the current session: too far ahead to be believed alone. */
static int far_ahead(const struct bw_mold *m, uint64_t sequence) {
    return sequence - m->s.watermark > m->span &&
           sequence - m->s.next_sequence > m->span / NEAR_PART;
}

/* Of the current session, and behind the watermark: more than a line that is late. That is what
 * follows a silence; where a jump was believed, what goes on from before it; and where the stream
 * is as young as this, what is farther from its beginning than any line is late. */
static int far_behind(const struct bw_mold *m, uint64_t sequence, uint64_t next) {
    if (silent(m)) return 1;
    if (sequence >= m->landed || m->landed - sequence <= m->span) return 0;
    return is_previous(m, m->s.session) ? next >= m->previous_next : m->own < CONFIRMED;
}

/* How many datagrams in a row it takes to believe one that does not belong to the current stream;
 * 0: no number of them. */
static uint32_t needed(const struct bw_mold *m, enum bw_mold_cause cause, const uint8_t *session,
                       uint64_t next, int ends) {
    uint32_t many = m->own < CONFIRMED ? AGREEING : CONFIRMED;
    if (cause == BW_MOLD_JUMP) return silent(m) ? AGREEING : many;
    if (m->fixed && !same_session(session, m->config.session)) return 0;
    if (m->s.state == BW_MOLD_WAITING || silent(m)) return 1;
    /* A late line tells of the session that was; its end is told for long. */
    if (is_previous(m, session)) return next < m->previous_next || ends ? 0 : many;
    if (m->s.state == BW_MOLD_ENDED) return 1;
    return ends ? 0 : many;
}

/* Votes for a candidate: 1 when it has as many as are needed. One that disagrees takes a vote away,
 * so that noise delays a publisher that began anew, but does not hold it up. */
static int vote(struct bw_mold *m, const uint8_t *session, uint64_t sequence, uint64_t next,
                uint32_t need) {
    struct candidate *c = &m->candidate;
    int agrees = c->streak && same_session(session, c->session) &&
                 (sequence < c->first ? c->first - sequence <= m->span
                                      : sequence <= c->next || sequence - c->next <= m->span);
    if (!agrees && c->streak > 1 && need > 1) {
        c->streak--;
        return 0;
    }
    if (!agrees) {
        *c = (struct candidate){.first = sequence, .next = next};
        memcpy(c->session, session, BW_MOLD_SESSION_BYTES);
    }
    c->first = min64(c->first, sequence);
    c->next = max64(c->next, next);
    return ++c->streak >= need;
}

static void remember(struct bw_mold *m) {
    memcpy(m->previous, m->s.session, BW_MOLD_SESSION_BYTES);
    m->previous_next = m->s.next_sequence;
    m->previous_own = m->own;
}

/* Leaves the current stream. What a confirmed one misses is lost; what one misses that was perhaps
 * never there is not. */
static void leave(struct bw_mold *m) {
    if (m->own >= CONFIRMED || !m->previous_next) remember(m);
    if (m->own >= CONFIRMED) {
        give_up_below(m, m->s.next_sequence);
        return;
    }
    add(&m->s.displaced, m->s.missing);
    add(&m->s.displaced, m->s.unconfirmed);
    m->s.displacements++;
    m->s.missing = m->s.unconfirmed = m->overflowed = 0;
    m->s.gaps_open = 0;
}

/* Makes the candidate the current stream. `sequence` is of the datagram that decided it. */
static void follow(struct bw_mold *m, uint64_t sequence) {
    struct candidate c = m->candidate;
    int same = m->s.state != BW_MOLD_WAITING && same_session(c.session, m->s.session);
    *(same ? &m->s.resyncs : &m->s.sessions) += 1;
    m->candidate.streak = 0;
    m->landed = sequence;
    uint64_t start;
    uint32_t own = c.streak - 1; /* the last one has yet to be counted */
    int resumed = is_previous(m, c.session) && c.next >= m->previous_next &&
                  (c.first <= m->previous_next || c.first - m->previous_next <= m->span);
    if (resumed) { /* it had never gone */
        start = m->previous_next;
        own = m->previous_own > own ? m->previous_own : own;
    } else if (m->successor || (m->s.state != BW_MOLD_WAITING && silent(m))) {
        start = c.first <= m->span ? 1 : c.first; /* we were there when it began, or it is old */
    } else {
        start = m->config.start ? m->config.start : c.first;
    }
    if (same && sequence > m->s.next_sequence &&
        (m->own >= CONFIRMED || start < m->s.next_sequence)) {
        /* The same numbers go on, and what lies between is missing. To begin again below what was
         * handed out would hand it out twice. */
        if (m->own >= CONFIRMED || !m->previous_next) remember(m);
        m->own = c.streak - 1;
        return;
    }
    int anew = same && !resumed && c.first < m->s.next_sequence;
    if (m->s.state != BW_MOLD_WAITING) leave(m);
    if (anew) m->previous_next = 0; /* under the old name, which tells nothing any more */
    m->own = own;
    m->heard = m->now;
    memcpy(m->s.session, c.session, BW_MOLD_SESSION_BYTES);
    m->s.state = BW_MOLD_ACTIVE;
    m->s.watermark = m->s.next_sequence = start;
    for (uint32_t line = 0; line <= BW_MOLD_RETRANSMISSION; line++)
        m->s.line[line].next_sequence = start;
}

/* A datagram that does not belong to the current stream: 1 if it does now. */
COLD static int consider(struct bw_mold *m, enum bw_mold_cause cause, const uint8_t *datagram,
                         uint64_t next, int ends) {
    uint64_t sequence = be64(datagram + 10);
    uint32_t need = needed(m, cause, datagram, next, ends);
    if (!need || !vote(m, datagram, sequence, next, need)) return 0;
    follow(m, sequence);
    return 1;
}

int bw_mold_receive(struct bw_mold *m, uint32_t line, const uint8_t *datagram, size_t len,
                    uint64_t now_mono_ns, struct bw_mold_message *out, int max) {
    m->now = max64(m->now, now_mono_ns);
    m->left = 0;
    if (line >= m->config.lines && line != BW_MOLD_RETRANSMISSION)
        return refuse(m, BW_MOLD_LINE, UINT32_MAX, datagram, len);
    if (len < BW_MOLD_HEADER_BYTES) return refuse(m, BW_MOLD_SHORT, line, datagram, len);

    uint64_t sequence = be64(datagram + 10);
    uint32_t count = be16(datagram + 18), messages = count;
    int answer = line == BW_MOLD_RETRANSMISSION;
    if (count == BW_MOLD_END_OF_SESSION) messages = 0;
    if (!sequence || messages > UINT64_MAX - sequence)
        return refuse(m, BW_MOLD_SEQUENCE, line, datagram, len);
    size_t end = BW_MOLD_HEADER_BYTES;
    for (uint32_t i = 0; i < messages; i++) {
        if (len - end < 2 || len - end - 2 < be16(datagram + end))
            return refuse(m, BW_MOLD_TRUNCATED, line, datagram, len);
        end += 2 + (size_t)be16(datagram + end);
    }

    uint64_t next = sequence + messages;
    enum bw_mold_cause cause = BW_MOLD_OK;
    if (m->s.state == BW_MOLD_WAITING || !same_session(datagram, m->s.session))
        cause = BW_MOLD_SESSION;
    else if (sequence > m->s.next_sequence ? far_ahead(m, sequence)
                                           : next < m->s.watermark && !answer &&
                                                 far_behind(m, sequence, next))
        cause = BW_MOLD_JUMP;
    if (cause && (answer || !consider(m, cause, datagram, next, count != messages)))
        return refuse(m, cause, line, datagram, len);
    if (end != len) refuse(m, BW_MOLD_TRAILING, line, datagram, len);

    struct bw_mold_line_stats *stats = &m->s.line[line];
    stats->datagrams++;
    stats->messages += messages;
    stats->last_mono_ns = now_mono_ns;
    stats->next_sequence = max64(stats->next_sequence, next);
    if (sequence > m->s.next_sequence) open_gap(m, sequence, line);
    if (next >= m->s.watermark && !answer) { /* a sign of life */
        m->heard = m->now;
        m->candidate.streak = 0;
        if (m->own < CONFIRMED) confirm(m);
    }
    if (!messages) {
        if (count)
            m->s.state = BW_MOLD_ENDED;
        else
            stats->heartbeats++;
        return 0;
    }
    if (next > m->s.next_sequence) m->s.state = BW_MOLD_ACTIVE;
    if (next <= m->s.watermark) { /* the other line's copy: half of all datagrams */
        stats->duplicate += messages;
        return 0;
    }
    m->at = datagram + BW_MOLD_HEADER_BYTES;
    m->sequence = sequence;
    m->left = messages;
    m->line = line;
    return bw_mold_more(m, out, max);
}

/* `n` is next_sequence, and here: 1. Otherwise whether it was missing, and is here now; *missed is
 * then since when. */
static inline int arrive(struct bw_mold *m, uint64_t n, uint32_t line, uint64_t *missed) {
    *missed = 0;
    if (n == m->s.next_sequence) {
        if (n == m->s.watermark) { /* nothing is missing */
            m->s.watermark = m->s.next_sequence = n + 1;
            return 1;
        }
        if (n - m->s.watermark >= m->span) {
            count_overflowed(m, give_up_below(m, n + 1 - m->span));
            return arrive(m, n, line, missed);
        }
        see(m, n);
        m->s.next_sequence = n + 1;
        if ((n + 1) % WORD == 0) *word_of(m, n + 1) = 0;
        return 1;
    }
    if (n < m->s.watermark || seen(m, n)) return 0;
    *missed = fill(m, n, line);
    return 1;
}

int bw_mold_more(struct bw_mold *m, struct bw_mold_message *out, int max) {
    int n = 0;
    uint32_t taken = 0;
    while (taken < m->left && n < max) {
        uint32_t len = be16(m->at);
        if (arrive(m, m->sequence, m->line, &out[n].missed_mono_ns)) {
            out[n].data = m->at + 2;
            out[n].sequence = m->sequence;
            out[n].len = len;
            out[n].line = m->line;
            n++;
        }
        m->at += 2 + len;
        m->sequence++;
        taken++;
    }
    m->left -= taken;
    m->s.delivered += (uint64_t)n;
    m->s.line[m->line].first += (uint64_t)n;
    m->s.line[m->line].duplicate += taken - (uint64_t)n;
    return n;
}

/* ---- requests ---- */

static void write_request(struct bw_mold *m, const struct gap *gap, uint64_t first, uint64_t end,
                          struct bw_mold_request *out) {
    out->sequence = first;
    out->count = (uint16_t)(end - first);
    out->attempt = (uint16_t)(gap->g.attempts + 1);
    memcpy(out->packet, m->s.session, BW_MOLD_SESSION_BYTES);
    uint64_t sequence = __builtin_bswap64(first);
    uint16_t count = __builtin_bswap16(out->count);
    memcpy(out->packet + 10, &sequence, 8);
    memcpy(out->packet + 18, &count, 2);
    m->s.requests++;
}

/* Asks for what of `gap` is missing; returns how many requests, `max` when there may be more. */
static int ask(struct bw_mold *m, struct gap *gap, struct bw_mold_request *out, int max) {
    uint64_t n = max64(max64(gap->g.first, m->s.watermark), gap->cursor);
    int written = 0;
    while ((n = find(m, n, gap->g.end, 0)) < gap->g.end) {
        if (written == max) {
            gap->cursor = n;
            return written;
        }
        uint64_t end = find(m, n, n + min64(gap->g.end - n, REQUEST_MAX), 1);
        write_request(m, gap, n, end, &out[written++]);
        n = end;
    }
    gap->cursor = 0;
    unsigned doublings = gap->g.attempts < BACK_OFF_MAX ? gap->g.attempts : BACK_OFF_MAX;
    if (gap->g.attempts < UINT16_MAX) gap->g.attempts++;
    gap->due_mono_ns = m->now + (m->config.retry_ns << doublings);
    return written;
}

int bw_mold_requests(struct bw_mold *m, uint64_t now_mono_ns, struct bw_mold_request *out,
                     int max) {
    if (now_mono_ns < m->due) return 0;
    m->now = max64(m->now, now_mono_ns);
    uint64_t due = UINT64_MAX;
    int n = 0;
    for (uint32_t i = 0; i < m->s.gaps_open;) {
        struct gap *gap = &m->gap[i];
        if (m->now - gap->progress_mono_ns >= m->config.give_up_ns) {
            lose(m, &gap->g, gap->g.end);
            close_gap(m, i);
            settle(m);
            continue;
        }
        if (m->config.ask) {
            if (m->now >= gap->due_mono_ns) n += ask(m, gap, out + n, max - n);
            due = min64(due, gap->cursor ? m->now : gap->due_mono_ns);
        }
        due = min64(due, gap->progress_mono_ns + m->config.give_up_ns);
        i++;
    }
    m->due = due;
    return n;
}

uint64_t bw_mold_due_mono_ns(const struct bw_mold *m) { return m->due; }

/* ---- the rest ---- */

int bw_mold_closed_gaps(struct bw_mold *m, struct bw_mold_gap *out, int max) {
    int n = 0;
    while (n < max && m->fetched < m->reports) out[n++] = m->report[m->fetched++ % REPORTS];
    return n;
}

int bw_mold_open_gaps(const struct bw_mold *m, struct bw_mold_gap *out, int max) {
    int n = 0;
    while (n < max && (uint32_t)n < m->s.gaps_open) {
        out[n] = m->gap[n].g;
        n++;
    }
    return n;
}

const struct bw_mold_stats *bw_mold_stats(const struct bw_mold *m) { return &m->s; }

void bw_mold_defaults(struct bw_mold_config *config) {
    *config = (struct bw_mold_config){
        .lines = 2,
        .window = 1u << 18,
        .ask = 1,
        .grace_ns = 200 * 1000,
        .retry_ns = 2 * 1000 * 1000,
        .give_up_ns = 3000ull * 1000 * 1000,
        .silence_ns = 3000ull * 1000 * 1000,
    };
}

struct bw_mold *bw_mold_new(const struct bw_mold_config *config) {
    static const uint8_t any[BW_MOLD_SESSION_BYTES];
    if (config->lines < 1 || config->lines > BW_MOLD_LINES) return NULL;
    if (config->window < 128 || config->window > WINDOW_MAX) return NULL;
    if (config->window & (config->window - 1)) return NULL;
    struct bw_mold *m = calloc(1, sizeof *m);
    uint64_t *bits = calloc(config->window / WORD, sizeof *bits);
    if (!m || !bits) {
        free(m);
        free(bits);
        return NULL;
    }
    m->bits = bits;
    m->config = *config;
    m->fixed = memcmp(config->session, any, sizeof any) != 0;
    m->span = config->window - WORD;
    m->word_mask = config->window / WORD - 1;
    m->due = UINT64_MAX;
    return m;
}

void bw_mold_free(struct bw_mold *m) {
    if (!m) return;
    free(m->bits);
    free(m);
}
