// sources: src/barewire/native/wsframe.c
// runs: 5000000
// max_len: 4096
//
// Any bytes as what a WebSocket server sends, once in one piece and once in pieces whose sizes the
// input chooses too. Beyond what the sanitizers see: both give the same events, no message is
// longer than allowed, nothing follows a close or a failure, and what is written is a frame that
// gives the payload back.
#include <stdlib.h>
#include <string.h>

#include "wsframe.h"

#define LIMIT 300

static void insist(int truth) {
    if (!truth) abort();
}

struct log {
    size_t len;
    int over;
    uint8_t bytes[1 << 16];
};

static void drain(struct bw_ws *ws, struct log *log) {
    struct bw_ws_event event;
    while (bw_ws_next(ws, &event)) {
        insist(!log->over);
        log->over = event.kind == BW_WS_CLOSE || event.kind == BW_WS_FAIL;
        insist(event.len <= (event.kind >= 8 ? BW_WS_CONTROL_BYTES : LIMIT));
        insist((event.code != 0) == log->over);
        insist((*bw_ws_why(ws) != 0) == (event.kind == BW_WS_FAIL));
        uint8_t head[8] = {event.kind, event.compressed, (uint8_t)event.code,
                           (uint8_t)(event.code >> 8), (uint8_t)event.len,
                           (uint8_t)(event.len >> 8)};
        if (log->len + 8 + event.len > sizeof log->bytes) return;
        memcpy(log->bytes + log->len, head, 8);
        if (event.len) memcpy(log->bytes + log->len + 8, event.data, event.len);
        log->len += 8 + event.len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct log whole, pieces;
    if (size < 17) return 0;
    const uint8_t *sizes = data + 1, *bytes = data + 17;
    size_t len = size - 17;
    whole.len = pieces.len = 0;
    whole.over = pieces.over = 0;

    uint8_t *copy = malloc(len);
    if (len) memcpy(copy, bytes, len);
    struct bw_ws *ws = bw_ws_new(LIMIT, data[0] & 1);
    bw_ws_lend(ws, copy, len);
    drain(ws, &whole);
    bw_ws_free(ws);
    free(copy);

    ws = bw_ws_new(LIMIT, data[0] & 1);
    for (size_t at = 0, i = 0; at < len; i++) {
        size_t take = (size_t)sizes[i % 16] + 1;
        if (take > len - at) take = len - at;
        copy = malloc(take);
        memcpy(copy, bytes + at, take);
        bw_ws_lend(ws, copy, take);
        drain(ws, &pieces);
        free(copy);
        at += take;
    }
    insist(bw_ws_stats(ws)->bytes == len);
    bw_ws_free(ws);
    insist(whole.len == pieces.len && whole.over == pieces.over);
    insist(!memcmp(whole.bytes, pieces.bytes, whole.len));

    uint8_t *frame = malloc(len + BW_WS_HEAD_BYTES);
    size_t written = bw_ws_write(2, 0, bytes, len, data + 1, frame);
    size_t head = written - len;
    insist(head >= 6 && head <= BW_WS_HEAD_BYTES && !memcmp(frame + head - 4, data + 1, 4));
    for (size_t i = 0; i < len; i++) insist((frame[head + i] ^ data[1 + i % 4]) == bytes[i]);
    free(frame);
    return 0;
}
