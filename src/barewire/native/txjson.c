#include "txjson.h"

#include <stdlib.h>
#include <string.h>

#include "jsontext.h"

enum field {
    HASH, TX_HASH, TYPE, CHAIN_ID, NONCE, GAS_PRICE, TIP, FEE_CAP, GAS, TO, VALUE, INPUT, DATA, ACCESS,
    BLOB_FEE_CAP, BLOBS, AUTHS, V, Y_PARITY, R, S, RAW, FIELDS, CONTENTS, NO_FIELD,
};

/* Where a field's value lies: the inside of a string, or a list with its brackets. */
struct value {
    const uint8_t *at;
    uint32_t len;
    char kind; /* '"', '[', 'n' for null, 'x' for anything else; 0: absent */
};

struct bw_json {
    struct bw_json_text text;
    uint8_t in_batch, form, done;
    uint8_t queued;     /* the cursor is in that part of a pool */
    uint8_t level;      /* of a pool or a block: how deep the cursor stands, in front of a member */
    uint8_t *scratch;
    uint32_t max_text;
    uint64_t chain_id;  /* where a transaction does not say it; 0: it has to */
    struct value field[FIELDS];
};

/* What is written: RLP, forward, a list's header once its length is known. */
struct writer {
    uint8_t *at, *end;
    enum bw_json_cause cause; /* the first that came up; nothing is written after it */
};

struct bw_json *bw_json_new(uint32_t max_text, uint64_t chain_id) {
    if (max_text == 0 || max_text > 1u << 30) return NULL;
    struct bw_json *j = calloc(1, sizeof *j);
    if (!j) return NULL;
    j->max_text = max_text;
    j->chain_id = chain_id;
    j->scratch = malloc(max_text); /* what is kept of it is never longer than where it stood */
    if (!j->scratch) {
        free(j);
        return NULL;
    }
    return j;
}

void bw_json_free(struct bw_json *j) {
    if (!j) return;
    free(j->scratch);
    free(j);
}

/* ---------------------------------------------------------------- fields */

static inline int is(const uint8_t *key, const char *name, size_t len) {
    return memcmp(key, name, len) == 0;
}

static enum field field_of(const uint8_t *k, uint32_t len) {
    switch (len) {
    case 1: return *k == 'r' ? R : *k == 's' ? S : *k == 'v' ? V : NO_FIELD;
    case 2: return is(k, "to", 2) ? TO : NO_FIELD;
    case 3: return is(k, "gas", 3) ? GAS : NO_FIELD;
    case 4: return is(k, "hash", 4) ? HASH : is(k, "type", 4) ? TYPE : is(k, "data", 4) ? DATA : NO_FIELD;
    case 5:
        return is(k, "nonce", 5)   ? NONCE
               : is(k, "value", 5) ? VALUE
               : is(k, "input", 5) ? INPUT
               : is(k, "rawTx", 5) ? RAW
                                   : NO_FIELD;
    case 6: return is(k, "txHash", 6) ? TX_HASH : NO_FIELD;
    case 7: return is(k, "chainId", 7) ? CHAIN_ID : is(k, "yParity", 7) ? Y_PARITY : NO_FIELD;
    case 8: return is(k, "gasPrice", 8) ? GAS_PRICE : NO_FIELD;
    case 10: return is(k, "accessList", 10) ? ACCESS : is(k, "txContents", 10) ? CONTENTS : NO_FIELD;
    case 12: return is(k, "maxFeePerGas", 12) ? FEE_CAP : NO_FIELD;
    case 16: return is(k, "maxFeePerBlobGas", 16) ? BLOB_FEE_CAP : NO_FIELD;
    case 17: return is(k, "authorizationList", 17) ? AUTHS : NO_FIELD;
    case 19: return is(k, "blobVersionedHashes", 19) ? BLOBS : NO_FIELD;
    case 20: return is(k, "maxPriorityFeePerGas", 20) ? TIP : NO_FIELD;
    default: return NO_FIELD;
    }
}

