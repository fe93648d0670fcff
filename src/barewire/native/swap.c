#include "swap.h"

#include <stdlib.h>

struct bw_swap_table {
    struct bw_wrappers wrappers;
    uint32_t count;
    uint32_t shift;           /* 32 - log2(slots) */
    struct bw_swap_abi *slots;/* open addressing; ops 0: free */
    struct bw_swap_op *ops;
};

/* ---- loading ---- */

static const char *check_ops(const struct bw_swap_op *ops, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ops[i].kind >= BW_OPS)
            return "an operation of an unknown kind";
        if (ops[i].hop_count > 2)
            return "an operation with too many hops";
        if (ops[i].kind == BW_OP_FITS && (ops[i].a < 1 || ops[i].a > 256 || ops[i].b > 1))
            return "a type of an unknown width";
        if (ops[i].kind == BW_OP_PATH_ROUTES && (ops[i].a < 2 || ops[i].a > 16))
            return "routes of an unknown width";
    }
    return NULL;
}

static uint32_t slot_of(const struct bw_swap_table *table, uint32_t selector)
{
    return (selector * 0x9e3779b1u) >> table->shift;
}

/* The next function of `selector` from slot *i on, or NULL; *i moves behind it. Those of one selector
 * stand in the order in which they were loaded. */
static const struct bw_swap_abi *next(const struct bw_swap_table *table, uint32_t selector,
                                      uint32_t *i)
{
    uint32_t mask = (1u << (32 - table->shift)) - 1;
    for (;; *i = (*i + 1) & mask) {
        const struct bw_swap_abi *slot = &table->slots[*i];
        if (!slot->ops)
            return NULL;
        if (slot->selector == selector) {
            *i = (*i + 1) & mask;
            return slot;
        }
    }
}

static const char *load_abis(struct bw_swap_table *table, const uint8_t *abis, uint32_t count,
                             uint32_t ops)
{
    uint32_t bits = 1;
    while ((1u << bits) < 2 * count)
        bits++;
    table->shift = 32 - bits;
    table->count = count;
    table->slots = calloc(1u << bits, sizeof *table->slots);
    if (!table->slots)
        return "no memory";
    for (uint32_t i = 0; i < count; i++) {
        struct bw_swap_abi abi;
        memcpy(&abi, abis + i * sizeof abi, sizeof abi);
        if (!abi.ops || abi.ops > BW_SWAP_OPS)
            return "a function without operations, or with too many";
        if (abi.first_op > ops || abi.ops > ops - abi.first_op)
            return "a function's operations are not there";
        uint32_t layouts = 0, at = slot_of(table, abi.selector);
        while (next(table, abi.selector, &at))
            if (++layouts == BW_SWAP_LAYOUTS)
                return "too many functions of one selector";
        at = slot_of(table, abi.selector);
        while (table->slots[at].ops)
            at = (at + 1) & ((1u << bits) - 1);
        table->slots[at] = abi;
    }
    return NULL;
}

static const char *load(struct bw_swap_table *table, const uint8_t *blob, size_t len)
{
    struct bw_swap_file file;
    if (len < sizeof file)
        return "it ends too early";
    memcpy(&file, blob, sizeof file);
    if (memcmp(file.magic, "BWSWAPS", 8))
        return "not a table of swaps";
    if (file.version != BW_SWAP_VERSION)
        return "a version of the format that is not known here";
    if (file.abis > BW_SWAP_ABIS)
        return "too many functions";
    uint64_t wrappers = (uint64_t)file.wrappers * sizeof(struct bw_wrapper);
    uint64_t sets = (uint64_t)file.command_sets * sizeof(struct bw_command_set);
    uint64_t abis = (uint64_t)file.abis * sizeof(struct bw_swap_abi);
    uint64_t ops = (uint64_t)file.ops * sizeof(struct bw_swap_op);
    if (file.length != len || sizeof file + wrappers + sets + abis + ops != len)
        return "the lengths in its header are not its length";
    const uint8_t *at = blob + sizeof file;
    const char *wrong = bw_wrappers_build(&table->wrappers, at, file.wrappers, at + wrappers,
                                          file.command_sets);
    if (wrong)
        return wrong;
    at += wrappers + sets;
    table->ops = malloc(ops + 1);
    if (!table->ops)
        return "no memory";
    memcpy(table->ops, at + abis, ops);
    wrong = check_ops(table->ops, file.ops);
    return wrong ? wrong : load_abis(table, at, file.abis, file.ops);
}

struct bw_swap_table *bw_swaps_load(const uint8_t *blob, size_t len, const char **what)
{
    struct bw_swap_table *table = calloc(1, sizeof *table);
    *what = table ? load(table, blob, len) : "no memory";
    if (!*what)
        return table;
    bw_swaps_free(table);
    return NULL;
}

