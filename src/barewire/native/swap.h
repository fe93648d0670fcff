/* What a transaction wants to swap: router, pool and aggregator calldata as one fixed record.
 *
 * No function is known here. A table says, selector by selector, which argument is which field:
 * "the word at head slot 0 is the amount in; the address[] that slot 2 points to is the path".
 * barewire.mempool.swaps compiles it from declared signatures, its own and its user's. A native
 * interpreter of some dozen operations reads the arguments, checked against the end of the
 * calldata, in the calls inside wrappers (calls.h) as well as in the outermost one.
 *
 * The record is what the calldata says and nothing more: amounts are not resolved against
 * balances (the Universal Router's 2^255 stays that), recipients 1 and 2 of the Universal Router
 * stay 1 and 2, pools named by token and fee have no address. */
#ifndef BAREWIRE_SWAP_H
#define BAREWIRE_SWAP_H

#include "calls.h"
#include "decode.h"

/* <cdef> */
#define BW_SWAP_TOKENS 8     /* of a path, kept */
#define BW_SWAP_HOPS 7
#define BW_SWAP_ABIS 1024    /* functions in a table */
#define BW_SWAP_OPS 24       /* operations of one function */
#define BW_SWAP_LAYOUTS 4    /* functions of one selector, tried in their order */

/* swap.flags */
#define BW_SWAP_EXACT_OUT 0x01    /* amount_out is exact and amount_in the most; else amount_in is
                                     exact and amount_out the least */
#define BW_SWAP_NATIVE_IN 0x02    /* paid in ether, sent along */
#define BW_SWAP_NATIVE_OUT 0x04   /* paid out in ether */
#define BW_SWAP_FEE_ON_TRANSFER 0x08 /* meant for tokens that take a fee */
#define BW_SWAP_ZERO_FOR_ONE 0x10 /* a pool's token0 goes in */
#define BW_SWAP_PATH_CUT 0x20     /* the path has more hops than are kept: its first BW_SWAP_HOPS
                                     tokens and its last one are */
#define BW_SWAP_BOTH_OUT 0x40     /* a pair pays out both tokens (a flash swap): amount_out is
                                     that of token0 */

struct bw_swap {
    uint64_t amount_in[4];   /* least significant word first */
    uint64_t amount_out[4];
    uint64_t price_limit[4]; /* sqrt price, Q64.96; 0: none */
    uint64_t deadline_s;     /* Unix time; 0: none given; 2^64 - 1: that or later */
    uint8_t tokens[BW_SWAP_TOKENS][20]; /* from the one paid to the one received */
    uint8_t pools[BW_SWAP_HOPS][20];    /* where the calldata names pools */
    uint32_t fees[BW_SWAP_HOPS];        /* of the pools, in hundredths of a basis point */
    uint8_t recipient[20];   /* zero: not given, usually the sender */
    uint8_t target[20];      /* the contract that is called */
    uint32_t selector;       /* of the call, or what stands for the command */
    uint32_t tx;             /* index in the burst */
    uint32_t call_off;       /* where its arguments begin in the envelope */
    uint32_t hops;           /* of the whole path; 0 where the calldata does not say */
    uint16_t protocol;       /* the table's own numbers */
    uint16_t flags;          /* BW_SWAP_... */
    uint16_t call;           /* 0: the outermost; n: the nth inner call */
    uint8_t token_count;
    uint8_t pool_count;
    uint8_t fee_count;
    uint8_t depth;           /* of wrappers around it */
    uint8_t reserved[8];
};

/* One operation reads the word that `hops` and `word` lead to: hops[0..hop_count) are words whose
 * offset is followed, `word` counts from where the last of them led. */
