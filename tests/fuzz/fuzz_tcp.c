// sources: dpdk_bindings/native/headers.c dpdk_bindings/native/checksum.c
//
// Any bytes as a TCP frame. Beyond what the sanitizers see: what is accepted lies inside the frame,
// and a frame whose checksum field is given the value that the parser calls right is accepted.
#include <stdlib.h>
#include <string.h>

#include "headers.h"

static void insist(int truth) {
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *frame = malloc(size ? size : 1); // of the exact size, so that one byte more is seen
    memcpy(frame, data, size);
    struct dpb_tcp tcp;
    int why = dpb_tcp_parse(frame, (uint32_t)size, &tcp);
    insist(why >= 0 && why < DPB_REJECTS);
    if (why == DPB_REJECT_NONE || why == DPB_REJECT_TCP_CHECKSUM ||
        why == DPB_REJECT_TCP_CHECKSUM_UNFINISHED) {
        insist(tcp.ip >= frame + 14 && tcp.ip + tcp.ip_len <= frame + size);
        insist(tcp.ip_len >= tcp.tcp_at + 20);
        memcpy(frame + (tcp.ip - frame) + tcp.tcp_at + 16, &tcp.right, 2);
        insist(dpb_tcp_parse(frame, (uint32_t)size, &tcp) == DPB_REJECT_NONE);
    }
    free(frame);
    return 0;
}
