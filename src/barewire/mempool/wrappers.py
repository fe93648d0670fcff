"""Calls that carry other calls, declared: what native/calls.h walks.

A `Wrapper` names the arguments of a function that hold inner calls. `STANDARD` are the usual ones:
router multicalls, the Universal Router and its sub-plans, Multicall3, ERC-4337 EntryPoints and the
account functions behind them, Safe. A user adds others by declaring them the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from barewire._native import ffi, lib
from barewire.errors import ConfigError
from barewire.mempool.abi import Function, Location, parse_function
from barewire.mempool.quantities import address_of
from barewire.mempool.router_addresses import (
    PANCAKE_INFINITY,
    UNIVERSAL_ROUTER_1_2,
    UNIVERSAL_ROUTER_2_1,
)

__all__ = [
    "INFINITY_ACTIONS",
    "INFINITY_ROUTER",
    "STANDARD",
    "UNIVERSAL_ROUTER",
    "V4_ACTIONS",
    "V4_ACTIONS_2_1",
    "CommandSet",
    "Wrapper",
    "serialise",
]


@dataclass(frozen=True)
class CommandSet:
    """What command bytes stand for: each a signature whose arguments are the command's input.

    A command has no selector on chain; the first four bytes of its signature's Keccak-256 stand for
    it in triggers and in swap tables.

    Attributes:
        name: for messages.
        mask: the bits of a command byte that name the command.
        commands: signature by command.
    """

    name: str
    mask: int
    commands: Mapping[int, str]

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Wrapper:
    """A function that carries calls.

    Attributes:
        signature: with named arguments.
        data: the argument that holds the calldata: ``bytes`` (one call), ``bytes[]`` (several), or
            ``calls.data`` where calls is an array of tuples.
        packed: `data` are ``bytes`` that hold several calls without padding, as Safe's MultiSend
            has them: operation (1 byte), target (20), value (32), length (32), calldata.
        target: who is called: an argument (``address``, or ``address[]`` beside ``bytes[]``, or
            a component of the same tuples), or None: the contract itself.
        value: as `target`, for ether passed on; None: none; "same": as with the call itself.
        commands: the argument (``bytes``) that holds commands; then `data` are their inputs.
        deadline: the argument that says until when the calls inside may be mined.
        command_set: what the commands mean.
        targets: addresses: it is a wrapper in calls of these only, and goes before one of the same
            signature that is not limited. Empty: whoever is called.
    """

    signature: str
    data: str
    target: str | None = None
    value: str | None = "same"
    commands: str | None = None
    command_set: CommandSet | None = None
    deadline: str | None = None
    packed: bool = False
    targets: tuple[str, ...] = ()


UNIVERSAL_ROUTER = CommandSet(
    "universal-router",
    0x7F,
    {
        0x00: "V3_SWAP_EXACT_IN(address recipient, uint256 amountIn, uint256 amountOutMin,"
        " bytes path, bool payerIsUser)",
        0x01: "V3_SWAP_EXACT_OUT(address recipient, uint256 amountOut, uint256 amountInMax,"
        " bytes path, bool payerIsUser)",
        0x02: "PERMIT2_TRANSFER_FROM(address token, address recipient, uint160 amount)",
        0x04: "SWEEP(address token, address recipient, uint256 amountMin)",
        0x05: "TRANSFER(address token, address recipient, uint256 value)",
        0x06: "PAY_PORTION(address token, address recipient, uint256 bips)",
        0x08: "V2_SWAP_EXACT_IN(address recipient, uint256 amountIn, uint256 amountOutMin,"
        " address[] path, bool payerIsUser)",
        0x09: "V2_SWAP_EXACT_OUT(address recipient, uint256 amountOut, uint256 amountInMax,"
        " address[] path, bool payerIsUser)",
        0x0B: "WRAP_ETH(address recipient, uint256 amount)",
        0x0C: "UNWRAP_WETH(address recipient, uint256 amountMin)",
        0x10: "V4_SWAP(bytes actions, bytes[] params)",
        0x21: "EXECUTE_SUB_PLAN(bytes commands, bytes[] inputs)",
    },
)
"""Commands of Uniswap's Universal Router that move tokens (its Commands.sol, versions 1.2 to 2.1).

