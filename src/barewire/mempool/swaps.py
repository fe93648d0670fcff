"""What transactions want to swap, read natively from tables that Python declares.

A `SwapAbi` maps the named arguments of a function to the fields of one record; a `SwapTable` is
made of such declarations (`STANDARD_SWAPS`, and a caller's own) and of wrappers, and native code
reads calldata with it (native/swap.h). Nothing is executed: amounts and recipients are those that
the calldata states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from barewire._native import ffi, lib
from barewire.errors import ConfigError
from barewire.mempool.abi import Function, Param, parse_function
from barewire.mempool.decoder import DecodedBurst
from barewire.mempool.record import Transaction
from barewire.mempool.swap_abis import STANDARD_SWAPS, SwapAbi
from barewire.mempool.wrappers import STANDARD, Wrapper, serialise

__all__ = ["STANDARD_SWAPS", "Swap", "SwapAbi", "SwapTable"]

_LIMIT = 1 << 16  # records of 512 bytes
_WIDTH = re.compile(r"(uint|int|address|bool)(\d*)")


@dataclass(frozen=True, slots=True)
class Swap:
    """One swap that a transaction asks for.

    Attributes:
        protocol: as its `SwapAbi` names it.
        exact: which amount is exact; the other one is a limit.
        amount_in: of the first token, in its smallest unit; the exact or the greatest one.
        amount_out: of the last token; the exact or the least one.
        tokens: from the one paid to the one received, the first seven and the last where there are
            more. Empty where the calldata names pools only.
        pools: addresses of pools, where the calldata names them.
        fees: of the pools between tokens, in hundredths of a basis point.
        hops: pools on the way; 0 where the calldata does not say.
        price_limit: square root price, Q64.96, or None.
        recipient: who is paid out; None: not stated. The Universal Router's 1 (the sender) and 2
            (the router) are left as they are.
        deadline_s: Unix time until which it is good, or None.
        target: the contract that is called.
        selector: of the call, or what stands for a command (see `CommandSet`).
        native_in: paid in ether.
        native_out: paid out in ether.
        fee_on_transfer: meant for tokens that take a fee.
        zero_for_one: a pool's token0 goes in; only where pools are called directly, and in V4.
        both_out: a pair pays out both tokens; `amount_out` is that of token0.
        inner: 0 where the transaction's own call swaps, n where the nth inner call does.
        depth: of wrappers around it.
    """

    protocol: str
    exact: Literal["in", "out"]
    amount_in: int
    amount_out: int
    tokens: tuple[bytes, ...]
    pools: tuple[bytes, ...]
    fees: tuple[int, ...]
    hops: int
    price_limit: int | None
    recipient: bytes | None
    deadline_s: int | None
    target: bytes
    selector: bytes
    native_in: bool
    native_out: bool
    fee_on_transfer: bool
    zero_for_one: bool
    both_out: bool
    inner: int
    depth: int


class SwapTable:
    """Compiled declarations; one thread at a time decodes with a table.

    Attributes:
        native: the ``struct bw_swap_table *`` for native code.
        protocols: names by the record's protocol number.
        stats: ``struct bw_swap_stats *`` that `decode` counts in.
    """

    def __init__(
        self,
        abis: Sequence[SwapAbi] = STANDARD_SWAPS,
        *,
        wrappers: Sequence[Wrapper] = STANDARD,
        limit: int = 256,
    ) -> None:
        """Compiles the declarations.

        Args:
            abis: at most one of each signature.
            wrappers: what carries calls that may swap.
            limit: swaps reported by one call.

        Raises:
            ConfigError: names the signature and the argument that does not fit.
        """
        if not 0 < limit <= _LIMIT:
            raise ConfigError(f"limit = {limit} swaps a call", hint=f"allowed: 1 to {_LIMIT}")
        self.protocols = tuple(dict.fromkeys(abi.protocol for abi in abis))
        self.serialised = _serialise(abis, wrappers, self.protocols)
        what = ffi.new("const char **")
        table = lib.bw_swaps_load(ffi.from_buffer(self.serialised), len(self.serialised), what)
        if table == ffi.NULL:
            text: Any = ffi.string(what[0])
            raise ConfigError(f"swap table: {text.decode()}")
        self.native: Any = ffi.gc(table, lib.bw_swaps_free)
        self.stats: Any = ffi.new("struct bw_swap_stats *")
        self._limit = limit
        self._out: Any = ffi.new("struct bw_swap[]", limit)
        self._message: Any = ffi.new("struct bw_message *")

    @classmethod
    def extended(cls, *abis: SwapAbi) -> Self:
        """The standard table and `abis`."""
        return cls([*STANDARD_SWAPS, *abis])

    def decode(self, transaction: Transaction) -> list[Swap]:
        """The swaps of one transaction, in order of appearance."""
        raw = ffi.from_buffer(transaction.raw)
        self._message.data = raw
        self._message.len = len(transaction.raw)
        count = lib.bw_swaps_decode(
            self.native, self._message, transaction.record, 1, self._out, self._limit, self.stats
        )
        return [self.view(self._out[i]) for i in range(count)]

    def decode_burst(self, burst: DecodedBurst) -> list[tuple[int, Swap]]:
        """The swaps of a burst in one native call, each with its transaction's index.

        No more than the table's limit for all of them; what is beyond is counted as overflow.
        """
        count = lib.bw_swaps_decode(
            self.native,
            burst.native_messages,
            burst.records,
            len(burst),
            self._out,
            self._limit,
            self.stats,
        )
        return [(self._out[i].tx, self.view(self._out[i])) for i in range(count)]

    def view(self, swap: Any) -> Swap:
        """A ``struct bw_swap`` as a `Swap`."""
        flags = swap.flags
        recipient = bytes(swap.recipient)
        return Swap(
            protocol=self.protocols[swap.protocol],
            exact="out" if flags & lib.BW_SWAP_EXACT_OUT else "in",
            amount_in=_integer(swap.amount_in),
            amount_out=_integer(swap.amount_out),
            tokens=tuple(bytes(swap.tokens[i]) for i in range(swap.token_count)),
            pools=tuple(bytes(swap.pools[i]) for i in range(swap.pool_count)),
            fees=tuple(swap.fees[0 : swap.fee_count]),
            hops=swap.hops,
            price_limit=_integer(swap.price_limit) or None,
            recipient=recipient if any(recipient) else None,
            deadline_s=swap.deadline_s or None,
            target=bytes(swap.target),
            selector=swap.selector.to_bytes(4, "big"),
            native_in=bool(flags & lib.BW_SWAP_NATIVE_IN),
            native_out=bool(flags & lib.BW_SWAP_NATIVE_OUT),
            fee_on_transfer=bool(flags & lib.BW_SWAP_FEE_ON_TRANSFER),
            zero_for_one=bool(flags & lib.BW_SWAP_ZERO_FOR_ONE),
            both_out=bool(flags & lib.BW_SWAP_BOTH_OUT),
            inner=swap.call,
            depth=swap.depth,
        )


def _integer(limbs: Any) -> int:
    low, second, third, high = limbs
    return int(low | second << 64 | third << 128 | high << 192)


def _serialise(
    abis: Sequence[SwapAbi], wrappers: Sequence[Wrapper], protocols: Sequence[str]
) -> bytes:
    packed, wrapper_count, sets, set_count = serialise(wrappers)
    entries: list[bytes] = []
    later: list[bytes] = []  # a function's own layout is tried before others'
    ops: list[bytes] = []
    by_selector: dict[bytes, SwapAbi] = {}
    for abi in abis:
        try:
            function = parse_function(abi.signature)
            own = _Compiler(abi, function).ops
            others = [parse_function(text).selector for text in abi.also]
        except ValueError as error:
            raise ConfigError(f"swap {abi.signature}: {error}") from None
        if function.selector in by_selector:
            raise ConfigError(
                f"swap {abi.signature}: two functions of one selector",
                hint=f"the other is {by_selector[function.selector].signature}",
            )
        by_selector[function.selector] = abi
        for selector in (function.selector, *others):
            entry: Any = ffi.new(
                "struct bw_swap_abi *",
                {
                    "selector": int.from_bytes(selector, "big"),
                    "protocol": protocols.index(abi.protocol),
                    "flags": _flags(abi),
                    "first_op": len(ops),
                    "ops": len(own),
                },
            )
            (entries if selector == function.selector else later).append(bytes(ffi.buffer(entry)))
        ops += own
    entries += later
    body = b"".join([packed, sets, *entries, *ops])
    header: Any = ffi.new(
        "struct bw_swap_file *",
        {
            "magic": b"BWSWAPS\0",
            "version": lib.BW_SWAP_VERSION,
            "length": ffi.sizeof("struct bw_swap_file") + len(body),
            "wrappers": wrapper_count,
            "command_sets": set_count,
            "abis": len(entries),
            "ops": len(ops),
        },
    )
    return bytes(ffi.buffer(header)) + body


def _flags(abi: SwapAbi) -> int:
    flags = lib.BW_SWAP_EXACT_OUT if abi.exact == "out" else 0
    flags |= lib.BW_SWAP_NATIVE_IN if abi.native_in else 0
    flags |= lib.BW_SWAP_NATIVE_OUT if abi.native_out else 0
    flags |= lib.BW_SWAP_FEE_ON_TRANSFER if abi.fee_on_transfer else 0
    return int(flags)


def _address_in(function: Function, path: str) -> str:
    """The type of a recipient: 1inch has addresses in the low bits of numbers."""
    given = function.locate(path).param.canonical
    return given if given == "uint256" else "address"


class _Compiler:
    """The operations of one declaration, in the order in which native code does them."""

    def __init__(self, abi: SwapAbi, function: Function) -> None:
        self.abi = abi
        self.function = function
        self.ops: list[bytes] = []
        if abi.exact not in ("in", "out"):
            raise ValueError(f"exact = {abi.exact!r}: neither 'in' nor 'out'")
        if abi.strict:
            self._types(function.inputs, "")
        self._numbers()
        for path in abi.route:
            self._route(path)
        for path in abi.fees:
            self._read(lib.BW_OP_FEE, path, "uint24")
        for path in abi.pools:
            self._pool(path)
        if abi.recipient:
            self._read(lib.BW_OP_RECIPIENT, abi.recipient, _address_in(function, abi.recipient))
        if abi.zero_for_one:
            turn = len(abi.route) == 2
            self._read(lib.BW_OP_ZERO_FOR_ONE, abi.zero_for_one, "bool", a=int(turn))
        if not 0 < len(self.ops) <= lib.BW_SWAP_OPS:
            raise ValueError(f"needs 1 to {lib.BW_SWAP_OPS} mapped arguments")

    def _numbers(self) -> None:
        abi = self.abi
        if abi.amount_in == "@value":
            self._emit(lib.BW_OP_VALUE_IN)
        elif abi.amount_in:
            self._read(lib.BW_OP_AMOUNT_IN, abi.amount_in, "uint")
        if abi.amount_out:
            self._read(lib.BW_OP_AMOUNT_OUT, abi.amount_out, "uint")
        if abi.price_limit:
            self._read(lib.BW_OP_PRICE_LIMIT, abi.price_limit, "uint")
        if abi.deadline:
            self._read(lib.BW_OP_DEADLINE, abi.deadline, "uint")
        if abi.signed_amount:
            self._read(lib.BW_OP_SIGNED_AMOUNT, abi.signed_amount, "int")
        if abi.pair_out:
            self._read(lib.BW_OP_PAIR_OUT, abi.pair_out, "uint256")
            behind = [one.name for one in self.function.inputs].index(abi.pair_out) + 1
            if [part.canonical for part in self.function.inputs[behind : behind + 1]] != [
                "uint256"
            ]:
                raise ValueError(f"pair_out: no uint256 comes behind {abi.pair_out!r}")

    def _types(self, params: Sequence[Param], inside: str) -> None:
        """Checks that arguments are values of their types, and where a path begins."""
        head = sum(param.head_words for param in params)
        for param in params:
            path = inside + param.name
            if param.base == "tuple" and not param.arrays:
                self._types(param.components, f"{path}.")
            elif param.dynamic:
                if path in self.abi.route:
                    self._read(lib.BW_OP_OFFSET, path, "", a=head)
            elif not param.arrays and (width := _WIDTH.fullmatch(param.base)):
                bits = int(width[2] or {"address": 160, "bool": 1}[width[1]])
                if bits < 256:
                    signed = int(width[1] == "int")
                    self._read(lib.BW_OP_FITS, path, "", a=bits, b=signed)

    def _route(self, path: str) -> None:
        param = self.function.locate(path).param
        if param.canonical in ("address", "uint256"):
            self._read(lib.BW_OP_TOKEN, path, "")
        elif param.canonical == "address[]":
            self._read(lib.BW_OP_PATH, path, "address[]")
        elif param.canonical == "bytes":
            turned = self.abi.path_reversed
            self._read(
                lib.BW_OP_PATH_PACKED_REVERSED if turned else lib.BW_OP_PATH_PACKED, path, "bytes"
            )
        elif param.base == "tuple" and param.arrays == (None,) and not param.element.dynamic:
            if [part.canonical for part in param.components[:2]] != ["address", "address"]:
                raise ValueError("route: a route begins with the tokens paid and received")
            self._read(lib.BW_OP_PATH_ROUTES, path, "", a=param.element.head_words)
        elif param.base == "tuple" and param.arrays == (None,):
            inside = Function(self.function.name, param.components)
            token, fee = self._first(inside, "address"), self._first(inside, "uint24")
            self._read(lib.BW_OP_PATH_TUPLES, path, "", a=token, b=fee)
        else:
            raise ValueError(f"route: {path!r} is {param.canonical}, which is no token or path")

    @staticmethod
    def _first(inside: Function, kind: str) -> int:
        for part in inside.inputs:
            if part.canonical == kind:
                return inside.locate(part.name).word
        raise ValueError("route: the tuples of the path need an address and a uint24 fee")

    def _pool(self, path: str) -> None:
        if path == "@target":
            self._emit(lib.BW_OP_SELF_POOL)
            return
        param = self.function.locate(path).param
        if param.canonical in ("address", "uint256"):
            self._read(lib.BW_OP_POOL, path, "")
        elif param.canonical in ("address[]", "uint256[]"):
            self._read(lib.BW_OP_POOLS, path, "")
        else:
            raise ValueError(f"pools: {path!r} is {param.canonical}, which is no pool")

    def _read(self, kind: int, path: str, expected: str, *, a: int = 0, b: int = 0) -> None:
        found = self.function.locate(path)
        given = found.param.canonical
        number = expected in ("uint", "int") and found.param.base.startswith(expected)
        if expected and given != expected and (not number or found.param.arrays):
            raise ValueError(f"{path!r} is {given}, not {expected}")
        self._emit(kind, found.hops, found.word, a=a, b=b)

    def _emit(
        self, kind: int, hops: tuple[int, ...] = (), word: int = 0, *, a: int = 0, b: int = 0
    ) -> None:
        if len(hops) > 2:
            raise ValueError("arguments inside more than two dynamic tuples cannot be read")
        op: Any = ffi.new(
            "struct bw_swap_op *",
            {
                "kind": kind,
                "hop_count": len(hops),
                "hops": list(hops),
                "word": word,
                "a": a,
                "b": b,
            },
        )
        self.ops.append(bytes(ffi.buffer(op)))