/* Steps over one value and says where it lies. */
static enum bw_json_cause value(struct bw_json_text *t, struct value *out) {
    struct bw_json_string string;
    BW_JSON_TRY(bw_json_space(t));
    const uint8_t *from = t->at;
    switch (*from) {
    case '"':
        BW_JSON_TRY(bw_json_string(t, &string));
        *out = (struct value){string.at, string.len, '"'};
        return BW_JSON_OK;
    case '[': BW_JSON_TRY(bw_json_skip(t)); break;
    case 'n': BW_JSON_TRY(bw_json_skip(t)); break;
    default:
        BW_JSON_TRY(bw_json_skip(t));
        *out = (struct value){from, (uint32_t)(t->at - from), 'x'};
        return BW_JSON_OK;
    }
    *out = (struct value){from, (uint32_t)(t->at - from), (char)*from};
    return BW_JSON_OK;
}

/* An object that may be a transaction: notes where its fields lie. */
static enum bw_json_cause fields(struct bw_json *j, int contents_allowed) {
    struct bw_json_text *t = &j->text;
    struct bw_json_string key;
    int more;
    BW_JSON_TRY(bw_json_open(t, '{', &more));
    while (more) {
        BW_JSON_TRY(bw_json_key(t, &key));
        enum field field = field_of(key.at, key.len);
        if (field < FIELDS) {
            BW_JSON_TRY(value(t, &j->field[field]));
        } else if (field == CONTENTS && contents_allowed && *t->at == '{') {
            BW_JSON_TRY(fields(j, 0));
        } else {
            BW_JSON_TRY(bw_json_skip(t));
        }
        BW_JSON_TRY(bw_json_more(t, '}', &more));
    }
    return BW_JSON_OK;
}

/* ---------------------------------------------------------------- hexadecimal digits and RLP */

static void refuse(struct writer *w, enum bw_json_cause cause) {
    if (w->cause == BW_JSON_OK) w->cause = cause;
}

static int room(struct writer *w, size_t len) {
    if (w->cause != BW_JSON_OK) return 0;
    if ((size_t)(w->end - w->at) >= len) return 1;
    refuse(w, BW_JSON_ROOM);
    return 0;
}

/* The digits behind 0x of a string; 0 where it is none. */
static int digits(struct writer *w, const struct value *v, const uint8_t **at, uint32_t *len) {
    if (w->cause != BW_JSON_OK) return 0;
    if (v->kind != '"') {
        refuse(w, v->kind && v->kind != 'n' ? BW_JSON_KIND : BW_JSON_MISSING);
        return 0;
    }
    if (v->len < 2 || v->at[0] != '0' || (v->at[1] | 0x20) != 'x') {
        refuse(w, BW_JSON_HEX);
        return 0;
    }
    *at = v->at + 2;
    *len = v->len - 2;
    return 1;
}

/* Room for the header of a string or list of `len` bytes, which is written here. */
static uint32_t head(uint8_t *out, uint8_t base, size_t len) {
    if (len < 56) {
        out[0] = (uint8_t)(base + len);
        return 1;
    }
    uint32_t width = (71 - (uint32_t)__builtin_clzll(len)) / 8;
    out[0] = (uint8_t)(base + 55 + width);
    for (uint32_t i = width; i; i--, len >>= 8) out[i] = (uint8_t)len;
    return 1 + width;
}

/* An integer of at most 32 bytes. Zeros in front are let pass: nodes differ in that, and the
 * envelope has none either way. */
static void quantity(struct writer *w, const struct value *v) {
    const uint8_t *at;
    uint32_t len;
    if (!digits(w, v, &at, &len)) return;
    while (len && *at == '0') at++, len--;
    if (len > 64) {
        refuse(w, BW_JSON_WIDTH);
        return;
    }
    const uint32_t bytes = (len + 1) / 2;
    if (!room(w, 1 + bytes)) return;
    if (!bw_hex_odd(at, len, w->at + 1)) {
        refuse(w, BW_JSON_HEX);
        return;
    }
    if (bytes == 1 && w->at[1] < 0x80) {
        w->at[0] = w->at[1];
        w->at++;
        return;
    }
    w->at[0] = (uint8_t)(0x80 + bytes);
    w->at += 1 + bytes;
}

