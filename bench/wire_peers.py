"""What the appliance is measured against in ``bench wire``: the same job without it.

    python -m bench.wire_peers idiomatic|tuned-python|io-afxdp ADDRESS PORT PEER PEER_PORT REPLY

Each takes MoldUDP64 datagrams with one transaction each, decides by the transaction's target, and
sends the prepared reply in the file REPLY. Each prints a line when it is ready, and runs until it
is killed.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from pathlib import Path
from typing import Any

from bench.harness import pin
from bench.wire_traffic import WATCHED

HERE_CORE = 0
_HEADER_BYTES = 20 + 2 + 1  # MoldUDP64, a block's length, the message's type

Place = tuple[str, int]


def idiomatic(here: Place, there: Place, reply: bytes) -> None:
    """Asyncio on uvloop; eth-account decodes and recovers the sender; a dict decides."""
    import rlp
    import uvloop
    from eth_account import Account
    from eth_account.typed_transactions import TypedTransaction
    from hexbytes import HexBytes

    replies = {bytes.fromhex(WATCHED[2:]): reply}

    class Searcher(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            raw = data[_HEADER_BYTES:]
            if raw[0] < 0x80:
                to = bytes(TypedTransaction.from_bytes(HexBytes(raw)).as_dict()["to"])
            else:
                to = rlp.decode(raw)[3]
            Account.recover_transaction(raw)
            found = replies.get(to)
            if found is not None:
                self.transport.sendto(found, there)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Searcher, local_addr=here)
        _ready()
        await asyncio.Event().wait()

    uvloop.run(run())


def tuned_python(here: Place, there: Place, reply: bytes) -> None:
    """What a good engineer gets out of Python alone.

    A spinning socket, no allocation but the decoding's, no garbage collector, rlp for the fields
    and pysha3 for the hash; it believes the sender, as a trusted source's shot does.
    """
    import rlp
    import sha3

    replies = {bytes.fromhex(WATCHED[2:]): reply}
    seen: set[bytes] = set()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(here)
    sock.connect(there)
    sock.setblocking(False)
    room = bytearray(2048)
    view = memoryview(room)
    gc.disable()
    _ready()
    while True:
        try:
            got = sock.recv_into(room)
        except BlockingIOError:
            continue
        raw = bytes(view[_HEADER_BYTES:got])
        fields, to_at = (rlp.decode(raw[1:]), 5) if raw[0] < 0x80 else (rlp.decode(raw), 3)
        found = replies.get(fields[to_at])
        if found is not None:
            sock.send(found)
        seen.add(sha3.keccak_256(raw).digest())  # after the reply has left


def io_afxdp(here: Place, there: Place, reply: bytes) -> None:
    """No job at all: Barewire's AF_XDP endpoint in a C loop that sends the reply for any packet."""
    from bench.native_code import load
    from dpdk_bindings import Channel, open_datagram
    from dpdk_bindings._native import ffi as bindings

    library, ffi = load(
        "io", "void io_answer_endpoint(const void *ref, const uint8_t *reply, uint32_t len);"
    )
    endpoint = open_datagram("afxdp:veth0", channels=[Channel(*here)])
    peer = endpoint.add_peer(*there)
    while not endpoint.send(peer, reply):
        endpoint.housekeeping()
    endpoint.flush()
    address = int(bindings.cast("uintptr_t", endpoint.ref))
    _ready()
    library.io_answer_endpoint(ffi.cast("void *", address), reply, len(reply))


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main() -> None:
    who, address, port, peer, peer_port, reply = sys.argv[1:]
    pin(HERE_CORE)
    peers = {"idiomatic": idiomatic, "tuned-python": tuned_python, "io-afxdp": io_afxdp}
    there = (peer, int(peer_port))
    peers[who]((address, int(port)), there, Path(reply).read_bytes())


if __name__ == "__main__":
    main()
