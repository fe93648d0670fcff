/* A Port over AF_XDP: one socket for each receive queue, all on one memory, in one thread.
 *
 * Where a chunk of memory is: every queue has a home range of receive chunks, and its fill ring is
 * large enough for all of them. So a chunk is always in exactly one of four places - fill ring,
 * kernel, receive ring, application - and giving one back is one store, with no free list and no
 * way to overflow. Transmit chunks are apart from them, in slots that hold the longest frame in
 * one piece; all transmission goes through the first queue's socket.
 *
 * Ownership: a generation number for each chunk goes up when it is handed out and when it comes
 * back. A frame's handle carries it, so a second release, or one of a frame from long ago, is seen,
 * counted and ignored: it cannot put a chunk into a ring twice.
 *
 * A frame that came in several buffers (MTU above a page) is copied into one, so that whoever reads
 * frames needs no second code path. The copy is counted.
 *
 * close() takes the program off the interface and closes the sockets, but leaves the frames'
 * memory, so that a view somebody still holds reads old bytes instead of crashing; free() unmaps. */
#ifndef DPB_AFXDP_H
#define DPB_AFXDP_H

#include "dpdk_bindings/port.h"
#include "error.h"
#include "xdp.h"

/* <cdef> */
enum dpb_afxdp_mode {
    DPB_AFXDP_AUTO = 0,
    DPB_AFXDP_SKB = 1,      /* generic: after the kernel has made its own packet; any driver */
    DPB_AFXDP_DRV = 2,      /* in the driver, bytes copied once */
    DPB_AFXDP_ZEROCOPY = 3, /* in the driver, the NIC writes into our memory */
};

struct dpb_afxdp_options {
    const char *interface;
    enum dpb_afxdp_mode mode;
    uint32_t ring;          /* entries of each receive and transmit ring, a power of two */
    const uint16_t *queues; /* receive queues to take from */
    uint32_t queue_count;   /* 0: all of the interface */
    int busy_poll;          /* ask the kernel to run the driver from poll() */
};

/* How frames lie in memory. Chunks are of 2 KiB where that holds the longest frame of the MTU, and
 * of 4 KiB else, but always of 4 KiB for zero-copy: there the NIC itself is told how much a chunk
 * takes behind the headroom (XDP_PACKET_HEADROOM and ours: 1,776 bytes of 2 KiB), and Intel's igb,
 * igc and the older ixgbe hold that number in whole KiB: igb_setup_srrctl() and
 * igc_configure_rx_ring() shift it right by ten (E1000_SRRCTL_BSIZEPKT_SHIFT,
 * IGC_SRRCTL_BSIZEPKT). From 1,776 they make 1,024, and the NIC cuts every longer frame without a
 * word, the kernel's own traffic too. So of a zero-copy chunk whole KiB count, 3 of 4, and what is
 * longer is asked for in several buffers, which a driver that cannot do so refuses. */
struct dpb_afxdp_shape {
    uint32_t frame_bytes;  /* of the longest frame: MTU, Ethernet header and a tag */
    uint32_t chunk_shift;  /* log2 of bytes a chunk */
    int several_buffers;   /* 1: the longest frame does not fit in one chunk */
};

/* What was chosen, and why. */
struct dpb_afxdp_info {
    enum dpb_afxdp_mode mode;
    char why[256];         /* why this mode and none better */
    char interface[16];
    char driver[32];
    char pages[16];        /* of the frames' memory: "reserved 2M", "transparent 2M" or "4K" */
    uint32_t mtu;
    uint32_t interface_queues;
    uint32_t queues;       /* served by this port */
    uint32_t chunk_bytes;
    uint32_t chunks;
    uint32_t longest_tx;   /* bytes of the longest frame that can be sent: of the MTU at open */
    uint32_t program_id;
    int several_buffers;   /* 1: frames longer than a chunk are taken and sent */
    int asks_driver_time;  /* 1: the driver is asked for hardware time stamps */
    int busy_poll;
};

