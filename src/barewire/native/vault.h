/* Memory for what must not leak: private keys and presignatures.
 *
 * A secret in ordinary memory ends up in a swap partition, in a core dump, and in every process
 * forked afterwards. A vault is a private anonymous mapping of its own between two inaccessible
 * pages, and the kernel is told, page by page, what it may not do with it: mlock (never swapped),
 * MADV_DONTDUMP (in no core dump) and MADV_WIPEONFORK (zeros in a child; Linux 4.14). If any of the
 * three is refused there is no vault: half of them would be a false promise. What it does not stop:
 * whoever may read this process's memory (root, ptrace), and a snapshot of the whole machine. */
#ifndef BAREWIRE_VAULT_H
#define BAREWIRE_VAULT_H

#include <stddef.h>

/* A vault of at least `len` bytes, zeroed, page-aligned. NULL with errno: ENOMEM, EPERM or EAGAIN
 * where RLIMIT_MEMLOCK does not allow that much, EINVAL where the kernel lacks MADV_WIPEONFORK. */
void *bw_vault_new(size_t len);
/* Wipes and unmaps; `len` as given to bw_vault_new. Also right in a forked child. */
void bw_vault_free(void *vault, size_t len);
/* What a vault of `len` bytes locks, in bytes. */
size_t bw_vault_size(size_t len);

#endif
