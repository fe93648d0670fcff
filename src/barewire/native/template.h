/* A transaction that is finished but for a few numbers.
 *
 * Everything about a transaction that is known ahead of time is encoded ahead of time. What is left
 * for the moment of decision (nonce, fees, value and named slots in the calldata) is put between
 * prepared pieces in one pass, hashed, signed and laid down as final bytes. Integers in RLP have no
 * fixed width, so positions are not patched in place: the pieces are copied, a few hundred bytes,
 * which is cheaper than being clever and exact for every width.
 *
 * The fields stand at a fixed place of the output buffer with room before them. What is signed and
 * what is sent differ only in the list header before the fields and in what follows them (EIP-155's
 * three numbers, or the signature), so nothing is copied twice:
 *
 *     ... type | list header | fields ............ | v r s
 *              <- grows to the left                 grows to the right ->
 *
 * The hash of the whole is not needed to send it: bw_template_hash() is for after. */
#ifndef BAREWIRE_TEMPLATE_H
#define BAREWIRE_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#include "signer.h"

/* <cdef> */
enum bw_piece_kind {
    BW_PIECE_LITERAL = 0, /* `len` bytes of the template's literal, from `offset` */
    BW_PIECE_NONCE,
    BW_PIECE_TIP,         /* maxPriorityFeePerGas */
    BW_PIECE_FEE_CAP,     /* maxFeePerGas; the gas price of types 0 and 1 */
    BW_PIECE_VALUE,
    BW_PIECE_BLOB_FEE_CAP,/* maxFeePerBlobGas */
};

struct bw_template_piece {
    uint32_t kind; /* enum bw_piece_kind */
    uint32_t offset;
    uint32_t len;
};

/* `width` bytes of the literal, from `offset`, that are given anew each time. */
struct bw_template_slot {
    uint32_t offset;
    uint32_t width;
};

/* What a template never exceeds, whatever it is asked for. */
struct bw_template_caps {
    uint64_t fee_cap_wei;
    uint64_t tip_wei;
    uint64_t blob_fee_cap_wei;
    uint64_t value_wei[2]; /* least significant word first */
};

/* The numbers of one transaction. */
struct bw_template_numbers {
    uint64_t nonce;
    uint64_t tip_wei;          /* 0 where the template has no tip */
    uint64_t fee_cap_wei;
    uint64_t blob_fee_cap_wei; /* 0 where the template has none */
    uint64_t value_wei[2];     /* least significant word first */
};

/* Why nothing was signed. BW_SIGN_FAILED, BW_SIGN_FORKED and BW_SECP_ABSENT come through. */
enum bw_template_refusal {
    BW_REFUSED_NONCE = -16,    /* 2^64 - 1 is no nonce (EIP-2681) */
    BW_REFUSED_FEE_CAP = -17,  /* above its cap */
    BW_REFUSED_TIP = -18,      /* above its cap, or there is none in this type */
    BW_REFUSED_TIP_ABOVE = -19,/* above the fee cap: no node takes that */
    BW_REFUSED_BLOB_FEE = -20, /* above its cap, or there is none in this type */
    BW_REFUSED_VALUE = -21,    /* above its cap */
    BW_REFUSED_SLOTS = -22,    /* the bytes for the slots are not as many as the slots are wide */
};

struct bw_template {
    uint8_t *out;       /* the buffer that transactions are laid down in, owned by the template */
    uint32_t raw_off;   /* where in it the last finished transaction begins */
    uint32_t raw_len;   /* and how long it is; 0 before the first */
    uint32_t payload_off; /* the same for what was prepared to be signed */
    uint32_t payload_len;
    uint8_t digest[32]; /* its Keccak-256: what the signature is of */
    uint32_t out_len;   /* of the buffer */
    uint32_t slots_len; /* sum of the slots' widths */
};

/* A template of EIP-2718 `type` (0 to 4). `chain_id` 0 makes a legacy transaction without replay
 * protection; other types carry it in their first piece. Everything is copied. NULL where a piece
 * or a slot lies outside the literal, or no memory. */
struct bw_template *bw_template_new(uint32_t type, uint64_t chain_id, const uint8_t *literal,
                                    uint32_t literal_len, const struct bw_template_piece *pieces,
                                    uint32_t piece_count, const struct bw_template_slot *slots,
                                    uint32_t slot_count, const struct bw_template_caps *caps);
void bw_template_free(struct bw_template *t);

/* From decision to final bytes: checks, encodes, signs. `slots` holds the slots' bytes one after
 * the other. Returns the length of the transaction, which begins at t->out + t->raw_off and stays until
 * the template is used again; or a refusal, and then nothing was signed. One thread. Allocates
 * nothing; makes no system call unless the signer's pool is empty. */
int64_t bw_template_fire(struct bw_template *t, struct bw_signer *signer,
                         const struct bw_template_numbers *numbers, const uint8_t *slots,
                         size_t slots_len);
/* The same with the numbers one by one, which is the fastest way to call it from Python. */
int64_t bw_template_fire_with(struct bw_template *t, struct bw_signer *signer, uint64_t nonce,
                              uint64_t tip_wei, uint64_t fee_cap_wei, uint64_t blob_fee_cap_wei,
                              uint64_t value_high, uint64_t value_low, const uint8_t *slots,
                              size_t slots_len);

/* The two halves, for a signer that is elsewhere. Preparing leaves what is to be signed at
 * t->payload_off and its hash in t->digest; returns its length or a refusal. Finishing takes r and
 * s and the parity, and returns as bw_template_fire does. */
int64_t bw_template_prepare(struct bw_template *t, const struct bw_template_numbers *numbers,
                            const uint8_t *slots, size_t slots_len);
int64_t bw_template_finish(struct bw_template *t, const uint8_t *rs, int y_parity);

/* The hash of the last finished transaction, into hash[32]. */
void bw_template_hash(const struct bw_template *t, uint8_t *hash);
/* </cdef> */

#endif
