#include "headers.h"

#include <string.h>

#include "checksum.h"

/* One pass over a frame: the steps share registers, which is most of what they cost. */
#define INLINE static inline __attribute__((always_inline))

enum {
    ETHER = 14,
    TAG = 4,
    IP4 = 20,
    IP6 = 40,
    UDP = 8,
    TCP = 20,
    TYPE_IP4 = 0x0800,
    TYPE_IP6 = 0x86dd,
    TYPE_TAG = 0x8100,
    TYPE_SERVICE_TAG = 0x88a8,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
};

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* A sum's word in the byte order of memory. */
static uint64_t word(const uint8_t *p) {
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

static const uint8_t PROTO_WORD[2] = {0, PROTO_UDP};

/* The datagram `len` bytes long that starts at `p`; the IP layer vouches for `len` bytes.
 * `addresses`: the source address and behind it the destination's. */
INLINE int parse_udp(const uint8_t *p, uint32_t len, const uint8_t *addresses,
                     uint32_t addresses_len, int verify, struct dpb_udp *out) {
    if (len < UDP)
        return DPB_REJECT_UDP_LENGTH;
    uint32_t udp_len = get16(p + 4);
    if (udp_len < UDP || udp_len > len)
        return DPB_REJECT_UDP_LENGTH;
    uint64_t check = word(p + 6);
    if (!check) {
        if (out->family == 6)
            return DPB_REJECT_UDP_CHECKSUM_MISSING;
    } else if (verify) {
        uint64_t pseudo = word(PROTO_WORD) + word(p + 4);
        pseudo = dpb_sum_header(pseudo, addresses, addresses_len);
        if (dpb_sum_fold(dpb_sum_add(pseudo, p, udp_len)) != 0xffff)
            return dpb_sum_fold(pseudo) == check ? DPB_REJECT_UDP_CHECKSUM_UNFINISHED
                                                 : DPB_REJECT_UDP_CHECKSUM;
    }
    out->source_port = get16(p);
    out->dest_port = get16(p + 2);
    out->payload = p + UDP;
    out->payload_len = udp_len - UDP;
    return DPB_REJECT_NONE;
}

/* What lies below UDP and TCP: the IP datagram, without padding. */
struct ip {
    const uint8_t *at, *addresses; /* the source address and behind it the destination's */
    uint32_t len, header;
    uint16_t vlan;
    uint8_t family, protocol;
};

INLINE int parse_ip4(const uint8_t *p, uint32_t len, struct ip *ip) {
    if (len < IP4)
        return DPB_REJECT_TRUNCATED;
    if (p[0] >> 4 != 4)
        return DPB_REJECT_IP_VERSION;
    if ((p[0] & 15) < 5)
        return DPB_REJECT_IP_LENGTH;
    if ((p[0] & 15) > 5)
        return DPB_REJECT_IP_OPTIONS;
    if (dpb_sum_fold(dpb_sum_header(0, p, IP4)) != 0xffff)
        return DPB_REJECT_IP_CHECKSUM;
    uint32_t total = get16(p + 2);
    if (total < IP4)
        return DPB_REJECT_IP_LENGTH;
    if (total > len)
        return DPB_REJECT_TRUNCATED;
    if (get16(p + 6) & 0x3fff) /* more fragments, or an offset */
        return DPB_REJECT_FRAGMENT;
    ip->at = p;
    ip->addresses = p + 12;
    ip->len = total;
    ip->header = IP4;
    ip->family = 4;
    ip->protocol = p[9];
    return DPB_REJECT_NONE;
}

INLINE int parse_ip6(const uint8_t *p, uint32_t len, struct ip *ip) {
    if (len < IP6)
        return DPB_REJECT_TRUNCATED;
    if (p[0] >> 4 != 6)
        return DPB_REJECT_IP_VERSION;
    uint32_t payload = get16(p + 4);
    if (payload > len - IP6)
        return DPB_REJECT_TRUNCATED;
    switch (p[6]) {
    case 44:
        return DPB_REJECT_FRAGMENT;
    case 0: case 43: case 51: case 60: case 135: case 139: case 140:
        return DPB_REJECT_IP_OPTIONS;
    default:
        break;
    }
    ip->at = p;
    ip->addresses = p + 8;
    ip->len = IP6 + payload;
    ip->header = IP6;
    ip->family = 6;
    ip->protocol = p[6];
    return DPB_REJECT_NONE;
}

INLINE int parse_frame(const uint8_t *frame, uint32_t len, struct ip *ip) {
    if (len < ETHER)
        return DPB_REJECT_TRUNCATED;
    uint32_t at = ETHER;
    uint16_t type = get16(frame + 12);
    ip->vlan = DPB_NO_VLAN;
    if (type == TYPE_TAG) {
        if (len < ETHER + TAG)
            return DPB_REJECT_TRUNCATED;
        ip->vlan = get16(frame + 14);
        type = get16(frame + 16);
        at += TAG;
    }
    if (type == TYPE_IP4)
        return parse_ip4(frame + at, len - at, ip);
    if (type == TYPE_IP6)
        return parse_ip6(frame + at, len - at, ip);
    if (type == TYPE_SERVICE_TAG || (type == TYPE_TAG && at > ETHER))
        return DPB_REJECT_NESTED_TAG;
    return DPB_REJECT_NOT_IP;
}

int dpb_udp_parse(const uint8_t *frame, uint32_t len, int verify, struct dpb_udp *out) {
    struct ip ip;
    int why = parse_frame(frame, len, &ip);
    if (why)
        return why;
    if (ip.protocol != PROTO_UDP)
        return DPB_REJECT_NOT_UDP;
    uint32_t address_len = ip.family == 4 ? 4 : 16;
    out->vlan = ip.vlan;
    out->family = ip.family;
    out->source = ip.addresses;
    out->dest = ip.addresses + address_len;
    /* A constant for each family, so that the sums unroll. */
    return ip.family == 4
               ? parse_udp(ip.at + IP4, ip.len - IP4, ip.addresses, 8, verify, out)
               : parse_udp(ip.at + IP6, ip.len - IP6, ip.addresses, 32, verify, out);
}

int dpb_tcp_parse(const uint8_t *frame, uint32_t len, struct dpb_tcp *out) {
    struct ip ip;
    int why = parse_frame(frame, len, &ip);
    if (why)
        return why;
    if (ip.protocol != PROTO_TCP)
        return DPB_REJECT_NOT_TCP;
    const uint8_t *p = ip.at + ip.header;
    uint32_t tcp_len = ip.len - ip.header;
    if (tcp_len < TCP)
        return DPB_REJECT_TCP_LENGTH;
    uint32_t header = (uint32_t)(p[12] >> 4) * 4;
    if (header < TCP || header > tcp_len)
        return DPB_REJECT_TCP_LENGTH;
    uint32_t address_len = ip.family == 4 ? 4 : 16;
    uint8_t proto_and_len[4] = {0, PROTO_TCP};
    put16(proto_and_len + 2, tcp_len);
    uint64_t pseudo = dpb_sum_header(0, proto_and_len, 4);
    pseudo = ip.family == 4 ? dpb_sum_header(pseudo, ip.addresses, 8)
                            : dpb_sum_header(pseudo, ip.addresses, 32);
    uint64_t check = word(p + 16);
    uint64_t sum = dpb_sum_add(pseudo, p, tcp_len);
    out->ip = ip.at;
    out->source = ip.addresses;
    out->dest = ip.addresses + address_len;
    out->ip_len = ip.len;
    out->tcp_at = ip.header;
    out->source_port = get16(p);
    out->dest_port = get16(p + 2);
    out->vlan = ip.vlan;
    out->family = ip.family;
    if (dpb_sum_fold(sum) == 0xffff) {
        out->right = (uint16_t)check;
        return DPB_REJECT_NONE;
    }
    out->right = dpb_sum_finish(sum + (uint16_t)~check); /* the sum without the field */
    return dpb_sum_fold(pseudo) == check ? DPB_REJECT_TCP_CHECKSUM_UNFINISHED
                                         : DPB_REJECT_TCP_CHECKSUM;
}

void dpb_tx_prepare(const struct dpb_tx_route *route, struct dpb_tx_headers *h) {
    memset(h, 0, sizeof *h);
    uint8_t *p = h->bytes;
    memcpy(p, route->dest_mac, 6);
    memcpy(p + 6, route->source_mac, 6);
    p += 12;
    if (route->vlan != DPB_NO_VLAN) {
        put16(p, TYPE_TAG);
        put16(p + 2, route->vlan);
        p += TAG;
    }
    put16(p, route->family == 4 ? TYPE_IP4 : TYPE_IP6);
    p += 2;
    h->family = route->family;
    h->ip = (uint16_t)(p - h->bytes);
    uint32_t overhead;
    if (route->family == 4) {
        overhead = IP4 + UDP;
        p[0] = 0x45;
        put16(p + 6, 0x4000); /* never to be fragmented, so it needs no identification (RFC 6864) */
        p[8] = route->ttl;
        p[9] = PROTO_UDP;
        memcpy(p + 12, route->source, 4);
        memcpy(p + 16, route->dest, 4);
        h->ip_sum = dpb_sum_header(0, p, IP4);
        h->udp_sum = dpb_sum_header(word(PROTO_WORD), p + 12, 8);
        p += IP4;
    } else {
        overhead = IP6 + UDP;
        p[0] = 0x60;
        p[6] = PROTO_UDP;
        p[7] = route->ttl;
        memcpy(p + 8, route->source, 16);
        memcpy(p + 24, route->dest, 16);
        h->udp_sum = dpb_sum_header(word(PROTO_WORD), p + 8, 32);
        p += IP6;
    }
    put16(p, route->source_port);
    put16(p + 2, route->dest_port);
    h->udp_sum = dpb_sum_header(h->udp_sum, p, 4);
    h->len = (uint32_t)(p + UDP - h->bytes);
    h->payload_max = route->mtu > overhead ? route->mtu - overhead : 0;
}

uint32_t dpb_tx_finish(const struct dpb_tx_headers *h, uint8_t *frame, uint32_t payload_len) {
    uint8_t *ip = frame + h->ip;
    uint8_t *udp = frame + h->len - UDP;
    uint8_t length[2];
    put16(length, UDP + payload_len);
    memcpy(udp + 4, length, 2);
    if (h->family == 4) {
        put16(ip + 2, IP4 + UDP + payload_len);
        uint16_t check = dpb_sum_finish(h->ip_sum + word(ip + 2));
        memcpy(ip + 10, &check, 2);
    } else {
        memcpy(ip + 4, length, 2);
    }
    /* The UDP length counts twice: in the pseudo-header and in the header. */
    uint64_t sum = h->udp_sum + 2 * word(length);
    uint16_t check = dpb_sum_finish(dpb_sum_add(sum, frame + h->len, payload_len));
    if (!check)
        check = 0xffff; /* zero would mean that there is none (RFC 768) */
    memcpy(udp + 6, &check, 2);
    return h->len + payload_len;
}
