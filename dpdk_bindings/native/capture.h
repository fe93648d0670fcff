/* Frames out of a capture file that lies in memory: classic pcap, and pcapng.
 *
 * Classic pcap of Ethernet: microseconds or nanoseconds, either byte order. pcapng: any number of
 * sections, interfaces of any resolution and offset, Enhanced, Simple and (obsolete) Packet Blocks;
 * all other blocks are stepped over. Given out is what was received: what epb_flags mark as outbound
 * is passed over, as are frames of interfaces that are not Ethernet, both counted.
 *
 * Nothing is read outside the file, and nothing is allocated. A record or block that cannot be ends
 * the input. Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. */
#ifndef DPB_CAPTURE_H
#define DPB_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DPB_CAPTURE_LONGEST 262144 /* bytes of a frame, as tcpdump's MAXIMUM_SNAPLEN */
#define DPB_CAPTURE_INTERFACES 256 /* of one section; frames of others are passed over */

struct dpb_capture_interface {
    int64_t offset_s;   /* if_tsoffset */
    uint32_t longest;   /* snaplen; 0: no limit */
    uint8_t resolution; /* if_tsresol */
    bool ethernet;
};

struct dpb_capture {
    const uint8_t *in;
    size_t size, at; /* `at`: the next record or block */
    bool swapped, microseconds, ng;
    uint32_t interfaces;
    struct dpb_capture_interface interface[DPB_CAPTURE_INTERFACES];
    uint64_t bad;        /* 1: reading stopped at a record that cannot be */
    uint64_t outbound;   /* passed over: sent by who captured */
    uint64_t other_link; /* passed over: not Ethernet, or of an interface too many */
};

struct dpb_captured {
    const uint8_t *data;
    size_t at;           /* of its record in the file */
    uint64_t arrival_ns; /* 0: the capture does not say (a Simple Packet Block) */
    uint32_t len;
    uint32_t wire_len;
};

enum dpb_capture_kind {
    DPB_CAPTURE_OK = 0,
    DPB_CAPTURE_NONE,       /* it does not begin like a capture */
    DPB_CAPTURE_LINK_TYPE,  /* classic pcap of something else than Ethernet: *link_type */
};

/* Begins to read `size` bytes at `in`, which stay until it is read. */
enum dpb_capture_kind dpb_capture_open(struct dpb_capture *c, const uint8_t *in, size_t size,
                                       uint32_t *link_type);

/* The next frame; false at the end. */
bool dpb_capture_next(struct dpb_capture *c, struct dpb_captured *out);

#endif
