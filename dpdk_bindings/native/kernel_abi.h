/* Constants of the kernel's ABI that are younger than Debian 12's headers (6.1).
 * Source: include/uapi/linux/{if_xdp,bpf}.h and asm-generic/socket.h of Linux 6.6. */
#ifndef DPB_KERNEL_ABI_H
#define DPB_KERNEL_ABI_H

#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4) /* bind: frames of several buffers */
#endif
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0) /* desc.options: the frame goes on in the next descriptor */
#endif
#ifndef BPF_F_XDP_DEV_BOUND_ONLY
#define BPF_F_XDP_DEV_BOUND_ONLY (1U << 6) /* a program of one device, which may ask its driver */
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif

#endif
