/* Signs with a nonce of the caller's choice, which the package itself has no way to do. Built by
 * test_presign.py together with the sources under test. */
#include <string.h>

#include "presign.h"

/* Makes `n` entries for `key` from the nonces at `k`, and finishes number `index` for `hash`. */
__attribute__((visibility("default"))) int forced_sign(const uint8_t *key, const uint8_t *k, int n,
                                                       int index, const uint8_t *hash,
                                                       uint8_t *rs) {
    static struct bw_batch batch;
    struct bw_presignature made[BW_BATCH];
    uint8_t zero[sizeof batch] = {0};
    memcpy(batch.k, k, 32 * (size_t)n);
    if (!bw_presign(&batch, n, key, made)) return -100;
    if (memcmp(&batch, zero, sizeof batch)) return -101; /* the batch was not wiped */
    int parity = bw_presign_finish(&made[index], hash, rs);
    if (memcmp(&made[index], zero, sizeof made[index])) return -102; /* the entry was not */
    return parity;
}
