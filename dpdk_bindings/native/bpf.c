#include "bpf.h"

#include "kernel_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
    int result = syscall(SYS_bpf, command, attr, sizeof *attr);
    return result < 0 ? -errno : result;
}

int dpb_bpf_map(enum bpf_map_type type, const char *name, uint32_t key, uint32_t value,
                uint32_t entries)
{
    union bpf_attr attr = {.map_type = type, .key_size = key, .value_size = value,
                           .max_entries = entries};
    snprintf(attr.map_name, sizeof attr.map_name, "%s", name);
    return bpf(BPF_MAP_CREATE, &attr);
}

static union bpf_attr element(int map, const void *key, const void *value, uint64_t flags)
{
    return (union bpf_attr){.map_fd = map, .key = (uintptr_t)key, .value = (uintptr_t)value,
                            .flags = flags};
}

int dpb_bpf_put(int map, const void *key, const void *value, uint64_t flags)
{
    union bpf_attr attr = element(map, key, value, flags);
    return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

int dpb_bpf_get(int map, const void *key, void *value)
{
    union bpf_attr attr = element(map, key, value, 0);
    return bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

int dpb_bpf_delete(int map, const void *key)
{
    union bpf_attr attr = element(map, key, NULL, 0);
    return bpf(BPF_MAP_DELETE_ELEM, &attr);
}

int dpb_bpf_load_xdp(const char *name, const struct bpf_insn *code, uint32_t n, uint32_t flags,
                     int bound_to, char *log, uint32_t log_size)
{
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_XDP,
        .expected_attach_type = BPF_XDP,
        .insns = (uintptr_t)code,
        .insn_cnt = n,
        /* The kernel lends some functions only to programs under a licence compatible with the
         * GPL; the program assembled in xdp.c (it alone) is offered under these too. */
        .license = (uintptr_t) "Dual BSD/GPL",
        .prog_flags = flags,
        .prog_ifindex = bound_to,
    };
    snprintf(attr.prog_name, sizeof attr.prog_name, "%s", name);
    int fd = bpf(BPF_PROG_LOAD, &attr);
    if (fd >= 0 || fd == -EPERM)
        return fd;
    /* Once more, now with the log: asking for one makes a good load slower. */
    attr.log_buf = (uintptr_t)log;
    attr.log_size = log_size;
    attr.log_level = 1;
    return bpf(BPF_PROG_LOAD, &attr);
}

int dpb_bpf_attach_xdp(int program, int ifindex, uint32_t xdp_flags)
{
    union bpf_attr attr = {.link_create = {.prog_fd = program, .target_ifindex = ifindex,
                                           .attach_type = BPF_XDP, .flags = xdp_flags}};
    return bpf(BPF_LINK_CREATE, &attr);
}

static int object_info(int fd, void *info, uint32_t size)
{
    union bpf_attr attr = {.info = {.bpf_fd = fd, .info_len = size, .info = (uintptr_t)info}};
    return bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

int dpb_bpf_link_ifindex(int link)
{
    struct bpf_link_info info = {0};
    int result = object_info(link, &info, sizeof info);
    return result < 0 ? result : (int)info.xdp.ifindex;
}

uint32_t dpb_bpf_program_id(int program)
{
    struct bpf_prog_info info = {0};
    return object_info(program, &info, sizeof info) < 0 ? 0 : info.id;
}

void dpb_bpf_program_name(uint32_t id, char name[16])
{
    union bpf_attr attr = {.prog_id = id};
    int fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
    struct bpf_prog_info info = {0};
    if (fd < 0)
        return;
    if (object_info(fd, &info, sizeof info) == 0)
        snprintf(name, 16, "%s", info.name);
    close(fd);
}

/* What kind of BPF object a descriptor is: the kernel names it in /proc/self/fd. */
static bool is_kind(int fd, const char *kind)
{
    char path[32], target[32] = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return readlink(path, target, sizeof target - 1) > 0 && strstr(target, kind) != NULL;
}

uint32_t dpb_bpf_pinned_program_id(const char *path)
{
    union bpf_attr attr = {.pathname = (uintptr_t)path};
    int fd = bpf(BPF_OBJ_GET, &attr);
    if (fd < 0)
        return 0;
    uint32_t id = 0;
    if (is_kind(fd, "bpf-prog")) {
        id = dpb_bpf_program_id(fd);
    } else if (is_kind(fd, "bpf_link") || is_kind(fd, "bpf-link")) {
        struct bpf_link_info info = {0};
        id = object_info(fd, &info, sizeof info) < 0 ? 0 : info.prog_id;
    }
    close(fd);
    return id;
}

/* Bytes that follow a struct btf_type, or -1 for a kind younger than this code. */
static long btf_tail(const struct btf_type *type)
{
    uint32_t n = BTF_INFO_VLEN(type->info);
    switch (BTF_INFO_KIND(type->info)) {
    case BTF_KIND_INT: return sizeof(uint32_t);
    case BTF_KIND_ARRAY: return sizeof(struct btf_array);
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION: return n * sizeof(struct btf_member);
    case BTF_KIND_ENUM: return n * sizeof(struct btf_enum);
    case BTF_KIND_ENUM64: return n * sizeof(struct btf_enum64);
    case BTF_KIND_FUNC_PROTO: return n * sizeof(struct btf_param);
    case BTF_KIND_VAR: return sizeof(struct btf_var);
    case BTF_KIND_DATASEC: return n * sizeof(struct btf_var_secinfo);
    case BTF_KIND_DECL_TAG: return sizeof(struct btf_decl_tag);
    case BTF_KIND_PTR:
    case BTF_KIND_FWD:
    case BTF_KIND_TYPEDEF:
    case BTF_KIND_VOLATILE:
    case BTF_KIND_CONST:
    case BTF_KIND_RESTRICT:
    case BTF_KIND_FUNC:
    case BTF_KIND_FLOAT:
    case BTF_KIND_TYPE_TAG: return 0;
    default: return -1;
    }
}

static int btf_find(const char *file, size_t size, const char *name)
{
    const struct btf_header *header = (const void *)file;
    if (size < sizeof *header || header->magic != BTF_MAGIC ||
        (uint64_t)header->hdr_len + header->type_off + header->type_len > size ||
        (uint64_t)header->hdr_len + header->str_off + header->str_len > size)
        return -EPROTO;
    const char *at = file + header->hdr_len + header->type_off, *end = at + header->type_len;
    const char *strings = file + header->hdr_len + header->str_off;
    for (int id = 1; at + sizeof(struct btf_type) <= end; id++) {
        const struct btf_type *type = (const void *)at;
        if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC && type->name_off < header->str_len &&
            strncmp(strings + type->name_off, name, header->str_len - type->name_off) == 0)
            return id;
        long tail = btf_tail(type);
        if (tail < 0)
            return -EPROTO;
        at += sizeof *type + tail;
    }
    return -ENOENT;
}

int dpb_btf_function(const char *name)
{
    int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0)
        return -errno;
    int found = -ENOMEM;
    char *file = fstat(fd, &about) == 0 ? malloc(about.st_size) : NULL;
    if (file) {
        size_t have = 0;
        ssize_t got = 0;
        while (have < (size_t)about.st_size &&
               (got = read(fd, file + have, about.st_size - have)) > 0)
            have += got;
        found = got < 0 ? -errno : btf_find(file, have, name);
    }
    free(file);
    close(fd);
    return found;
}
