#include "endpoint.h"

#include <string.h>

void dpb_sample_keep(struct dpb_sample *sample, const void *bytes, uint32_t available,
                     uint32_t len) {
    uint32_t kept = len < available ? len : available;
    if (kept > DPB_SAMPLE_BYTES)
        kept = DPB_SAMPLE_BYTES;
    sample->len = len;
    sample->kept = kept;
    memcpy(sample->bytes, bytes, kept);
}
