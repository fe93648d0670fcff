"""Ready-made requests, read back by other people's parsers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.client import parse_headers

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak, to_checksum_address

from barewire.errors import BarewireError
from barewire.execution.keys import Key
from barewire.execution.request import ReadyRequest, checksummed
from barewire.execution.signer import LocalSigner, PresignedSigner, Rfc6979Signer
from barewire.execution.template import Caps, Template

SECRET, AUTH = b"\x31" * 32, b"\x32" * 32


@pytest.fixture
def auth() -> Iterator[Rfc6979Signer]:
    with Key.from_bytes(AUTH) as key, Rfc6979Signer(key) as signer:
        yield signer


def parsed(request: memoryview) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers by Python's own parser, and as much body as they announce."""
    stream = io.BytesIO(bytes(request))
    line = stream.readline().decode().strip()
    headers = {name.lower(): value for name, value in parse_headers(stream).items()}
    body = stream.read(int(headers["content-length"]))
    assert stream.read() == b""
    return line, headers, body


def signed_as_flashbots_do(body: bytes, address: str) -> str:
    message = encode_defunct(text="0x" + keccak(body).hex())
    return f"{address}:0x{Account.sign_message(message, AUTH).signature.hex()}"


def test_send_raw_transaction():
    ready = ReadyRequest.send_raw_transaction(
        "node.example:8545", "/rpc?key=1", headers={"authorization": "Bearer x"}, request_id=7
    )
    for length in (1, 40, 41, 374, 5000, 50_000, 131_072, 0, 3):
        raw = bytes(i * 7 % 256 for i in range(length))
        line, headers, body = parsed(ready.fire(raw))
        assert line == "POST /rpc?key=1 HTTP/1.1"
        assert headers == {
            "host": "node.example:8545",
            "content-type": "application/json",
            "authorization": "Bearer x",
            "content-length": str(len(body)),
        }
        assert json.loads(body) == {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "eth_sendRawTransaction",
            "params": ["0x" + raw.hex()],
        }


@pytest.mark.parametrize("before", [b"", b"\x02" * 180])
def test_send_bundle(auth, before):
    ready = ReadyRequest.send_bundle(
        "relay.example",
        auth=auth,
        before=bool(before),
        fields={"minTimestamp": 5, "builders": ["a", "b"]},
    )
    address = Account.from_key(AUTH).address
    for block in (1, 15, 16, 21_000_000, 2**63, 2**64 - 1):
        raw = block.to_bytes(8, "big") * 47
        line, headers, body = parsed(ready.fire(raw, before=before, block_number=block))
        assert line == "POST / HTTP/1.1"
        assert json.loads(body)["params"] == [
            {
                "txs": [*(["0x" + before.hex()] if before else []), "0x" + raw.hex()],
                "blockNumber": hex(block),
                "minTimestamp": 5,
                "builders": ["a", "b"],
            }
        ]
        assert headers["x-flashbots-signature"] == signed_as_flashbots_do(body, address)


def test_a_bundle_signed_by_two_presigned_keys():
    with Key.from_bytes(SECRET) as money, Key.from_bytes(AUTH) as reputation:
        with (
            PresignedSigner(money, capacity=64, accept_snapshot_risk=True) as signer,
            PresignedSigner(reputation, capacity=64, accept_snapshot_risk=True) as auth,
        ):
            template = Template(
                signer, type=2, chain_id=1, to=bytes(20), gas=21000, caps=Caps(10**10, 10**10)
            )
            ready = ReadyRequest.send_bundle("relay.example", auth=auth)
            for nonce in range(100):
                raw = template.fire(nonce, 10**9, 10**8)
                _, headers, body = parsed(ready.fire(raw, block_number=nonce + 1))
                sent = bytes.fromhex(json.loads(body)["params"][0]["txs"][0][2:])
                assert Account.recover_transaction(sent) == Account.from_key(SECRET).address
                address, _, signature = headers["x-flashbots-signature"].partition(":")
                message = encode_defunct(text="0x" + keccak(body).hex())
                recovered = Account.recover_message(message, signature=signature)
                assert recovered == address == Account.from_key(AUTH).address


def test_a_bundle_without_a_signature():
    ready = ReadyRequest.send_bundle("relay.example", auth=None)
    _, headers, _ = parsed(ready.fire(b"\1\2", block_number=1))
    assert "x-flashbots-signature" not in headers


def test_addresses_are_spelled_as_eip_55_says():
    for i in range(50):
        address = keccak(bytes([i]))[:20]
        assert checksummed(address) == to_checksum_address(address)


@pytest.mark.parametrize(
    ("host", "path", "headers"),
    [
        ("a\r\nb", "/", {}),
        ("a", "/x y", {}),
        ("a", "/\n", {}),
        ("a", "/", {"x": "1\r\ny: 2"}),
        ("a", "/", {"x\n": "1"}),
        ("a", "/", {"x": "ü"}),
        ("a", "/", {"Content-Length": "3"}),
        ("a", "/", {"X-Flashbots-Signature": "3"}),
        ("a", "/", {"Host": "b"}),
        ("a", "/", {"transfer-encoding": "chunked"}),
        ("a", "/", {"": "1"}),
        ("a", "/", {"x:y": "1"}),
        ("a", "/", {"(x)": "1"}),
    ],
)
def test_heads_that_are_none_are_refused(host, path, headers):
    with pytest.raises(BarewireError, match=r"cannot stand in the head|put in by|not the name of"):
        ReadyRequest.send_raw_transaction(host, path, headers=headers)


def test_what_cannot_be_fired_is_refused(auth):
    ready = ReadyRequest.send_bundle("a", auth=auth, before=True, raw_max=100)
    with pytest.raises(BarewireError, match=r"101 bytes of transactions.*made for 100"):
        ready.fire(bytes(50), before=bytes(51), block_number=1)
    with pytest.raises(BarewireError, match="0 bytes to go before"):
        ready.fire(bytes(50))
    with pytest.raises(BarewireError, match="has no place"):
        ReadyRequest.send_bundle("a", auth=None).fire(b"1", before=b"2")
    with pytest.raises(BarewireError, match="put in when it is fired"):
        ReadyRequest.send_bundle("a", auth=None, fields={"txs": []})
    for number in (0, -1, 2**64):
        with pytest.raises(BarewireError, match=f"a bundle for block {number}"):
            ready.fire(bytes(5), before=bytes(5), block_number=number)
    with pytest.raises(BarewireError, match="a bundle for block 0"):
        ready.fire(bytes(5), before=bytes(5))
    key = Key.from_bytes(AUTH)
    closed: LocalSigner = Rfc6979Signer(key)
    ready = ReadyRequest.send_bundle("a", auth=closed)
    closed.close()
    with pytest.raises(BarewireError, match="cannot sign"):
        ready.fire(b"1", block_number=1)
