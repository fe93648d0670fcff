#include "capture.h"

#include <string.h>

#define MICROSECONDS 0xa1b2c3d4u
#define NANOSECONDS 0xa1b23c4du
#define ETHERNET 1
#define SECOND UINT64_C(1000000000)

/* pcapng: types of blocks, the magic of a section, options. */
#define SECTION 0x0a0d0d0au
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define INTERFACE 1u
#define OLD_PACKET 2u
#define SIMPLE_PACKET 3u
#define ENHANCED_PACKET 6u
#define END_OF_OPTIONS 0
#define IF_TSRESOL 9
#define IF_TSOFFSET 14
#define PACKET_FLAGS 2 /* epb_flags, and pack_flags of the old block */
#define OUTBOUND 2u    /* of the two lowest bits of the flags */
#define LEAST_BLOCK 12u

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, longest, link_type;
};

static uint32_t u32(const struct dpb_capture *c, size_t at)
{
    uint32_t value;
    memcpy(&value, c->in + at, sizeof value);
    return c->swapped ? __builtin_bswap32(value) : value;
}

static uint16_t u16(const struct dpb_capture *c, size_t at)
{
    uint16_t value;
    memcpy(&value, c->in + at, sizeof value);
    return c->swapped ? __builtin_bswap16(value) : value;
}

static bool stop(struct dpb_capture *c)
{
    c->bad = 1;
    c->at = c->size;
    return false;
}

/* ---------------------------------------------------------------- classic */

static bool next_record(struct dpb_capture *c, struct dpb_captured *out)
{
    const size_t head = 16;
    size_t left = c->size - c->at;
    if (!left)
        return false;
    if (left < head)
        return stop(c);
    uint32_t len = u32(c, c->at + 8);
    if (len > DPB_CAPTURE_LONGEST || len > left - head)
        return stop(c);
    *out = (struct dpb_captured){
        .data = c->in + c->at + head,
        .at = c->at,
        .arrival_ns = u32(c, c->at) * SECOND +
                      u32(c, c->at + 4) * UINT64_C(1) * (c->microseconds ? 1000 : 1),
        .len = len,
        .wire_len = u32(c, c->at + 12),
    };
    c->at += head + len;
    return true;
}

/* ---------------------------------------------------------------- pcapng */

struct option {
    uint16_t code, len;
    size_t at;
};

/* The next option in [*at, end); false: there is none. */
static bool next_option(const struct dpb_capture *c, size_t *at, size_t end, struct option *out)
{
    if (end - *at < 4)
        return false;
    *out = (struct option){u16(c, *at), u16(c, *at + 2), *at + 4};
    size_t padded = (out->len + 3u) & ~(size_t)3;
    if (out->code == END_OF_OPTIONS || padded > end - out->at)
        return false;
    *at = out->at + padded;
    return true;
}

/* 10^exponent, for exponents up to 19; 0 for more: what is divided by it is less than one. */
static uint64_t power_of_ten(unsigned exponent)
{
    uint64_t power = exponent <= 19;
    for (unsigned i = 0; power && i < exponent; i++)
        power *= 10;
    return power;
}

static uint64_t nanoseconds(const struct dpb_capture_interface *interface, uint64_t units)
{
    unsigned exponent = interface->resolution & 0x7f;
    unsigned __int128 ns;
    if (interface->resolution & 0x80) {
        ns = (unsigned __int128)units * SECOND >> exponent;
    } else if (exponent <= 9) {
        ns = (unsigned __int128)units * power_of_ten(9 - exponent);
    } else {
        uint64_t divisor = power_of_ten(exponent - 9);
        ns = divisor ? units / divisor : 0;
    }
    return (uint64_t)ns + (uint64_t)interface->offset_s * SECOND;
}

static bool section(struct dpb_capture *c, size_t left)
{
    if (left < 28)
        return false;
    c->swapped = false;
    uint32_t magic = u32(c, c->at + 8);
    c->swapped = magic == __builtin_bswap32(BYTE_ORDER_MAGIC);
    c->interfaces = 0;
    return c->swapped || magic == BYTE_ORDER_MAGIC;
}

static void add_interface(struct dpb_capture *c, size_t body, size_t end)
{
    if (c->interfaces == UINT32_MAX)
        return;
    uint32_t number = c->interfaces++;
    if (number >= DPB_CAPTURE_INTERFACES)
        return;
    struct dpb_capture_interface *made = &c->interface[number];
    *made = (struct dpb_capture_interface){
        .longest = u32(c, body + 4), .resolution = 6, .ethernet = u16(c, body) == ETHERNET};
    struct option option;
    for (size_t at = body + 8; next_option(c, &at, end, &option);) {
        if (option.code == IF_TSRESOL && option.len == 1)
            made->resolution = c->in[option.at];
        if (option.code == IF_TSOFFSET && option.len == 8) {
            uint64_t low = u32(c, option.at), high = u32(c, option.at + 4);
            made->offset_s = (int64_t)(c->swapped ? low << 32 | high : high << 32 | low);
        }
    }
}

