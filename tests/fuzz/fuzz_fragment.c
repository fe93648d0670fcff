// sources: src/barewire/native/fragment.c
// max_len: 2048
//
// Messages as a program: raw bytes, or a well-formed piece of one of a few envelopes whose bytes
// follow from their id. Beyond what the sanitizers see: an envelope of honest pieces is right to
// the last byte and comes once, lent envelopes stay as they are, and the bounds hold.
#include <stdlib.h>
#include <string.h>

#include "fragment.h"
#include "txrecord.h"

#define SLOTS 3
#define MAX_BYTES 256

static void insist(int truth) {
    if (!truth) abort();
}

static void check(struct bw_fragments *f) {
    const struct bw_fragment_stats *s = bw_fragments_stats(f);
    insist(s->assembling + s->lent <= SLOTS);
}

static uint8_t byte_of(uint64_t id, uint32_t i) { return (uint8_t)(id * 31 + i * 7 + 1); }

static int honest(const struct bw_envelope *envelope, uint64_t id) {
    for (uint32_t i = 0; i < envelope->len; i++)
        if (envelope->data[i] != byte_of(id, i)) return 0;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bw_fragment_config config = {.slots = SLOTS, .max_bytes = MAX_BYTES, .max_age_ns = 200};
    struct bw_fragments *f = bw_fragments_new(&config);
    struct bw_envelope lent = {.slot = -1};
    uint64_t lent_id = 0, now = 0;
    for (size_t at = 0; at + 4 <= size;) {
        uint8_t op = data[at], a = data[at + 1], b = data[at + 2], c = data[at + 3];
        at += 4;
        now += op >> 4;
        struct bw_envelope out = {.slot = -1};
        if (op & 1) {
            uint32_t len = a;
            if (len > size - at) len = (uint32_t)(size - at);
            uint8_t *message = malloc(len);
            if (len) memcpy(message, data + at, len);
            at += len;
            /* Sources 8 and up lie; what they send never mixes with what the honest send. */
            int done = bw_fragments_push(f, 8 + (b & 3), message, len, now, &out);
            insist(done < BW_FRAGMENT_CAUSES && done > -BW_FRAGMENT_CAUSES);
            if (done == 1 && out.slot < 0)
                insist(out.data == message + (*message == BW_FEED_ORIGIN ? 2 : 1) &&
                       out.data + out.len == message + len && out.origin < BW_ORIGINS);
            else if (done == 1)
                insist(out.len && out.len <= MAX_BYTES);
            free(message);
            if (out.slot >= 0) bw_fragments_release(f, &out);
        } else {
            uint64_t id = c & 7;
            uint32_t len = 1 + (uint32_t)id * 31, room = 20 + (b & 15);
            uint8_t envelope[1 + 7 * 31], message[64];
            for (uint32_t i = 0; i < len; i++) envelope[i] = byte_of(id, i);
            uint8_t origin = (uint8_t)(id % BW_ORIGINS);
            uint32_t count = bw_fragments_needed(len, origin, room);
            insist(count);
            uint32_t used = bw_fragments_write(envelope, len, origin, id, a % count, count,
                                               message);
            insist(used <= room && used <= sizeof message);
            int done = bw_fragments_push(f, c >> 3 & 1, message, used, now, &out);
            if (done == 1) {
                insist(out.len == len && out.origin == origin && honest(&out, id));
                if (out.slot >= 0 && lent.slot < 0 && op & 2) {
                    lent = out;
                    lent_id = id;
                } else {
                    bw_fragments_release(f, &out);
                }
            }
        }
        if (lent.slot >= 0) insist(honest(&lent, lent_id));
        if (op & 4 && lent.slot >= 0) {
            bw_fragments_release(f, &lent);
            lent.slot = -1;
        }
        if (op & 8) bw_fragments_expire(f, now);
        check(f);
    }
    bw_fragments_free(f);
    return 0;
}
