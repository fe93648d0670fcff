// sources: dpdk_bindings/native/headers.c dpdk_bindings/native/checksum.c
//
// Any bytes as a frame. Beyond what the sanitizers see: what is accepted lies inside the frame,
// is accepted without verification too, and comes out the same when it is put together again from
// its own fields and taken apart once more.
#include <stdlib.h>
#include <string.h>

#include "headers.h"

static void insist(int truth) {
    if (!truth)
        abort();
}

static void again(const struct dpb_udp *udp) {
    struct dpb_tx_route route = {
        .source_port = udp->source_port,
        .dest_port = udp->dest_port,
        .vlan = udp->vlan == DPB_NO_VLAN ? DPB_NO_VLAN : udp->vlan & 0x0fff,
        .mtu = 65535,
        .family = udp->family,
        .ttl = 1,
    };
    memcpy(route.source, udp->source, udp->family == 4 ? 4 : 16);
    memcpy(route.dest, udp->dest, udp->family == 4 ? 4 : 16);
    struct dpb_tx_headers headers;
    dpb_tx_prepare(&route, &headers);
    if (udp->payload_len > headers.payload_max)
        return;
    uint8_t *frame = malloc(headers.len + udp->payload_len);
    memcpy(frame, headers.bytes, headers.len);
    memcpy(frame + headers.len, udp->payload, udp->payload_len);
    uint32_t len = dpb_tx_finish(&headers, frame, udp->payload_len);
    struct dpb_udp made;
    insist(dpb_udp_parse(frame, len, 1, &made) == DPB_REJECT_NONE);
    insist(made.family == udp->family && made.source_port == udp->source_port &&
           made.dest_port == udp->dest_port && made.payload_len == udp->payload_len);
    insist(!memcmp(made.payload, udp->payload, udp->payload_len));
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *frame = malloc(size ? size : 1); // of the exact size, so that one byte more is seen
    memcpy(frame, data, size);
    struct dpb_udp verified, trusted;
    int strict = dpb_udp_parse(frame, (uint32_t)size, 1, &verified);
    int lax = dpb_udp_parse(frame, (uint32_t)size, 0, &trusted);
    insist(strict >= 0 && strict < DPB_REJECTS && lax >= 0 && lax < DPB_REJECTS);
    if (strict == DPB_REJECT_NONE)
        insist(lax == DPB_REJECT_NONE);
    if (lax == DPB_REJECT_NONE) {
        insist(trusted.payload >= frame + 42 &&
               trusted.payload + trusted.payload_len <= frame + size);
        again(&trusted);
    }
    free(frame);
    return 0;
}
