/* The XDP program that takes our flows from an interface, and nothing else.
 *
 * It parses Ethernet, at most one tag of 802.1Q, IPv4 without options or IPv6 without extension
 * headers, and UDP or TCP ports; looks the flow up in a map that may change while traffic runs;
 * stamps the arrival time and the flow's number in front of the frame; and hands it to the socket
 * of the queue it came on. Whatever it does not know - other protocols, tags of 802.1ad and nested
 * ones, fragments, options, flows nobody asked for, queues without a socket of ours, UDP longer than
 * the MTU - goes to the kernel as if we were not there: it takes nothing that headers.h would
 * throw away for its kind. */
#ifndef DPB_XDP_H
#define DPB_XDP_H

#include "error.h"
#include "nic.h"

#include <stdbool.h>
#include <stdint.h>

#define DPB_XDP_NAME "bw_flows" /* how `bpftool prog` shows the program */
#define DPB_XDP_MAX_FLOWS 1024
#define DPB_XDP_MAX_QUEUES 256

/* <cdef> */
/* A flow: what a frame must carry to be ours. Addresses in network order, IPv4 in the first four
 * bytes and zeros behind; ports in network order. For UDP the remote side is all zeros. */
struct dpb_flow {
    uint8_t family;   /* 4 or 6 */
    uint8_t protocol; /* 6 TCP, 17 UDP */
    uint16_t local_port;
    uint16_t remote_port;
    uint16_t zero;
    uint8_t local[16];
    uint8_t remote[16];
};
/* </cdef> */

/* What the program writes right before the frame. */
struct dpb_xdp_stamp {
    uint64_t arrival_ns;
    uint16_t flow;
    uint16_t clock; /* enum dpb_clock */
    uint32_t magic; /* DPB_XDP_MAGIC: a driver without room for metadata writes nothing */
};
#define DPB_XDP_MAGIC 0x57425750

/* What the program counts: frames it left to the kernel although a careless reader of statistics
 * might expect them here. */
struct dpb_xdp_passed {
    uint64_t unbound_queue; /* of our flows, but on a queue without a socket of ours */
    uint64_t fragments;     /* IP fragments, of any flow */
    uint64_t options;       /* IPv4 options, of any flow */
    uint64_t tags;          /* a tag of 802.1ad, or more than one, of any flow */
    uint64_t merged;        /* UDP of our flows, by the generic hook of veth, longer than the MTU:
                             * several datagrams in one packet that the kernel has yet to cut */
};

struct dpb_xdp {
    int flows, sockets, counters; /* maps */
    int program, link;
    uint32_t program_id;
    int64_t ahead_ns; /* what our CLOCK_MONOTONIC is ahead of the host's, in a time namespace */
    bool asks_driver; /* the driver is asked for its receive time stamp */
};

enum dpb_xdp_mode { DPB_XDP_SKB, DPB_XDP_DRV };

/* Makes maps and program, attached to nothing. 0 or a negative errno; on error nothing is left. */
int dpb_xdp_load(struct dpb_xdp *xdp, const struct dpb_nic *nic, enum dpb_xdp_mode mode,
                 bool several_buffers, struct dpb_error *error);

/* Queue `queue` is served by socket `fd`. */
int dpb_xdp_serve(struct dpb_xdp *xdp, uint32_t queue, int fd);

/* Attaches. -EBUSY and -EEXIST: another program is there already. */
int dpb_xdp_attach(struct dpb_xdp *xdp, const struct dpb_nic *nic, enum dpb_xdp_mode mode);

/* Whether it is attached still: root may take any link off its interface (BPF_LINK_DETACH, as
 * `bpftool link detach` does), and nobody is told. 1, 0 or a negative errno. */
int dpb_xdp_is_attached(const struct dpb_xdp *xdp);

int dpb_xdp_put_flow(struct dpb_xdp *xdp, const struct dpb_flow *flow, uint32_t number);
int dpb_xdp_delete_flow(struct dpb_xdp *xdp, const struct dpb_flow *flow);
int dpb_xdp_read_passed(struct dpb_xdp *xdp, struct dpb_xdp_passed *passed);

/* Detaches and frees; safe on what dpb_xdp_load left after an error, and twice. */
void dpb_xdp_close(struct dpb_xdp *xdp);

#endif