void bw_swaps_free(struct bw_swap_table *table)
{
    if (!table)
        return;
    bw_wrappers_clear(&table->wrappers);
    free(table->slots);
    free(table->ops);
    free(table);
}

/* ---- decoding ---- */

static inline void number(uint64_t out[4], const uint8_t *word)
{
    for (int i = 0; i < 4; i++)
        out[i] = bw_be64(word + 24 - 8 * i);
}

/* Appends one token; where there is no room it takes the place of the last one. */
static inline void add_token(struct bw_swap *swap, const uint8_t *address)
{
    if (swap->token_count == BW_SWAP_TOKENS) {
        swap->flags |= BW_SWAP_PATH_CUT;
        memcpy(swap->tokens[BW_SWAP_TOKENS - 1], address, 20);
        return;
    }
    memcpy(swap->tokens[swap->token_count++], address, 20);
}

static inline void add_pool(struct bw_swap *swap, const uint8_t *address)
{
    if (swap->pool_count == BW_SWAP_HOPS)
        swap->flags |= BW_SWAP_PATH_CUT;
    else
        memcpy(swap->pools[swap->pool_count++], address, 20);
}

static inline void add_fee(struct bw_swap *swap, uint32_t fee)
{
    if (swap->fee_count == BW_SWAP_HOPS)
        swap->flags |= BW_SWAP_PATH_CUT;
    else
        swap->fees[swap->fee_count++] = fee;
}

/* Only what is kept of a path is read, so that a long one costs no more: the first elements, and
 * the last. */
static inline uint32_t next_kept(uint32_t i, uint32_t count, uint32_t kept)
{
    return i + 2 == kept && count > kept ? count - 1 : i + 1;
}

static bool path(struct bw_swap *swap, struct bw_region at)
{
    struct bw_region list;
    uint32_t count;
    if (!bw_abi_array(at, &list, &count) || count < 2) /* no router swaps along less */
        return false;
    for (uint32_t i = 0; i < count; i = next_kept(i, count, BW_SWAP_TOKENS))
        add_token(swap, list.at + 32 * i + 12);
    swap->hops += count - 1;
    if (count > BW_SWAP_TOKENS)
        swap->flags |= BW_SWAP_PATH_CUT;
    return true;
}

static bool path_packed(struct bw_swap *swap, struct bw_region at, bool reversed)
{
    struct bw_region bytes;
    if (!bw_abi_bytes(at, &bytes) || bytes.len < 43)
        return false;
    /* Up to 22 bytes behind the last token are no hop: the routers do not look at them. */
    uint32_t count = (bytes.len - 20) / 23 + 1;
    for (uint32_t i = 0; i < count; i = next_kept(i, count, BW_SWAP_TOKENS)) {
        const uint8_t *token = bytes.at + 23 * (reversed ? count - 1 - i : i);
        add_token(swap, token);
        if (i + 1 < count && i < BW_SWAP_HOPS) {
            const uint8_t *fee = reversed ? token - 3 : token + 20;
            add_fee(swap, (uint32_t)fee[0] << 16 | (uint32_t)fee[1] << 8 | fee[2]);
        }
    }
    swap->hops += count - 1;
    if (count > BW_SWAP_TOKENS)
        swap->flags |= BW_SWAP_PATH_CUT;
    return true;
}

static bool path_tuples(struct bw_swap *swap, struct bw_region at, const struct bw_swap_op *op)
{
    struct bw_region list, tuple;
    uint32_t count, fee;
    if (!bw_abi_array(at, &list, &count) || !count) /* nothing is swapped along an empty one */
        return false;
    for (uint32_t i = 0; i < count && i < BW_SWAP_HOPS; i++) {
        const uint8_t *token;
        if (!bw_abi_follow(list, 32 * i, &tuple) || !(token = bw_abi_word(tuple, op->a * 32u)) ||
            !bw_abi_number(tuple, op->b * 32u, &fee))
            return false;
        add_token(swap, token + 12);
        add_fee(swap, fee);
    }
    if (count > BW_SWAP_HOPS) {
        swap->flags |= BW_SWAP_PATH_CUT;
        if (!bw_abi_follow(list, 32 * (count - 1), &tuple) || !bw_abi_word(tuple, op->a * 32u))
            return false;
        add_token(swap, tuple.at + op->a * 32u + 12);
    }
    swap->hops += count;
    return true;
}

/* An array of routes: tuples of `words` words that begin with the token paid and the one received. */
static bool path_routes(struct bw_swap *swap, struct bw_region at, uint32_t words)
{
    struct bw_region list;
    uint32_t count;
    if (!bw_abi_array(at, &list, &count) || !count || count > list.len / 32 / words)
        return false;
    add_token(swap, list.at + 12);
    for (uint32_t i = 0; i < count; i = next_kept(i, count, BW_SWAP_HOPS))
        add_token(swap, list.at + 32 * words * i + 32 + 12);
    swap->hops += count;
    if (count > BW_SWAP_HOPS)
        swap->flags |= BW_SWAP_PATH_CUT;
    return true;
}

