#define _GNU_SOURCE
#include "vault.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

size_t bw_vault_size(size_t len) { return (len + page() - 1) / page() * page(); }

void *bw_vault_new(size_t len) {
    size_t guard = page(), size = bw_vault_size(len);
    uint8_t *all = mmap(NULL, size + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return NULL;
    uint8_t *vault = all + guard;
    if (mprotect(vault, size, PROT_READ | PROT_WRITE) || madvise(vault, size, MADV_DONTDUMP) ||
        madvise(vault, size, MADV_WIPEONFORK) || mlock(vault, size)) {
        int why = errno;
        munmap(all, size + 2 * guard);
        errno = why;
        return NULL;
    }
    return vault;
}

void bw_vault_free(void *vault, size_t len) {
    if (!vault) return;
    size_t guard = page(), size = bw_vault_size(len);
    explicit_bzero(vault, size);
    munmap((uint8_t *)vault - guard, size + 2 * guard);
}
