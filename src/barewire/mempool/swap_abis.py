"""Functions that swap, declared: which argument is which field of a `Swap`.

The signatures are those of the deployed contracts. A clone (SushiSwap's router is one of Uniswap
V2's) has the same calldata and the same protocol here; tell them apart by `Swap.target`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from barewire.mempool.wrappers import (
    INFINITY_ACTIONS,
    INFINITY_ROUTER,
    UNIVERSAL_ROUTER,
    V4_ACTIONS,
    V4_ACTIONS_2_1,
    CommandSet,
)

__all__ = ["STANDARD_SWAPS", "SwapAbi"]


@dataclass(frozen=True)
class SwapAbi:
    """Maps a function's named arguments to the fields of a swap.

    Attributes:
        signature: with names; a component of a tuple is written ``params.amountIn`` below.
        protocol: a name for what is swapped on.
        exact: which amount is exact.
        route: from the token paid to the token received: single tokens (``address``, or
            ``uint256`` with it in the low bits), ``address[]``, packed ``bytes`` (token, 3-byte
            fee, token, ...), an array of dynamic tuples with an ``address`` and a ``uint24`` fee,
            or one of static tuples that begin with the tokens paid and received.
        path_reversed: packed bytes begin with the token received.
        fees: ``uint24`` fees, where they are no part of the route.
        pools: addresses of pools (``uint256``: in the low bits), or "@target": the contract called.
        amount_in: an argument, or "@value": the ether sent along.
        amount_out: an argument.
        signed_amount: an ``int256``, exact in where it is positive, exact out where negative.
        pair_out: the first of two ``uint256``, what a pair pays out of token0 and token1.
        price_limit: a square root price.
        recipient: an argument.
        deadline: in Unix seconds.
        zero_for_one: a ``bool``; with a route of two tokens it turns them around where false.
        native_in: paid in ether.
        native_out: paid out in ether.
        fee_on_transfer: meant for tokens that take a fee.
        strict: the arguments are these only where each is a value of its type and a path begins
            behind all that is fixed, as encoders put it: tells layouts of one function apart.
        also: signatures of other functions whose arguments may be these, tried where theirs do not
            hold: routers share a selector and differ in what stands behind it.
    """

    signature: str
    protocol: str
    exact: Literal["in", "out"] = "in"
    route: tuple[str, ...] = ()
    path_reversed: bool = False
    fees: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    amount_in: str | None = None
    amount_out: str | None = None
    signed_amount: str | None = None
    pair_out: str | None = None
    price_limit: str | None = None
    recipient: str | None = None
    deadline: str | None = None
    zero_for_one: str | None = None
    native_in: bool = False
    native_out: bool = False
    fee_on_transfer: bool = False
    strict: bool = False
    also: tuple[str, ...] = ()


def _v2(
    name: str, amount_in: str, amount_out: str, *, tail: str = ", uint256 deadline"
) -> list[SwapAbi]:
    """One function of the V2 router; amounts as arguments, "" where ether says it."""
    exact_out = amount_out == "amountOut"
    order = (amount_out, amount_in) if exact_out else (amount_in, amount_out)
    amounts = "".join(f"uint256 {amount}, " for amount in order if amount)
    names = [name]
    if name.startswith("swapExact") and tail:
        names.append(f"{name}SupportingFeeOnTransferTokens")
    return [
        SwapAbi(
            f"{each}({amounts}address[] path, address to{tail})",
            "uniswap-v2",
            "out" if exact_out else "in",
            route=("path",),
            amount_in=amount_in or "@value",
            amount_out=amount_out,
            recipient="to",
            deadline="deadline" if tail else None,
            native_in="ETHFor" in each,
            native_out="ForETH" in each or "ForExactETH" in each,
            fee_on_transfer=each != name,
        )
        for each in names
    ]


def _v3(exact: Literal["in", "out"], *, deadline: bool) -> list[SwapAbi]:
    """Single and path function of SwapRouter, or of SwapRouter02, whose tuples have no deadline."""
    until = " uint256 deadline," if deadline else ""
    at = "params.deadline" if deadline else None
    name, amounts = (
        ("exactInput", ("amountIn", "amountOutMinimum"))
        if exact == "in"
        else ("exactOutput", ("amountOut", "amountInMaximum"))
    )
    words = f"{until} uint256 {amounts[0]}, uint256 {amounts[1]}"
    amount_in, amount_out = (f"params.{a}" for a in (amounts if exact == "in" else amounts[::-1]))
    return [
        SwapAbi(
            f"{name}Single((address tokenIn, address tokenOut, uint24 fee, address recipient,"
            f"{words}, uint160 sqrtPriceLimitX96) params)",
            "uniswap-v3",
            exact,
            route=("params.tokenIn", "params.tokenOut"),
            fees=("params.fee",),
            amount_in=amount_in,
            amount_out=amount_out,
            price_limit="params.sqrtPriceLimitX96",
            recipient="params.recipient",
            deadline=at,
        ),
        SwapAbi(
            f"{name}((bytes path, address recipient,{words}) params)",
            "uniswap-v3",
            exact,
            route=("params.path",),
            path_reversed=exact == "out",
            amount_in=amount_in,
            amount_out=amount_out,
            recipient="params.recipient",
            deadline=at,
        ),
    ]


def _v4(protocol: str, actions: CommandSet, first: int, *also: CommandSet) -> list[SwapAbi]:
    """The four swaps among the actions from number `first` on, which may stand for those `also`."""
    single: dict[str, Any] = {
        "route": ("params.poolKey.currency0", "params.poolKey.currency1"),
        "fees": ("params.poolKey.fee",),
        "zero_for_one": "params.zeroForOne",
    }
    amounts: dict[str, dict[str, Any]] = {
        "in": {"amount_in": "params.amountIn", "amount_out": "params.amountOutMinimum"},
        "out": {"amount_in": "params.amountInMaximum", "amount_out": "params.amountOut"},
    }
    kinds: tuple[tuple[Literal["in", "out"], dict[str, Any]], ...] = (
        ("in", single),
        ("in", {"route": ("params.currencyIn", "params.path")}),
        ("out", single),
        # here each element of the path is the token that its pool takes in
        ("out", {"route": ("params.path", "params.currencyOut")}),
    )
    return [
        SwapAbi(
            actions.commands[first + number],
            protocol,
            exact,
            **fields,
            **amounts[exact],
            strict=True,
            also=tuple(others.commands[0x06 + number] for others in also),
        )
        for number, (exact, fields) in enumerate(kinds)
    ]


def _solidly(
    name: str, route: str, amount: str, *, taxed: bool, give: bool = False, take: bool = False
) -> list[SwapAbi]:
    """One function of a router of Velodrome's family, whose path are routes."""
    return [
        SwapAbi(
            f"{each}({amount}uint256 amountOutMin, {route}[] routes, address to, uint256 deadline)",
            "velodrome",
            route=("routes",),
            amount_in="amountIn" if amount else "@value",
            amount_out="amountOutMin",
            recipient="to",
            deadline="deadline",
            native_in=give,
            native_out=take,
            fee_on_transfer=each != name,
        )
        for each in (name, *([f"{name}SupportingFeeOnTransferTokens"] if taxed else []))
    ]


