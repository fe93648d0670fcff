#include "endpoint.h"

#include <string.h>

int dpb_datagram_recv(const struct dpb_datagram_ref *ref, struct dpb_datagram *out, int max) {
    return ref->ops->recv(ref->endpoint, out, max);
}

void dpb_datagram_release(const struct dpb_datagram_ref *ref, const struct dpb_datagram *d, int n) {
    ref->ops->release(ref->endpoint, d, n);
}

int dpb_datagram_flush(const struct dpb_datagram_ref *ref) {
    return ref->ops->flush(ref->endpoint);
}

int dpb_datagram_send(const struct dpb_datagram_ref *ref, int peer, const uint8_t *payload,
                      uint32_t len) {
    uint8_t *room = len ? ref->ops->reserve(ref->endpoint, peer, len) : NULL;
    if (!room)
        return 0;
    memcpy(room, payload, len);
    int rc = ref->ops->commit(ref->endpoint, len);
    return rc < 0 ? rc : 1;
}

void dpb_sample_keep(struct dpb_sample *sample, const void *bytes, uint32_t available,
                     uint32_t len) {
    uint32_t kept = len < available ? len : available;
    if (kept > DPB_SAMPLE_BYTES)
        kept = DPB_SAMPLE_BYTES;
    sample->len = len;
    sample->kept = kept;
    memcpy(sample->bytes, bytes, kept);
}