/* An integer that no text spells. */
static void number(struct writer *w, uint64_t value) {
    uint8_t digits[18] = "0x";
    static const char HEX[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) digits[2 + i] = (uint8_t)HEX[value >> (60 - 4 * i) & 15];
    quantity(w, &(struct value){digits, sizeof digits, '"'});
}

/* Bytes; `width` of them, or any number for -1, or none or 20 for `to`. */
static void bytes(struct writer *w, const struct value *v, int width) {
    const uint8_t *at;
    uint32_t len;
    if (!digits(w, v, &at, &len)) return;
    if (len & 1) {
        refuse(w, BW_JSON_HEX);
        return;
    }
    len /= 2;
    if (width >= 0 && len != (uint32_t)width) {
        refuse(w, BW_JSON_WIDTH);
        return;
    }
    if (!room(w, 9 + (size_t)len)) return;
    uint32_t skip = len == 1 ? 0 : head(w->at, 0x80, len);
    if (!bw_hex(at, len, w->at + skip)) {
        refuse(w, BW_JSON_HEX);
        return;
    }
    if (len == 1 && w->at[0] >= 0x80) {
        w->at[1] = w->at[0];
        w->at[0] = 0x81;
        skip = 1;
    }
    w->at += skip + len;
}

/* `to` of a transaction that may create: absent, null, "" and "0x" all say so. */
static void recipient(struct writer *w, const struct value *v) {
    if (v->kind != '"' || v->len == 0 || (v->len == 2 && v->at[0] == '0')) {
        if (v->kind == '[' || v->kind == 'x') refuse(w, BW_JSON_KIND);
        if (room(w, 1)) *w->at++ = 0x80;
        return;
    }
    bytes(w, v, 20);
}

/* A list's payload begins; its header is written by end_list(). */
static uint8_t *begin_list(const struct writer *w) { return w->at; }

static void end_list(struct writer *w, uint8_t *payload) {
    uint8_t header[9];
    size_t len = (size_t)(w->at - payload);
    uint32_t width = head(header, 0xc0, len);
    if (!room(w, width)) return;
    memmove(payload + width, payload, len);
    memcpy(payload, header, width);
    w->at += width;
}

/* The list at `v`, element by element. */
struct elements {
    struct bw_json_text text;
    int more;
};

static int elements(struct bw_json *j, struct writer *w, const struct value *v,
                    struct elements *out) {
    if (w->cause != BW_JSON_OK) return 0;
    if (v->kind != '[') {
        refuse(w, v->kind && v->kind != 'n' ? BW_JSON_KIND : BW_JSON_MISSING);
        return 0;
    }
    out->text = j->text;
    out->text.at = v->at;
    out->text.end = v->at + v->len;
    enum bw_json_cause cause = bw_json_open(&out->text, '[', &out->more);
    if (cause != BW_JSON_OK) refuse(w, cause);
    return cause == BW_JSON_OK;
}

/* Keeps the scratch that the list used: what it wrote is still pointed to. */
static void over(struct bw_json *j, const struct elements *e) { j->text.scratch = e->text.scratch; }

static int next_element(struct writer *w, struct elements *e) {
    enum bw_json_cause cause = bw_json_more(&e->text, ']', &e->more);
    if (cause != BW_JSON_OK) refuse(w, cause);
    return w->cause == BW_JSON_OK;
}

/* 32-byte strings. */
static void hashes(struct bw_json *j, struct writer *w, const struct value *v) {
    struct elements e;
    struct value item = {0};
    uint8_t *payload = begin_list(w);
    if (!elements(j, w, v, &e)) return;
    while (e.more) {
        enum bw_json_cause cause = value(&e.text, &item);
        if (cause != BW_JSON_OK) refuse(w, cause);
        bytes(w, &item, 32);
        if (!next_element(w, &e)) return;
    }
    over(j, &e);
    end_list(w, payload);
}