/* Whether `word` is a value of a type of `bits` bits, as a contract that reads it checks. */
static bool fits(const uint8_t *word, uint32_t bits, bool is_signed)
{
    uint32_t whole = 32 - (bits + 7) / 8; /* bytes above the value */
    uint8_t above = is_signed && word[whole] & 1u << (bits - 1) % 8 ? 0xff : 0;
    for (uint32_t i = 0; i < whole; i++)
        if (word[i] != above)
            return false;
    return bits % 8 == 0 || (uint8_t)(word[whole] ^ above) >> bits % 8 == 0;
}

static bool pools(struct bw_swap *swap, struct bw_region at)
{
    struct bw_region list;
    uint32_t count;
    if (!bw_abi_array(at, &list, &count) || !count)
        return false;
    for (uint32_t i = 0; i < count && i <= BW_SWAP_HOPS; i++)
        add_pool(swap, list.at + 32 * i + 12);
    swap->hops += count;
    return true;
}

static void signed_amount(struct bw_swap *swap, const uint8_t *word)
{
    if (!(word[0] & 0x80)) {
        number(swap->amount_in, word);
        return;
    }
    swap->flags |= BW_SWAP_EXACT_OUT;
    number(swap->amount_out, word);
    bool carry = true;
    for (int i = 0; i < 4; i++) {
        swap->amount_out[i] = ~swap->amount_out[i] + carry;
        carry = carry && !swap->amount_out[i];
    }
}

static void pair_out(struct bw_swap *swap, const uint8_t *words)
{
    uint64_t other[4];
    swap->flags |= BW_SWAP_EXACT_OUT;
    number(swap->amount_out, words);
    number(other, words + 32);
    const uint64_t *out = swap->amount_out;
    if (!(other[0] | other[1] | other[2] | other[3]))
        return;
    swap->flags |= out[0] | out[1] | out[2] | out[3] ? BW_SWAP_BOTH_OUT : BW_SWAP_ZERO_FOR_ONE;
    if (swap->flags & BW_SWAP_ZERO_FOR_ONE)
        memcpy(swap->amount_out, other, sizeof other);
}

static bool zero_for_one(struct bw_swap *swap, const struct bw_swap_op *op, const uint8_t *word)
{
    if (word[31])
        swap->flags |= BW_SWAP_ZERO_FOR_ONE;
    if (op->a && !word[31]) {
        if (swap->token_count != 2)
            return false;
        uint8_t first[20];
        memcpy(first, swap->tokens[0], 20);
        memcpy(swap->tokens[0], swap->tokens[1], 20);
        memcpy(swap->tokens[1], first, 20);
    }
    return true;
}

static void take_deadline(struct bw_swap *swap, const uint8_t *word)
{
    uint64_t words[4];
    number(words, word);
    swap->deadline_s = words[1] | words[2] | words[3] ? UINT64_MAX : words[0];
}

/* Does one operation; false: the arguments are not what it needs. */
static bool apply(struct bw_swap *swap, const struct bw_swap_op *op, const struct bw_call *call,
                  const struct bw_tx *tx)
{
    if (op->kind == BW_OP_VALUE_IN) {
        if (call->value)
            number(swap->amount_in, call->value);
        else
            memcpy(swap->amount_in, tx->value_wei, sizeof swap->amount_in);
        return true;
    }
    if (op->kind == BW_OP_SELF_POOL) {
        if (!call->target)
            return false;
        add_pool(swap, call->target);
        swap->hops = 1;
        return true;
    }

    struct bw_region at = call->args, part;
    for (uint32_t i = 0; i < op->hop_count; i++)
        if (!bw_abi_follow(at, op->hops[i] * 32u, &at))
            return false;
    const uint8_t *word = bw_abi_word(at, op->word * 32u);
    if (!word)
        return false;
    uint32_t fee;
    switch (op->kind) {
    case BW_OP_AMOUNT_IN:
        number(swap->amount_in, word);
        return true;
    case BW_OP_AMOUNT_OUT:
        number(swap->amount_out, word);
        return true;
    case BW_OP_PRICE_LIMIT:
        number(swap->price_limit, word);
        return true;
    case BW_OP_DEADLINE:
        take_deadline(swap, word);
        return true;
    case BW_OP_RECIPIENT:
        memcpy(swap->recipient, word + 12, 20);
        return true;
    case BW_OP_TOKEN:
        add_token(swap, word + 12);
        return true;
    case BW_OP_POOL:
        add_pool(swap, word + 12);
        swap->hops++;
        return true;
    case BW_OP_FEE:
        if (!bw_abi_number(at, op->word * 32u, &fee))
            return false;
        add_fee(swap, fee);
        return true;
    case BW_OP_ZERO_FOR_ONE:
        return zero_for_one(swap, op, word);
    case BW_OP_SIGNED_AMOUNT:
        signed_amount(swap, word);
        return true;
    case BW_OP_FITS:
        return fits(word, op->a, op->b);
    case BW_OP_OFFSET:
        return bw_abi_number(at, op->word * 32u, &fee) && fee == op->a * 32u;
    case BW_OP_PAIR_OUT:
        if (!bw_abi_word(at, op->word * 32u + 32))
            return false;
        pair_out(swap, word);
        return true;
    }
    if (!bw_abi_follow(at, op->word * 32u, &part))
        return false;
    switch (op->kind) {
    case BW_OP_PATH:
        return path(swap, part);
    case BW_OP_PATH_PACKED:
        return path_packed(swap, part, false);
    case BW_OP_PATH_PACKED_REVERSED:
        return path_packed(swap, part, true);
    case BW_OP_PATH_TUPLES:
        return path_tuples(swap, part, op);
    case BW_OP_PATH_ROUTES:
        return path_routes(swap, part, op->a);
    default:
        return pools(swap, part);
    }
}

