/* The transaction record: what decoding one signed EIP-2718 envelope gives.
 *
 * The layout is written down here and nowhere else: cffi reads it from this header, and
 * barewire.mempool.record derives the numpy type and the tests' view of it from cffi. It holds no
 * pointers, so that it can be copied into a ring with the raw bytes behind it: every offset counts
 * from the first byte of the envelope.
 *
 * 256-bit quantities are four 64-bit words, least significant first. */
#ifndef BAREWIRE_TXRECORD_H
#define BAREWIRE_TXRECORD_H

#include <stddef.h>
#include <stdint.h>

/* <cdef> */
/* tx.flags */
#define BW_TX_CREATE 0x0001        /* no `to`: creates a contract */
#define BW_TX_HAS_SELECTOR 0x0002  /* calldata has at least four bytes */
#define BW_TX_HASHED 0x0004        /* `hash` is filled in */
#define BW_TX_SENDER 0x0008        /* `sender` is filled in: the signature was checked */
#define BW_TX_PROTECTED 0x0010     /* the signature covers the chain id (EIP-155, or typed) */
#define BW_TX_WRAPPED 0x0020       /* EIP-4844 network wrapper: blobs travel with it */
#define BW_TX_TRUSTED 0x0040       /* came from a source marked trusted */

/* How it came (tx.origin). Only what was announced tells of now: the rest may be of any age. */
enum bw_origin {
    BW_ORIGIN_ANNOUNCED = 0,       /* told by its source when that had it: its arrival is the news */
    BW_ORIGIN_RESENT = 1,          /* it had been missed, and was sent again */
    BW_ORIGIN_POOL = 2,            /* read from a node's pool after a break: executable there */
    BW_ORIGIN_QUEUED = 3,          /* the same, and not executable: behind a gap in its sender's nonces */
    BW_ORIGIN_BLOCK = 4,           /* in a block: mined, the pending one, or one that is being built */
    BW_ORIGINS = 5,
};

struct bw_tx {
    uint8_t hash[32];
    uint8_t to[20];              /* zero where BW_TX_CREATE */
    uint8_t sender[20];
    uint32_t selector;           /* first four bytes of calldata, read big-endian */
    uint32_t flags;
    uint64_t chain_id;           /* 0 where the signature is unprotected */
    uint64_t nonce;
    uint64_t gas;
    uint64_t value_wei[4];
    uint64_t tip_wei[4];         /* maxPriorityFeePerGas; the gas price of types 0 and 1 */
    uint64_t fee_cap_wei[4];     /* maxFeePerGas; the gas price of types 0 and 1 */
    uint64_t blob_fee_cap_wei[4];/* maxFeePerBlobGas; type 3 only */
    uint8_t r[32];               /* big-endian */
    uint8_t s[32];               /* big-endian */
    uint64_t arrival_ns;         /* of the clock named in arrival_clock */
    uint32_t raw_len;            /* bytes of the envelope, as received */
    uint32_t hashed_off;         /* the bytes whose Keccak-256 is the hash: all of the envelope; where */
    uint32_t hashed_len;         /*   BW_TX_WRAPPED the inner list, hashed behind a byte 0x03 */
    uint32_t fields_off;         /* the fields from chain id or nonce up to the signature: */
    uint32_t fields_len;         /*   what is signed is a list of these (EIP-155 adds three) */
    uint32_t data_off;           /* calldata */
    uint32_t data_len;
    uint32_t access_off;         /* the payload of the access list, without its list header */
    uint32_t access_len;
    uint32_t blobs_off;          /* the payload of the blob versioned hashes list (33 bytes each) */
    uint32_t blobs_len;
    uint32_t auths_off;          /* the payload of the authorization list */
    uint32_t auths_len;
    uint16_t source;             /* which source delivered it */
    uint8_t type;                /* EIP-2718 type; 0 is legacy */
    uint8_t y_parity;            /* 0 or 1; under rules without `pool` as it came, below 256 */
    uint8_t arrival_clock;       /* enum dpb_clock */
    uint8_t wrapper_version;     /* where BW_TX_WRAPPED: 0, or 1 (EIP-7594 cell proofs) */
    uint8_t origin;              /* enum bw_origin */
    uint8_t known_clock;         /* enum dpb_clock */
    uint8_t reserved[4];
    uint64_t known_ns;           /* somebody had it by then at the latest, of the clock known_clock:
                                  *   its arrival; of what was sent again when it was found missing;
                                  *   of a block its time */
    uint8_t reserved_too[8];
};
/* </cdef> */
_Static_assert(sizeof(struct bw_tx) == 384, "six cache lines");

#endif