From 2.1 on seven bits name a command; to the routers before (`UNIVERSAL_ROUTER_1_2`) a bit counts
as none. V3 swaps of 2.1 have one argument more, behind these.
"""

_UNIVERSAL_ROUTER_1_2 = replace(UNIVERSAL_ROUTER, name="universal-router-1.2", mask=0x3F)

_POOL_KEY = "(address currency0, address currency1, uint24 fee, int24 tickSpacing, address hooks)"
_PATH_KEY = (
    "(address intermediateCurrency, uint24 fee, int24 tickSpacing, address hooks, bytes hookData)"
)

V4_ACTIONS = CommandSet(
    "v4-actions",
    0xFF,
    {
        0x06: f"SWAP_EXACT_IN_SINGLE(({_POOL_KEY} poolKey, bool zeroForOne, uint128 amountIn,"
        " uint128 amountOutMinimum, bytes hookData) params)",
        0x07: f"SWAP_EXACT_IN((address currencyIn, {_PATH_KEY}[] path, uint128 amountIn,"
        " uint128 amountOutMinimum) params)",
        0x08: f"SWAP_EXACT_OUT_SINGLE(({_POOL_KEY} poolKey, bool zeroForOne, uint128 amountOut,"
        " uint128 amountInMaximum, bytes hookData) params)",
        0x09: f"SWAP_EXACT_OUT((address currencyOut, {_PATH_KEY}[] path, uint128 amountOut,"
        " uint128 amountInMaximum) params)",
    },
)
"""Swaps among the actions of a V4_SWAP command (Uniswap v4-periphery, Actions.sol), router 2.0."""

V4_ACTIONS_2_1 = CommandSet(
    "v4-actions-2.1",
    0xFF,
    {
        0x06: f"SWAP_EXACT_IN_SINGLE(({_POOL_KEY} poolKey, bool zeroForOne, uint128 amountIn,"
        " uint128 amountOutMinimum, uint256 minHopPriceX36, bytes hookData) params)",
        0x07: f"SWAP_EXACT_IN((address currencyIn, {_PATH_KEY}[] path, uint256[] minHopPriceX36,"
        " uint128 amountIn, uint128 amountOutMinimum) params)",
        0x08: f"SWAP_EXACT_OUT_SINGLE(({_POOL_KEY} poolKey, bool zeroForOne, uint128 amountOut,"
        " uint128 amountInMaximum, uint256 minHopPriceX36, bytes hookData) params)",
        0x09: f"SWAP_EXACT_OUT((address currencyOut, {_PATH_KEY}[] path, uint256[] minHopPriceX36,"
        " uint128 amountOut, uint128 amountInMaximum) params)",
    },
)
"""The same as routers 2.1.1 and 2.1.2 read them (v4-periphery, IV4Router.sol, 2026)."""

_INFINITY_KEY = (
    "(address currency0, address currency1, address hooks, address poolManager, uint24 fee,"
    " bytes32 parameters)"
)
_INFINITY_PATH = (
    "(address intermediateCurrency, uint24 fee, address hooks, address poolManager,"
    " bytes hookData, bytes32 parameters)"
)

INFINITY_ROUTER = CommandSet(
    "pancake-infinity",
    0x3F,
    {
        **{command: UNIVERSAL_ROUTER.commands[command] for command in (0, 1, 2, 4, 5, 6, 8, 9)},
        **{command: UNIVERSAL_ROUTER.commands[command] for command in (0x0B, 0x0C, 0x21)},
        0x10: "INFI_SWAP(bytes actions, bytes[] params)",
        0x22: "STABLE_SWAP_EXACT_IN(address recipient, uint256 amountIn, uint256 amountOutMin,"
        " address[] path, uint256[] flag, bool payerIsUser)",
        0x23: "STABLE_SWAP_EXACT_OUT(address recipient, uint256 amountOut, uint256 amountInMax,"
        " address[] path, uint256[] flag, bool payerIsUser)",
    },
)
"""Commands of PancakeSwap Infinity's router (infinity-universal-router, Commands.sol)."""

