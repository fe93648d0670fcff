#define _GNU_SOURCE
#include "fragment.h"

#include "txrecord.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS_MAX 4096
#define BYTES_MAX (16u << 20)
#define REMEMBERED 64 /* completed envelopes whose late copies are known for what they are */

enum use { FREE, ASSEMBLING, LENT };

struct slot {
    uint64_t id;
    uint64_t opened_mono_ns;
    uint32_t source;
    uint32_t total;
    uint32_t size; /* of every piece but the last */
    uint16_t count;
    uint16_t have;
    uint8_t origin;
    enum use use;
    uint64_t seen[BW_FRAGMENT_COUNT_MAX / 64];
};

struct completed {
    uint64_t id;
    uint32_t source;
    uint32_t total; /* 0: no entry */
};

struct bw_fragments {
    struct bw_fragment_stats s;
    struct bw_fragment_config config;
    uint64_t now;
    struct slot *slot;
    uint8_t *memory; /* slots times max_bytes */
    struct completed completed[REMEMBERED];
    uint32_t remembered; /* where the next goes */
};

struct piece {
    uint64_t id;
    uint32_t index, count, total, size, len;
    uint8_t origin;
    const uint8_t *data;
};

static inline uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }
static inline uint64_t be64(const uint8_t *p) { return (uint64_t)be32(p) << 32 | be32(p + 4); }

static uint8_t *memory_of(const struct bw_fragments *f, const struct slot *slot) {
    return f->memory + (size_t)(slot - f->slot) * f->config.max_bytes;
}

static int refuse(struct bw_fragments *f, enum bw_fragment_cause cause, uint32_t source,
                  const uint8_t *message, uint32_t len) {
    struct bw_fragment_sample *sample = &f->s.sample[cause];
    sample->at_mono_ns = f->now;
    sample->len = len;
    sample->source = source;
    if (len) memcpy(sample->bytes, message, len < sizeof sample->bytes ? len : sizeof sample->bytes);
    f->s.refused[cause]++;
    return -(int)cause;
}

static enum bw_fragment_cause parse(const struct bw_fragments *f, const uint8_t *message,
                                    uint32_t len, struct piece *p) {
    if (len < BW_FRAGMENT_HEADER_BYTES || message[1] >= BW_ORIGINS) return BW_FRAGMENT_HEADER;
    p->origin = message[1];
    p->index = be16(message + 2);
    p->count = be16(message + 4);
    p->total = be32(message + 6);
    p->id = be64(message + 10);
    p->data = message + BW_FRAGMENT_HEADER_BYTES;
    p->len = len - BW_FRAGMENT_HEADER_BYTES;
    if (p->index >= p->count || p->total < p->count) return BW_FRAGMENT_HEADER;
    if (p->total > f->config.max_bytes || p->count > BW_FRAGMENT_COUNT_MAX)
        return BW_FRAGMENT_TOO_LONG;
    p->size = (p->total + p->count - 1) / p->count;
    uint32_t before_last = p->size * (p->count - 1);
    if (before_last >= p->total) return BW_FRAGMENT_HEADER; /* nothing left for the last */
    if (p->len != (p->index + 1 < p->count ? p->size : p->total - before_last))
        return BW_FRAGMENT_LENGTH;
    return BW_FRAGMENT_OK;
}

static int too_old(const struct bw_fragments *f, const struct slot *slot) {
    return slot->use == ASSEMBLING && f->now - slot->opened_mono_ns > f->config.max_age_ns;
}

static void drop(struct bw_fragments *f, struct slot *slot) {
    slot->use = FREE;
    f->s.assembling--;
}

static struct slot *find(struct bw_fragments *f, uint32_t source, uint64_t id) {
    for (uint32_t i = 0; i < f->config.slots; i++) {
        struct slot *slot = &f->slot[i];
        if (slot->use == ASSEMBLING && slot->id == id && slot->source == source) return slot;
    }
    return NULL;
}

static int was_completed(const struct bw_fragments *f, uint32_t source, const struct piece *p) {
    for (uint32_t i = 0; i < REMEMBERED; i++) {
        const struct completed *c = &f->completed[i];
        if (c->id == p->id && c->source == source && c->total == p->total) return 1;
    }
    return 0;
}

