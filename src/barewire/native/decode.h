/* Raw bytes to transaction record, as strict as geth.
 *
 * A message is one signed EIP-2718 envelope: legacy (before and after EIP-155), EIP-2930,
 * EIP-1559, EIP-4844 (with and without the network wrapper, wrapper versions 0 and 1) or EIP-7702.
 * Nothing is read beyond the message, nothing is allocated, the time is linear in its length.
 *
 * Decoding and hashing are two calls, because a shot may leave between them: the fields are known
 * some tens of nanoseconds after the bytes, the hash some hundreds later. Between the calls the
 * bytes must stay where they are; the record itself holds offsets only.
 *
 * What is refused, and why, is written down in docs/transaction-validity.md, one rule a verdict.
 * What depends on the fork is in struct bw_rules. What is not checked here: the signature against
 * a sender (mempool/senders), KZG proofs (they need the trusted setup), and everything that needs
 * state. */
#ifndef BAREWIRE_DECODE_H
#define BAREWIRE_DECODE_H

#include "txrecord.h"

/* <cdef> */
enum bw_fork {
    BW_FORK_LONDON = 0,
    BW_FORK_SHANGHAI = 1,
    BW_FORK_CANCUN = 2,
    BW_FORK_PRAGUE = 3,
    BW_FORK_OSAKA = 4,
};

/* What depends on the chain and its fork. */
struct bw_rules {
    uint64_t chain_id;      /* 0: any */
    uint64_t max_gas;       /* of one transaction (EIP-7825, or the block's limit) */
    uint32_t fork;          /* enum bw_fork */
    uint32_t max_size;      /* bytes of an envelope without blobs */
    uint32_t max_blob_size; /* bytes of an EIP-4844 envelope, its wrapper included */
    uint32_t max_blobs;     /* of one transaction */
    uint32_t max_initcode;  /* bytes (EIP-3860); from Shanghai on */
    uint32_t pool;          /* 0: refuse only what geth's decoder refuses, not what its pool does */
};

/* Why a message was refused. Each value is one rule of docs/transaction-validity.md and one
 * counter. New ones are added at the end. */
enum bw_verdict {
    BW_OK = 0,
    BW_EMPTY,             /* no bytes, or a type byte alone */
    BW_OVERSIZED,         /* more bytes than the limit of its type */
    BW_TYPE_UNKNOWN,      /* not an EIP-2718 type that Ethereum has */
    BW_TYPE_EARLY,        /* a type that this fork does not have yet */
    BW_RLP_TRUNCATED,     /* an item ends beyond the message or its list */
    BW_RLP_TRAILING,      /* bytes after the envelope */
    BW_RLP_LENGTH,        /* a length in more bytes than it needs */
    BW_RLP_BYTE,          /* a single byte below 0x80 behind a prefix */
    BW_RLP_KIND,          /* a list where a string belongs, or the other way round */
    BW_FIELDS_FEW,        /* fewer fields than the type has */
    BW_FIELDS_MANY,       /* more */
    BW_INT_ZEROS,         /* an integer with leading zeros */
    BW_INT_WIDTH,         /* an integer wider than its field */
    BW_CHAIN_ID,          /* of another chain */
    BW_NONCE_MAX,         /* 2^64 - 1 (EIP-2681) */
    BW_GAS_MAX,           /* above the limit of a transaction */
    BW_GAS_INTRINSIC,     /* below the intrinsic gas */
    BW_GAS_FLOOR,         /* below the floor of its calldata (EIP-7623) */
    BW_TIP_ABOVE_CAP,     /* the tip is above the fee cap */
    BW_TO_WIDTH,          /* `to` is neither 20 bytes nor, where that creates, empty */
    BW_TO_MISSING,        /* a type that cannot create a contract, and no `to` */
    BW_INITCODE_SIZE,     /* EIP-3860 */
    BW_ACCESS_SHAPE,      /* an entry that is not [20 bytes, [32 bytes, ...]] */
    BW_AUTH_EMPTY,        /* EIP-7702 without an authorization */
    BW_AUTH_SHAPE,        /* an authorization that is not of six fields, or no address in it */
    BW_BLOB_NONE,         /* EIP-4844 without a blob */
    BW_BLOB_COUNT,        /* more blobs than the limit */
    BW_BLOB_HASH,         /* a versioned hash that is not 32 bytes beginning with 0x01 */
    BW_BLOB_FEE,          /* a blob fee cap of 0 */
    BW_WRAPPER_VERSION,   /* not the wrapper version of this fork */
    BW_WRAPPER_SHAPE,     /* a blob, commitment or proof of the wrong width */
    BW_WRAPPER_COUNT,     /* blobs, commitments, proofs and hashes do not match in number */
    BW_WRAPPER_COMMITMENT,/* a commitment that does not hash to its versioned hash */
    BW_SIG_V,             /* v or y-parity without a meaning */
    BW_SIG_R,             /* r is 0 or not below the order of the curve */
    BW_SIG_S,             /* s is 0 or not below the order of the curve */
    BW_SIG_HIGH_S,        /* s is above half the order (EIP-2) */
    BW_VERDICTS,
};