_INFINITY_SWAPS = (
    (
        f"SWAP_EXACT_IN_SINGLE(({_INFINITY_KEY} poolKey, bool zeroForOne, uint128 amountIn,"
        " uint128 amountOutMinimum, bytes hookData) params)"
    ),
    (
        f"SWAP_EXACT_IN((address currencyIn, {_INFINITY_PATH}[] path, uint128 amountIn,"
        " uint128 amountOutMinimum) params)"
    ),
    (
        f"SWAP_EXACT_OUT_SINGLE(({_INFINITY_KEY} poolKey, bool zeroForOne, uint128 amountOut,"
        " uint128 amountInMaximum, bytes hookData) params)"
    ),
    (
        f"SWAP_EXACT_OUT((address currencyOut, {_INFINITY_PATH}[] path, uint128 amountOut,"
        " uint128 amountInMaximum) params)"
    ),
)

INFINITY_ACTIONS = CommandSet(
    "infinity-actions",
    0xFF,
    {
        first + number: f"{kind}_{signature}"
        for first, kind in ((0x06, "CL"), (0x1C, "BIN"))
        for number, signature in enumerate(_INFINITY_SWAPS)
    },
)
"""Swaps among the actions of an INFI_SWAP command (infinity-periphery, Actions.sol)."""

_USER_OP_06 = (
    "(address sender, uint256 nonce, bytes initCode, bytes callData, uint256 callGasLimit,"
    " uint256 verificationGasLimit, uint256 preVerificationGas, uint256 maxFeePerGas,"
    " uint256 maxPriorityFeePerGas, bytes paymasterAndData, bytes signature)"
)
_USER_OP_07 = (
    "(address sender, uint256 nonce, bytes initCode, bytes callData, bytes32 accountGasLimits,"
    " uint256 preVerificationGas, bytes32 gasFees, bytes paymasterAndData, bytes signature)"
)
_CALL2 = "(address target, bytes callData)"

_EXECUTE = (
    Wrapper(
        "execute(bytes commands, bytes[] inputs, uint256 deadline)",
        "inputs",
        commands="commands",
        command_set=UNIVERSAL_ROUTER,
        deadline="deadline",
    ),
    Wrapper(
        "execute(bytes commands, bytes[] inputs)",
        "inputs",
        commands="commands",
        command_set=UNIVERSAL_ROUTER,
    ),
    Wrapper(
        UNIVERSAL_ROUTER.commands[0x21],
        "inputs",
        commands="commands",
        command_set=UNIVERSAL_ROUTER,
    ),
)