enum bw_swap_op_kind {
    BW_OP_AMOUNT_IN = 0,  /* number */
    BW_OP_AMOUNT_OUT,     /* number */
    BW_OP_PRICE_LIMIT,    /* number */
    BW_OP_DEADLINE,       /* number */
    BW_OP_RECIPIENT,      /* address */
    BW_OP_TOKEN,          /* address, appended to tokens */
    BW_OP_POOL,           /* address in the low 160 bits, appended to pools */
    BW_OP_FEE,            /* number below 2^32, appended to fees */
    BW_OP_PATH,           /* offset of an address[], appended to tokens */
    BW_OP_PATH_PACKED,    /* offset of bytes: token, (3-byte fee, token)... */
    BW_OP_PATH_PACKED_REVERSED, /* the same, from the one received to the one paid */
    BW_OP_PATH_TUPLES,    /* offset of a tuple[], each dynamic: token at word a, fee at word b */
    BW_OP_POOLS,          /* offset of a uint256[]: addresses in the low 160 bits */
    BW_OP_ZERO_FOR_ONE,   /* flag; a == 1: and turns the two tokens around where it is not set */
    BW_OP_SIGNED_AMOUNT,  /* above 0: exactly in; below: exactly out, negated */
    BW_OP_PAIR_OUT,       /* number of token0 out, and of token1 in the next word */
    BW_OP_VALUE_IN,       /* no word: amount_in is the call's value */
    BW_OP_SELF_POOL,      /* no word: the contract called is the pool */
    BW_OP_PATH_ROUTES,    /* offset of a tuple[], each of a words: the token paid, the one received */
    BW_OP_FITS,           /* gives nothing: a value of a bits, signed where b == 1, or no swap */
    BW_OP_OFFSET,         /* gives nothing: an offset of a words, or no swap */
    BW_OPS
};

struct bw_swap_op {
    uint8_t kind;         /* enum bw_swap_op_kind */
    uint8_t hop_count;    /* at most 2 */
    uint16_t hops[2];
    uint16_t word;
    uint16_t a, b;
};

/* One function, `ops` operations of which begin at `first_op`. Where several have one selector the
 * first whose arguments are there gives the swap. */
struct bw_swap_abi {
    uint32_t selector;
    uint16_t protocol;
    uint16_t flags;       /* BW_SWAP_... that always hold */
    uint32_t first_op;
    uint32_t ops;
};

/* The serialised table: this header, struct bw_wrapper[], struct bw_command_set[],
 * struct bw_swap_abi[], struct bw_swap_op[]. Little-endian, without padding. */
#define BW_SWAP_VERSION 2
struct bw_swap_file {
    uint8_t magic[8];     /* "BWSWAPS" and a zero */
    uint32_t version;     /* BW_SWAP_VERSION */
    uint32_t length;      /* bytes in all, this header included */
    uint32_t wrappers;
    uint32_t command_sets;
    uint32_t abis;
    uint32_t ops;
};

struct bw_swap_stats {
    uint64_t swaps;       /* reported */
    uint64_t bad;         /* calls of a known function whose arguments are broken */
    uint64_t overflow;    /* swaps for which there was no room in `out` */
    uint64_t wrapper_bad; /* as in struct bw_match_stats */
    uint64_t wrapper_bound;
};

struct bw_swap_table;

/* Builds a table from its serialised form; NULL with a sentence in *what (static) when anything is
 * wrong with it. The caller frees. */
struct bw_swap_table *bw_swaps_load(const uint8_t *blob, size_t len, const char **what);
void bw_swaps_free(struct bw_swap_table *table);

/* Lists the swaps of a burst, txs[0..n) decoded from messages[0..n), by transaction and in order of
 * appearance; a record with raw_len 0 is passed over. Returns how many fit out[0..max). Allocates
 * nothing. */
uint32_t bw_swaps_decode(const struct bw_swap_table *table, const struct bw_message *messages,
                         const struct bw_tx *txs, uint32_t n, struct bw_swap *out, uint32_t max,
                         struct bw_swap_stats *stats);
/* </cdef> */
_Static_assert(sizeof(struct bw_swap) == 512, "eight cache lines");
_Static_assert(sizeof(struct bw_swap_op) == 12, "as serialised");

#endif
