#include "shot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

#define CAPACITY_MAX (1u << 20)
#define RATE_MAX 65536u
#define SECOND_NS 1000000000ull
#define BLOB_GAS 131072u /* of one blob (EIP-4844, GAS_PER_BLOB) */
#define BLOB_ENTRY 33u   /* bytes of a versioned hash in its list */

enum { OPEN = 0, CLOSED = 1 };

struct shot {
    _Atomic uint32_t state; /* enum bw_shot_state */
    uint32_t room;          /* bytes allocated at spec.bytes */
    struct bw_shot_spec spec;
    uint8_t *bytes;
    _Atomic uint64_t asked;
    _Atomic uint64_t fired_mono_ns;
    _Atomic uint32_t last_outcome;
};

/* An event whose `stamp` is not 2 x (seq + 1) is being written, or is another one. */
struct kept_event {
    _Atomic uint64_t stamp;
    struct bw_shot_event event;
};

struct bw_shots {
    struct bw_shot_config config;
    struct shot *shots;
    _Atomic uint32_t *groups; /* OPEN or CLOSED */
    struct kept_event *events;
    _Atomic uint64_t next_event;
    _Atomic uint64_t counts[BW_SHOT_OUTCOMES];
    _Atomic uint64_t send_counts[BW_SHOT_OUTCOMES];
    uint64_t *left_at;        /* a ring of the last per_second times at which something left */
    uint64_t left;            /* shots and sends */
    uint64_t value_wei[4];    /* of all that left */
};

static bool less(const uint64_t a[4], const uint64_t b[4])
{
    for (int i = 3; i >= 0; i--)
        if (a[i] != b[i])
            return a[i] < b[i];
    return false;
}

/* a + b, or false where that is more than 256 bits. */
static bool add(uint64_t out[4], const uint64_t a[4], const uint64_t b[4])
{
    unsigned __int128 carry = 0;
    for (int i = 0; i < 4; i++) {
        carry += (unsigned __int128)a[i] + b[i];
        out[i] = (uint64_t)carry;
        carry >>= 64;
    }
    return !carry;
}

/* a x b, or 2^256 - 1 where that is more. */
static void multiply(uint64_t out[4], const uint64_t a[4], uint64_t b)
{
    unsigned __int128 carry = 0;
    for (int i = 0; i < 4; i++) {
        carry += (unsigned __int128)a[i] * b;
        out[i] = (uint64_t)carry;
        carry >>= 64;
    }
    if (carry)
        memset(out, 0xff, 4 * sizeof *out);
}

static void raise_to(uint64_t *to, const uint64_t *least)
{
    if (less(to, least))
        memcpy(to, least, 4 * sizeof *to);
}

void bw_spends(const uint8_t *bytes, uint32_t len, uint64_t *value_wei, uint64_t *max_fee_wei)
{
    /* Not those of a pool: what the shape says can be mined somewhere. */
    static const struct bw_rules ANY = {.chain_id = 0, .fork = BW_FORK_OSAKA, .pool = 0};
    struct bw_tx tx;
    if (bw_decode_one(bytes, len, &ANY, &tx) != BW_OK)
        return;
    uint64_t fee[4], blob_fee[4];
    multiply(fee, tx.fee_cap_wei, tx.gas);
    multiply(blob_fee, tx.blob_fee_cap_wei, (uint64_t)(tx.blobs_len / BLOB_ENTRY) * BLOB_GAS);
    if (!add(fee, fee, blob_fee))
        memset(fee, 0xff, sizeof fee);
    raise_to(value_wei, tx.value_wei);
    raise_to(max_fee_wei, fee);
}

struct bw_shots *bw_shots_new(const struct bw_shot_config *config)
{
    if (!config->capacity || config->capacity > CAPACITY_MAX || !config->halt ||
        !config->caps.per_second || config->caps.per_second > RATE_MAX ||
        (!config->journal && !config->unjournalled))
        return NULL;
    struct bw_shots *book = calloc(1, sizeof *book);
    if (!book)
        return NULL;
    book->config = *config;
    book->shots = calloc(config->capacity, sizeof *book->shots);
    book->groups = calloc(config->capacity, sizeof *book->groups);
    book->events = calloc(BW_SHOT_EVENTS, sizeof *book->events);
    book->left_at = calloc(config->caps.per_second, sizeof *book->left_at);
    if (!book->shots || !book->groups || !book->events || !book->left_at) {
        bw_shots_free(book);
        return NULL;
    }
    for (uint32_t i = 0; i < config->capacity; i++)
        book->shots[i].last_outcome = BW_SHOT_OUTCOMES;
    return book;
}