STANDARD: tuple[Wrapper, ...] = (
    # Uniswap and its kin: a contract that calls itself
    Wrapper("multicall(bytes[] data)", "data"),
    Wrapper("multicall(uint256 deadline, bytes[] data)", "data", deadline="deadline"),
    Wrapper("multicall(bytes32 previousBlockhash, bytes[] data)", "data"),
    # Uniswap Universal Router, and who shares its functions
    *_EXECUTE,
    *(
        replace(wrapper, command_set=_UNIVERSAL_ROUTER_1_2, targets=UNIVERSAL_ROUTER_1_2)
        for wrapper in _EXECUTE
    ),
    *(
        replace(wrapper, command_set=INFINITY_ROUTER, targets=PANCAKE_INFINITY)
        for wrapper in _EXECUTE
    ),
    Wrapper(
        "executeSigned(bytes commands, bytes[] inputs, bytes32 intent, bytes32 data,"
        " bool verifySender, bytes32 nonce, bytes signature, uint256 deadline)",
        "inputs",
        commands="commands",
        command_set=UNIVERSAL_ROUTER,
        deadline="deadline",
    ),
    Wrapper(UNIVERSAL_ROUTER.commands[0x10], "params", commands="actions", command_set=V4_ACTIONS),
    Wrapper(
        UNIVERSAL_ROUTER.commands[0x10],
        "params",
        commands="actions",
        command_set=V4_ACTIONS_2_1,
        targets=UNIVERSAL_ROUTER_2_1,
    ),
    Wrapper(
        INFINITY_ROUTER.commands[0x10], "params", commands="actions", command_set=INFINITY_ACTIONS
    ),
    # Multicall3, and Multicall and Multicall2 before it
    Wrapper(f"aggregate({_CALL2}[] calls)", "calls.callData", "calls.target", None),
    Wrapper(f"blockAndAggregate({_CALL2}[] calls)", "calls.callData", "calls.target", None),
    Wrapper(
        f"tryAggregate(bool requireSuccess, {_CALL2}[] calls)",
        "calls.callData",
        "calls.target",
        None,
    ),
    Wrapper(
        f"tryBlockAndAggregate(bool requireSuccess, {_CALL2}[] calls)",
        "calls.callData",
        "calls.target",
        None,
    ),
    Wrapper(
        "aggregate3((address target, bool allowFailure, bytes callData)[] calls)",
        "calls.callData",
        "calls.target",
        None,
    ),
    Wrapper(
        "aggregate3Value((address target, bool allowFailure, uint256 value, bytes callData)[]"
        " calls)",
        "calls.callData",
        "calls.target",
        "calls.value",
    ),
    # ERC-4337 EntryPoint v0.6 and v0.7; what the account is told to do comes next
    Wrapper(f"handleOps({_USER_OP_06}[] ops, address b)", "ops.callData", "ops.sender", None),
    Wrapper(f"handleOps({_USER_OP_07}[] ops, address b)", "ops.callData", "ops.sender", None),
    # accounts: SimpleAccount, and the batches of others
    Wrapper("execute(address dest, uint256 value, bytes func)", "func", "dest", "value"),
    Wrapper("executeBatch(address[] dest, bytes[] func)", "func", "dest", None),
    Wrapper("executeBatch(address[] dest, uint256[] value, bytes[] func)", "func", "dest", "value"),
    Wrapper(
        "executeBatch((address target, uint256 value, bytes data)[] calls)",
        "calls.data",
        "calls.target",
        "calls.value",
    ),
    Wrapper(
        "execTransaction(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas,"
        " uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver,"
        " bytes signatures)",
        "data",
        "to",
        "value",
    ),
    # Safe's MultiSend and MultiSendCallOnly, which a Safe calls by delegatecall
    Wrapper("multiSend(bytes transactions)", "transactions", packed=True),
)
"""The wrappers that are declared unless a caller says otherwise."""


def serialise(wrappers: Sequence[Wrapper]) -> tuple[bytes, int, bytes, int]:
    """The wrappers and their command sets as native tables hold them, each with their number.

    Raises:
        ConfigError: names the wrapper and the argument that does not fit.
    """
    sets = list(dict.fromkeys(w.command_set for w in wrappers if w.command_set))
    _at_most("wrappers", sum(len(w.targets) or 1 for w in wrappers), lib.BW_WRAPPERS)
    _at_most("command sets", len(sets), lib.BW_COMMAND_SETS)
    packed, packed_sets = [], b"".join(map(_pack_set, sets))
    known: dict[tuple[bytes, bytes], Wrapper] = {}
    for wrapper in wrappers:
        for entry in _pack(wrapper, sets):
            key = entry[:4], entry[-20:]
            if key in known:
                raise ConfigError(
                    f"wrapper {wrapper.signature}: its selector is that of {known[key].signature}",
                    hint="one wrapper a selector, or one for each target",
                )
            known[key] = wrapper
            packed.append(entry)
    return b"".join(packed), len(packed), packed_sets, len(sets)


def _at_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise ConfigError(f"{count} {what} are declared", hint=f"allowed: at most {most}")


def _pack_set(command_set: CommandSet) -> bytes:
    native: Any = ffi.new("struct bw_command_set *")
    where = f"command set {command_set.name}"
    if not 0 <= command_set.mask <= 0xFF:
        raise ConfigError(
            f"{where}: mask = {command_set.mask:#x}", hint="allowed: the bits of a byte"
        )
    for command, signature in command_set.commands.items():
        if not 0 <= command <= 0xFF or command & ~command_set.mask:
            raise ConfigError(
                f"{where}: command {command:#x}: no command byte has it",
                hint=f"allowed: bits of the mask {command_set.mask:#x}",
            )
        try:
            selector = parse_function(signature).selector
        except ValueError as error:
            raise ConfigError(f"{where}: command {command:#x}: {error}") from None
        native.selectors[command] = int.from_bytes(selector, "big")
    return bytes(ffi.buffer(native))