/* The lowest free slot, whose memory is the likeliest to have been touched before; or the one in
 * assembly for longest; or NULL: all are lent. */
static struct slot *make_room(struct bw_fragments *f) {
    struct slot *oldest = NULL;
    for (uint32_t i = 0; i < f->config.slots; i++) {
        struct slot *slot = &f->slot[i];
        if (slot->use == FREE) return slot;
        if (slot->use == LENT) continue;
        if (!oldest || slot->opened_mono_ns < oldest->opened_mono_ns) oldest = slot;
    }
    if (!oldest) return NULL;
    if (too_old(f, oldest))
        f->s.expired++;
    else
        f->s.evicted++;
    drop(f, oldest);
    return oldest;
}

static struct slot *start(struct bw_fragments *f, uint32_t source, const struct piece *p) {
    struct slot *slot = make_room(f);
    if (!slot) return NULL;
    slot->id = p->id;
    slot->opened_mono_ns = f->now;
    slot->source = source;
    slot->total = p->total;
    slot->size = p->size;
    slot->count = (uint16_t)p->count;
    slot->origin = p->origin;
    slot->have = 0;
    slot->use = ASSEMBLING;
    memset(slot->seen, 0, (p->count + 63) / 64 * sizeof slot->seen[0]);
    f->s.assembling++;
    return slot;
}

static void complete(struct bw_fragments *f, struct slot *slot, struct bw_envelope *out) {
    f->completed[f->remembered++ % REMEMBERED] =
        (struct completed){.id = slot->id, .source = slot->source, .total = slot->total};
    slot->use = LENT;
    f->s.assembling--;
    f->s.lent++;
    f->s.completed++;
    out->data = memory_of(f, slot);
    out->len = slot->total;
    out->slot = (int32_t)(slot - f->slot);
    out->origin = slot->origin;
}

int bw_fragments_push(struct bw_fragments *f, uint32_t source, const uint8_t *message,
                      uint32_t len, uint64_t now_mono_ns, struct bw_envelope *out) {
    if (now_mono_ns > f->now) f->now = now_mono_ns;
    if (len < 2) return refuse(f, BW_FRAGMENT_EMPTY, source, message, len);
    if (message[0] == BW_FEED_WHOLE) {
        f->s.whole++;
        out->data = message + 1;
        out->len = len - 1;
        out->slot = -1;
        out->origin = BW_ORIGIN_ANNOUNCED;
        return 1;
    }
    if (message[0] == BW_FEED_ORIGIN) {
        if (len < 3) return refuse(f, BW_FRAGMENT_EMPTY, source, message, len);
        if (message[1] >= BW_ORIGINS) return refuse(f, BW_FRAGMENT_HEADER, source, message, len);
        f->s.whole++;
        out->data = message + 2;
        out->len = len - 2;
        out->slot = -1;
        out->origin = message[1];
        return 1;
    }
    if (message[0] != BW_FEED_FRAGMENT) return refuse(f, BW_FRAGMENT_TYPE, source, message, len);

    struct piece p;
    enum bw_fragment_cause cause = parse(f, message, len, &p);
    if (cause) return refuse(f, cause, source, message, len);
    struct slot *slot = find(f, source, p.id);
    if (slot && too_old(f, slot)) {
        f->s.expired++;
        drop(f, slot);
        slot = NULL;
    }
    if (!slot) {
        if (was_completed(f, source, &p)) {
            f->s.duplicate++;
            return 0;
        }
        slot = start(f, source, &p);
        if (!slot) return refuse(f, BW_FRAGMENT_BUSY, source, message, len);
    }
    if (slot->total != p.total || slot->count != p.count || slot->origin != p.origin)
        return refuse(f, BW_FRAGMENT_CONFLICT, source, message, len);
    uint8_t *place = memory_of(f, slot) + (size_t)p.index * p.size;
    uint64_t bit = 1ull << (p.index % 64);
    if (slot->seen[p.index / 64] & bit) {
        if (memcmp(place, p.data, p.len))
            return refuse(f, BW_FRAGMENT_CONFLICT, source, message, len);
        f->s.duplicate++;
        return 0;
    }
    memcpy(place, p.data, p.len);
    slot->seen[p.index / 64] |= bit;
    f->s.pieces++;
    if (++slot->have < slot->count) return 0;
    complete(f, slot, out);
    return 1;
}

