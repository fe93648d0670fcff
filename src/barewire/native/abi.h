/* Reading contract-ABI calldata without believing it (Solidity's "Contract ABI Specification").
 *
 * A region is a run of bytes from which offsets count: the arguments of a call, the inside of an
 * array, a tuple. Every reader checks against the region's end, which is always the end of the
 * calldata or of the `bytes` that it lies in, and says false rather than reading past it. Offsets
 * and lengths that do not fit 32 bits are false too: no calldata is that long. */
#ifndef BAREWIRE_ABI_H
#define BAREWIRE_ABI_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct bw_region {
    const uint8_t *at;
    uint32_t len;
};

static inline uint64_t bw_be64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return __builtin_bswap64(word);
}

static inline uint32_t bw_be32(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, 4);
    return __builtin_bswap32(word);
}

/* The 32 bytes at `off`, or NULL. */
static inline const uint8_t *bw_abi_word(struct bw_region region, uint32_t off)
{
    return region.len >= 32 && off <= region.len - 32 ? region.at + off : NULL;
}

/* The word at `off` as a number below 2^32. */
static inline bool bw_abi_number(struct bw_region region, uint32_t off, uint32_t *out)
{
    const uint8_t *word = bw_abi_word(region, off);
    if (!word || (bw_be64(word) | bw_be64(word + 8) | bw_be64(word + 16)))
        return false;
    uint64_t low = bw_be64(word + 24);
    *out = (uint32_t)low;
    return low == *out;
}

/* What the offset at `off` points to: the rest of the region from there on. */
static inline bool bw_abi_follow(struct bw_region region, uint32_t off, struct bw_region *out)
{
    uint32_t to;
    if (!bw_abi_number(region, off, &to) || to > region.len)
        return false;
    *out = (struct bw_region){region.at + to, region.len - to};
    return true;
}

/* The same of an element of an array in calldata, or of a member of one: Solidity takes these
 * offsets as signed (its access_calldata_tail), so that they may point back before the array, here
 * to no more than the beginning of `whole`. */
static inline bool bw_abi_follow_signed(struct bw_region whole, struct bw_region region,
                                        uint32_t off, struct bw_region *out)
{
    const uint8_t *word = bw_abi_word(region, off);
    if (!word || !(word[0] & 0x80))
        return bw_abi_follow(region, off, out);
    const uint64_t back = 0 - bw_be64(word + 24);
    if (~(bw_be64(word) & bw_be64(word + 8) & bw_be64(word + 16)) || !back ||
        back > (uint64_t)(region.at - whole.at))
        return false;
    *out = (struct bw_region){region.at - back, region.len + (uint32_t)back};
    return true;
}

/* The contents of the `bytes` that begins (with its length) where `region` does. */
static inline bool bw_abi_bytes(struct bw_region region, struct bw_region *out)
{
    uint32_t len;
    if (!bw_abi_number(region, 0, &len) || len > region.len - 32)
        return false;
    *out = (struct bw_region){region.at + 32, len};
    return true;
}

/* The inside of the array that begins (with its length) where `region` does: its elements, from
 * which their offsets count, to the end of the region. Each takes at least 32 bytes of head. */
static inline bool bw_abi_array(struct bw_region region, struct bw_region *out, uint32_t *count)
{
    if (!bw_abi_number(region, 0, count) || *count > (region.len - 32) / 32)
        return false;
    *out = (struct bw_region){region.at + 32, region.len - 32};
    return true;
}

#endif