/* One object of a list: where the members lie whose names are given, all of which it must have. */
static int members(struct writer *w, struct bw_json_text *t, const char *const *names,
                   struct value *out, uint32_t count) {
    struct bw_json_string key;
    enum bw_json_cause cause = bw_json_space(t);
    int more = 0;
    memset(out, 0, count * sizeof *out);
    if (cause == BW_JSON_OK && *t->at != '{') cause = BW_JSON_KIND;
    if (cause == BW_JSON_OK) cause = bw_json_open(t, '{', &more);
    while (cause == BW_JSON_OK && more) {
        cause = bw_json_key(t, &key);
        if (cause != BW_JSON_OK) break;
        uint32_t i = 0;
        while (i < count && (strlen(names[i]) != key.len || memcmp(names[i], key.at, key.len))) i++;
        cause = i < count ? value(t, &out[i]) : bw_json_skip(t);
        if (cause == BW_JSON_OK) cause = bw_json_more(t, '}', &more);
    }
    if (cause != BW_JSON_OK) refuse(w, cause);
    return cause == BW_JSON_OK;
}

static void access_list(struct bw_json *j, struct writer *w, const struct value *v) {
    static const char *const NAMES[2] = {"address", "storageKeys"};
    struct elements e;
    struct value member[2];
    uint8_t *payload = begin_list(w);
    if (v->kind == 0 || v->kind == 'n') { /* some relays leave an empty one out */
        end_list(w, payload);
        return;
    }
    if (!elements(j, w, v, &e)) return;
    while (e.more) {
        if (!members(w, &e.text, NAMES, member, 2)) return;
        over(j, &e);
        uint8_t *entry = begin_list(w);
        bytes(w, &member[0], 20);
        hashes(j, w, &member[1]);
        end_list(w, entry);
        e.text.scratch = j->text.scratch;
        if (!next_element(w, &e)) return;
    }
    over(j, &e);
    end_list(w, payload);
}

static void authorizations(struct bw_json *j, struct writer *w, const struct value *v) {
    static const char *const NAMES[7] = {"chainId", "address", "nonce", "yParity", "r", "s", "v"};
    struct elements e;
    struct value member[7];
    uint8_t *payload = begin_list(w);
    if (!elements(j, w, v, &e)) return;
    while (e.more) {
        if (!members(w, &e.text, NAMES, member, 7)) return;
        uint8_t *entry = begin_list(w);
        quantity(w, &member[0]);
        bytes(w, &member[1], 20);
        quantity(w, &member[2]);
        quantity(w, member[3].kind == '"' ? &member[3] : &member[6]);
        quantity(w, &member[4]);
        quantity(w, &member[5]);
        end_list(w, entry);
        if (!next_element(w, &e)) return;
    }
    over(j, &e);
    end_list(w, payload);
}

/* ---------------------------------------------------------------- envelopes */

static int present(const struct value *v) { return v->kind && v->kind != 'n'; }

/* The type as a number; where it is left out (Besu does) that whose fields are there. The hash tells
 * if it is another. */
static int type_of(struct writer *w, const struct value *f) {
    const struct value *v = &f[TYPE];
    uint8_t encoded[33];
    if (!present(v))
        return present(&f[AUTHS])                            ? 4
               : present(&f[BLOBS]) || present(&f[BLOB_FEE_CAP]) ? 3
               : present(&f[FEE_CAP])                        ? 2
               : present(&f[ACCESS])                         ? 1
                                                             : 0;
    struct writer number = {encoded, encoded + sizeof encoded, BW_JSON_OK};
    quantity(&number, v);
    if (number.cause != BW_JSON_OK) refuse(w, number.cause);
    else if (encoded[0] == 0x80) return 0;
    else if (encoded[0] <= 4) return encoded[0];
    else refuse(w, BW_JSON_TYPE);
    return 0;
}