_UNISWAP_V2 = [
    *_v2("swapExactTokensForTokens", "amountIn", "amountOutMin"),
    *_v2("swapExactETHForTokens", "", "amountOutMin"),
    *_v2("swapExactTokensForETH", "amountIn", "amountOutMin"),
    *_v2("swapTokensForExactTokens", "amountInMax", "amountOut"),
    *_v2("swapETHForExactTokens", "", "amountOut"),
    *_v2("swapTokensForExactETH", "amountInMax", "amountOut"),
    # SwapRouter02
    *_v2("swapExactTokensForTokens", "amountIn", "amountOutMin", tail=""),
    *_v2("swapTokensForExactTokens", "amountInMax", "amountOut", tail=""),
    SwapAbi(
        "swap(uint256 amount0Out, uint256 amount1Out, address to, bytes data)",
        "uniswap-v2-pair",
        "out",
        pools=("@target",),
        pair_out="amount0Out",
        recipient="to",
    ),
]

_UNISWAP_V3 = [
    *_v3("in", deadline=True),
    *_v3("out", deadline=True),
    *_v3("in", deadline=False),
    *_v3("out", deadline=False),
    SwapAbi(
        "swap(address recipient, bool zeroForOne, int256 amountSpecified,"
        " uint160 sqrtPriceLimitX96, bytes data)",
        "uniswap-v3-pool",
        pools=("@target",),
        signed_amount="amountSpecified",
        price_limit="sqrtPriceLimitX96",
        recipient="recipient",
        zero_for_one="zeroForOne",
    ),
]

_UNIVERSAL_ROUTER = [
    SwapAbi(
        UNIVERSAL_ROUTER.commands[command],
        protocol,
        "out" if amount_out == "amountOut" else "in",
        route=("path",),
        path_reversed=command == 0x01,
        amount_in=amount_in,
        amount_out=amount_out,
        recipient="recipient",
    )
    for command, protocol, amount_in, amount_out in (
        (0x00, "uniswap-v3", "amountIn", "amountOutMin"),
        (0x01, "uniswap-v3", "amountInMax", "amountOut"),
        (0x08, "uniswap-v2", "amountIn", "amountOutMin"),
        (0x09, "uniswap-v2", "amountInMax", "amountOut"),
    )
]

