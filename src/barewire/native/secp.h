/* secp256k1 from a library found at start.
 *
 * Nobody should write their own constant-time curve arithmetic, and a shop that colocates servers
 * wants to know, and to choose, whose it runs. So libsecp256k1 is not linked: it is opened with
 * dlopen from a path that the caller names (barewire.secp looks for Debian's library, then for the
 * copy inside coincurve's wheel), checked with a known answer, and reported. It is loaded once per
 * process and never unloaded; every function below is then safe from any thread. Before that they
 * fail with BW_SECP_ABSENT and do nothing.
 *
 * Only calls of the library's public interface are used; those on secrets are the ones that its own
 * tests hold to constant time (libsecp256k1: src/ctime_tests.c). */
#ifndef BAREWIRE_SECP_H
#define BAREWIRE_SECP_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
#define BW_SECP_ABSENT -1 /* no library is loaded */

/* Opens the shared library at `path` (a path, or a name for the dynamic linker). Returns 0, or -1
 * and bw_secp_error() says why in words. Once one is loaded, further calls change nothing and
 * return 0. */
int bw_secp_load(const char *path);
/* The file that was loaded, links resolved, or NULL. Static memory. */
const char *bw_secp_path(void);
/* Why the last bw_secp_load failed. Static memory, overwritten by the next failure. */
const char *bw_secp_error(void);

/* Recovers who signed `hash` (32 bytes) with `rs` (r and s, 32 bytes each, big-endian) and
 * `y_parity` (0 or 1) into address[20]. Returns 1; 0 if there is no such key (r or s zero or not
 * below the group order, r not on the curve); or BW_SECP_ABSENT. A high s is accepted: refusing it
 * (EIP-2) is the caller's. About 30 us. */
int bw_secp_recover(const uint8_t *hash, const uint8_t *rs, int y_parity, uint8_t *address);
/* The address of the private key `key` (32 bytes) into address[20]. Returns 1; 0 if `key` is zero
 * or not below the group order; or BW_SECP_ABSENT. */
int bw_secp_address(const uint8_t *key, uint8_t *address);
/* Signs `hash` with `key` and the nonce of RFC 6979 into rs[64], s low. Returns the parity of R.y,
 * 0 or 1; -2 if `key` is no key; or BW_SECP_ABSENT. About 20 us. */
int bw_secp_sign(const uint8_t *hash, const uint8_t *key, uint8_t *rs);
/* </cdef> */

/* The library's calls, for the native code that composes them (presign.c). `context` was
 * randomised when it was made. All NULL until a library is loaded. */
struct bw_secp_calls {
    const void *context;
    int (*seckey_verify)(const void *, const uint8_t *);
    int (*seckey_negate)(const void *, uint8_t *);
    int (*seckey_tweak_add)(const void *, uint8_t *, const uint8_t *);
    int (*seckey_tweak_mul)(const void *, uint8_t *, const uint8_t *);
    int (*pubkey_create)(const void *, uint8_t *, const uint8_t *);
    int (*pubkey_serialize)(const void *, uint8_t *, size_t *, const uint8_t *, unsigned);
    int (*signature_parse)(const void *, uint8_t *, const uint8_t *, int);
    int (*signature_serialize)(const void *, uint8_t *, int *, const uint8_t *);
    int (*sign)(const void *, uint8_t *, const uint8_t *, const uint8_t *, const void *,
                const void *);
    int (*recover)(const void *, uint8_t *, const uint8_t *, const uint8_t *);
};
extern struct bw_secp_calls bw_secp;

#define BW_SECP_PUBKEY 64      /* sizeof(secp256k1_pubkey) */
#define BW_SECP_SIGNATURE 65   /* sizeof(secp256k1_ecdsa_recoverable_signature) */
#define BW_SECP_UNCOMPRESSED 2 /* SECP256K1_EC_UNCOMPRESSED */

#endif