static void envelope(struct bw_json *j, struct writer *w) {
    const struct value *f = j->field;
    const int type = type_of(w, f);
    if (type && room(w, 1)) *w->at++ = (uint8_t)type;
    uint8_t *payload = begin_list(w);
    if (type && (present(&f[CHAIN_ID]) || !j->chain_id)) quantity(w, &f[CHAIN_ID]);
    else if (type) number(w, j->chain_id);
    quantity(w, &f[NONCE]);
    if (type < 2) {
        quantity(w, &f[GAS_PRICE]);
    } else {
        quantity(w, &f[TIP]);
        quantity(w, &f[FEE_CAP]);
    }
    quantity(w, &f[GAS]);
    recipient(w, &f[TO]);
    quantity(w, &f[VALUE]);
    bytes(w, f[INPUT].kind ? &f[INPUT] : &f[DATA], -1);
    if (type) access_list(j, w, &f[ACCESS]);
    if (type == 3) {
        quantity(w, &f[BLOB_FEE_CAP]);
        hashes(j, w, &f[BLOBS]);
    }
    if (type == 4) authorizations(j, w, &f[AUTHS]);
    quantity(w, type && f[Y_PARITY].kind == '"' ? &f[Y_PARITY] : &f[V]);
    quantity(w, &f[R]);
    quantity(w, &f[S]);
    end_list(w, payload);
}

/* The bytes of the envelope themselves, where the relay sends them. */
static void raw_envelope(struct writer *w, const struct value *v) {
    const uint8_t *at;
    uint32_t len;
    if (!digits(w, v, &at, &len)) return;
    if (len & 1) refuse(w, BW_JSON_HEX);
    else if (room(w, len / 2) && !bw_hex(at, len / 2, w->at)) refuse(w, BW_JSON_HEX);
    else if (w->cause == BW_JSON_OK) w->at += len / 2;
}

static void hash_of(struct writer *w, const struct value *v, uint8_t *out) {
    const uint8_t *at;
    uint32_t len;
    if (!digits(w, v, &at, &len)) return;
    if (len != 64) refuse(w, BW_JSON_WIDTH);
    else if (!bw_hex(at, 32, out)) refuse(w, BW_JSON_HEX);
}

/* Makes of the fields that were found what they are. */
static void make(struct bw_json *j, uint8_t *into, uint32_t room_len, struct bw_json_item *out) {
    const struct value *f = j->field;
    struct writer w = {into, into + room_len, BW_JSON_OK};
    const struct value *hash = f[TX_HASH].kind ? &f[TX_HASH] : &f[HASH];
    const int is_tx = f[RAW].kind || f[R].kind || f[INPUT].kind || f[DATA].kind;
    if (!hash->kind || !is_tx) { /* heads of blocks have a hash too, but not a transaction's */
        hash_of(&w, &f[TX_HASH], out->hash);
        out->kind = w.cause == BW_JSON_OK ? BW_JSON_ANNOUNCED : BW_JSON_OTHER;
        return;
    }
    hash_of(&w, hash, out->hash);
    if (f[RAW].kind == '"') raw_envelope(&w, &f[RAW]);
    else envelope(j, &w);
    out->cause = (uint8_t)w.cause;
    if (w.cause != BW_JSON_OK) return;
    out->kind = BW_JSON_TX;
    out->raw = into;
    out->raw_len = (uint32_t)(w.at - into);
}

/* ---------------------------------------------------------------- messages */

/* What stands under "result": 't' fields of what may be a transaction, 's' a string, 'x' neither. */
static enum bw_json_cause result(struct bw_json *j, char *found) {
    struct bw_json_text *t = &j->text;
    memset(j->field, 0, sizeof j->field);
    if (*t->at == '{') {
        *found = 't';
        return fields(j, 1);
    }
    *found = *t->at == '"' ? 's' : 'x';
    return value(t, &j->field[TX_HASH]);
}

static enum bw_json_cause params(struct bw_json *j, char *found) {
    struct bw_json_text *t = &j->text;
    struct bw_json_string key;
    int more;
    BW_JSON_TRY(bw_json_open(t, '{', &more));
    while (more) {
        BW_JSON_TRY(bw_json_key(t, &key));
        if (key.len == 6 && is(key.at, "result", 6)) BW_JSON_TRY(result(j, found));
        else BW_JSON_TRY(bw_json_skip(t));
        BW_JSON_TRY(bw_json_more(t, '}', &more));
    }
    return BW_JSON_OK;
}

