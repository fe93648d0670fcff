/* Ethernet, one 802.1Q tag, IPv4 or IPv6, UDP or TCP: taken apart, and (UDP) put together.
 *
 * Parsing is strict and believes nothing: every length is checked against the bytes that are
 * there before anything behind it is read, and the first reason to reject wins. Trailing bytes
 * behind the IP datagram (Ethernet's padding) and behind the UDP datagram are ignored, as Linux
 * does. What the XDP program leaves to the kernel (fragments, IPv4 options, IPv6 extension
 * headers) is rejected here too, for frames that come from a capture.
 *
 * Checksums: the IPv4 header's is always verified, as is TCP's. UDP's is verified unless told to
 * trust. A frame sent by a local peer over veth can carry a checksum that Linux left for hardware
 * to finish (CHECKSUM_PARTIAL): the field then holds exactly the sum of the pseudo-header. No wire
 * does that to a frame, so it is a cause of its own: `ethtool -K IFACE tx off` at the sender, or
 * trusting the interface, is the cure.
 *
 * For transmit the headers of a destination are written once; per packet they are copied, and
 * dpb_tx_finish() adds the two lengths and the checksums, starting from sums made beforehand. */
#ifndef DPB_HEADERS_H
#define DPB_HEADERS_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
/* Why a frame was not shown. */
enum dpb_reject {
    DPB_REJECT_NONE,
    DPB_REJECT_TRUNCATED,               /* ends before its headers or lengths say */
    DPB_REJECT_NOT_IP,                  /* another EtherType */
    DPB_REJECT_NESTED_TAG,              /* more than one VLAN tag */
    DPB_REJECT_IP_VERSION,              /* contradicts the EtherType */
    DPB_REJECT_IP_OPTIONS,              /* IPv4 options, IPv6 extension headers */
    DPB_REJECT_IP_LENGTH,               /* too short for the headers it contains */
    DPB_REJECT_IP_CHECKSUM,
    DPB_REJECT_FRAGMENT,
    DPB_REJECT_NOT_UDP,
    DPB_REJECT_UDP_LENGTH,              /* too short, or longer than the IP datagram */
    DPB_REJECT_UDP_CHECKSUM,
    DPB_REJECT_UDP_CHECKSUM_UNFINISHED, /* left to hardware that never saw it */
    DPB_REJECT_UDP_CHECKSUM_MISSING,    /* zero, over IPv6 (RFC 8200, 8.1) */
    DPB_REJECT_NOT_OURS,                /* sound, but for no channel of the endpoint */
    DPB_REJECT_NOT_TCP,
    DPB_REJECT_TCP_LENGTH,              /* shorter than its header says, or than any header is */
    DPB_REJECT_TCP_CHECKSUM,
    DPB_REJECT_TCP_CHECKSUM_UNFINISHED, /* left to hardware that never saw it */
    DPB_REJECTS,
};

#define DPB_NO_VLAN 0xffff

struct dpb_udp {
    const uint8_t *payload;
    const uint8_t *source; /* address in the frame, 4 or 16 bytes */
    const uint8_t *dest;
    uint32_t payload_len;
    uint16_t source_port; /* host order */
    uint16_t dest_port;
    uint16_t vlan;        /* the tag's 16 bits, or DPB_NO_VLAN */
    uint8_t family;       /* 4 or 6 */
};

/* Takes `len` bytes at `frame` apart. Returns an enum dpb_reject; `out` is filled only when that
 * is DPB_REJECT_NONE. */
int dpb_udp_parse(const uint8_t *frame, uint32_t len, int verify, struct dpb_udp *out);

struct dpb_tcp {
    const uint8_t *ip;     /* the IP datagram: ip_len bytes, without padding behind it */
    const uint8_t *source; /* address in the frame, 4 or 16 bytes */
    const uint8_t *dest;
    uint32_t ip_len;
    uint32_t tcp_at;       /* where in the datagram the TCP header begins */
    uint16_t source_port;  /* host order */
    uint16_t dest_port;
    uint16_t vlan;         /* the tag's 16 bits, or DPB_NO_VLAN */
    uint16_t right;        /* what the checksum field should hold, as it lies in memory */
    uint8_t family;        /* 4 or 6 */
};

/* As dpb_udp_parse, for TCP. With DPB_REJECT_TCP_CHECKSUM_UNFINISHED `out` is filled too: whoever
 * trusts the sender finishes a copy with `right`. */
int dpb_tcp_parse(const uint8_t *frame, uint32_t len, struct dpb_tcp *out);

/* What the headers to a destination are made of; addresses in network order, ports in host's. */
struct dpb_tx_route {
    uint8_t source_mac[6];
    uint8_t dest_mac[6];
    uint8_t source[16]; /* IPv4 in the first four bytes */
    uint8_t dest[16];
    uint16_t source_port;
    uint16_t dest_port;
    uint16_t vlan; /* or DPB_NO_VLAN */
    uint16_t mtu;  /* of the IP datagram */
    uint8_t family;
    uint8_t ttl;
};

struct dpb_tx_headers {
    uint8_t bytes[72];     /* the headers, lengths and checksums zero */
    uint64_t ip_sum;       /* of the IPv4 header in `bytes` */
    uint64_t udp_sum;      /* of addresses, protocol and ports: all but lengths and payload */
    uint32_t len;          /* of the headers, so where the payload begins */
    uint32_t payload_max;  /* what the MTU leaves */
    uint16_t ip;           /* where the IP header begins */
    uint8_t family;
};

void dpb_tx_prepare(const struct dpb_tx_route *route, struct dpb_tx_headers *h);

/* Completes a frame that starts with the bytes of `h`, followed by `payload_len` bytes, at most
 * h->payload_max. Returns the frame's length. */
uint32_t dpb_tx_finish(const struct dpb_tx_headers *h, uint8_t *frame, uint32_t payload_len);
/* </cdef> */

#endif
