/* ECDSA signatures computed before the message exists.
 *
 * A signature is r and s = (z + r d) / k, where only z, the hash, depends on the message. So a pool
 * keeps, for nonces k that were drawn from the kernel's generator, {1/k, r d, r, parity of R.y}.
 * Online two scalar operations are left, all of them calls of libsecp256k1's public interface whose
 * own tests hold them to constant time with every operand secret (src/ctime_tests.c):
 *
 *     t = r d + z        secp256k1_ec_seckey_tweak_add
 *     s = t * (1/k)      secp256k1_ec_seckey_tweak_mul
 *     s > n/2: s = -s, and the other parity (EIP-2 wants the low one)
 *
 * The price is responsibility. Whoever sees one entry has the key: d = (r d) / r. Whoever sees two
 * messages signed with one k has the key too. Hence:
 *
 *   - an entry is taken by compare-and-swap on a position that only grows, before it is read, and
 *     wiped after: whatever threads do, no position is used twice;
 *   - entries, the batch they are made in and the stack that makes them are in vaults (vault.h):
 *     locked, out of core dumps, zeros after a fork. A forked child finds the pool dead and says so;
 *   - they are made by a native thread of this process, are never written to a file and never
 *     shared: a shared mapping cannot be wiped on fork;
 *   - when the pool is empty nothing waits and nothing is reused: the caller signs by RFC 6979.
 *
 * What no code can see is a restored snapshot of the whole machine, which brings used entries back.
 * Linux announces it where the hypervisor has a generation id (vmgenid): the pool listens, and
 * drops everything it holds. Between the restore and the announcement is a gap, so on a virtual
 * machine presigning has to be asked for (barewire.execution.snapshot).
 *
 * The inverse of k is not in libsecp256k1's public interface. It is computed as k^(n-2) by the same
 * constant-time multiplication; the exponent is public, so the sequence is always the same. One
 * such power serves a batch (Montgomery's trick: the inverse of a product gives the inverse of each
 * factor by three multiplications). */
#ifndef BAREWIRE_PRESIGN_H
#define BAREWIRE_PRESIGN_H

#include <stddef.h>
#include <stdint.h>

struct bw_pool;

#define BW_POOL_EMPTY -4

/* A pool of `capacity` entries, 2 or more, for `key` (32 bytes, copied), with its thread, which runs on CPU
 * `core` (-1: wherever) and starts to fill it. `generation_fd` is a non-blocking socket of kernel
 * uevents, or -1; it stays the caller's and must outlive the pool. NULL with errno: as
 * bw_vault_new, or as pthread_create. */
struct bw_pool *bw_pool_new(const uint8_t *key, uint32_t capacity, int core, int generation_fd);
/* Stops the thread, wipes and frees everything. In a forked child: frees. */
void bw_pool_free(struct bw_pool *pool);
/* Signs `hash` (32 bytes) into rs[64] with one entry. Returns the parity of R.y, or BW_POOL_EMPTY
 * (also for a hash, one in 2^127, that a presignature cannot carry). The pool must not be
 * bw_pool_dead. Any thread. */
int bw_pool_sign(struct bw_pool *pool, const uint8_t *hash, uint8_t *rs);
/* Whether this process is not the one that made the pool. */
int bw_pool_dead(const struct bw_pool *pool);
/* Wipes every entry that is in the pool now; the thread makes new ones. Any thread. */
void bw_pool_drop(struct bw_pool *pool);

struct bw_pool_counts {
    uint64_t level;       /* entries ready */
    uint64_t made;        /* since the start */
    uint64_t dropped;     /* wiped unused */
    uint64_t generations; /* new generation ids seen */
    uint64_t bytes;       /* locked memory, everything included */
};
void bw_pool_counts(const struct bw_pool *pool, struct bw_pool_counts *counts);

/* One entry. Nothing outside presign.c and its tests has business with it. */
struct bw_presignature {
    uint8_t k_inverse[32];
    uint8_t rd[32];
    uint8_t r[32];
    uint8_t y_parity;
};
/* Room to make a batch in; secret, so in a vault. */
#define BW_BATCH 64
struct bw_batch {
    uint8_t k[BW_BATCH][32];
    uint8_t product[BW_BATCH][32];
    uint8_t power[16][32];
    uint8_t inverse[32];
    uint8_t scratch[32];
};
/* Makes `n` (1 to BW_BATCH) entries from the nonces in batch->k, each a valid secret key, for
 * `key`. Wipes the batch. Returns 1, or 0 if some nonce gives no signature (one in 2^127). */
int bw_presign(struct bw_batch *batch, int n, const uint8_t *key, struct bw_presignature *out);
/* Completes `entry` for `hash` and wipes it. Returns the parity of R.y, or BW_POOL_EMPTY. */
int bw_presign_finish(struct bw_presignature *entry, const uint8_t *hash, uint8_t *rs);
/* Clears what calls made before it left behind: `stack_bytes` below the caller, and (on x86-64) the
 * vector registers, through which every copy of a secret has passed. */
void bw_scrub(size_t stack_bytes);

#endif