def _pack(wrapper: Wrapper, sets: Sequence[CommandSet]) -> list[bytes]:
    """The wrapper as native tables hold it: once for each of its targets."""
    where = f"wrapper {wrapper.signature}"
    try:
        function = parse_function(wrapper.signature)
        native = _Packer(wrapper, function).pack(sets)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    entries = []
    for number, text in enumerate(wrapper.targets):
        native.limited = 1
        native.only = address_of(f"{where}: targets[{number}]", text)
        entries.append(bytes(ffi.buffer(native)))
    return entries or [bytes(ffi.buffer(native))]


class _Packer:
    def __init__(self, wrapper: Wrapper, function: Function) -> None:
        self.wrapper = wrapper
        self.function = function
        native: Any = ffi.new("struct bw_wrapper *")
        native.selector = int.from_bytes(function.selector, "big")
        self.native = native

    def pack(self, sets: Sequence[CommandSet]) -> Any:
        """The ``struct bw_wrapper *``, limited to no target."""
        native, wrapper = self.native, self.wrapper
        head, dot, _ = wrapper.data.partition(".")
        data = self._top(head)
        arrays = data.param.arrays
        if wrapper.commands:
            if wrapper.command_set is None:
                raise ValueError("commands need a command_set")
            self._expect(data, "bytes[]")
            commands = self._top(wrapper.commands)
            self._expect(commands, "bytes")
            native.kind = lib.BW_WRAPPER_COMMANDS
            native.command_set = sets.index(wrapper.command_set)
            native.command_mask = wrapper.command_set.mask
            native.list, native.data = commands.word, data.word
            self._others(self._top, "")
        elif dot:
            if data.param.base != "tuple" or arrays != (None,):
                raise ValueError(f"{head!r} is {data.param.canonical}, not an array of tuples")
            native.kind = lib.BW_WRAPPER_TUPLES
            native.list = data.word
            inside = Function(self.function.name, data.param.components)
            found = self._component(inside, head, wrapper.data)
            self._expect(found, "bytes")
            native.data = found.word
            self._others(lambda path: self._component(inside, head, path), "")
        elif arrays == (None,):
            self._expect(data, "bytes[]")
            parallel = wrapper.target is not None
            native.kind = lib.BW_WRAPPER_ARRAYS if parallel else lib.BW_WRAPPER_BYTES
            native.list = native.data = data.word
            self._others(self._top, "[]" if parallel else "")
        else:
            self._expect(data, "bytes")
            native.kind = lib.BW_WRAPPER_PACKED if wrapper.packed else lib.BW_WRAPPER_ONE
            native.data = data.word
            self._others(self._top, "")
        if wrapper.deadline is not None:
            found = self._top(wrapper.deadline)
            self._expect(found, "uint256")
            native.deadline = found.word + 1
        return native

    def _top(self, path: str) -> Location:
        found = self.function.locate(path)
        if found.hops:
            raise ValueError(f"{path!r} lies inside a dynamic tuple")
        return found

    @staticmethod
    def _component(inside: Function, head: str, path: str) -> Location:
        before, _, component = path.partition(".")
        if before != head:
            raise ValueError(f"{path!r} is not a component of {head}")
        found = inside.locate(component)
        if found.hops:
            raise ValueError(f"{path!r} lies inside a dynamic tuple")
        return found

    @staticmethod
    def _expect(found: Location, kind: str) -> None:
        if found.param.canonical != kind:
            raise ValueError(f"{found.param.name!r} is {found.param.canonical}, not {kind}")

    def _others(self, locate: Callable[[str], Location], suffix: str) -> None:
        """Target and value, where they are arguments."""
        native, wrapper = self.native, self.wrapper
        if wrapper.target is not None:
            found = locate(wrapper.target)
            self._expect(found, "address" + suffix)
            native.target_how, native.target = lib.BW_WRAPPER_SLOT, found.word
        if wrapper.value is None:
            native.value_how = lib.BW_WRAPPER_ZERO
        elif wrapper.value != "same":
            found = locate(wrapper.value)
            self._expect(found, "uint256" + suffix)
            native.value_how, native.value = lib.BW_WRAPPER_SLOT, found.word