void bw_shots_free(struct bw_shots *book)
{
    if (!book)
        return;
    for (uint32_t i = 0; book->shots && i < book->config.capacity; i++)
        free(book->shots[i].bytes);
    free(book->shots);
    free(book->groups);
    free(book->events);
    free(book->left_at);
    free(book);
}

static bool closed(struct bw_shots *book, uint32_t group)
{
    return group != BW_NO_GROUP && atomic_load(&book->groups[group]) == CLOSED;
}

int bw_shots_arm(struct bw_shots *book, uint32_t number, const struct bw_shot_spec *spec)
{
    uint32_t capacity = book->config.capacity;
    if (number >= capacity || !spec->len || spec->len > BW_SHOT_BYTES || !spec->peer_count ||
        spec->peer_count > BW_SHOT_PEERS ||
        (spec->group != BW_NO_GROUP && spec->group >= capacity))
        return -EINVAL;
    struct bw_shot_spec armed = *spec;
    bw_spends(spec->bytes, spec->len, armed.value_wei, armed.max_fee_wei);
    if (less(book->config.caps.max_fee_wei, armed.max_fee_wei))
        return -E2BIG;
    for (uint32_t i = 0; i < spec->peer_count; i++)
        if (spec->peers[i] < 0)
            return -EINVAL;
    struct shot *shot = &book->shots[number];
    uint32_t state = atomic_load(&shot->state);
    if (state == BW_SHOT_STATE_ARMED || state == BW_SHOT_STATE_FIRING ||
        state == BW_SHOT_STATE_ARMING ||
        !atomic_compare_exchange_strong(&shot->state, &state, BW_SHOT_STATE_ARMING))
        return -EBUSY;
    if (closed(book, spec->group)) {
        atomic_store(&shot->state, state);
        return -EALREADY;
    }
    if (shot->room < spec->len) {
        uint8_t *bytes = realloc(shot->bytes, spec->len);
        if (!bytes) {
            atomic_store(&shot->state, state);
            return -ENOMEM;
        }
        shot->bytes = bytes;
        shot->room = spec->len;
    }
    memcpy(shot->bytes, spec->bytes, spec->len);
    shot->spec = armed;
    shot->spec.bytes = shot->bytes;
    atomic_store(&shot->asked, 0);
    atomic_store(&shot->fired_mono_ns, 0);
    atomic_store(&shot->last_outcome, BW_SHOT_OUTCOMES);
    atomic_store(&shot->state, BW_SHOT_STATE_ARMED);
    return 0;
}

int bw_shots_disarm(struct bw_shots *book, uint32_t number)
{
    if (number >= book->config.capacity)
        return -ENOENT;
    uint32_t state = BW_SHOT_STATE_ARMED;
    if (atomic_compare_exchange_strong(&book->shots[number].state, &state,
                                       BW_SHOT_STATE_DISARMED))
        return 0;
    return state == BW_SHOT_STATE_FIRING ? -EAGAIN : -ENOENT;
}

int bw_shots_reopen_group(struct bw_shots *book, uint32_t group)
{
    if (group >= book->config.capacity)
        return -EINVAL;
    for (uint32_t i = 0; i < book->config.capacity; i++) {
        uint32_t state = atomic_load(&book->shots[i].state);
        if (book->shots[i].spec.group == group &&
            (state == BW_SHOT_STATE_ARMED || state == BW_SHOT_STATE_FIRING))
            return -EBUSY;
    }
    atomic_store(&book->groups[group], OPEN);
    return 0;
}

static bool halted(const struct bw_shots *book)
{
    return __atomic_load_n(book->config.halt, __ATOMIC_ACQUIRE) != 0;
}