/* message.flags */
#define BW_MESSAGE_TRUSTED 0x01 /* its source is marked trusted: sets BW_TX_TRUSTED */
#define BW_MESSAGE_NEW 0x04     /* already known to be no duplicate */
#define BW_MESSAGE_ORIGIN 4     /* from this bit on: how it came, enum bw_origin */

/* One message as a feed delivers it; borrowed by whoever gave it. */
struct bw_message {
    const uint8_t *data;
    uint64_t arrival_ns;    /* of the clock named in `clock` */
    uint64_t missed_mono_ns;/* of BW_ORIGIN_RESENT: when it was found missing; 0: not known */
    uint32_t len;
    uint16_t source;        /* number of the source that delivered it */
    uint8_t clock;          /* enum dpb_clock */
    uint8_t flags;          /* BW_MESSAGE_... */
};

#define BW_SAMPLE_BYTES 496

/* Counts what was refused, by cause, and keeps the last bad message of each. */
struct bw_refusal {
    uint64_t count;
    uint32_t sample_len;    /* bytes of the last bad message, of which at most */
    uint32_t sample_kept;   /*   BW_SAMPLE_BYTES were kept */
    uint8_t sample[BW_SAMPLE_BYTES];
};
struct bw_refusals {
    struct bw_refusal of[64]; /* by enum bw_verdict; of[0].count counts what was accepted */
};

/* The rules of `fork` on Ethereum's mainnet limits; 0, or -EINVAL for a fork that is not one. */
int bw_rules_preset(uint32_t fork, uint64_t chain_id, struct bw_rules *out);

/* Decodes `len` bytes at `raw` into *out, all but hash, sender, source and arrival (zero). On any
 * verdict but BW_OK what *out holds is undefined. */
enum bw_verdict bw_decode_one(const uint8_t *raw, uint32_t len, const struct bw_rules *rules,
                              struct bw_tx *out);

/* Decodes messages[0..n) into out[0..n), with verdicts[i] for each; returns how many are BW_OK.
 * The record of a refused message is all zero. `refusals` may be NULL. */
uint32_t bw_decode_burst(const struct bw_message *messages, uint32_t n,
                         const struct bw_rules *rules, struct bw_tx *out, uint8_t *verdicts,
                         struct bw_refusals *refusals);

/* Fills in the hash of every record that decoding accepted and that has none yet. `messages` and
 * `txs` are those of the burst; a record with raw_len 0 is passed over. Returns how many were
 * hashed. */
uint32_t bw_hash_burst(const struct bw_message *messages, struct bw_tx *txs, uint32_t n);

/* The hash that the sender signed (unprotected, EIP-155 or typed) into out[32]; `raw` is the
 * message that *tx was decoded from. */
void bw_signing_hash(const uint8_t *raw, const struct bw_tx *tx, uint8_t *out);

/* The bytes whose Keccak-256 that is into `out`, which has room for tx->fields_len +
 * BW_SIGNING_MORE; returns how many they are. */
#define BW_SIGNING_MORE 24
uint32_t bw_signing_bytes(const uint8_t *raw, const struct bw_tx *tx, uint8_t *out);

/* Counts a refusal and keeps its bytes. */
void bw_refuse(struct bw_refusals *refusals, enum bw_verdict verdict, const uint8_t *raw,
               uint32_t len);

/* The verdict's name in lower case ("gas_intrinsic"), as counters and documents spell it; "?" for
 * a number that is none. */
const char *bw_verdict_name(uint32_t verdict);
/* </cdef> */

#endif
