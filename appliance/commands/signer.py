"""Keep a key in a process of its own and sign for others, within a policy.

The process that parses the network then has no key, and whoever takes it over gets what the policy
allows. It asks over a Unix socket (--listen) or over two rings in shared memory (--rings).
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from appliance.output import console
from appliance.signing import RingKeeper, SocketKeeper
from barewire.execution.external import Keeper, Policy
from barewire.execution.harden import harden
from barewire.execution.keys import Key, load_credential, load_key, read_password
from barewire.execution.request import checksummed
from barewire.execution.signer import LocalSigner, PresignedSigner, Rfc6979Signer
from barewire.mempool.quantities import address_of, amount_of

__all__ = ["add_arguments", "run"]


def _address(text: str) -> bytes:
    return address_of("--target", text if text.startswith("0x") else f"0x{text}")


def _wei(text: str) -> int:
    return amount_of("amount", text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the key, the policy and the way to ask to `parser`."""
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", type=Path, metavar="FILE", help="a keystore")
    key.add_argument("--credential", metavar="NAME", help="a systemd credential")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="of the keystore")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--listen", type=Path, metavar="PATH", help="a Unix socket, mode 0600")
    way.add_argument("--rings", metavar="NAME", help="a pair of lossless rings; spins")
    parser.add_argument(
        "--chain", type=int, action="append", required=True, help="chain id; may be repeated"
    )
    parser.add_argument(
        "--target",
        type=_address,
        action="append",
        required=True,
        metavar="ADDRESS",
        help="to whom transactions may go; may be repeated",
    )
    for name, what in (("value", "with one transaction"), ("fee", "for one transaction's gas")):
        parser.add_argument(
            f"--max-{name}-wei",
            type=_wei,
            required=True,
            metavar="AMOUNT",
            help=f'{what}: wei, or an amount like "0.1 ether"',
        )
    parser.add_argument(
        "--presign", type=int, default=0, metavar="N", help="keep N presignatures ready"
    )
    parser.add_argument("--presign-core", type=int, metavar="CPU", help="where they are made")
    parser.add_argument(
        "--accept-snapshot-risk",
        action="store_true",
        help="presign on a virtual machine too; restoring a snapshot of it gives the key away",
    )


def _key(args: argparse.Namespace) -> Key:
    password = read_password(args.password_file) if args.password_file else None
    if args.credential:
        return load_credential(args.credential, password=password)
    return load_key(args.key, password=password)


def _signer(args: argparse.Namespace, key: Key) -> LocalSigner:
    if not args.presign:
        return Rfc6979Signer(key)
    return PresignedSigner(
        key,
        capacity=args.presign,
        core=args.presign_core,
        accept_snapshot_risk=args.accept_snapshot_risk,
    )


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    harden()
    policy = Policy(
        frozenset(args.chain), frozenset(args.target), args.max_value_wei, args.max_fee_wei
    )
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: stopped.append(caught))
    with _key(args) as key, _signer(args, key) as signer:
        keeper = Keeper(signer, policy)
        console.print(f"signing for {checksummed(signer.address)}")
        stage = (
            SocketKeeper(keeper, args.listen, wait_s=0.1)
            if args.listen
            else RingKeeper(keeper, args.rings)
        )
        try:
            while not stopped:
                stage.poll()
        finally:
            stage.close()
        console.print(f"signed {keeper.signed}, refused {keeper.refused}")
    return 0