/* What the caps say of a shot or a send; BW_SHOT_FIRED: nothing. `value`: of all, with it. */
static enum bw_shot_outcome capped(const struct bw_shots *book, const struct bw_shot_spec *spec,
                                   uint64_t now, uint64_t value[4])
{
    const struct bw_shot_caps *caps = &book->config.caps;
    if (book->left >= caps->per_second) {
        uint64_t oldest = book->left_at[book->left % caps->per_second];
        if (now < oldest || now - oldest < SECOND_NS)
            return BW_SHOT_CAP_RATE;
    }
    if (book->left >= caps->total)
        return BW_SHOT_CAP_TOTAL;
    if (!add(value, book->value_wei, spec->value_wei) || less(caps->total_value_wei, value))
        return BW_SHOT_CAP_VALUE;
    if (less(caps->max_fee_wei, spec->max_fee_wei))
        return BW_SHOT_CAP_FEE;
    return BW_SHOT_FIRED;
}

/* What forbids the shot, other than its own state; BW_SHOT_FIRED: nothing does. */
static enum bw_shot_outcome forbidden(struct bw_shots *book, const struct bw_shot_spec *spec,
                                      const struct bw_tx *cause, int any_origin, uint64_t now,
                                      uint64_t value[4])
{
    if (halted(book))
        return BW_SHOT_HALTED;
    if (closed(book, spec->group))
        return BW_SHOT_GROUP;
    if (now >= spec->expires_mono_ns)
        return BW_SHOT_EXPIRED;
    if (cause->origin != BW_ORIGIN_ANNOUNCED && !any_origin)
        return BW_SHOT_NOT_ANNOUNCED;
    if (!(cause->flags & (BW_TX_TRUSTED | BW_TX_SENDER)))
        return BW_SHOT_UNTRUSTED;
    return capped(book, spec, now, value);
}

static bool put(const struct bw_shot_spec *spec, uint8_t *room, const struct dpb_datagram_ref *out)
{
    memcpy(room, spec->bytes, spec->len);
    if (out->ops->expires)
        out->ops->expires(out->endpoint, spec->expires_mono_ns);
    return out->ops->commit(out->endpoint, spec->len) >= 0;
}

/* Lets bytes leave that nothing forbids: room, group, journal, endpoint. Says in *spent whether they
 * count as sent, which they perhaps are after SEND_FAILED, and in *sent for how many peers. */
static enum bw_shot_outcome leave(struct bw_shots *book, uint32_t number,
                                  const struct bw_shot_spec *spec, const struct bw_tx *cause,
                                  uint64_t now, const struct dpb_datagram_ref *out,
                                  const uint64_t value[4], bool *spent, uint8_t *sent)
{
    /* Room comes first: afterwards only the journal can still say no. */
    uint32_t peer = 0;
    uint8_t *room = NULL;
    while (peer < spec->peer_count &&
           !(room = out->ops->reserve(out->endpoint, spec->peers[peer], spec->len)))
        peer++;
    if (!room)
        return BW_SHOT_NO_ROOM;
    uint32_t open = OPEN;
    if (spec->group != BW_NO_GROUP &&
        !atomic_compare_exchange_strong(&book->groups[spec->group], &open, CLOSED)) {
        out->ops->commit(out->endpoint, 0);
        return BW_SHOT_GROUP;
    }
    if (book->config.journal &&
        book->config.journal(book->config.journal_context, number, spec, cause, now) < 0) {
        __atomic_store_n(book->config.halt, BW_HALT_JOURNAL, __ATOMIC_RELEASE);
        out->ops->commit(out->endpoint, 0);
        if (spec->group != BW_NO_GROUP)
            atomic_store(&book->groups[spec->group], OPEN);
        return BW_SHOT_JOURNAL;
    }

    *spent = true;
    *sent = put(spec, room, out);
    while (++peer < spec->peer_count)
        if ((room = out->ops->reserve(out->endpoint, spec->peers[peer], spec->len)))
            *sent += put(spec, room, out);
    /* Now or never: what finds no room now would leave after its outcome, or its expiry. */
    int lost = out->ops->flush(out->endpoint);
    if (lost == -EAGAIN)
        lost = out->ops->withdraw(out->endpoint);
    *sent = lost < 0 || lost >= *sent ? 0 : (uint8_t)(*sent - lost);
    book->left_at[book->left++ % book->config.caps.per_second] = now;
    memcpy(book->value_wei, value, sizeof book->value_wei);
    return *sent ? BW_SHOT_FIRED : BW_SHOT_SEND_FAILED;
}

