#include "calls.h"

#include <stdlib.h>

static const uint8_t zero[32];

const char *bw_wrappers_build(struct bw_wrappers *out, const uint8_t *wrappers, uint32_t count,
                              const uint8_t *command_sets, uint32_t set_count)
{
    memset(out, 0, sizeof *out);
    if (count > BW_WRAPPERS)
        return "too many wrappers";
    if (set_count > BW_COMMAND_SETS)
        return "too many command sets";
    uint32_t bits = 1;
    while ((1u << bits) < 2 * count)
        bits++;
    out->shift = 32 - bits;
    out->slots = malloc(sizeof *out->slots << bits);
    out->commands = malloc(sizeof *out->commands * (set_count + 1));
    if (!out->slots || !out->commands) {
        bw_wrappers_clear(out);
        return "no memory";
    }
    memset(out->slots, 0xff, sizeof *out->slots << bits);
    memcpy(out->commands, command_sets, sizeof *out->commands * set_count);
    out->command_sets = set_count;
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct bw_wrapper wrapper;
        memcpy(&wrapper, wrappers + i * sizeof wrapper, sizeof wrapper);
        const char *wrong = NULL;
        const uint8_t *only = wrapper.limited ? wrapper.only : NULL;
        if (wrapper.kind > BW_WRAPPER_PACKED)
            wrong = "a wrapper of an unknown kind";
        else if (wrapper.target_how > BW_WRAPPER_SLOT || wrapper.value_how > BW_WRAPPER_ZERO)
            wrong = "a wrapper's target or value is found in an unknown way";
        else if (wrapper.kind == BW_WRAPPER_COMMANDS && wrapper.command_set >= set_count)
            wrong = "a wrapper names a command set that is not there";
        else if (wrapper.limited > 1 || (!only && memcmp(wrapper.only, zero, 20)))
            wrong = "a wrapper is limited to a target in an unknown way";
        else if (bw_wrapper_look(out, wrapper.selector, only))
            wrong = "two wrappers of one selector";
        if (wrong) {
            bw_wrappers_clear(out);
            return wrong;
        }
        uint32_t mask = (1u << bits) - 1, at = bw_wrapper_slot(out, wrapper.selector, only);
        if (only)
            out->limited_first[wrapper.selector >> 30] |= 1ull << (wrapper.selector >> 24 & 63);
        while (out->slots[at].kind != 0xff)
            at = (at + 1) & mask;
        out->slots[at] = wrapper;
    }
    return NULL;
}

void bw_wrappers_clear(struct bw_wrappers *wrappers)
{
    free(wrappers->slots);
    free(wrappers->commands);
    memset(wrappers, 0, sizeof *wrappers);
}

struct walk {
    const struct bw_wrappers *wrappers;
    struct bw_calls *out;
    uint32_t steps;
};

static bool open_wrapper(struct walk *walk, const struct bw_wrapper *wrapper, struct bw_call call);

/* Takes one inner call, and what is inside it. False: there is no room for another. */
static bool take(struct walk *walk, struct bw_call call)
{
    struct bw_calls *out = walk->out;
    if (out->n == BW_CALLS)
        return false;
    out->of[out->n++] = call;
    const struct bw_wrapper *inner =
        call.has_selector ? bw_wrapper_find(walk->wrappers, call.selector, call.target) : NULL;
    if (!inner)
        return true;
    if (call.depth == BW_CALL_DEPTH) {
        out->bound++;
        return true;
    }
    return open_wrapper(walk, inner, call);
}

/* Takes the inner call whose calldata is `data`. */
static bool take_data(struct walk *walk, struct bw_call call, struct bw_region data)
{
    call.has_selector = data.len >= 4;
    call.selector = call.has_selector ? bw_be32(data.at) : 0;
    uint32_t skip = call.has_selector ? 4 : 0;
    call.args = (struct bw_region){data.at + skip, data.len - skip};
    return take(walk, call);
}

/* Target and value of an inner call from the words of `head`; false: not there. */
static bool address(const struct bw_wrapper *wrapper, struct bw_region head, uint32_t target_off,
                    uint32_t value_off, struct bw_call *call)
{
    if (wrapper->target_how == BW_WRAPPER_SLOT) {
        const uint8_t *word = bw_abi_word(head, target_off);
        if (!word)
            return false;
        call->target = word + 12;
    }
    if (wrapper->value_how == BW_WRAPPER_SLOT) {
        const uint8_t *word = bw_abi_word(head, value_off);
        if (!word)
            return false;
        call->value = word;
    } else if (wrapper->value_how == BW_WRAPPER_ZERO) {
        call->value = zero;
    }
    return true;
}