/* A packet whose header ends at `data`: true where it is to be given out; *bad: it cannot be. */
static bool packet(struct dpb_capture *c, uint32_t number, size_t body, size_t end,
                   struct dpb_captured *out, bool *bad)
{
    size_t data = body + 20;
    uint32_t len = u32(c, body + 12);
    size_t padded = ((size_t)len + 3) & ~(size_t)3;
    if (len > DPB_CAPTURE_LONGEST || padded > end - data || number >= c->interfaces) {
        *bad = true;
        return false;
    }
    if (number >= DPB_CAPTURE_INTERFACES || !c->interface[number].ethernet) {
        c->other_link++;
        return false;
    }
    struct option option;
    for (size_t at = data + padded; next_option(c, &at, end, &option);)
        if (option.code == PACKET_FLAGS && option.len == 4 && (u32(c, option.at) & 3) == OUTBOUND) {
            c->outbound++;
            return false;
        }
    uint64_t units = (uint64_t)u32(c, body + 4) << 32 | u32(c, body + 8);
    *out = (struct dpb_captured){
        .data = c->in + data,
        .at = c->at,
        .arrival_ns = nanoseconds(&c->interface[number], units),
        .len = len,
        .wire_len = u32(c, body + 16),
    };
    return true;
}

static bool simple_packet(struct dpb_capture *c, size_t body, size_t end, struct dpb_captured *out,
                          bool *bad)
{
    uint32_t wire_len = u32(c, body), len = wire_len;
    if (!c->interfaces) {
        *bad = true;
        return false;
    }
    uint32_t longest = c->interface[0].longest;
    if (longest && len > longest)
        len = longest;
    if (len > DPB_CAPTURE_LONGEST || len > end - body - 4) {
        *bad = true;
        return false;
    }
    if (!c->interface[0].ethernet) {
        c->other_link++;
        return false;
    }
    *out = (struct dpb_captured){
        .data = c->in + body + 4, .at = c->at, .len = len, .wire_len = wire_len};
    return true;
}

static bool next_block(struct dpb_capture *c, struct dpb_captured *out)
{
    while (c->at < c->size) {
        size_t left = c->size - c->at;
        if (left < LEAST_BLOCK)
            return stop(c);
        uint32_t type = u32(c, c->at);
        if (type == SECTION && !section(c, left))
            return stop(c);
        uint32_t len = u32(c, c->at + 4);
        if (len < LEAST_BLOCK || len % 4 || len > left || u32(c, c->at + len - 4) != len)
            return stop(c);
        size_t body = c->at + 8, end = c->at + len - 4;
        bool given = false, bad = false;
        switch (type) {
        case INTERFACE:
            if (end - body < 8)
                bad = true;
            else
                add_interface(c, body, end);
            break;
        case ENHANCED_PACKET:
        case OLD_PACKET: /* its interface has 16 bits, beside a count of drops */
            if (end - body < 20)
                bad = true;
            else
                given = packet(c, type == OLD_PACKET ? u16(c, body) : u32(c, body), body, end, out,
                               &bad);
            break;
        case SIMPLE_PACKET:
            if (end - body < 4)
                bad = true;
            else
                given = simple_packet(c, body, end, out, &bad);
            break;
        default:
            break;
        }
        if (bad)
            return stop(c);
        c->at += len;
        if (given)
            return true;
    }
    return false;
}

/* ---------------------------------------------------------------- both */

enum dpb_capture_kind dpb_capture_open(struct dpb_capture *c, const uint8_t *in, size_t size,
                                       uint32_t *link_type)
{
    memset(c, 0, sizeof *c);
    c->in = in;
    c->size = size;
    if (size >= 28 && u32(c, 0) == SECTION && section(c, size)) {
        c->ng = true;
        return DPB_CAPTURE_OK;
    }
    c->swapped = false;
    if (size < sizeof(struct file_header))
        return DPB_CAPTURE_NONE;
    uint32_t magic = u32(c, 0), swapped = __builtin_bswap32(magic);
    c->swapped = swapped == MICROSECONDS || swapped == NANOSECONDS;
    c->microseconds = magic == MICROSECONDS || swapped == MICROSECONDS;
    if (!c->swapped && magic != MICROSECONDS && magic != NANOSECONDS)
        return DPB_CAPTURE_NONE;
    *link_type = u32(c, offsetof(struct file_header, link_type)) & 0xffff; /* above: the FCS */
    if (*link_type != ETHERNET)
        return DPB_CAPTURE_LINK_TYPE;
    c->at = sizeof(struct file_header);
    return DPB_CAPTURE_OK;
}

bool dpb_capture_next(struct dpb_capture *c, struct dpb_captured *out)
{
    return c->ng ? next_block(c, out) : next_record(c, out);
}