/* Fires a shot that is in state FIRING; says in *after which state it is in then. */
static enum bw_shot_outcome fire(struct bw_shots *book, uint32_t number, struct shot *shot,
                                 const struct bw_tx *cause, int any_origin, uint64_t now,
                                 const struct dpb_datagram_ref *out, uint32_t *after,
                                 uint8_t *sent)
{
    uint64_t value[4];
    bool spent = false;
    enum bw_shot_outcome outcome = forbidden(book, &shot->spec, cause, any_origin, now, value);
    if (outcome == BW_SHOT_FIRED)
        outcome = leave(book, number, &shot->spec, cause, now, out, value, &spent, sent);
    *after = spent ? BW_SHOT_STATE_FIRED : BW_SHOT_STATE_ARMED;
    if (spent)
        atomic_store(&shot->fired_mono_ns, now);
    return outcome;
}

int bw_shots_send(struct bw_shots *book, const struct bw_shot_spec *spec,
                  const struct bw_tx *cause, uint64_t now_mono_ns,
                  const struct dpb_datagram_ref *out)
{
    struct bw_shot_spec one = *spec;
    one.group = BW_NO_GROUP;
    one.peer_count = 1;
    one.expires_mono_ns = 0; /* an outbox takes that for "not said" */
    uint64_t value[4];
    bool spent = false;
    uint8_t sent = 0;
    enum bw_shot_outcome outcome = BW_SHOT_HALTED;
    if (!halted(book)) {
        bw_spends(one.bytes, one.len, one.value_wei, one.max_fee_wei);
        outcome = capped(book, &one, now_mono_ns, value);
    }
    if (outcome == BW_SHOT_FIRED)
        outcome = leave(book, BW_SENT_DIRECTLY, &one, cause, now_mono_ns, out, value, &spent,
                        &sent);
    atomic_fetch_add_explicit(&book->send_counts[outcome], 1, memory_order_relaxed);
    return outcome;
}

