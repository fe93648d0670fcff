// sources: dpdk_bindings/native/capture.c
// max_len: 8192
//
// Any bytes as a capture file. Beyond what the sanitizers see: every frame that is given out lies
// inside the file, further on than the one before, and reading comes to an end.
#include <stdlib.h>
#include <string.h>

#include "capture.h"

static void insist(int truth) {
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *file = malloc(size ? size : 1); // of the exact size, so that one byte more is seen
    memcpy(file, data, size);
    struct dpb_capture capture;
    uint32_t link_type;
    if (dpb_capture_open(&capture, file, size, &link_type) == DPB_CAPTURE_OK) {
        struct dpb_captured frame;
        const uint8_t *end = file;
        uint8_t sum = 0;
        while (dpb_capture_next(&capture, &frame)) {
            insist(frame.data >= end && frame.len <= DPB_CAPTURE_LONGEST);
            insist(frame.data + frame.len <= file + size && file + frame.at < frame.data);
            end = frame.data + frame.len;
            for (uint32_t i = 0; i < frame.len; i++)
                sum ^= frame.data[i];
        }
        insist(capture.at == size && capture.bad <= 1);
        insist(!dpb_capture_next(&capture, &frame));
        *(volatile uint8_t *)&sum = sum;
    }
    free(file);
    return 0;
}
