"""docs/transaction-validity.md, read once more and written down in Python: slow, and plain.

`broken` says which rules a message breaks, all of them. The decoder stops at the first that it
finds, so what it says must be among them, and it must accept exactly what breaks none. The model
shares no code and no order of checks with the decoder.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from tests.transactions import BLOB, FIELDS, ORDER, required_gas

FORKS = ("london", "shanghai", "cancun", "prague", "osaka")
SINCE = {1: 0, 2: 0, 3: 2, 4: 3}


class Item(NamedTuple):
    is_list: bool
    payload: bytes


def items(payload: bytes, found: set[str]) -> list[Item]:
    """The RLP items in `payload`; what is wrong with their headers goes into `found`."""
    out, at = [], 0
    while at < len(payload):
        prefix = payload[at]
        if prefix < 0x80:
            out.append(Item(False, payload[at : at + 1]))
            at += 1
            continue
        small = (prefix - 0x80) % 0x40
        at += 1
        if small >= 56:
            size = payload[at : at + small - 55]
            at += small - 55
            if len(size) < small - 55:
                found.add("rlp_truncated")
            small = int.from_bytes(size, "big")
            if size[:1] == b"\0" or small < 56:
                found.add("rlp_length")
        elif prefix == 0x81 and payload[at : at + 1] and payload[at] < 0x80:
            found.add("rlp_byte")
        if at + small > len(payload):
            found.add("rlp_truncated")
        out.append(Item(prefix >= 0xC0, payload[at : at + small]))
        at += small
    return out


def integer(item: Item, width: int, found: set[str]) -> int:
    if item.is_list:
        found.add("rlp_kind")
    if item.payload[:1] == b"\0":
        found.add("int_zeros")
    if len(item.payload) > width:
        found.add("int_width")
    return int.from_bytes(item.payload, "big")


def fixed(item: Item, width: int, otherwise: str, found: set[str]) -> bytes:
    if item.is_list:
        found.add("rlp_kind")
    if len(item.payload) != width:
        found.add(otherwise)
    return item.payload


def listed(item: Item, found: set[str]) -> list[Item]:
    if not item.is_list:
        found.add("rlp_kind")
        return []
    return items(item.payload, found)


def broken(raw: bytes, fork: str, chain_id: int = 0) -> set[str]:
    """Names of the rules that `raw` breaks under `fork` and `chain_id` (0: any)."""
    found: set[str] = set()
    if not raw or (raw[0] < 0x80 and len(raw) == 1):
        return {"empty"}
    kind = raw[0] if raw[0] < 0x80 else 0
    if raw[0] < 0x80 and kind not in SINCE:
        return {"type_unknown"}
    now = FORKS.index(fork)
    if kind and SINCE[kind] > now:
        found.add("type_early")
    if len(raw) > (2**20 if kind == 3 else 2**17):
        found.add("oversized")
    outer = items(raw[1:] if kind else raw, found)
    if len(outer) > 1:
        found.add("rlp_trailing")
    if not outer or not outer[0].is_list:
        return found | {"rlp_kind"}
    fields = items(outer[0].payload, found)
    if kind == 3 and fields and fields[0].is_list:
        _wrapper(fields, now, chain_id, found)
    else:
        _fields(kind, fields, now, chain_id, found)
    return found


def _wrapper(parts: list[Item], now: int, chain_id: int, found: set[str]) -> None:
    hashes = _fields(3, listed(parts[0], found), now, chain_id, found)
    rest = parts[1:]
    version = 0
    if rest and not rest[0].is_list:
        version = integer(rest.pop(0), 8, found)
        if version != 1:
            found.add("wrapper_version")
    if version != (now >= 4):
        found.add("wrapper_version")
    if len(rest) != 3:
        found.add("fields_few" if len(rest) < 3 else "fields_many")
    sidecar = [
        [fixed(item, width, "wrapper_shape", found) for item in listed(part, found)]
        for part, width in zip(rest, (BLOB, 48, 48), strict=False)
    ]
    if len(sidecar) == 3:
        blobs, commitments, proofs = sidecar
        if not len(blobs) == len(commitments) == len(hashes):
            found.add("wrapper_count")
        if len(proofs) != len(hashes) * (128 if version else 1):
            found.add("wrapper_count")
        if any(
            hashlib.sha256(commitment).digest()[1:] != versioned[1:]
            for commitment, versioned in zip(commitments, hashes, strict=False)
        ):
            found.add("wrapper_commitment")


def _fields(kind: int, given: list[Item], now: int, chain_id: int, found: set[str]) -> list[bytes]:
    names = FIELDS[kind]
    if len(given) != len(names):
        found.add("fields_few" if len(given) < len(names) else "fields_many")
    item = dict(zip(names, given, strict=False))
    number = {
        name: integer(item[name], 8 if name in ("nonce", "gas") else 32, found)
        for name in names
        if name in item and name not in ("to", "data", "access", "blobs", "auths")
    }
    if number.get("nonce") == 2**64 - 1:
        found.add("nonce_max")
    if now >= 4 and number.get("gas", 0) > 2**24:
        found.add("gas_max")
    if number.get("tip", 0) > number.get("cap", 0):
        found.add("tip_above_cap")
    if "blob_cap" in item and number["blob_cap"] == 0:
        found.add("blob_fee")
    if "r" in number and not 0 < number["r"] < ORDER:
        found.add("sig_r")
    if "s" in number and not 0 < number["s"] < ORDER:
        found.add("sig_s")
    elif number.get("s", 0) > ORDER // 2:
        found.add("sig_high_s")

    chain = number.get("chain_id")
    if "v" in number and kind:
        if number["v"] > 1:
            found.add("sig_v")
    elif "v" in number:
        if number["v"] >= 35:
            chain = (number["v"] - 35) // 2
        elif number["v"] not in (27, 28):
            found.add("sig_v")
    if chain is not None and (chain >= 2**64 or chain_id not in (0, chain)):
        found.add("chain_id")

    known: dict[str, object] = {"to": b"", "data": b""}
    if "to" in item:
        known["to"] = item["to"].payload
        if item["to"].is_list:
            found.add("rlp_kind")
        if kind > 2 and known["to"] == b"":
            found.add("to_missing")
        elif len(item["to"].payload) not in (0, 20):
            found.add("to_width")
    if "data" in item:
        known["data"] = item["data"].payload
        if item["data"].is_list:
            found.add("rlp_kind")
        if now >= 1 and known["to"] == b"" and len(item["data"].payload) > 49152:
            found.add("initcode_size")
    known["access"] = _access(item["access"], found) if "access" in item else []
    known["auths"] = _auths(item["auths"], found) if "auths" in item else []
    hashes: list[bytes] = []
    if "blobs" in item:
        hashes = [fixed(h, 32, "blob_hash", found) for h in listed(item["blobs"], found)]
        if any(h[:1] != b"\x01" for h in hashes):
            found.add("blob_hash")
        if not hashes:
            found.add("blob_none")
        if len(hashes) > (9 if now == 3 else 6):
            found.add("blob_count")
    if "gas" in number and "data" in item:
        # London has no EIP-3860: words of init code cost nothing
        words = 2 * ((len(item["data"].payload) + 31) // 32) if known["to"] == b"" else 0
        if number["gas"] < required_gas(kind, known, floor=False) - (words if now == 0 else 0):
            found.add("gas_intrinsic")
        elif now >= 3 and number["gas"] < required_gas(kind, known):
            found.add("gas_floor")
    return hashes


def _access(item: Item, found: set[str]) -> list[tuple[bytes, list[bytes]]]:
    entries = []
    for entry in listed(item, found):
        parts = listed(entry, found)
        if len(parts) != 2:
            found.add("access_shape")
        address = fixed(parts[0], 20, "access_shape", found) if parts else b""
        keys = listed(parts[1], found) if len(parts) > 1 else []
        entries.append((address, [fixed(key, 32, "access_shape", found) for key in keys]))
    return entries


def _auths(item: Item, found: set[str]) -> list[list[Item]]:
    entries = listed(item, found)
    if not entries:
        found.add("auth_empty")
    for entry in entries:
        parts = listed(entry, found)
        if len(parts) != 6:
            found.add("auth_shape")
        for part, width in zip(parts, (32, 0, 8, 1, 32, 32), strict=False):
            if width:
                integer(part, width, found)
            else:
                fixed(part, 20, "auth_shape", found)
    return [items(entry.payload, set()) for entry in entries]