static void record(struct bw_shots *book, const struct bw_shot_event *event)
{
    uint64_t seq = atomic_load_explicit(&book->next_event, memory_order_relaxed);
    struct kept_event *kept = &book->events[seq % BW_SHOT_EVENTS];
    atomic_store_explicit(&kept->stamp, 2 * seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    kept->event = *event;
    kept->event.seq = seq;
    atomic_store_explicit(&kept->stamp, 2 * (seq + 1), memory_order_release);
    atomic_store_explicit(&book->next_event, seq + 1, memory_order_release);
    atomic_fetch_add_explicit(&book->counts[event->outcome], 1, memory_order_relaxed);
}

/* What asking for a shot that is not armed says. */
static enum bw_shot_outcome not_armed(uint32_t state)
{
    switch (state) {
    case BW_SHOT_STATE_FIRED:
        return BW_SHOT_ALREADY_FIRED;
    case BW_SHOT_STATE_DISARMED:
        return BW_SHOT_DISARMED;
    default:
        return BW_SHOT_EMPTY;
    }
}

int bw_shots_fire(struct bw_shots *book, uint32_t number, uint32_t trigger,
                  const struct bw_tx *cause, int any_origin, uint64_t now_mono_ns,
                  const struct dpb_datagram_ref *out)
{
    struct bw_shot_event event = {
        .at_mono_ns = now_mono_ns,
        .arrival_ns = cause->arrival_ns,
        .shot = number,
        .group = BW_NO_GROUP,
        .trigger = trigger,
        .source = cause->source,
        .outcome = BW_SHOT_EMPTY,
        .arrival_clock = cause->arrival_clock,
    };
    if (cause->flags & BW_TX_HASHED) {
        memcpy(event.hash, cause->hash, 32);
        event.hashed = 1;
    }
    if (number < book->config.capacity) {
        struct shot *shot = &book->shots[number];
        uint32_t state = BW_SHOT_STATE_ARMED, after;
        enum bw_shot_outcome outcome;
        if (atomic_compare_exchange_strong(&shot->state, &state, BW_SHOT_STATE_FIRING)) {
            event.cookie = shot->spec.cookie;
            event.group = shot->spec.group;
            outcome = fire(book, number, shot, cause, any_origin, now_mono_ns, out, &after,
                           &event.peers_sent);
            atomic_store(&shot->last_outcome, outcome);
            atomic_fetch_add_explicit(&shot->asked, 1, memory_order_relaxed);
            atomic_store(&shot->state, after);
        } else {
            outcome = not_armed(state);
            if (outcome != BW_SHOT_EMPTY) {
                atomic_store(&shot->last_outcome, outcome);
                atomic_fetch_add_explicit(&shot->asked, 1, memory_order_relaxed);
            }
        }
        event.outcome = (uint8_t)outcome;
    }
    record(book, &event);
    return event.outcome;
}

uint64_t bw_shots_next_event(const struct bw_shots *book)
{
    return atomic_load_explicit(&book->next_event, memory_order_acquire);
}

void bw_shots_note_hash(struct bw_shots *book, uint64_t seq, uint32_t n, const uint8_t *hash)
{
    for (uint64_t at = seq; at < seq + n; at++) {
        struct kept_event *kept = &book->events[at % BW_SHOT_EVENTS];
        uint64_t stamp = 2 * (at + 1);
        if (atomic_load_explicit(&kept->stamp, memory_order_relaxed) != stamp)
            continue;
        atomic_store_explicit(&kept->stamp, stamp - 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_release);
        memcpy(kept->event.hash, hash, 32);
        kept->event.hashed = 1;
        atomic_store_explicit(&kept->stamp, stamp, memory_order_release);
    }
}

int bw_shots_events(const struct bw_shots *book, uint64_t seq, struct bw_shot_event *out, int max)
{
    uint64_t next = bw_shots_next_event(book);
    if (next > BW_SHOT_EVENTS && seq < next - BW_SHOT_EVENTS)
        seq = next - BW_SHOT_EVENTS;
    int n = 0;
    for (; seq < next && n < max; seq++) {
        struct kept_event *kept = &book->events[seq % BW_SHOT_EVENTS];
        uint64_t stamp = 2 * (seq + 1);
        if (atomic_load_explicit(&kept->stamp, memory_order_acquire) != stamp)
            continue;
        out[n] = kept->event;
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&kept->stamp, memory_order_relaxed) == stamp)
            n++;
    }
    return n;
}

void bw_shots_counts(const struct bw_shots *book, uint64_t *out)
{
    for (int i = 0; i < BW_SHOT_OUTCOMES; i++)
        out[i] = atomic_load_explicit(&book->counts[i], memory_order_relaxed);
}

void bw_shots_send_counts(const struct bw_shots *book, uint64_t *out)
{
    for (int i = 0; i < BW_SHOT_OUTCOMES; i++)
        out[i] = atomic_load_explicit(&book->send_counts[i], memory_order_relaxed);
}

int bw_shots_status(const struct bw_shots *book, uint32_t number, struct bw_shot_status *out)
{
    if (number >= book->config.capacity)
        return -EINVAL;
    const struct shot *shot = &book->shots[number];
    uint32_t group = shot->spec.group;
    uint32_t state = atomic_load(&shot->state);
    if (state == BW_SHOT_STATE_EMPTY)
        group = BW_NO_GROUP;
    *out = (struct bw_shot_status){
        .state = state,
        .group = group,
        .group_closed = group != BW_NO_GROUP && atomic_load(&book->groups[group]) == CLOSED,
        .last_outcome = atomic_load(&shot->last_outcome),
        .expires_mono_ns = shot->spec.expires_mono_ns,
        .asked = atomic_load(&shot->asked),
        .fired_mono_ns = atomic_load(&shot->fired_mono_ns),
        .cookie = shot->spec.cookie,
    };
    return 0;
}

const struct bw_shot_spec *bw_shots_spec(const struct bw_shots *book, uint32_t number)
{
    if (number >= book->config.capacity || !book->shots[number].spec.bytes)
        return NULL;
    return &book->shots[number].spec;
}
