#include "txfeed.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(BW_JSON_CAUSES <= 16, "a place for each cause");

struct bw_txfeed {
    struct bw_txfeed_config with;
    struct bw_json *json;
    int in_text;                /* a text is being read */
    int form;                   /* of it: enum bw_json_form */
    const uint8_t *text;        /* this one */
    uint32_t text_len;
    uint64_t arrival_ns;
    uint8_t clock;
    uint8_t origin;             /* of the transactions in it */

    const uint8_t *lent, *end;  /* what is lent */
    const uint8_t *at;          /* without frames: what of it is not split yet */
    struct bw_json_split split;
    uint8_t *held;              /* the beginning of a value whose end has not come */
    uint32_t held_len;
    uint8_t skipping;           /* of a value that is too long */

    uint8_t announced[BW_TXFEED_BURST][32];
    struct { const uint8_t *text; uint32_t len; } from[BW_TXFEED_BURST];
    uint8_t *room;              /* for the envelopes of one call */
    uint32_t room_len, used;
    struct bw_txfeed_stats stats;
};

void bw_txfeed_free(struct bw_txfeed *f) {
    if (!f) return;
    bw_json_free(f->json);
    free(f->held);
    free(f->room);
    free(f);
}

struct bw_txfeed *bw_txfeed_new(const struct bw_txfeed_config *config) {
    if (config->max_text == 0 || config->max_text > 1u << 30) return NULL;
    struct bw_txfeed *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->with = *config;
    if (!f->with.work) f->with.work = BW_TXFEED_WORK;
    /* An envelope is at most half as long as its text; small ones share. */
    f->room_len = config->max_text / 2 + (256 << 10);
    f->json = bw_json_new(config->max_text, config->rules.chain_id);
    f->room = malloc(f->room_len);
    f->held = malloc(config->max_text);
    if (!f->json || !f->room || !f->held) {
        bw_txfeed_free(f);
        return NULL;
    }
    return f;
}

void bw_txfeed_restart(struct bw_txfeed *f) {
    f->in_text = f->skipping = 0;
    f->held_len = 0;
    f->lent = f->at = f->end = NULL;
    f->split = (struct bw_json_split){0};
}

const struct bw_txfeed_stats *bw_txfeed_stats(const struct bw_txfeed *f) { return &f->stats; }

static void refuse(struct bw_txfeed *f, uint32_t cause, const uint8_t *text, uint32_t len) {
    struct bw_txfeed_sample *sample = &f->stats.refused[cause];
    sample->count++;
    sample->len = len;
    sample->kept = len < sizeof sample->text ? len : (uint32_t)sizeof sample->text;
    if (len) memcpy(sample->text, text, sample->kept);
}

static void begin(struct bw_txfeed *f, const uint8_t *text, uint32_t len, int form,
                  uint8_t origin) {
    bw_json_begin(f->json, text, len, form);
    f->in_text = 1;
    f->form = form;
    f->origin = origin;
    f->text = text;
    f->text_len = len;
    f->stats.texts++;
}

void bw_txfeed_lend(struct bw_txfeed *f, const uint8_t *data, size_t len, uint64_t arrival_ns,
                    uint8_t clock) {
    f->arrival_ns = arrival_ns;
    f->clock = clock;
    f->lent = f->at = data;
    f->end = data + len;
    f->stats.bytes += len;
    if (f->with.ws) bw_ws_lend(f->with.ws, data, len);
}

void bw_txfeed_lend_text(struct bw_txfeed *f, const uint8_t *text, uint32_t len, int form,
                         uint8_t origin, uint64_t arrival_ns, uint8_t clock) {
    f->arrival_ns = arrival_ns;
    f->clock = clock;
    begin(f, text, len, form, origin);
}

/* The next value of a stream that has nothing between them. */
static int next_value(struct bw_txfeed *f) {
    while (f->at < f->end) {
        const uint8_t *from = f->at;
        size_t left = (size_t)(f->end - from), len = bw_json_split(&f->split, from, left);
        size_t take = len ? len : left;
        f->at += take;
        if (f->skipping || take > f->with.max_text - f->held_len) {
            if (!f->skipping) refuse(f, BW_JSON_ROOM, f->held, f->held_len);
            f->skipping = len == 0;
            f->held_len = 0;
            continue;
        }
        if (len && !f->held_len) {
            begin(f, from, (uint32_t)len, 0, BW_ORIGIN_ANNOUNCED);
            return 1;
        }
        memcpy(f->held + f->held_len, from, take);
        f->held_len += (uint32_t)take;
        if (!len) return 0;
        begin(f, f->held, f->held_len, 0, BW_ORIGIN_ANNOUNCED);
        f->held_len = 0;
        return 1;
    }
    return 0;
}

