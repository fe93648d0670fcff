/* A private key that signs, and is never handed out.
 *
 * A key enters by a file descriptor or a buffer, goes straight into a vault (vault.h), and from
 * then on the only thing that leaves is a signature. With a pool (presign.h) signing a hash takes a
 * fraction of a microsecond; without one, or while the pool is empty, about twenty (RFC 6979,
 * counted). Either way s is low, and in a forked child there is no key: BW_SIGN_FORKED. */
#ifndef BAREWIRE_SIGNER_H
#define BAREWIRE_SIGNER_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
struct bw_key;
struct bw_signer;

#define BW_SIGN_FAILED -2 /* libsecp256k1 refused the key */
#define BW_SIGN_FORKED -3 /* this process is a child of the one that holds the key */
#define BW_SIGN_NOBODY -5 /* no signer was given */

/* The key in 32 bytes at `secret`, copied into a vault. NULL with *why: an errno of a vault that
 * could not be had, or 0 where the bytes are no key. Frees nothing of the caller's. */
struct bw_key *bw_key_new(const uint8_t *secret, int *why);
/* The same from a file: 32 raw bytes, or 64 hexadecimal digits with or without 0x and a final
 * newline; nothing after it. The bytes are only ever in the vault. *why is EBADMSG where the file
 * holds something else, or the errno of read. */
struct bw_key *bw_key_read(int fd, int *why);
/* A new key, drawn from the kernel's generator. */
struct bw_key *bw_key_generate(int *why);
/* Its 20-byte address. */
void bw_key_address(const struct bw_key *key, uint8_t *address);
/* Copies the secret out, to be encrypted into a keystore. Returns 1, or 0 in a forked child. */
int bw_key_reveal(const struct bw_key *key, uint8_t *secret);
void bw_key_free(struct bw_key *key);

/* A signer with a copy of `key`. `capacity` presignatures (2 or more) are kept ready by a thread on CPU `core`
 * (-1: any), or none if 0. `generation_fd`: a non-blocking socket of kernel uevents, at whose
 * word of a new generation id the pool is dropped, or -1; it must outlive the signer. NULL with
 * *why, an errno. */
struct bw_signer *bw_signer_new(const struct bw_key *key, uint32_t capacity, int core,
                                int generation_fd, int *why);
/* Stops the thread, wipes the key and the pool. */
void bw_signer_free(struct bw_signer *signer);
/* Signs `hash` (32 bytes) into rs[64]. Returns the parity of R.y, or one of the above
 * (BW_SIGN_NOBODY where `signer` is NULL). Any thread; allocates nothing, makes no system call. */
int bw_signer_sign(struct bw_signer *signer, const uint8_t *hash, uint8_t *rs);
/* Wipes every presignature that is in the pool now. */
void bw_signer_drop(struct bw_signer *signer);

struct bw_signer_counts {
    uint64_t presigned;   /* hashes signed with a presignature */
    uint64_t rfc6979;     /* hashes signed by RFC 6979: all of them without a pool, else fallbacks */
    uint64_t level;       /* presignatures ready */
    uint64_t made;        /* since the start */
    uint64_t dropped;     /* wiped unused */
    uint64_t generations; /* new generation ids of a virtual machine seen */
    uint64_t locked_bytes;
};
void bw_signer_counts(const struct bw_signer *signer, struct bw_signer_counts *counts);
/* </cdef> */

#endif
