#define _GNU_SOURCE
#include "secp.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "keccak.h"

struct bw_secp_calls bw_secp;

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static char loaded_path[PATH_MAX];
static char error[PATH_MAX + 256];

/* The names below are those of libsecp256k1 0.2 and later; the recovery module is optional in it. */
static const struct {
    const char *name;
    size_t offset;
} SYMBOLS[] = {
    {"secp256k1_ec_seckey_verify", offsetof(struct bw_secp_calls, seckey_verify)},
    {"secp256k1_ec_seckey_negate", offsetof(struct bw_secp_calls, seckey_negate)},
    {"secp256k1_ec_seckey_tweak_add", offsetof(struct bw_secp_calls, seckey_tweak_add)},
    {"secp256k1_ec_seckey_tweak_mul", offsetof(struct bw_secp_calls, seckey_tweak_mul)},
    {"secp256k1_ec_pubkey_create", offsetof(struct bw_secp_calls, pubkey_create)},
    {"secp256k1_ec_pubkey_serialize", offsetof(struct bw_secp_calls, pubkey_serialize)},
    {"secp256k1_ecdsa_recoverable_signature_parse_compact",
     offsetof(struct bw_secp_calls, signature_parse)},
    {"secp256k1_ecdsa_recoverable_signature_serialize_compact",
     offsetof(struct bw_secp_calls, signature_serialize)},
    {"secp256k1_ecdsa_sign_recoverable", offsetof(struct bw_secp_calls, sign)},
    {"secp256k1_ecdsa_recover", offsetof(struct bw_secp_calls, recover)},
};

static int address_of(const struct bw_secp_calls *secp, const uint8_t *pubkey, uint8_t *address) {
    uint8_t point[65], hash[32];
    size_t len = sizeof point;
    if (!secp->pubkey_serialize(secp->context, point, &len, pubkey, BW_SECP_UNCOMPRESSED)) return 0;
    bw_keccak256(point + 1, 64, hash);
    memcpy(address, hash + 12, 20);
    return 1;
}

static int recover(const struct bw_secp_calls *secp, const uint8_t *hash, const uint8_t *rs,
                   int y_parity, uint8_t *address) {
    uint8_t signature[BW_SECP_SIGNATURE], pubkey[BW_SECP_PUBKEY];
    if (y_parity & ~1) return 0;
    return secp->signature_parse(secp->context, signature, rs, y_parity) &&
           secp->recover(secp->context, pubkey, signature, hash) &&
           address_of(secp, pubkey, address);
}

static int sign(const struct bw_secp_calls *secp, const uint8_t *hash, const uint8_t *key,
                uint8_t *rs) {
    uint8_t signature[BW_SECP_SIGNATURE];
    int parity;
    if (!secp->sign(secp->context, signature, hash, key, NULL, NULL)) return -2;
    secp->signature_serialize(secp->context, rs, &parity, signature);
    /* 2 and 3 say that R.x was not below the group order: one signature in 2^127. */
    return parity & ~1 ? -2 : parity;
}

/* The key 1 has a well-known address; what it signs has to lead back there. */
static int known_answer(const struct bw_secp_calls *secp) {
    static const uint8_t EXPECTED[20] = {0x7e, 0x5f, 0x45, 0x52, 0x09, 0x1a, 0x69, 0x12, 0x5d, 0x5d,
                                         0xfc, 0xb7, 0xb8, 0xc2, 0x65, 0x90, 0x29, 0x39, 0x5b, 0xdf};
    uint8_t key[32] = {[31] = 1}, hash[32] = {1}, rs[64], address[20];
    int parity = sign(secp, hash, key, rs);
    return parity >= 0 && recover(secp, hash, rs, parity, address) &&
           memcmp(address, EXPECTED, sizeof address) == 0;
}

static int load(const char *path) {
    struct bw_secp_calls found = {0};
    uint8_t seed[32];
    Dl_info info;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(error, sizeof error, "%s", dlerror());
        return -1;
    }
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
        void *symbol = dlsym(handle, SYMBOLS[i].name);
        if (!symbol) {
            snprintf(error, sizeof error, "%s has no %s", path, SYMBOLS[i].name);
            goto fail;
        }
        memcpy((char *)&found + SYMBOLS[i].offset, &symbol, sizeof symbol);
    }
    void *(*create)(unsigned) = (void *(*)(unsigned))dlsym(handle, "secp256k1_context_create");
    int (*randomize)(void *, const uint8_t *) =
        (int (*)(void *, const uint8_t *))dlsym(handle, "secp256k1_context_randomize");
    void *context = create ? create(1 /* SECP256K1_CONTEXT_NONE */) : NULL;
    if (!context || !randomize || getrandom(seed, sizeof seed, 0) != sizeof seed ||
        !randomize(context, seed)) {
        snprintf(error, sizeof error, "%s made no context", path);
        goto fail;
    }
    explicit_bzero(seed, sizeof seed);
    found.context = context;
    if (!known_answer(&found)) {
        snprintf(error, sizeof error, "%s failed the known-answer test", path);
        goto fail;
    }
    if (!dladdr((void *)found.sign, &info) || !realpath(info.dli_fname, loaded_path))
        snprintf(loaded_path, sizeof loaded_path, "%s", path);
    bw_secp = found;
    return 0;
fail:
    dlclose(handle);
    return -1;
}

int bw_secp_load(const char *path) {
    pthread_mutex_lock(&loading);
    int result = bw_secp.context ? 0 : load(path);
    pthread_mutex_unlock(&loading);
    return result;
}

const char *bw_secp_path(void) { return bw_secp.context ? loaded_path : NULL; }

const char *bw_secp_error(void) { return error; }

int bw_secp_recover(const uint8_t *hash, const uint8_t *rs, int y_parity, uint8_t *address) {
    return bw_secp.context ? recover(&bw_secp, hash, rs, y_parity, address) : BW_SECP_ABSENT;
}

int bw_secp_address(const uint8_t *key, uint8_t *address) {
    uint8_t pubkey[BW_SECP_PUBKEY];
    if (!bw_secp.context) return BW_SECP_ABSENT;
    return bw_secp.pubkey_create(bw_secp.context, pubkey, key) &&
           address_of(&bw_secp, pubkey, address);
}

int bw_secp_sign(const uint8_t *hash, const uint8_t *key, uint8_t *rs) {
    return bw_secp.context ? sign(&bw_secp, hash, key, rs) : BW_SECP_ABSENT;
}