/* Begins the next message of the stream: 1; 0: there is none, or *event is in its place. */
static int next_text(struct bw_txfeed *f, struct bw_txfeed_event *event) {
    if (!f->with.ws) return next_value(f);
    if (!bw_ws_next(f->with.ws, &event->frame)) return 0;
    if (event->frame.kind > BW_WS_BINARY || event->frame.compressed) {
        event->kind = BW_TXFEED_FRAME;
        return 0;
    }
    begin(f, event->frame.data, event->frame.len, 0, BW_ORIGIN_ANNOUNCED);
    return 1;
}

/* Hashes what was decoded and drops what has another hash than was announced. */
static uint32_t check(struct bw_txfeed *f, struct bw_message *messages, struct bw_tx *txs,
                      uint32_t n) {
    uint32_t kept = 0;
    bw_hash_burst(messages, txs, n);
    for (uint32_t i = 0; i < n; i++) {
        if (memcmp(txs[i].hash, f->announced[i], 32)) {
            refuse(f, BW_JSON_HASH, f->from[i].text, f->from[i].len);
            continue;
        }
        if (kept != i) {
            txs[kept] = txs[i];
            messages[kept] = messages[i];
        }
        kept++;
    }
    f->stats.transactions += kept;
    return kept;
}

/* Decodes what an object describes; 1 if it is one more transaction. */
static int decode(struct bw_txfeed *f, const struct bw_json_item *item, struct bw_message *message,
                  struct bw_tx *tx) {
    *message = (struct bw_message){
        .data = item->raw,
        .len = item->raw_len,
        .arrival_ns = f->arrival_ns,
        .source = f->with.source,
        .clock = f->clock,
        .flags = (uint8_t)((f->with.trusted ? BW_MESSAGE_TRUSTED : 0) |
                           (item->queued ? BW_ORIGIN_QUEUED : f->origin) << BW_MESSAGE_ORIGIN),
    };
    uint8_t verdict;
    return (int)bw_decode_burst(message, 1, &f->with.rules, tx, &verdict, f->with.refusals);
}

/* Whether the next text may have to wait for the next call: one that was put together in a buffer
 * would be overwritten by the next that is, and envelopes need room. */
static int must_wait(const struct bw_txfeed *f) {
    return f->text < f->lent || f->text >= f->end ||
           f->room_len - f->used < f->with.max_text / 2 + 4096;
}

/* What an object, a message or a frame costs beside its bytes, in bytes. */
enum { A_STEP = 64 };

uint32_t bw_txfeed_read(struct bw_txfeed *f, struct bw_message *messages, struct bw_tx *txs,
                        uint32_t max, struct bw_txfeed_event *event) {
    struct bw_json_item item;
    uint32_t n = 0, work = 0;
    if (max > BW_TXFEED_BURST) max = BW_TXFEED_BURST;
    event->kind = BW_TXFEED_NONE;
    f->used = 0;
    for (;;) {
        if (n == max || work >= f->with.work || (n && !f->in_text && must_wait(f))) {
            event->kind = BW_TXFEED_MORE;
            break;
        }
        if (!f->in_text && !next_text(f, event)) break;
        const int state = bw_json_next(f->json, f->with.work - work, f->room + f->used,
                                       f->room_len - f->used, &item);
        work += A_STEP + item.walked;
        f->stats.walked += item.walked;
        if (state == BW_JSON_AGAIN) continue;
        if (state <= 0) {
            f->in_text = 0;
            if (state < 0) refuse(f, (uint32_t)-state, f->text, f->text_len);
            continue;
        }
        if (f->form >= BW_JSON_POOL) f->stats.entries++;
        if (item.kind == BW_JSON_OTHER) {
            f->stats.others++;
            event->kind = BW_TXFEED_OTHER;
            event->text = item.text;
            event->text_len = item.text_len;
            event->result = item.result;
            event->result_len = item.result_len;
            break;
        }
        if (item.kind == BW_JSON_ANNOUNCED) {
            f->stats.announced++;
            event->kind = BW_TXFEED_ANNOUNCED;
            memcpy(event->hash, item.hash, 32);
            break;
        }
        if (item.kind == BW_JSON_NONE) {
            refuse(f, item.cause, item.text, item.text_len);
        } else if (!decode(f, &item, &messages[n], &txs[n])) {
            refuse(f, BW_JSON_TRANSACTION, item.text, item.text_len);
        } else {
            memcpy(f->announced[n], item.hash, 32);
            f->from[n].text = item.text;
            f->from[n].len = item.text_len;
            f->used += item.raw_len;
            n++;
        }
    }
    return n ? check(f, messages, txs, n) : 0;
}
