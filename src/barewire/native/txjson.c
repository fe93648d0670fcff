#include "txjson.h"

#include <stdlib.h>
#include <string.h>

#include "jsontext.h"

/* What a member is to the object that it is in: a field of a transaction, or else. */
enum member {
    HASH, TX_HASH, TYPE, CHAIN_ID, NONCE, GAS_PRICE, TIP, FEE_CAP, GAS, TO, VALUE, INPUT, DATA, ACCESS,
    BLOB_FEE_CAP, BLOBS, AUTHS, V, Y_PARITY, R, S, RAW, FIELDS,
    CONTENTS = FIELDS, PARAMS, RESULT, TRANSACTIONS,
    ITEM,  /* what is handed out: a message, or an entry of a pool or a block */
    OTHER, /* nobody's business */
};

/* Where the cursor can be: outside of everything (one for each enum bw_json_form), or in this. */
enum place {
    ELSEWHERE,
    IN_TX, IN_CONTENTS,           /* what may be a transaction; that part of it */
    IN_FIELD,                     /* a list that is one of its fields */
    AT_STREAM, AT_BARE, AT_POOL, AT_BLOCK,
    IN_BATCH, IN_MESSAGE, IN_PARAMS,
    IN_POOL, IN_STATE, IN_SENDER, /* by state, by sender, by nonce */
    IN_BLOCK, IN_TRANSACTIONS,
};

/* What comes next in the text. */
enum next { A_VALUE, A_MEMBER, A_NAME, A_COLON, BEHIND_VALUE };

/* Where a field's value lies: the inside of a string, or a list with its brackets. */
struct value {
    const uint8_t *at;
    uint32_t len;
    char kind; /* '"', '[', 'n' for null, 'x' for anything else; 0: absent */
};

/* A list or an object that the cursor is in. */
struct level {
    uint8_t place;      /* enum place */
    uint8_t member;     /* enum member: what the value at hand is in it */
    uint8_t closes;     /* with this bracket */
};

