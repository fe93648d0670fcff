"""The decoder against a real block of mainnet: hashes, fields and senders that others computed."""

import pytest

from appliance.mainnet_block import encode_transaction, load_block
from barewire import BarewireError
from barewire._native import lib
from barewire.mempool.decoder import VERDICTS, Decoder, Refusal, Rules
from barewire.mempool.record import RECORD_BYTES, Transaction, record_dtype
from barewire.rlp import encode

BLOCK = load_block()["transactions"]
RAW = [encode_transaction(fields) for fields in BLOCK]


def decoder(fork: str = "london", chain_id: int = 1) -> Decoder:
    return Decoder(Rules.preset(fork, chain_id))


def test_mainnet_block_fields_and_hashes():
    burst = decoder().decode_burst(RAW)
    assert burst.accepted == len(burst) == 145
    for tx, raw, told in zip(burst, RAW, BLOCK, strict=True):
        assert isinstance(tx, Transaction)
        assert tx.hash.hex() == told["hash"][2:]
        assert tx.type == int(told["type"], 16)
        assert tx.nonce == int(told["nonce"], 16)
        assert tx.gas == int(told["gas"], 16)
        assert tx.to == (bytes.fromhex(told["to"][2:]) if told["to"] else None)
        assert tx.value_wei == int(told["value"], 16)
        assert tx.tip_wei == tx.fee_cap_wei == int(told["gasPrice"], 16)
        assert tx.data.hex() == told["input"][2:]
        assert tx.selector == (tx.data[:4] if len(tx.data) >= 4 else None)
        assert (tx.r, tx.s) == (int(told["r"], 16), int(told["s"], 16))
        assert tx.raw == raw
        assert tx.access_list == tuple(
            (
                bytes.fromhex(entry["address"][2:]),
                tuple(bytes.fromhex(key[2:]) for key in entry["storageKeys"]),
            )
            for entry in told.get("accessList", ())
        )


def test_mainnet_block_senders():
    from coincurve import PublicKey

    from barewire import keccak256

    for tx, told in zip(decoder().decode_burst(RAW), BLOCK, strict=True):
        signature = tx.r.to_bytes(32, "big") + tx.s.to_bytes(32, "big") + bytes([tx.y_parity])
        key = PublicKey.from_signature_and_message(signature, tx.signing_hash(), hasher=None)
        assert keccak256(key.format(compressed=False)[1:])[12:].hex() == told["from"][2:]


def test_fields_are_known_before_the_hash():
    tx = decoder().decode(RAW[0], hashed=False)
    assert tx.hash is None
    assert tx.nonce == int(BLOCK[0]["nonce"], 16)


def test_a_transaction_outlives_its_burst():
    txs = [decoder().decode(raw) for raw in RAW]
    assert [tx.hash.hex() for tx in txs] == [fields["hash"][2:] for fields in BLOCK]


def test_a_burst_stays_what_it_is_when_the_callers_list_and_buffers_are_used_again():
    native = decoder()
    raws = [bytearray(raw) for raw in RAW[:40]] + [memoryview(raw) for raw in RAW[40:]]
    burst = native.decode_burst(raws, hashed=False)
    first = burst[0]
    for raw in raws[:40]:
        raw[:] = b"!"
    raws.clear()
    assert len(burst) == 145
    assert lib.bw_hash_burst(burst.native_messages, burst.records, 145) == 145
    assert [tx.hash.hex() for tx in burst] == [told["hash"][2:] for told in BLOCK]
    assert [type(tx.data) for tx in burst] == [bytes] * 145
    assert first.raw == RAW[0]
    assert first.signing_hash() == native.decode(RAW[0]).signing_hash()


def test_refusals_are_counted_and_the_last_bytes_kept():
    d = decoder()
    burst = d.decode_burst([RAW[0], RAW[0][:-1], b"", RAW[1] + b"!", b"\x05\xc0", b"\x06" * 600])
    assert [v if isinstance(v, Refusal) else "ok" for v in burst] == [
        "ok",
        Refusal("rlp_truncated"),
        Refusal("empty"),
        Refusal("rlp_trailing"),
        Refusal("type_unknown"),
        Refusal("type_unknown"),
    ]
    counts = d.refusals()
    assert d.accepted == 1
    assert counts["type_unknown"].count == 2
    assert counts["type_unknown"].sample_bytes == 600
    assert counts["type_unknown"].sample == b"\x06" * 496
    assert counts["rlp_truncated"].sample == RAW[0][:-1]
    assert "gas_floor" not in counts


def test_every_truncation_is_refused():
    for raw in RAW[:8]:
        d = decoder()
        burst = d.decode_burst([raw[:n] for n in range(len(raw))], hashed=False)
        assert burst.accepted == 0


def test_other_chain():
    assert decoder(chain_id=5).decode(RAW[0]) == Refusal("chain_id")
    assert isinstance(decoder(chain_id=0).decode(RAW[0]), Transaction)


def test_numpy_sees_the_same_record():
    import numpy as np

    from barewire._native import ffi

    burst = decoder().decode_burst(RAW)
    array = np.frombuffer(ffi.buffer(burst.records), dtype=record_dtype())
    assert array.itemsize == RECORD_BYTES == 384
    assert array["hash"][7].tobytes() == burst[7].hash
    assert array["gas"].tolist() == [tx.gas for tx in burst]
    assert sum(int(w) << 64 * i for i, w in enumerate(array["value_wei"][3])) == burst[3].value_wei


def test_verdicts_have_names():
    assert "?" not in VERDICTS
    assert len(set(VERDICTS)) == len(VERDICTS)


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ({"fork": "shangai"}, "fork = 'shangai'", "one of london, shanghai"),
        ({"chain_id": 2**64}, f"chain_id = {2**64}", "0 to 2^64 - 1"),
        ({"max_blobs": -1}, "max_blobs = -1", "0 to 2^32 - 1"),
        ({"max_size": "4"}, "max_size = '4'", "a whole number"),
        ({"max_gass": 4}, "max_gass = 4: no such limit", "one of max_gas, max_size"),
    ],
)
def test_rules_that_there_are_not(how, message, hint):
    with pytest.raises(BarewireError) as caught:
        Rules.preset(**how)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("fork", ["london", "osaka"])
def test_rules_are_told_apart_by_fork(fork):
    rules = Rules.preset(fork, 1, max_blobs=3)
    assert rules.max_blobs == 3
    assert rules.native().fork == (0 if fork == "london" else 4)


def test_rlp_encoder_equals_another():
    import rlp

    for item in [
        0,
        1,
        127,
        128,
        2**70,
        b"",
        b"\x00",
        b"a" * 55,
        b"a" * 56,
        b"b" * 70000,
        [],
        [[0], b"x"],
    ]:
        assert encode(item) == rlp.encode(item)
