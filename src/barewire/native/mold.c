#include "mold.h"

#include <stdlib.h>
#include <string.h>

#define GAPS 256    /* open at once; more share the youngest entry */
#define REPORTS 256 /* a power of two */
#define REQUEST_MAX 0xfffe /* numbers asked for at once; 0xffff has a meaning of its own */
#define WORD 64
#define BACK_OFF_MAX 5 /* 2^5: pauses grow 32-fold at most */
#define WINDOW_MAX (1u << 26)

struct gap {
    struct bw_mold_gap g;
    uint64_t progress_mono_ns; /* opened, or last filled by retransmission */
    uint64_t due_mono_ns;      /* of the next request */
    uint64_t cursor;           /* a round of requests goes on here; 0: between rounds */
};

struct bw_mold {
    struct bw_mold_stats s;
    struct bw_mold_config config;
    int fixed; /* the configured session and no other */
    uint8_t previous[BW_MOLD_SESSION_BYTES];

    uint64_t now;   /* latest reading handed in: line A's stamp may lie before line B's */
    uint64_t heard; /* when a line last fitted the sequence */
    uint64_t due;

    uint64_t candidate; /* a jump to here wants confirming; 0: none */

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

static void lose(struct bw_mold *m, struct bw_mold_gap *g, uint64_t end) {
    uint64_t count = write_off(m, max64(g->first, m->s.watermark), end);
    g->lost += count;
    m->s.lost += count;
    m->s.missing -= count;
}

/* Nothing below `end` is awaited any more. */
static void give_up_below(struct bw_mold *m, uint64_t end) {
    while (m->s.gaps_open && m->gap[0].g.first < end) {
        struct bw_mold_gap *g = &m->gap[0].g;
        lose(m, g, min64(end, g->end));
        if (remaining(g)) break;
        close_gap(m, 0);
    }
    m->s.watermark = max64(m->s.watermark, end);
    settle(m);
}

/* Makes `next` the next number, everything between it and the old one missing. */
static void open_gap(struct bw_mold *m, uint64_t next, uint32_t line) {
    uint64_t first = m->s.next_sequence;
    if (next - m->s.watermark > m->span) {
        uint64_t lost = m->s.lost;
        give_up_below(m, min64(first, next - m->span));
        if (next - first > m->span) { /* not even the new gap fits */
            m->s.lost += next - m->span - first;
            first = m->s.watermark = m->s.next_sequence = next - m->span;
        }
        m->s.overflowed += m->s.lost - lost;
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

/* `n`, which was missing, has come. */
static void fill(struct bw_mold *m, uint64_t n, uint32_t line) {
    uint32_t low = 0, high = m->s.gaps_open; /* the last gap that starts at or before n */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (m->gap[middle].g.first <= n)
            low = middle;
        else
            high = middle;
    }
    struct gap *gap = &m->gap[low];
    see(m, n);
    m->s.missing--;
    if (line == BW_MOLD_RETRANSMISSION) {
        gap->g.retransmitted++;
        m->s.retransmitted++;
        /* The server is at it: wait for the rest before asking again. */
        gap->progress_mono_ns = m->now;
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
}

/* ---- datagrams ---- */

static int refuse(struct bw_mold *m, enum bw_mold_cause cause, uint32_t line, const uint8_t *data,
                  size_t len) {
    struct bw_mold_sample *sample = &m->s.sample[cause];
    sample->at_mono_ns = m->now;
    sample->len = (uint32_t)len;
    sample->line = line;
    if (len) memcpy(sample->bytes, data, min64(len, BW_MOLD_SAMPLE_BYTES));
    m->s.refused[cause]++;
    if (line <= BW_MOLD_RETRANSMISSION && cause != BW_MOLD_TRAILING) m->s.line[line].refused++;
    return -(int)cause;
}

static void begin(struct bw_mold *m, uint64_t sequence) {
    m->s.watermark = m->s.next_sequence = sequence;
    for (uint32_t line = 0; line <= BW_MOLD_RETRANSMISSION; line++)
        m->s.line[line].next_sequence = sequence;
    m->candidate = 0;
    m->heard = m->now;
}

/* A datagram of a session that is not the current one: 1 if that is now the current one. */
static int take_session(struct bw_mold *m, const uint8_t *session, uint64_t sequence,
                        uint32_t line) {
    if (line == BW_MOLD_RETRANSMISSION) return 0;
    uint64_t start = m->config.start ? m->config.start : sequence;
    if (m->s.state == BW_MOLD_WAITING) {
        if (m->fixed && memcmp(session, m->config.session, BW_MOLD_SESSION_BYTES)) return 0;
    } else {
        int silent = m->now - m->heard >= m->config.silence_ns;
        int ended = m->s.state == BW_MOLD_ENDED &&
                    memcmp(session, m->previous, BW_MOLD_SESSION_BYTES);
        if (m->fixed || (!ended && !silent)) return 0;
        /* We were there when it began: nothing of it is foreign to us. */
        if (ended || m->config.start) start = 1;
        memcpy(m->previous, m->s.session, BW_MOLD_SESSION_BYTES);
        give_up_below(m, m->s.next_sequence);
    }
    memcpy(m->s.session, session, BW_MOLD_SESSION_BYTES);
    m->s.state = BW_MOLD_ACTIVE;
    m->s.sessions++;
    begin(m, start);
    /* The first number heard is believed, however far from the start it is. */
    if (sequence > start) open_gap(m, sequence, line);
    return 1;
}

/* A datagram far ahead of the sequence, or behind it after a silence (a publisher that began anew
 * under its old name; without the silence it is a late line): 1 if it is followed. One alone may be
 * corrupt, and following it would make all that is real look old; so it takes two that agree. */
static int follow_jump(struct bw_mold *m, uint64_t sequence, int back) {
    int agrees = m->candidate && sequence >= m->candidate && sequence - m->candidate <= m->span;
    m->candidate = sequence;
    if (!agrees) return 0;
    if (back) {
        give_up_below(m, m->s.next_sequence);
        begin(m, sequence);
    }
    m->s.resyncs++;
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
    if (count == BW_MOLD_END_OF_SESSION) messages = 0;
    if (!sequence || messages > UINT64_MAX - sequence)
        return refuse(m, BW_MOLD_SEQUENCE, line, datagram, len);
    size_t end = BW_MOLD_HEADER_BYTES;
    for (uint32_t i = 0; i < messages; i++) {
        if (len - end < 2 || len - end - 2 < be16(datagram + end))
            return refuse(m, BW_MOLD_TRUNCATED, line, datagram, len);
        end += 2 + (size_t)be16(datagram + end);
    }

    if (m->s.state == BW_MOLD_WAITING ||
        memcmp(datagram, m->s.session, BW_MOLD_SESSION_BYTES)) {
        if (!take_session(m, datagram, sequence, line))
            return refuse(m, BW_MOLD_SESSION, line, datagram, len);
    }
    if (end != len) refuse(m, BW_MOLD_TRAILING, line, datagram, len);

    int fits = 1;
    if (sequence > m->s.next_sequence && sequence - m->s.next_sequence > m->span)
        fits = line != BW_MOLD_RETRANSMISSION && follow_jump(m, sequence, 0);
    else if (sequence + messages < m->s.watermark && line != BW_MOLD_RETRANSMISSION &&
             m->now - m->heard >= m->config.silence_ns)
        fits = follow_jump(m, sequence, 1);
    else
        m->candidate = 0;
    if (!fits) return refuse(m, BW_MOLD_JUMP, line, datagram, len);

    struct bw_mold_line_stats *stats = &m->s.line[line];
    stats->datagrams++;
    stats->messages += messages;
    stats->last_mono_ns = now_mono_ns;
    stats->next_sequence = max64(stats->next_sequence, sequence + messages);
    if (sequence > m->s.next_sequence) open_gap(m, sequence, line);
    if (sequence + messages >= m->s.watermark && line != BW_MOLD_RETRANSMISSION) m->heard = m->now;
    if (!messages) {
        if (count)
            m->s.state = BW_MOLD_ENDED;
        else
            stats->heartbeats++;
        return 0;
    }
    if (sequence + messages > m->s.next_sequence) m->s.state = BW_MOLD_ACTIVE;
    if (sequence + messages <= m->s.watermark) { /* the other line's copy: half of all datagrams */
        stats->duplicate += messages;
        return 0;
    }
    m->at = datagram + BW_MOLD_HEADER_BYTES;
    m->sequence = sequence;
    m->left = messages;
    m->line = line;
    return bw_mold_more(m, out, max);
}

/* `n` is next_sequence, and here: 1. Otherwise whether it was missing, and is here now. */
static inline int arrive(struct bw_mold *m, uint64_t n, uint32_t line) {
    if (n == m->s.next_sequence) {
        if (n == m->s.watermark) { /* nothing is missing */
            m->s.watermark = m->s.next_sequence = n + 1;
            return 1;
        }
        if (n - m->s.watermark >= m->span) {
            uint64_t lost = m->s.lost;
            give_up_below(m, n + 1 - m->span);
            m->s.overflowed += m->s.lost - lost;
            return arrive(m, n, line);
        }
        see(m, n);
        m->s.next_sequence = n + 1;
        if ((n + 1) % WORD == 0) *word_of(m, n + 1) = 0;
        return 1;
    }
    if (n < m->s.watermark || seen(m, n)) return 0;
    fill(m, n, line);
    return 1;
}

int bw_mold_more(struct bw_mold *m, struct bw_mold_message *out, int max) {
    int n = 0;
    uint32_t taken = 0;
    while (taken < m->left && n < max) {
        uint32_t len = be16(m->at);
        if (arrive(m, m->sequence, m->line)) {
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