struct decoder {
    const struct bw_swap_table *table;
    const struct bw_tx *tx;
    const uint8_t *envelope;
    struct bw_swap *out;
    uint32_t index; /* of tx in the burst */
    uint32_t n, max;
    struct bw_swap_stats *stats;
};

/* Reads the arguments of `call` as those of `abi` into *swap; false: they are not. */
static bool read_swap(struct decoder *decoder, const struct bw_swap_abi *abi,
                      const struct bw_call *call, struct bw_swap *swap)
{
    memset(swap, 0, sizeof *swap);
    swap->protocol = abi->protocol;
    swap->flags = abi->flags;
    if (call->deadline)
        take_deadline(swap, call->deadline);
    const struct bw_swap_op *op = decoder->table->ops + abi->first_op;
    for (uint32_t i = 0; i < abi->ops; i++)
        if (!apply(swap, &op[i], call, decoder->tx))
            return false;
    return true;
}

static void decode_call(struct decoder *decoder, const struct bw_call *call, uint32_t number)
{
    uint32_t at = call->has_selector ? slot_of(decoder->table, call->selector) : 0;
    const struct bw_swap_abi *abi =
        call->has_selector ? next(decoder->table, call->selector, &at) : NULL;
    if (!abi)
        return;
    if (decoder->n == decoder->max) {
        decoder->stats->overflow++;
        return;
    }
    struct bw_swap *swap = &decoder->out[decoder->n];
    while (!read_swap(decoder, abi, call, swap)) {
        if (!(abi = next(decoder->table, call->selector, &at))) {
            decoder->stats->bad++;
            return;
        }
    }
    if (!swap->hops && swap->token_count > 1)
        swap->hops = swap->token_count - 1u;
    if (call->target)
        memcpy(swap->target, call->target, 20);
    swap->selector = call->selector;
    swap->tx = decoder->index;
    swap->call_off = (uint32_t)(call->args.at - decoder->envelope);
    swap->call = (uint16_t)number;
    swap->depth = call->depth;
    decoder->stats->swaps++;
    decoder->n++;
}

static void decode_transaction(struct decoder *decoder)
{
    const struct bw_swap_table *table = decoder->table;
    struct bw_call outer = bw_call_outer(decoder->tx, decoder->envelope);
    decode_call(decoder, &outer, 0);
    if (!outer.has_selector || !bw_wrapper_find(&table->wrappers, outer.selector, outer.target))
        return;
    struct bw_calls calls;
    bw_calls_walk(&table->wrappers, &outer, &calls);
    decoder->stats->wrapper_bad += calls.bad;
    decoder->stats->wrapper_bound += calls.bound;
    for (uint32_t i = 0; i < calls.n; i++)
        decode_call(decoder, &calls.of[i], i + 1);
}

uint32_t bw_swaps_decode(const struct bw_swap_table *table, const struct bw_message *messages,
                         const struct bw_tx *txs, uint32_t n, struct bw_swap *out, uint32_t max,
                         struct bw_swap_stats *stats)
{
    struct decoder decoder = {.table = table, .out = out, .max = max, .stats = stats};
    for (uint32_t i = 0; i < n; i++) {
        if (!txs[i].raw_len)
            continue;
        decoder.tx = &txs[i];
        decoder.envelope = messages[i].data;
        decoder.index = i;
        decode_transaction(&decoder);
    }
    return decoder.n;
}
