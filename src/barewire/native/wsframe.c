#include "wsframe.h"

#include <stdlib.h>
#include <string.h>

#define CONTINUATION 0

struct bw_ws {
    const uint8_t *lent;       /* what is lent begins here, */
    const uint8_t *at, *end;   /* and what of it is not used up is here */
    uint8_t head[BW_WS_HEAD_BYTES];
    uint32_t head_have;        /* bytes of the header of the frame at hand */
    uint32_t frame_left;       /* bytes of its payload still to come, once the header is whole */
    uint32_t frame_len;
    uint8_t in_frame;          /* the header is whole */
    uint8_t opcode, fin;
    uint8_t message;           /* kind of the message whose fragments are coming; 0: none */
    uint8_t compressed;
    uint8_t handed_out;        /* the buffer holds a message that was handed out */
    uint8_t over;              /* closed or failed: nothing further counts */
    uint8_t deflate;
    uint8_t control[BW_WS_CONTROL_BYTES];
    const char *why;
    uint32_t max_message;
    uint32_t held;             /* bytes in `buffer` */
    uint8_t *buffer;
    struct bw_ws_stats stats;
};

struct bw_ws *bw_ws_new(uint32_t max_message, int deflate) {
    if (max_message == 0 || max_message > 1u << 30) return NULL;
    struct bw_ws *ws = calloc(1, sizeof *ws);
    if (!ws) return NULL;
    ws->max_message = max_message;
    ws->deflate = deflate != 0;
    ws->why = "";
    ws->buffer = malloc(max_message);
    if (!ws->buffer) {
        free(ws);
        return NULL;
    }
    return ws;
}

void bw_ws_free(struct bw_ws *ws) {
    if (!ws) return;
    free(ws->buffer);
    free(ws);
}

void bw_ws_restart(struct bw_ws *ws) {
    *ws = (struct bw_ws){
        .why = "",
        .max_message = ws->max_message,
        .deflate = ws->deflate,
        .buffer = ws->buffer,
        .stats = ws->stats,
    };
}

const struct bw_ws_stats *bw_ws_stats(const struct bw_ws *ws) { return &ws->stats; }
const char *bw_ws_why(const struct bw_ws *ws) { return ws->why; }

void bw_ws_lend(struct bw_ws *ws, const uint8_t *data, size_t len) {
    ws->lent = ws->at = data;
    ws->end = data + len;
    ws->stats.bytes += len;
}

static int fail(struct bw_ws *ws, struct bw_ws_event *out, uint16_t code, const char *why) {
    ws->over = 1;
    ws->why = why;
    *out = (struct bw_ws_event){.kind = BW_WS_FAIL, .code = code};
    return 1;
}

int bw_utf8_valid(const uint8_t *data, size_t len) {
    const uint8_t *end = data + len;
    while (data < end) {
        uint8_t lead = *data++;
        if (lead < 0x80) continue;
        uint32_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0xc2 || lead > 0xf4 || (size_t)(end - data) < more) return 0;
        uint8_t low = 0x80, high = 0xbf; /* of the second byte: RFC 3629, section 4 */
        if (lead == 0xe0) low = 0xa0;
        if (lead == 0xed) high = 0x9f;
        if (lead == 0xf0) low = 0x90;
        if (lead == 0xf4) high = 0x8f;
        if (*data < low || *data > high) return 0;
        for (data++; --more; data++)
            if ((*data & 0xc0) != 0x80) return 0;
    }
    return 1;
}