/* The three arrays of BW_WRAPPER_ARRAYS stand apart; `index` counts within each. */
static bool address_in_arrays(const struct bw_wrapper *wrapper, struct bw_region args,
                              uint32_t index, struct bw_call *call)
{
    struct bw_region part, inside;
    uint32_t count;
    if (wrapper->target_how == BW_WRAPPER_SLOT) {
        if (!bw_abi_follow(args, wrapper->target * 32u, &part) ||
            !bw_abi_array(part, &inside, &count) || index >= count)
            return false;
        call->target = inside.at + index * 32 + 12;
    }
    if (wrapper->value_how == BW_WRAPPER_SLOT) {
        if (!bw_abi_follow(args, wrapper->value * 32u, &part) ||
            !bw_abi_array(part, &inside, &count))
            return false;
        /* An empty array of values stands for zeros (ERC-4337's SimpleAccount v0.7). */
        if (count && index >= count)
            return false;
        call->value = count ? inside.at + index * 32 : zero;
    } else if (wrapper->value_how == BW_WRAPPER_ZERO) {
        call->value = zero;
    }
    return true;
}

/* The calls in `packed`; sets *bad where one is cut off. False: no room for another. */
static bool open_packed(struct walk *walk, struct bw_region packed, struct bw_call call, bool *bad)
{
    enum { HEAD = 1 + 20 + 32 + 32 };
    while (packed.len) {
        uint32_t len;
        struct bw_region head = {packed.at + HEAD - 32, 32};
        if (walk->steps++ == BW_CALL_STEPS)
            return false;
        if (packed.len < HEAD || !bw_abi_number(head, 0, &len) || len > packed.len - HEAD) {
            *bad = true;
            return true;
        }
        call.target = packed.at + 1;
        call.value = packed.at + 21;
        if (!take_data(walk, call, (struct bw_region){packed.at + HEAD, len}))
            return false;
        packed = (struct bw_region){packed.at + HEAD + len, packed.len - HEAD - len};
    }
    return true;
}

static bool open_wrapper(struct walk *walk, const struct bw_wrapper *wrapper, struct bw_call outer)
{
    struct bw_region args = outer.args, part, list, data, commands = {0};
    uint32_t count;
    struct bw_call call = {.target = outer.target,
                           .value = outer.value,
                           .deadline = outer.deadline,
                           .depth = outer.depth + 1};

    if (wrapper->deadline && !(call.deadline = bw_abi_word(args, (wrapper->deadline - 1) * 32u)))
        goto bad;

    if (wrapper->kind == BW_WRAPPER_ONE) {
        if (!address(wrapper, args, wrapper->target * 32u, wrapper->value * 32u, &call) ||
            !bw_abi_follow(args, wrapper->data * 32u, &part) || !bw_abi_bytes(part, &data))
            goto bad;
        if (!take_data(walk, call, data))
            goto full;
        return true;
    }

    if (wrapper->kind == BW_WRAPPER_PACKED) {
        bool broken = false;
        if (!bw_abi_follow(args, wrapper->data * 32u, &part) || !bw_abi_bytes(part, &data))
            goto bad;
        if (!open_packed(walk, data, call, &broken))
            goto full;
        if (broken)
            goto bad;
        return true;
    }

    bool by_list = wrapper->kind == BW_WRAPPER_BYTES || wrapper->kind == BW_WRAPPER_TUPLES;
    if (!bw_abi_follow(args, (by_list ? wrapper->list : wrapper->data) * 32u, &part) ||
        !bw_abi_array(part, &list, &count))
        goto bad;
    if (wrapper->kind == BW_WRAPPER_COMMANDS) {
        if (!bw_abi_follow(args, wrapper->list * 32u, &part) || !bw_abi_bytes(part, &commands) ||
            commands.len != count)
            goto bad;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct bw_region element;
        if (walk->steps++ == BW_CALL_STEPS)
            goto full;
        if (!bw_abi_follow_signed(args, list, i * 32, &element))
            goto bad;
        switch (wrapper->kind) {
        case BW_WRAPPER_TUPLES:
            if (!address(wrapper, element, wrapper->target * 32u, wrapper->value * 32u, &call) ||
                !bw_abi_follow_signed(args, element, wrapper->data * 32u, &element))
                goto bad;
            break;
        case BW_WRAPPER_ARRAYS:
            if (!address_in_arrays(wrapper, args, i, &call))
                goto bad;
            break;
        default:
            if (!address(wrapper, args, wrapper->target * 32u, wrapper->value * 32u, &call))
                goto bad;
        }
        if (!bw_abi_bytes(element, &data))
            goto bad;
        bool room;
        if (wrapper->kind == BW_WRAPPER_COMMANDS) {
            call.selector = walk->wrappers->commands[wrapper->command_set]
                                .selectors[commands.at[i] & wrapper->command_mask];
            if (!call.selector)
                continue;
            call.has_selector = 1;
            call.args = data;
            room = take(walk, call);
        } else {
            room = take_data(walk, call, data);
        }
        if (!room)
            goto full;
    }
    return true;
bad:
    walk->out->bad++;
    return true;
full:
    /* Counted once for the transaction, by the innermost wrapper that ran out of room. */
    if (!walk->out->bound)
        walk->out->bound = 1;
    return false;
}

void bw_calls_walk(const struct bw_wrappers *wrappers, const struct bw_call *outer,
                   struct bw_calls *out)
{
    struct walk walk = {wrappers, out, 0};
    out->n = out->bad = out->bound = 0;
    const struct bw_wrapper *wrapper =
        outer->has_selector ? bw_wrapper_find(wrappers, outer->selector, outer->target) : NULL;
    if (wrapper)
        open_wrapper(&walk, wrapper, *outer);
}
