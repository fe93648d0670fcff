/* A Port over capture files: frames come from one, frames sent go to another.
 *
 * For replaying what happened and for tests without an interface. It is as fast as memory - the
 * input is mapped, frames point into the mapping, nothing is paced - and it takes pcap and pcapng
 * of Ethernet (capture.h). It writes classic pcap with nanoseconds in this machine's byte order. A
 * record that cannot be ends the input and is counted; nothing that a file contains makes a read
 * outside it. A file that is cut shorter by somebody while it is open is not caught (SIGBUS).
 *
 * Frames carry no flow (DPB_FLOW_NONE) and the capture's clock. */
#ifndef DPB_PCAP_H
#define DPB_PCAP_H

#include "dpdk_bindings/port.h"
#include "error.h"

/* <cdef> */
struct dpb_pcap_stats {
    uint64_t rx_frames;
    uint64_t rx_bytes;
    uint64_t rx_cut_short;      /* of rx_frames: the capture holds less than was on the wire */
    uint64_t rx_bad_record;     /* 1: reading stopped at a record that cannot be */
    uint64_t rx_outbound;       /* passed over: sent by who captured (pcapng's epb_flags) */
    uint64_t rx_other_link;     /* passed over: of an interface of a pcapng that is not Ethernet */
    uint64_t rx_held;           /* now with the application */
    uint64_t rx_released_twice; /* releases beyond what was out */
    uint64_t tx_frames;
    uint64_t tx_bytes;
    uint64_t tx_too_long;       /* refused: longer than a record may be */
    uint64_t tx_write_failed;   /* refused: the file takes no more (disk full) */
};

struct dpb_pcap;

/* Either path may be NULL: nothing is received, or what is sent is refused. */
struct dpb_pcap *dpb_pcap_open(const char *in, const char *out, struct dpb_error *error);
const struct dpb_port_ops *dpb_pcap_ops(void);
void dpb_pcap_stats(const struct dpb_pcap *port, struct dpb_pcap_stats *stats);
int dpb_pcap_exhausted(const struct dpb_pcap *port); /* 1: poll() will give nothing more */
int dpb_pcap_close(struct dpb_pcap *port); /* writes out; 0 or a negative errno; safe twice */
void dpb_pcap_free(struct dpb_pcap *port); /* closes, and unmaps the input */
/* </cdef> */

#endif