/* RFC 6455, 7.4: what may stand in a close frame, and what is registered or private. */
static int may_be_sent(uint16_t code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* Takes bytes of the header until it is whole. Returns 1 when it is, 0 for more bytes, -1 when it
 * breaks a rule (*out says which). The order of the checks is that of `websockets`, so that a frame
 * that breaks two is failed with the same code. */
static int header(struct bw_ws *ws, struct bw_ws_event *out) {
    uint32_t need = 2;
    for (;;) {
        while (ws->head_have < need) {
            if (ws->at == ws->end) return 0;
            ws->head[ws->head_have++] = *ws->at++;
        }
        uint8_t opcode = ws->head[0] & 0x0f, len = ws->head[1];
        if (need == 2) {
            if ((opcode > 2 && opcode < 8) || opcode > 10)
                return fail(ws, out, 1002, "invalid opcode"), -1;
            if (len & 0x80) return fail(ws, out, 1002, "incorrect masking"), -1;
            if (len == 126) need = 4;
            if (len == 127) need = 10;
            if (need > 2) continue;
        }
        break;
    }
    uint64_t len = ws->head[1];
    if (need > 2) {
        len = 0;
        for (uint32_t i = 2; i < need; i++) len = len << 8 | ws->head[i];
    }
    const uint32_t held = ws->message ? ws->held : 0;
    if (len > ws->max_message - held) return fail(ws, out, 1009, "message too big"), -1;
    ws->opcode = ws->head[0] & 0x0f;
    ws->fin = ws->head[0] >> 7;
    const int is_control = ws->opcode >= 8, rsv = ws->head[0] & 0x70;
    const int compressed = ws->deflate && rsv == 0x40 && !is_control && ws->opcode != CONTINUATION;
    if (rsv && !compressed) return fail(ws, out, 1002, "reserved bits must be 0"), -1;
    if (is_control) {
        if (len > BW_WS_CONTROL_BYTES) return fail(ws, out, 1002, "control frame too long"), -1;
        if (!ws->fin) return fail(ws, out, 1002, "fragmented control frame"), -1;
    } else if (ws->opcode == CONTINUATION) {
        if (!ws->message) return fail(ws, out, 1002, "unexpected continuation frame"), -1;
    } else {
        if (ws->message) return fail(ws, out, 1002, "expected a continuation frame"), -1;
        ws->compressed = (uint8_t)compressed;
    }
    ws->frame_len = ws->frame_left = (uint32_t)len;
    ws->in_frame = 1;
    return 1;
}

static int close_frame(struct bw_ws *ws, struct bw_ws_event *out) {
    uint16_t code = 1005; /* none was given */
    if (out->len == 1) return fail(ws, out, 1002, "close frame too short");
    if (out->len >= 2) {
        code = (uint16_t)(out->data[0] << 8 | out->data[1]);
        if (!bw_utf8_valid(out->data + 2, out->len - 2))
            return fail(ws, out, 1007, "close reason is not UTF-8");
        if (!may_be_sent(code)) return fail(ws, out, 1002, "invalid status code");
    }
    if (ws->message) return fail(ws, out, 1002, "incomplete fragmented message");
    out->code = code;
    ws->over = 1;
    return 1;
}

static int control(struct bw_ws *ws, struct bw_ws_event *out) {
    uint32_t have = (uint32_t)(ws->end - ws->at), done = ws->frame_len - ws->frame_left;
    uint32_t take = have < ws->frame_left ? have : ws->frame_left;
    memcpy(ws->control + done, ws->at, take);
    ws->at += take;
    ws->frame_left -= take;
    if (ws->frame_left) return 0;
    ws->in_frame = 0;
    ws->head_have = 0;
    ws->stats.controls++;
    *out = (struct bw_ws_event){.data = ws->control, .len = ws->frame_len, .kind = ws->opcode};
    return ws->opcode == BW_WS_CLOSE ? close_frame(ws, out) : 1;
}

/* Part of a message. Returns 1 when the message is whole. */
static int data(struct bw_ws *ws, struct bw_ws_event *out) {
    size_t have = (size_t)(ws->end - ws->at);
    uint32_t take = have < ws->frame_left ? (uint32_t)have : ws->frame_left;
    const int whole = ws->fin && ws->opcode != CONTINUATION && take == ws->frame_len;
    const uint8_t *from = ws->at;
    ws->at += take;
    ws->frame_left -= take;
    ws->stats.payload += take;
    if (!whole) {
        memcpy(ws->buffer + ws->held, from, take);
        ws->held += take;
    }
    if (ws->frame_left) return 0;
    ws->in_frame = 0;
    ws->head_have = 0;
    if (!ws->fin) {
        if (ws->opcode != CONTINUATION) ws->message = ws->opcode;
        return 0;
    }
    *out = (struct bw_ws_event){
        .data = whole ? from : ws->buffer,
        .len = whole ? take : ws->held,
        .kind = ws->opcode == CONTINUATION ? ws->message : ws->opcode,
        .compressed = ws->compressed,
    };
    ws->stats.messages++;
    ws->stats.fragmented += ws->opcode == CONTINUATION;
    ws->stats.copied += !whole;
    ws->message = 0;
    ws->handed_out = !whole;
    return 1;
}

static int next(struct bw_ws *ws, struct bw_ws_event *out) {
    if (ws->handed_out) ws->handed_out = ws->held = 0;
    while (!ws->over) {
        if (!ws->in_frame) {
            int state = header(ws, out);
            if (state <= 0) return -state;
        }
        if (ws->frame_left && ws->at == ws->end) return 0;
        if (ws->opcode >= 8 ? control(ws, out) : data(ws, out)) return 1;
    }
    ws->at = ws->end;
    return 0;
}

int bw_ws_next(struct bw_ws *ws, struct bw_ws_event *out) {
    if (!next(ws, out)) return 0;
    const int lies = out->data && out->data >= ws->lent && out->data < ws->end;
    out->at = lies ? (uint32_t)(out->data - ws->lent) : BW_WS_ELSEWHERE;
    out->rest = (uint32_t)(ws->end - ws->at);
    return 1;
}

int bw_ws_first(struct bw_ws *ws, const uint8_t *data, size_t len, struct bw_ws_event *out) {
    bw_ws_lend(ws, data, len);
    return bw_ws_next(ws, out);
}

size_t bw_ws_write(uint8_t opcode, int compressed, const uint8_t *payload, size_t len,
                   const uint8_t *mask, uint8_t *out) {
    size_t head = 2;
    out[0] = (uint8_t)(0x80 | (compressed ? 0x40 : 0) | opcode);
    if (len < 126) {
        out[1] = (uint8_t)(0x80 | len);
    } else {
        const uint32_t width = len < 65536 ? 2 : 8;
        out[1] = (uint8_t)(0x80 | (width == 2 ? 126 : 127));
        for (uint32_t i = 0; i < width; i++) out[2 + i] = (uint8_t)(len >> 8 * (width - 1 - i));
        head += width;
    }
    memcpy(out + head, mask, 4);
    head += 4;
    uint64_t word, wide;
    memcpy(&wide, mask, 4);
    memcpy((uint8_t *)&wide + 4, mask, 4);
    size_t i = 0;
    for (; len - i >= 8; i += 8) {
        memcpy(&word, payload + i, 8);
        word ^= wide;
        memcpy(out + head + i, &word, 8);
    }
    for (; i < len; i++) out[head + i] = (uint8_t)(payload[i] ^ mask[i & 3]);
    return head + len;
}
