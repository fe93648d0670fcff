/* One frame, as a Port hands it out.
 *
 * A burst of frames is a packed array of these descriptors, filled by one native call. The
 * bytes stay where the NIC or the kernel put them; a descriptor borrows them from its Port until
 * it is released. Whoever holds a descriptor after that holds garbage: in C by contract, in
 * Python the Burst that wraps the array raises. */
#ifndef DPDK_BINDINGS_FRAME_H
#define DPDK_BINDINGS_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
/* Which clock an arrival time was read from. Times of two clocks are never subtracted. */
enum dpb_clock {
    DPB_CLOCK_NONE = 0,    /* no time known */
    DPB_CLOCK_MONO = 1,    /* CLOCK_MONOTONIC of this host */
    DPB_CLOCK_PHC = 2,     /* the NIC's own clock */
    DPB_CLOCK_CAPTURE = 3, /* the clock of whoever wrote the capture file */
    DPB_CLOCK_REAL = 4,    /* CLOCK_REALTIME of this host (SO_TIMESTAMPNS) */
};

#define DPB_FLOW_NONE 0xffff

/* frame.flags */
#define DPB_FRAME_LINEARISED 0x01 /* arrived in several buffers, copied into one */
#define DPB_FRAME_CSUM_BAD 0x02

struct dpb_frame {
    const uint8_t *data;  /* first byte of the Ethernet header; borrowed */
    uint64_t arrival_ns;  /* of the clock named in `clock` */
    uint64_t handle;      /* the Port's own: what release() needs to know */
    uint32_t len;         /* bytes at `data` */
    uint16_t flow;        /* number of the registered flow it matched, or DPB_FLOW_NONE */
    uint8_t queue;        /* receive queue */
    uint8_t clock : 4;    /* enum dpb_clock */
    uint8_t flags : 4;    /* DPB_FRAME_... */
};
/* </cdef> */
_Static_assert(sizeof(struct dpb_frame) == 32, "two descriptors a cache line");

#endif