_UNISWAP_V4 = [
    *_v4("uniswap-v4", V4_ACTIONS, 0x06, V4_ACTIONS_2_1),
    *_v4("uniswap-v4", V4_ACTIONS_2_1, 0x06, V4_ACTIONS),
]

_STABLE: tuple[tuple[int, Literal["in", "out"], str, str], ...] = (
    (0x22, "in", "amountIn", "amountOutMin"),
    (0x23, "out", "amountInMax", "amountOut"),
)

_INFINITY = [
    *_v4("pancake-infinity", INFINITY_ACTIONS, 0x06, V4_ACTIONS),
    *_v4("pancake-infinity-bin", INFINITY_ACTIONS, 0x1C),
    *(
        SwapAbi(
            INFINITY_ROUTER.commands[command],
            "pancake-stable",
            exact,
            route=("path",),
            amount_in=amount_in,
            amount_out=amount_out,
            recipient="recipient",
        )
        for command, exact, amount_in, amount_out in _STABLE
    ),
]

_ROUTE = "(address from, address to, bool stable, address factory)"
_FIRST_ROUTE = "(address from, address to, bool stable)"

_VELODROME = [
    *(
        abi
        for route, taxed in ((_ROUTE, True), (_FIRST_ROUTE, False))
        for abi in (
            *_solidly("swapExactTokensForTokens", route, "uint256 amountIn, ", taxed=taxed),
            *_solidly("swapExactETHForTokens", route, "", taxed=taxed, give=True),
            *_solidly("swapExactTokensForETH", route, "uint256 amountIn, ", taxed=taxed, take=True),
        )
    ),
    SwapAbi(  # concentrated liquidity: pools are told apart by the spacing of their ticks
        "exactInputSingle((address tokenIn, address tokenOut, int24 tickSpacing, address recipient,"
        " uint256 deadline, uint256 amountIn, uint256 amountOutMinimum, uint160 sqrtPriceLimitX96)"
        " params)",
        "velodrome-cl",
        route=("params.tokenIn", "params.tokenOut"),
        amount_in="params.amountIn",
        amount_out="params.amountOutMinimum",
        price_limit="params.sqrtPriceLimitX96",
        recipient="params.recipient",
        deadline="params.deadline",
    ),
    SwapAbi(
        "exactOutputSingle((address tokenIn, address tokenOut, int24 tickSpacing,"
        " address recipient, uint256 deadline, uint256 amountOut, uint256 amountInMaximum,"
        " uint160 sqrtPriceLimitX96) params)",
        "velodrome-cl",
        "out",
        route=("params.tokenIn", "params.tokenOut"),
        amount_in="params.amountInMaximum",
        amount_out="params.amountOut",
        price_limit="params.sqrtPriceLimitX96",
        recipient="params.recipient",
        deadline="params.deadline",
    ),
]

_SUSHI = [
    SwapAbi(
        "processRoute(address tokenIn, uint256 amountIn, address tokenOut, uint256 amountOutMin,"
        " address to, bytes route)",
        "sushi-route-processor",
        route=("tokenIn", "tokenOut"),
        amount_in="amountIn",
        amount_out="amountOutMin",
        recipient="to",
    ),
    SwapAbi(
        "transferValueAndprocessRoute(address transferValueTo, uint256 amountValueTransfer,"
        " address tokenIn, uint256 amountIn, address tokenOut, uint256 amountOutMin, address to,"
        " bytes route)",
        "sushi-route-processor",
        route=("tokenIn", "tokenOut"),
        amount_in="amountIn",
        amount_out="amountOutMin",
        recipient="to",
    ),
    SwapAbi(  # RedSnwapper
        "snwap(address tokenIn, uint256 amountIn, address recipient, address tokenOut,"
        " uint256 amountOutMin, address executor, bytes executorData)",
        "sushi-snwap",
        route=("tokenIn", "tokenOut"),
        amount_in="amountIn",
        amount_out="amountOutMin",
        recipient="recipient",
    ),
]