static enum bw_json_cause message(struct bw_json *j, struct bw_json_item *out, char *notified,
                                  char *answered) {
    struct bw_json_text *t = &j->text;
    struct bw_json_string key;
    int more;
    BW_JSON_TRY(bw_json_open(t, '{', &more));
    while (more) {
        BW_JSON_TRY(bw_json_key(t, &key));
        if (key.len == 6 && is(key.at, "params", 6) && *t->at == '{') {
            BW_JSON_TRY(params(j, notified));
            *answered = 0;
        } else if (key.len == 6 && is(key.at, "result", 6)) {
            out->result = t->at;
            BW_JSON_TRY(result(j, answered));
            out->result_len = (uint32_t)(t->at - out->result);
            *notified = 0;
        } else {
            BW_JSON_TRY(bw_json_skip(t));
        }
        BW_JSON_TRY(bw_json_more(t, '}', &more));
    }
    return BW_JSON_OK;
}

void bw_json_begin(struct bw_json *j, const uint8_t *text, uint32_t len, int form) {
    /* A byte order mark may be ignored (RFC 8259, 8.1). */
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, len -= 3;
    j->text = (struct bw_json_text){
        .at = text,
        .end = text + len,
        .scratch = j->scratch,
        .left = BW_JSON_VALUES_MIN + len / BW_JSON_BYTES_A_VALUE,
    };
    j->in_batch = j->level = j->queued = 0;
    j->form = (uint8_t)form;
    j->done = len > j->max_text ? 2 : 0;
}

static int stop(struct bw_json *j, enum bw_json_cause cause) {
    j->done = 1;
    return -(int)cause;
}

#define TRY_TEXT(expression)                                        \
    do {                                                            \
        enum bw_json_cause cause_ = (expression);                   \
        if (cause_ != BW_JSON_OK) return stop(j, cause_);           \
    } while (0)

static int at_end(struct bw_json_text *t) {
    return bw_json_space(t) != BW_JSON_OK && t->at == t->end;
}

/* Behind a member of a pool or a block: on to the next, which may be one of a level above. */
static enum bw_json_cause step(struct bw_json *j) {
    int more = 0;
    while (j->level && !more) {
        const uint8_t bracket = j->form == BW_JSON_BLOCK && j->level == 2 ? ']' : '}';
        BW_JSON_TRY(bw_json_more(&j->text, bracket, &more));
        if (!more) j->level--;
    }
    if (j->level) return BW_JSON_OK;
    j->done = 1;
    return at_end(&j->text) ? BW_JSON_OK : BW_JSON_SYNTAX;
}

/* The next entry of a pool or a block: steps into objects on the way to it and over all else. */
static enum bw_json_cause entry(struct bw_json *j, int *found) {
    struct bw_json_text *t = &j->text;
    struct bw_json_string key;
    const int pool = j->form == BW_JSON_POOL;
    while (!j->done) {
        int more, enter = 1;
        BW_JSON_TRY(bw_json_space(t));
        if (j->level && (pool || j->level == 1)) {
            BW_JSON_TRY(bw_json_key(t, &key));
            if (!pool) enter = key.len == 12 && is(key.at, "transactions", 12);
            else if (j->level == 1) j->queued = key.len == 6 && is(key.at, "queued", 6);
        }
        if (j->level == (pool ? 3 : 2) || (pool && j->level == 2 && *t->at != '{')) {
            *found = 1;
            return BW_JSON_OK;
        }
        const uint8_t bracket = !pool && j->level == 1 ? '[' : '{';
        if (enter && *t->at == bracket) {
            BW_JSON_TRY(bw_json_open(t, bracket, &more));
            j->level += more != 0;
            if (more) continue;
        } else if (!j->level) {
            return BW_JSON_KIND;
        } else {
            BW_JSON_TRY(bw_json_skip(t));
        }
        BW_JSON_TRY(step(j));
    }
    *found = 0;
    return BW_JSON_OK;
}