struct dpb_afxdp_stats {
    uint64_t rx_frames;
    uint64_t rx_bytes;
    uint64_t rx_linearised;            /* of rx_frames: copied together from several buffers */
    uint64_t rx_too_long;              /* dropped: longer than any frame of this MTU */
    uint64_t rx_no_linear_buffer;      /* dropped: the application holds all long buffers */
    uint64_t rx_unstamped;             /* of rx_frames: flow and time unknown, driver has no metadata */
    uint64_t rx_held;                  /* now with the application */
    uint64_t rx_released_twice;        /* releases of a frame that was not out: ignored */
    uint64_t tx_frames;
    uint64_t tx_bytes;
    uint64_t tx_pending;               /* now queued or with the kernel */
    uint64_t tx_ring_full;             /* refused: no free transmit buffer */
    uint64_t tx_too_long;              /* refused: longer than longest_tx */
    uint64_t tx_link_down;             /* refused: the link is down, or the interface gone */
    uint64_t tx_withdrawn;             /* of tx_frames: taken back, or lost with the link; unsent */
    uint64_t tx_dropped;               /* of tx_frames: the driver threw them away: no carrier, ... */
    uint64_t tx_kernel_busy;           /* flushes after which frames had to stay queued */
    uint64_t program_taken_off;        /* times somebody else had detached our program */
    uint64_t kernel_rx_dropped;        /* XDP_STATISTICS of all queues: dropped for other reasons */
    uint64_t kernel_rx_ring_full;      /* dropped: poll() was not called soon enough */
    uint64_t kernel_rx_fill_ring_empty; /* times the kernel had no buffer: too many frames held */
    uint64_t kernel_rx_invalid_descs;
    uint64_t kernel_tx_invalid_descs;  /* those of withdrawn frames included */
    uint64_t passed_unbound_queue;     /* to the kernel: our flow, but on a queue not served */
    uint64_t passed_fragments;         /* to the kernel: IP fragments of any flow */
    uint64_t passed_options;           /* to the kernel: IPv4 options, any flow */
    uint64_t passed_tags;              /* to the kernel: 802.1ad or nested tags, any flow */
    uint64_t passed_merged;            /* to the kernel: our flow, several datagrams in one packet */
};

struct dpb_afxdp;

/* How frames lie in memory for `mode` (not DPB_AFXDP_AUTO) and an interface's MTU. */
void dpb_afxdp_shape_of(enum dpb_afxdp_mode mode, uint32_t mtu, struct dpb_afxdp_shape *shape);

/* Opens; NULL and *error filled in on failure. */
struct dpb_afxdp *dpb_afxdp_open(const struct dpb_afxdp_options *options, struct dpb_error *error);

/* The functions for every such port. */
const struct dpb_port_ops *dpb_afxdp_ops(void);

/* From now on frames of this flow come here. Gives the flow's number or a negative errno
 * (-EEXIST: has one already). */
int dpb_afxdp_add_flow(struct dpb_afxdp *port, const struct dpb_flow *flow,
                       struct dpb_error *error);
/* From now on the kernel gets them again; frames already received keep the number. */
int dpb_afxdp_remove_flow(struct dpb_afxdp *port, int number);

/* Looks whether the program is attached still, a system call of a microsecond or two (it takes the
 * kernel's lock of all interfaces), and attaches it again where it is not, in the network namespace
 * of the calling thread. Where the mode was ours to choose and the other end of a veth pair merges
 * datagrams, it goes over to the driver's hook: the veth driver then has them cut over there.
 * 0: it is attached and was; 1: it is attached again; 2: it is attached in the driver now; or a
 * negative errno, *error filled in: it is not attached. */
int dpb_afxdp_look_after(struct dpb_afxdp *port, struct dpb_error *error);

void dpb_afxdp_info(const struct dpb_afxdp *port, struct dpb_afxdp_info *info);
void dpb_afxdp_stats(struct dpb_afxdp *port, struct dpb_afxdp_stats *stats);
void dpb_afxdp_close(struct dpb_afxdp *port); /* safe twice */
void dpb_afxdp_free(struct dpb_afxdp *port);  /* closes, and unmaps the frames */
/* </cdef> */

#endif