_ZERO_EX = [
    SwapAbi(
        "sellToUniswap(address[] tokens, uint256 sellAmount, uint256 minBuyAmount, bool isSushi)",
        "0x",
        route=("tokens",),
        amount_in="sellAmount",
        amount_out="minBuyAmount",
    ),
    SwapAbi(
        "sellTokenForTokenToUniswapV3(bytes encodedPath, uint256 sellAmount, uint256 minBuyAmount,"
        " address recipient)",
        "0x",
        route=("encodedPath",),
        amount_in="sellAmount",
        amount_out="minBuyAmount",
        recipient="recipient",
    ),
    SwapAbi(
        "sellTokenForEthToUniswapV3(bytes encodedPath, uint256 sellAmount, uint256 minBuyAmount,"
        " address recipient)",
        "0x",
        route=("encodedPath",),
        amount_in="sellAmount",
        amount_out="minBuyAmount",
        recipient="recipient",
        native_out=True,
    ),
    SwapAbi(
        "sellEthForTokenToUniswapV3(bytes encodedPath, uint256 minBuyAmount, address recipient)",
        "0x",
        route=("encodedPath",),
        amount_in="@value",
        amount_out="minBuyAmount",
        recipient="recipient",
        native_in=True,
    ),
    SwapAbi(
        "transformERC20(address inputToken, address outputToken, uint256 inputTokenAmount,"
        " uint256 minOutputTokenAmount, (uint32 deploymentNonce, bytes data)[] transformations)",
        "0x",
        route=("inputToken", "outputToken"),
        amount_in="inputTokenAmount",
        amount_out="minOutputTokenAmount",
    ),
    SwapAbi(
        "sellToLiquidityProvider(address inputToken, address outputToken, address provider,"
        " address recipient, uint256 sellAmount, uint256 minBuyAmount, bytes auxiliaryData)",
        "0x",
        route=("inputToken", "outputToken"),
        amount_in="sellAmount",
        amount_out="minBuyAmount",
        recipient="recipient",
    ),
]

_DESCRIPTION = (
    "address srcToken, address dstToken, address srcReceiver, address dstReceiver,"
    " uint256 amount, uint256 minReturnAmount, uint256 flags"
)


def _one_inch(signature: str) -> SwapAbi:
    return SwapAbi(
        signature,
        "1inch",
        route=("desc.srcToken", "desc.dstToken"),
        amount_in="desc.amount",
        amount_out="desc.minReturnAmount",
        recipient="desc.dstReceiver",
    )


def _one_inch_pools(
    signature: str, *pools: str, paid: str | None = None, recipient: str | None = None
) -> SwapAbi:
    ether = "uint256 amount" not in signature
    return SwapAbi(
        signature,
        "1inch",
        route=(paid,) if paid else (),
        pools=pools,
        amount_in="@value" if ether else "amount",
        amount_out="minReturn",
        recipient=recipient,
        native_in=ether,
    )


_ONE_INCH = [
    _one_inch(f"swap(address caller, ({_DESCRIPTION}, bytes permit) desc, bytes data)"),  # v4
    _one_inch(f"swap(address executor, ({_DESCRIPTION}) desc, bytes permit, bytes data)"),  # v5
    _one_inch(f"swap(address executor, ({_DESCRIPTION}) desc, bytes data)"),  # v6
    # v5
    _one_inch_pools(
        "unoswap(address srcToken, uint256 amount, uint256 minReturn, uint256[] pools)",
        "pools",
        paid="srcToken",
    ),
    _one_inch_pools(
        "unoswapTo(address recipient, address srcToken, uint256 amount, uint256 minReturn,"
        " uint256[] pools)",
        "pools",
        paid="srcToken",
        recipient="recipient",
    ),
    _one_inch_pools(
        "uniswapV3Swap(uint256 amount, uint256 minReturn, uint256[] pools)",
        "pools",
    ),
    _one_inch_pools(
        "uniswapV3SwapTo(address recipient, uint256 amount, uint256 minReturn, uint256[] pools)",
        "pools",
        recipient="recipient",
    ),
    # v6: addresses stand in the low bits of numbers, one function for each number of pools
    *(
        _one_inch_pools(
            f"{name}{'To' if to else ''}{count if count > 1 else ''}"
            f"({'uint256 to, ' if to else ''}{paid}uint256 minReturn, {pools})",
            *names,
            paid="token" if paid else None,
            recipient="to" if to else None,
        )
        for count, names in enumerate((("dex",), ("dex", "dex2"), ("dex", "dex2", "dex3")), 1)
        for pools in (", ".join(f"uint256 {name}" for name in names),)
        for name, paid in (("unoswap", "uint256 token, uint256 amount, "), ("ethUnoswap", ""))
        for to in (False, True)
    ),
]

STANDARD_SWAPS: tuple[SwapAbi, ...] = (
    *_UNISWAP_V2,
    *_UNISWAP_V3,
    *_UNIVERSAL_ROUTER,
    *_UNISWAP_V4,
    *_INFINITY,
    *_VELODROME,
    *_SUSHI,
    *_ZERO_EX,
    *_ONE_INCH,
)
"""The functions that a `SwapTable` knows unless told otherwise."""
