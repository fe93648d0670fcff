/* The bpf() system call, the few commands that a port needs. Functions that make something give a
 * file descriptor or a negative errno. */
#ifndef DPB_BPF_H
#define DPB_BPF_H

#include <linux/bpf.h>
#include <stdint.h>

int dpb_bpf_map(enum bpf_map_type type, const char *name, uint32_t key, uint32_t value,
                uint32_t entries);
int dpb_bpf_put(int map, const void *key, const void *value, uint64_t flags);
int dpb_bpf_get(int map, const void *key, void *value);
int dpb_bpf_delete(int map, const void *key);

/* Loads an XDP program. `bound_to` is an interface index where the program may ask that driver
 * for receive metadata, or 0. The verifier's words go to log[0..log_size). */
int dpb_bpf_load_xdp(const char *name, const struct bpf_insn *code, uint32_t n, uint32_t flags,
                     int bound_to, char *log, uint32_t log_size);

/* Attaches; what holds the returned descriptor holds the attachment. */
int dpb_bpf_attach_xdp(int program, int ifindex, uint32_t xdp_flags);

/* The interface that the link of this descriptor attaches to; 0: it was detached, by whomever, or
 * its interface is gone. Or a negative errno. */
int dpb_bpf_link_ifindex(int link);

/* The kernel's number for a program, as `bpftool prog` shows it; 0 if it does not say. */
uint32_t dpb_bpf_program_id(int program);

/* <cdef> */
/* Name of a program by its number; left as it was if there is no such program. */
void dpb_bpf_program_name(uint32_t id, char name[16]);

/* Number of the program, or of the program of the link, that is pinned at `path`; 0: neither. */
uint32_t dpb_bpf_pinned_program_id(const char *path);
/* </cdef> */

/* The type number of kernel function `name` in the kernel's own type information, or a negative
 * errno: what a call instruction needs to call it. */
int dpb_btf_function(const char *name);

#endif
