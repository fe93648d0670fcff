#define _GNU_SOURCE
#include "signer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "presign.h"
#include "secp.h"
#include "vault.h"

/* In a vault. `set` is zero once forked. */
struct bw_key {
    uint32_t set;
    uint8_t secret[32];
    uint8_t address[20];
    uint8_t text[70]; /* what was read from a file */
};

struct bw_signer {
    struct bw_key *key;
    struct bw_pool *pool; /* NULL without presignatures */
    _Atomic uint64_t presigned, rfc6979;
};

/* ---- keys ---- */

static struct bw_key *finish(struct bw_key *key, int *why) {
    if (bw_secp_address(key->secret, key->address) == 1) {
        key->set = 1;
        return key;
    }
    *why = 0;
    bw_key_free(key);
    return NULL;
}

static struct bw_key *blank(int *why) {
    struct bw_key *key = bw_vault_new(sizeof *key);
    if (!key) *why = errno;
    return key;
}

struct bw_key *bw_key_new(const uint8_t *secret, int *why) {
    struct bw_key *key = blank(why);
    if (!key) return NULL;
    memcpy(key->secret, secret, 32);
    return finish(key, why);
}

struct bw_key *bw_key_generate(int *why) {
    struct bw_key *key = blank(why);
    if (!key) return NULL;
    do {
        if (getrandom(key->secret, 32, 0) != 32) {
            *why = errno;
            bw_key_free(key);
            return NULL;
        }
    } while (bw_secp_address(key->secret, key->address) == 0);
    return finish(key, why);
}

static int digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* text[len] -> secret; 1, or 0 if it is neither 32 bytes nor 64 digits. */
static int parse(struct bw_key *key, size_t len) {
    const uint8_t *text = key->text;
    if (len == 32) {
        memcpy(key->secret, text, 32);
        return 1;
    }
    if (len && text[len - 1] == '\n') len -= len > 1 && text[len - 2] == '\r' ? 2 : 1;
    if (len == 66 && text[0] == '0' && (text[1] | 0x20) == 'x') text += 2, len -= 2;
    if (len != 64) return 0;
    for (int i = 0; i < 32; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return 0;
        key->secret[i] = (uint8_t)(high << 4 | low);
    }
    return 1;
}

struct bw_key *bw_key_read(int fd, int *why) {
    size_t len = 0;
    struct bw_key *key = blank(why);
    if (!key) return NULL;
    for (;;) {
        ssize_t got = read(fd, key->text + len, sizeof key->text - len);
        if (got < 0 && errno == EINTR) continue;
        if (got > 0) {
            len += (size_t)got;
            if (len < sizeof key->text) continue;
        }
        if (got == 0 && parse(key, len)) break;
        *why = got < 0 ? errno : EBADMSG;
        bw_key_free(key);
        return NULL;
    }
    explicit_bzero(key->text, sizeof key->text);
    return finish(key, why);
}

void bw_key_address(const struct bw_key *key, uint8_t *address) {
    memcpy(address, key->address, 20);
}

int bw_key_reveal(const struct bw_key *key, uint8_t *secret) {
    if (!key->set) return 0;
    memcpy(secret, key->secret, 32);
    return 1;
}

void bw_key_free(struct bw_key *key) { bw_vault_free(key, sizeof *key); }

/* ---- signers ---- */

struct bw_signer *bw_signer_new(const struct bw_key *key, uint32_t capacity, int core,
                                int generation_fd, int *why) {
    if (!key->set) {
        *why = EOWNERDEAD;
        return NULL;
    }
    struct bw_signer *signer = calloc(1, sizeof *signer);
    if (!signer || !(signer->key = bw_key_new(key->secret, why))) {
        if (!signer) *why = ENOMEM;
        free(signer);
        return NULL;
    }
    if (capacity && !(signer->pool = bw_pool_new(key->secret, capacity, core, generation_fd))) {
        *why = errno;
        bw_signer_free(signer);
        return NULL;
    }
    return signer;
}

void bw_signer_free(struct bw_signer *signer) {
    if (!signer) return;
    bw_pool_free(signer->pool);
    bw_key_free(signer->key);
    free(signer);
}

static void count(_Atomic uint64_t *counter) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

int bw_signer_sign(struct bw_signer *signer, const uint8_t *hash, uint8_t *rs) {
    int parity = BW_POOL_EMPTY;
    if (!signer) return BW_SIGN_NOBODY;
    if (!signer->key->set) return BW_SIGN_FORKED;
    if (signer->pool && (parity = bw_pool_sign(signer->pool, hash, rs)) >= 0) {
        count(&signer->presigned);
        return parity;
    }
    parity = bw_secp_sign(hash, signer->key->secret, rs);
    bw_scrub(8 << 10);
    count(&signer->rfc6979);
    return parity;
}

void bw_signer_drop(struct bw_signer *signer) {
    if (signer->pool && !bw_pool_dead(signer->pool)) bw_pool_drop(signer->pool);
}

void bw_signer_counts(const struct bw_signer *signer, struct bw_signer_counts *counts) {
    struct bw_pool_counts pool = {0};
    if (signer->pool) bw_pool_counts(signer->pool, &pool);
    *counts = (struct bw_signer_counts){
        .presigned = atomic_load(&signer->presigned),
        .rfc6979 = atomic_load(&signer->rfc6979),
        .level = pool.level,
        .made = pool.made,
        .dropped = pool.dropped,
        .generations = pool.generations,
        .locked_bytes = pool.bytes + bw_vault_size(sizeof(struct bw_key)),
    };
}