static int next_entry(struct bw_json *j, uint8_t *into, uint32_t room_len,
                      struct bw_json_item *out) {
    struct bw_json_text *t = &j->text;
    char found_kind;
    int found;
    TRY_TEXT(entry(j, &found));
    if (!found) return 0;
    out->text = t->at;
    out->queued = j->queued;
    t->scratch = j->scratch;
    TRY_TEXT(result(j, &found_kind));
    out->text_len = (uint32_t)(t->at - out->text);
    if (found_kind == 't') make(j, into, room_len, out);
    else out->cause = BW_JSON_KIND;
    if (out->kind != BW_JSON_TX) {
        out->kind = BW_JSON_NONE;
        if (out->cause == BW_JSON_OK) out->cause = BW_JSON_MISSING;
    }
    TRY_TEXT(step(j));
    return 1;
}

int bw_json_next(struct bw_json *j, uint8_t *into, uint32_t room_len, struct bw_json_item *out) {
    struct bw_json_text *t = &j->text;
    int more = 1;
    memset(out, 0, sizeof *out);
    if (j->done == 2) return stop(j, BW_JSON_ROOM);
    if (j->done) return 0;
    if (j->form >= BW_JSON_POOL) return next_entry(j, into, room_len, out);
    TRY_TEXT(bw_json_space(t));
    if (!j->in_batch && !j->form && *t->at == '[') {
        TRY_TEXT(bw_json_open(t, '[', &more));
        j->in_batch = 1;
        if (!more) {
            j->done = 1;
            return at_end(t) ? 0 : stop(j, BW_JSON_SYNTAX);
        }
        TRY_TEXT(bw_json_space(t));
    }
    const uint8_t *from = t->at;
    char notified = 0, answered = 0;
    if (*from != '{') {
        if (j->in_batch) return stop(j, BW_JSON_KIND);
        TRY_TEXT(bw_json_skip(t));
        out->kind = BW_JSON_OTHER;
    } else if (j->form) {
        TRY_TEXT(result(j, &notified));
    } else {
        TRY_TEXT(message(j, out, &notified, &answered));
    }
    out->text = from;
    out->text_len = (uint32_t)(t->at - from);
    if (j->in_batch) TRY_TEXT(bw_json_more(t, ']', &more));
    if (!j->in_batch || !more) {
        j->done = 1;
        if (!at_end(t)) {
            if (j->form != BW_JSON_STREAM) return stop(j, BW_JSON_SYNTAX);
            j->done = j->in_batch = 0; /* another value behind it: some write lines of them */
        }
    }
    if (out->kind == BW_JSON_OTHER) return 1;
    /* Of answers only whole transactions are taken: a string may be a subscription's name. */
    if (notified == 't' || notified == 's' || answered == 't') make(j, into, room_len, out);
    else out->kind = BW_JSON_OTHER;
    if (answered && out->kind == BW_JSON_ANNOUNCED) out->kind = BW_JSON_OTHER;
    return 1;
}

const char *bw_json_cause_name(uint32_t cause) {
    static const char *const NAMES[BW_JSON_CAUSES] = {
        [BW_JSON_OK] = "ok",
        [BW_JSON_SYNTAX] = "syntax",
        [BW_JSON_UTF8] = "utf8",
        [BW_JSON_DEEP] = "deep",
        [BW_JSON_MISSING] = "missing",
        [BW_JSON_KIND] = "kind",
        [BW_JSON_HEX] = "hex",
        [BW_JSON_WIDTH] = "width",
        [BW_JSON_TYPE] = "type",
        [BW_JSON_ROOM] = "room",
        [BW_JSON_TRANSACTION] = "transaction",
        [BW_JSON_HASH] = "hash",
        [BW_JSON_VALUES] = "values",
    };
    return cause < BW_JSON_CAUSES ? NAMES[cause] : "?";
}

size_t bw_json_split(struct bw_json_split *s, const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        const uint8_t c = data[i];
        if (s->in_string) {
            if (s->escaped) s->escaped = 0;
            else if (c == '\\') s->escaped = 1;
            else if (c == '"') s->in_string = 0;
            continue;
        }
        if (c == '"' && s->depth) {
            s->in_string = 1;
        } else if (c == '{' || c == '[') {
            s->depth++;
        } else if ((c == '}' || c == ']') && s->depth && --s->depth == 0) {
            return i + 1;
        }
    }
    return 0;
}