void bw_fragments_release(struct bw_fragments *f, const struct bw_envelope *envelope) {
    if (envelope->slot < 0) return;
    struct slot *slot = &f->slot[envelope->slot];
    if (slot->use != LENT) return;
    slot->use = FREE;
    f->s.lent--;
}

int bw_fragments_expire(struct bw_fragments *f, uint64_t now_mono_ns) {
    if (now_mono_ns > f->now) f->now = now_mono_ns;
    int dropped = 0;
    for (uint32_t i = 0; f->s.assembling && i < f->config.slots; i++) {
        if (!too_old(f, &f->slot[i])) continue;
        drop(f, &f->slot[i]);
        dropped++;
    }
    f->s.expired += (uint64_t)dropped;
    return dropped;
}

const struct bw_fragment_stats *bw_fragments_stats(const struct bw_fragments *f) { return &f->s; }

uint32_t bw_fragments_needed(uint32_t len, uint8_t origin, uint32_t max_message) {
    const uint32_t head = origin == BW_ORIGIN_ANNOUNCED ? 1 : 2;
    if (len && max_message > head && len <= max_message - head) return 1;
    if (!len || max_message <= BW_FRAGMENT_HEADER_BYTES) return 0;
    uint32_t room = max_message - BW_FRAGMENT_HEADER_BYTES;
    uint64_t count = ((uint64_t)len + room - 1) / room;
    return count <= BW_FRAGMENT_COUNT_MAX ? (uint32_t)count : 0;
}

uint32_t bw_fragments_write(const uint8_t *envelope, uint32_t len, uint8_t origin, uint64_t id,
                            uint32_t index, uint32_t count, uint8_t *out) {
    if (count == 1 && origin != BW_ORIGIN_ANNOUNCED) {
        out[0] = BW_FEED_ORIGIN;
        out[1] = origin;
        memcpy(out + 2, envelope, len);
        return len + 2;
    }
    if (count == 1) {
        out[0] = BW_FEED_WHOLE;
        memcpy(out + 1, envelope, len);
        return len + 1;
    }
    uint32_t size = (len + count - 1) / count, offset = index * size;
    uint32_t piece = index + 1 < count ? size : len - offset;
    uint16_t index_be = __builtin_bswap16((uint16_t)index);
    uint16_t count_be = __builtin_bswap16((uint16_t)count);
    uint32_t total_be = __builtin_bswap32(len);
    uint64_t id_be = __builtin_bswap64(id);
    out[0] = BW_FEED_FRAGMENT;
    out[1] = origin;
    memcpy(out + 2, &index_be, 2);
    memcpy(out + 4, &count_be, 2);
    memcpy(out + 6, &total_be, 4);
    memcpy(out + 10, &id_be, 8);
    memcpy(out + BW_FRAGMENT_HEADER_BYTES, envelope + offset, piece);
    return BW_FRAGMENT_HEADER_BYTES + piece;
}

void bw_fragment_defaults(struct bw_fragment_config *config) {
    *config = (struct bw_fragment_config){
        .slots = 64,
        .max_bytes = 1u << 20,
        .max_age_ns = 5000ull * 1000 * 1000,
    };
}

struct bw_fragments *bw_fragments_new(const struct bw_fragment_config *config) {
    if (config->slots < 1 || config->slots > SLOTS_MAX) return NULL;
    if (config->max_bytes < 1 || config->max_bytes > BYTES_MAX) return NULL;
    struct bw_fragments *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->config = *config;
    f->slot = calloc(config->slots, sizeof *f->slot);
    f->memory = mmap(NULL, (size_t)config->slots * config->max_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!f->slot || f->memory == MAP_FAILED) {
        bw_fragments_free(f);
        return NULL;
    }
    return f;
}

void bw_fragments_free(struct bw_fragments *f) {
    if (!f) return;
    if (f->memory != MAP_FAILED)
        munmap(f->memory, (size_t)f->config.slots * f->config.max_bytes);
    free(f->slot);
    free(f);
}