struct bw_json {
    struct bw_json_text text;
    uint8_t form, done;
    uint8_t next;       /* enum next */
    uint8_t queued;     /* the cursor is in that part of a pool */
    uint8_t ready;      /* `item` is at its end */
    uint8_t is_tx;      /* it may be a transaction, whose fields were noted, */
    uint8_t answered;   /* and they stand in an answer */
    uint8_t depth;
    struct level level[BW_JSON_DEPTH + 1];
    struct bw_json_item item;
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

static enum member field_of(const uint8_t *k, uint32_t len) {
    switch (len) {
    case 1: return *k == 'r' ? R : *k == 's' ? S : *k == 'v' ? V : OTHER;
    case 2: return is(k, "to", 2) ? TO : OTHER;
    case 3: return is(k, "gas", 3) ? GAS : OTHER;
    case 4: return is(k, "hash", 4) ? HASH : is(k, "type", 4) ? TYPE : is(k, "data", 4) ? DATA : OTHER;
    case 5:
        return is(k, "nonce", 5)   ? NONCE
               : is(k, "value", 5) ? VALUE
               : is(k, "input", 5) ? INPUT
               : is(k, "rawTx", 5) ? RAW
                                   : OTHER;
    case 6: return is(k, "txHash", 6) ? TX_HASH : OTHER;
    case 7: return is(k, "chainId", 7) ? CHAIN_ID : is(k, "yParity", 7) ? Y_PARITY : OTHER;
    case 8: return is(k, "gasPrice", 8) ? GAS_PRICE : OTHER;
    case 10: return is(k, "accessList", 10) ? ACCESS : is(k, "txContents", 10) ? CONTENTS : OTHER;
    case 12: return is(k, "maxFeePerGas", 12) ? FEE_CAP : OTHER;
    case 16: return is(k, "maxFeePerBlobGas", 16) ? BLOB_FEE_CAP : OTHER;
    case 17: return is(k, "authorizationList", 17) ? AUTHS : OTHER;
    case 19: return is(k, "blobVersionedHashes", 19) ? BLOBS : OTHER;
    case 20: return is(k, "maxPriorityFeePerGas", 20) ? TIP : OTHER;
    default: return OTHER;
    }
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

/* Lists are walked a second time, element by element, once their transaction is at its end. Nothing
 * in them is news: what was wrong, too deep or too much was found the first time. */
struct elements {
    struct bw_json_text text;
    int more;
};

/* Steps into an object or a list; *more: it has a first member. */
static enum bw_json_cause open_it(struct bw_json_text *t, uint8_t close, int *more) {
    t->at++;
    BW_JSON_TRY(bw_json_space(t));
    *more = *t->at != close;
    t->at += !*more;
    return BW_JSON_OK;
}

/* Behind a member: steps over the comma, or over the closing bracket. */
static enum bw_json_cause go_on(struct bw_json_text *t, uint8_t close, int *more) {
    BW_JSON_TRY(bw_json_space(t));
    const uint8_t c = *t->at++;
    *more = c == ',';
    return *more || c == close ? BW_JSON_OK : BW_JSON_SYNTAX;
}

static enum bw_json_cause skip(struct bw_json_text *t) {
    struct bw_json_string string;
    uint8_t *scratch = t->scratch;
    uint32_t depth = 0;
    do {
        BW_JSON_TRY(bw_json_space(t));
        const uint8_t c = *t->at;
        if (c == '{' || c == '[') depth++, t->at++;
        else if (c == '}' || c == ']') depth--, t->at++;
        else if (c == ',' || c == ':') t->at++;
        else BW_JSON_TRY(c == '"' ? bw_json_string(t, &string) : bw_json_word(t));
        t->scratch = scratch;
    } while (depth);
    return BW_JSON_OK;
}

/* Steps over one value and says where it lies. */
static enum bw_json_cause value(struct bw_json_text *t, struct value *out) {
    struct bw_json_string string;
    BW_JSON_TRY(bw_json_space(t));
    const uint8_t *from = t->at;
    if (*from == '"') {
        BW_JSON_TRY(bw_json_string(t, &string));
        *out = (struct value){string.at, string.len, '"'};
        return BW_JSON_OK;
    }
    BW_JSON_TRY(skip(t));
    const char kind = *from == '[' || *from == 'n' ? (char)*from : 'x';
    *out = (struct value){from, (uint32_t)(t->at - from), kind};
    return BW_JSON_OK;
}

static int elements(struct bw_json *j, struct writer *w, const struct value *v,
                    struct elements *out) {
    if (w->cause != BW_JSON_OK) return 0;
    if (v->kind != '[') {
        refuse(w, v->kind && v->kind != 'n' ? BW_JSON_KIND : BW_JSON_MISSING);
        return 0;
    }
    out->text = (struct bw_json_text){
        .at = v->at,
        .end = v->at + v->len,
        .pause = v->at + v->len,
        .scratch = j->text.scratch,
        .left = UINT32_MAX,
    };
    enum bw_json_cause cause = open_it(&out->text, ']', &out->more);
    if (cause != BW_JSON_OK) refuse(w, cause);
    return cause == BW_JSON_OK;
}

/* Keeps the scratch that the list used: what it wrote is still pointed to. */
static void over(struct bw_json *j, const struct elements *e) { j->text.scratch = e->text.scratch; }

static int next_element(struct writer *w, struct elements *e) {
    enum bw_json_cause cause = go_on(&e->text, ']', &e->more);
    if (cause != BW_JSON_OK) refuse(w, cause);
    return w->cause == BW_JSON_OK;
}

/* A member's name; the cursor then stands behind its colon. */
static enum bw_json_cause name_of(struct bw_json_text *t, struct bw_json_string *out) {
    BW_JSON_TRY(bw_json_space(t));
    BW_JSON_TRY(bw_json_string(t, out));
    BW_JSON_TRY(bw_json_space(t));
    t->at++;
    return bw_json_space(t);
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
    if (cause == BW_JSON_OK) cause = open_it(t, '}', &more);
    while (cause == BW_JSON_OK && more) {
        cause = name_of(t, &key);
        if (cause != BW_JSON_OK) break;
        uint32_t i = 0;
        while (i < count && (strlen(names[i]) != key.len || memcmp(names[i], key.at, key.len))) i++;
        cause = i < count ? value(t, &out[i]) : skip(t);
        if (cause == BW_JSON_OK) cause = go_on(t, '}', &more);
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
    if (out->text_len > BW_JSON_OBJECT) {
        out->cause = BW_JSON_LONG;
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

void bw_json_begin(struct bw_json *j, const uint8_t *text, uint32_t len, int form) {
    /* A byte order mark may be ignored (RFC 8259, 8.1). */
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, len -= 3;
    j->text = (struct bw_json_text){
        .at = text,
        .end = text + len,
        .scratch = j->scratch,
        .left = BW_JSON_VALUES_MIN + len / BW_JSON_BYTES_A_VALUE,
    };
    j->next = A_VALUE;
    j->depth = j->queued = j->ready = 0;
    j->form = (uint8_t)form;
    j->level[0].place = (uint8_t)(AT_STREAM + form);
    j->done = len > j->max_text ? 2 : 0;
}

/* The value that begins at the cursor is one to be handed out. */
static void begin_item(struct bw_json *j, struct level *l) {
    l->member = ITEM;
    j->item = (struct bw_json_item){.text = j->text.at};
    j->is_tx = j->answered = 0;
    j->text.scratch = j->scratch;
}

/* The value that begins at the cursor, with `c`, may be the item's transaction, or its hash. */
static void begin_tx(struct bw_json *j, struct level *l, uint8_t c, uint8_t *in) {
    memset(j->field, 0, sizeof j->field);
    j->is_tx = c == '{';
    if (c == '{') *in = IN_TX;
    if (c != '"' || j->answered) return; /* an answer's string may be a subscription's name */
    j->is_tx = 1;
    l->member = TX_HASH;
}

/* A value begins at the cursor, with `c`. What it is, its container says, and there its name; *in:
 * what the cursor will be in, if it is a list or an object. */
static enum bw_json_cause begin_value(struct bw_json *j, struct level *l, uint8_t c, uint8_t *in) {
    const int object = c == '{';
    *in = ELSEWHERE;
    switch (l->place) {
    case IN_TX:
    case IN_CONTENTS:
        if (l->member == CONTENTS && object && l->place == IN_TX) *in = IN_CONTENTS;
        if (l->member >= FIELDS) break;
        if (c == '[') *in = IN_FIELD;
        const char kind = c == '[' || c == 'n' ? (char)c : 'x';
        j->field[l->member] = (struct value){j->text.at, 0, kind};
        break;
    case IN_PARAMS:
        if (l->member == RESULT) begin_tx(j, l, c, in);
        break;
    case IN_MESSAGE:
        if (l->member == PARAMS && object) {
            *in = IN_PARAMS;
            if (j->answered) j->is_tx = j->answered = 0;
        } else if (l->member == RESULT) {
            j->item.result = j->text.at;
            j->answered = 1;
            begin_tx(j, l, c, in);
        }
        break;
    case IN_BATCH:
        if (!object) return BW_JSON_KIND;
        /* fall through */
    case AT_STREAM:
        if (c == '[') {
            l->member = OTHER;
            *in = IN_BATCH;
            break;
        }
        begin_item(j, l);
        if (object) *in = IN_MESSAGE;
        break;
    case AT_POOL:
    case AT_BLOCK:
        if (!object) return BW_JSON_KIND;
        l->member = OTHER;
        *in = l->place == AT_POOL ? IN_POOL : IN_BLOCK;
        break;
    case IN_POOL:
        if (object) *in = IN_STATE;
        break;
    case IN_BLOCK:
        if (l->member == TRANSACTIONS && c == '[') *in = IN_TRANSACTIONS;
        break;
    case IN_STATE:
        if (object) {
            *in = IN_SENDER;
            break;
        }
        /* fall through */
    case AT_BARE:
    case IN_SENDER:
    case IN_TRANSACTIONS:
        begin_item(j, l);
        if (object) begin_tx(j, l, c, in);
        break;
    }
    return BW_JSON_OK;
}

/* A value is at its end, and the cursor behind it. */
static void end_value(struct bw_json *j, const struct level *l) {
    if (l->member == ITEM) {
        j->item.text_len = (uint32_t)(j->text.at - j->item.text);
        j->ready = 1;
    } else if (l->member == RESULT && l->place == IN_MESSAGE) {
        j->item.result_len = (uint32_t)(j->text.at - j->item.result);
    }
}

/* A list or an object is at its end; gives what it is in. */
static struct level *leave(struct bw_json *j, const struct level *l) {
    struct level *outer = &j->level[--j->depth];
    if (l->place == IN_FIELD) {
        struct value *field = &j->field[outer->member];
        field->len = (uint32_t)(j->text.at - field->at);
    }
    end_value(j, outer);
    return outer;
}

/* What a member of this name is. */
static enum member member_of(struct bw_json *j, uint8_t place, const struct bw_json_string *name) {
    const uint8_t *at = name->at;
    if (place == IN_TX || place == IN_CONTENTS) return field_of(at, name->len);
    switch (place) {
    case IN_MESSAGE:
        if (name->len == 6 && is(at, "params", 6)) return PARAMS;
        /* fall through */
    case IN_PARAMS: return name->len == 6 && is(at, "result", 6) ? RESULT : OTHER;
    case IN_POOL: j->queued = name->len == 6 && is(at, "queued", 6); return OTHER;
    case IN_BLOCK: return name->len == 12 && is(at, "transactions", 12) ? TRANSACTIONS : OTHER;
    default: return OTHER;
    }
}

/* Walks on to the end of the next item, and over what has to stand behind it. Each step notes what
 * comes next before it goes on, so that any may be the last of a call. */
static enum bw_json_cause walk(struct bw_json *j) {
    struct bw_json_text *t = &j->text;
    struct level *l = &j->level[j->depth];
    struct bw_json_string string;
    uint8_t *scratch, in, c;
    for (;;) {
        if (j->next == A_NAME) {
            if (t->part == BW_JSON_WHOLE) {
                BW_JSON_TRY(bw_json_space(t));
                if (*t->at != '"') return BW_JSON_SYNTAX;
            }
            scratch = t->scratch;
            BW_JSON_TRY(bw_json_string(t, &string));
            t->scratch = scratch; /* nobody will look at the name again */
            l->member = (uint8_t)member_of(j, l->place, &string);
            j->next = A_COLON;
        }
        if (j->next == A_COLON) {
            BW_JSON_TRY(bw_json_space(t));
            if (*t->at++ != ':') return BW_JSON_SYNTAX;
            j->next = A_VALUE;
        }
        if (j->next == A_VALUE) {
            c = t->part == BW_JSON_STRING ? '"' : '0';
            if (t->part == BW_JSON_WHOLE) {
                BW_JSON_TRY(bw_json_space(t));
                c = *t->at;
                if (c != '"' || l->place > IN_FIELD) BW_JSON_TRY(begin_value(j, l, c, &in));
            }
            if (c == '"') {
                scratch = t->scratch;
                BW_JSON_TRY(bw_json_string(t, &string));
                if (l->member < FIELDS) {
                    j->field[l->member] = (struct value){string.at, string.len, c};
                } else {
                    t->scratch = scratch;
                    end_value(j, l);
                }
                j->next = BEHIND_VALUE;
            } else if (c == '{' || c == '[') {
                if (j->depth == BW_JSON_DEPTH) return BW_JSON_DEEP;
                t->at++;
                l = &j->level[++j->depth];
                *l = (struct level){in, OTHER, c == '{' ? '}' : ']'};
                j->next = A_MEMBER;
            } else {
                BW_JSON_TRY(bw_json_word(t));
                end_value(j, l);
                j->next = BEHIND_VALUE;
            }
        }
        if (j->next == A_MEMBER) {
            BW_JSON_TRY(bw_json_space(t));
            if (*t->at == l->closes) {
                t->at++;
                l = leave(j, l);
                j->next = BEHIND_VALUE;
            } else {
                BW_JSON_TRY(bw_json_count(t));
                j->next = l->closes == '}' ? A_NAME : A_VALUE;
                continue;
            }
        }
        while (j->next == BEHIND_VALUE && j->depth) {
            BW_JSON_TRY(bw_json_space(t));
            c = *t->at++;
            if (c == ',') {
                BW_JSON_TRY(bw_json_count(t));
                j->next = l->closes == '}' ? A_NAME : A_VALUE;
                if (j->ready) return BW_JSON_OK;
            } else {
                if (c != l->closes) return BW_JSON_SYNTAX;
                l = leave(j, l);
            }
        }
        if (j->next == BEHIND_VALUE) {
            const enum bw_json_cause cause = bw_json_space(t);
            if (cause == BW_JSON_AGAIN) return cause;
            j->next = A_VALUE; /* another one behind it: some write lines of them */
            if (cause != BW_JSON_OK && t->at == t->end) j->done = 1;
            else if (j->form != BW_JSON_STREAM || !j->ready) return BW_JSON_SYNTAX;
            return BW_JSON_OK;
        }
    }
}

/* Makes of an item what it is. */
static void finish(struct bw_json *j, uint8_t *room, uint32_t room_len, struct bw_json_item *out) {
    const int is_entry = j->form >= BW_JSON_POOL;
    if (j->is_tx) make(j, room, room_len, out);
    else if (is_entry) out->cause = BW_JSON_KIND;
    else out->kind = BW_JSON_OTHER;
    if (j->answered && out->kind == BW_JSON_ANNOUNCED) out->kind = BW_JSON_OTHER;
    if (is_entry && out->kind != BW_JSON_TX) {
        out->kind = BW_JSON_NONE;
        if (out->cause == BW_JSON_OK) out->cause = BW_JSON_MISSING;
    }
    out->queued = j->queued;
}

static int stop(struct bw_json *j, enum bw_json_cause cause) {
    j->done = 1;
    return -(int)cause;
}

int bw_json_next(struct bw_json *j, uint32_t budget, uint8_t *room, uint32_t room_len,
                 struct bw_json_item *out) {
    struct bw_json_text *t = &j->text;
    const uint8_t *from = t->at;
    out->walked = 0;
    if (j->done == 2) return stop(j, BW_JSON_ROOM);
    if (j->done) return 0;
    t->pause = (size_t)(t->end - from) > budget ? from + budget : t->end;
    const enum bw_json_cause cause = walk(j);
    const int ready = cause == BW_JSON_OK && j->ready;
    if (ready) {
        *out = j->item;
        finish(j, room, room_len, out);
        j->ready = 0;
    }
    out->walked = (uint32_t)(t->at - from);
    if (cause == BW_JSON_AGAIN) return BW_JSON_AGAIN;
    return cause == BW_JSON_OK ? ready : stop(j, cause);
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
        [BW_JSON_LONG] = "long",
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
