"""Swap records against calldata that eth-abi encoded; what each means is written out by hand."""

import itertools
import random

import eth_abi
import pytest
import sha3
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mainnet_block import encode_transaction, load_block
from barewire import ConfigError
from barewire._native import ffi, lib
from barewire.mempool.abi import parse_function
from barewire.mempool.decoder import Decoder, Rules
from barewire.mempool.record import Transaction
from barewire.mempool.swaps import STANDARD_SWAPS, SwapAbi, SwapTable

TABLE = SwapTable()
ROUTER = bytes([0x11] * 20)
ROUTER_2_0, ROUTER_2_1, INFINITY = (
    bytes.fromhex(address)
    for address in (
        "66a9893cc07d91d95644aedd05d03f95e1dba8af",
        "4c82d1fbfe28c977cbb58d8c7ff8fcf9f70a2cca",
        "d9c500dff816a1da21a48a732d3498bf09dc9aeb",
    )
)
ETHER = 10**18


def selector(signature: str) -> bytes:
    return sha3.keccak_256(signature.encode()).digest()[:4]


def call(signature: str, *arguments) -> bytes:
    types = signature[signature.index("(") :]
    encoded = eth_abi.encode([types], [arguments])
    dynamic = eth_abi.decode(["uint256"], encoded)[0] == 32 and _dynamic(types)
    return selector(signature) + encoded[32 if dynamic else 0 :]


def _dynamic(types: str) -> bool:
    return "[]" in types or "bytes" in types.replace("bytes32", "")


def transaction(data: bytes, *, to: bytes | None = ROUTER, value: int = 0) -> Transaction:
    record = ffi.new("struct bw_tx *")
    record.raw_len = record.data_len = len(data)
    if len(data) >= 4:
        record.flags |= lib.BW_TX_HAS_SELECTOR
        record.selector = int.from_bytes(data[:4], "big")
    if to is None:
        record.flags |= lib.BW_TX_CREATE
    else:
        record.to = to
    for i in range(4):
        record.value_wei[i] = value >> 64 * i & (2**64 - 1)
    return Transaction(record, data)


class Material:
    """Random arguments."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.tokens = [rng.randbytes(20) for _ in range(rng.randint(2, 8))]
        self.fees = [rng.choice([100, 500, 3000, 10000]) for _ in self.tokens[1:]]
        self.amount, self.limit = (
            rng.getrandbits(rng.choice([8, 64, 128, 256])),
            rng.getrandbits(256),
        )
        self.value = rng.getrandbits(90)
        self.who = rng.randbytes(20)
        self.deadline = rng.getrandbits(40) + 1
        self.price = rng.getrandbits(160) or 1
        self.flag = rng.random() < 0.5
        self.small, self.small_limit = rng.getrandbits(128), rng.getrandbits(128)

    def packed(self, *, turned: bool = False) -> bytes:
        tokens = self.tokens[::-1] if turned else self.tokens
        fees = self.fees[::-1] if turned else self.fees
        path = tokens[0]
        for fee, token in zip(fees, tokens[1:], strict=True):
            path += fee.to_bytes(3, "big") + token
        return path


def v2(name, *, amounts, exact="in", native=None, taxed=False, deadline=True):
    def make(m):
        given = {"in": [m.amount, m.limit], "limit": [m.limit]}[amounts]
        types = "uint256," * len(given)
        args = [*given, m.tokens, m.who, *([m.deadline] if deadline else [])]
        data = call(f"{name}({types}address[],address{',uint256' if deadline else ''})", *args)
        first, second = (m.amount, m.limit) if amounts == "in" else (m.value, m.limit)
        return data, {
            "protocol": "uniswap-v2",
            "exact": exact,
            "amount_in": first if exact == "in" or amounts == "limit" else second,
            "amount_out": second if exact == "in" or amounts == "limit" else first,
            "tokens": tuple(m.tokens),
            "hops": len(m.tokens) - 1,
            "recipient": m.who,
            "deadline_s": m.deadline if deadline else None,
            "native_in": native == "in",
            "native_out": native == "out",
            "fee_on_transfer": taxed,
            "pools": (),
            "fees": (),
        }

    return make


def v3_single(exact, *, deadline):
    def make(m):
        name = "exactInputSingle" if exact == "in" else "exactOutputSingle"
        until = "uint256," if deadline else ""
        a, b, fee = m.tokens[0], m.tokens[-1], m.fees[0]
        tail = [m.deadline] if deadline else []
        data = call(
            f"{name}((address,address,uint24,address,{until}uint256,uint256,uint160))",
            (a, b, fee, m.who, *tail, m.amount, m.limit, m.price),
        )
        return data, {
            "protocol": "uniswap-v3",
            "exact": exact,
            "amount_in": m.amount if exact == "in" else m.limit,
            "amount_out": m.limit if exact == "in" else m.amount,
            "tokens": (a, b),
            "fees": (fee,),
            "hops": 1,
            "price_limit": m.price,
            "recipient": m.who,
            "deadline_s": m.deadline if deadline else None,
        }

    return make


def v3_path(exact, *, deadline):
    def make(m):
        name = "exactInput" if exact == "in" else "exactOutput"
        until = "uint256," if deadline else ""
        tail = [m.deadline] if deadline else []
        data = call(
            f"{name}((bytes,address,{until}uint256,uint256))",
            (m.packed(turned=exact == "out"), m.who, *tail, m.amount, m.limit),
        )
        return data, {
            "protocol": "uniswap-v3",
            "exact": exact,
            "amount_in": m.amount if exact == "in" else m.limit,
            "amount_out": m.limit if exact == "in" else m.amount,
            "tokens": tuple(m.tokens),
            "fees": tuple(m.fees),
            "hops": len(m.fees),
            "recipient": m.who,
            "deadline_s": m.deadline if deadline else None,
        }

    return make


def universal(command, inputs):
    def make(m):
        given, expected = inputs(m)
        data = call("execute(bytes,bytes[],uint256)", bytes([command]), [given], m.deadline)
        return data, expected | {"deadline_s": m.deadline, "target": ROUTER, "inner": 1, "depth": 1}

    return make


def universal_v3(exact):
    def inputs(m):
        given = eth_abi.encode(
            ["address", "uint256", "uint256", "bytes", "bool"],
            [m.who, m.amount, m.limit, m.packed(turned=exact == "out"), m.flag],
        )
        return given, {
            "protocol": "uniswap-v3",
            "exact": exact,
            "amount_in": m.amount if exact == "in" else m.limit,
            "amount_out": m.limit if exact == "in" else m.amount,
            "tokens": tuple(m.tokens),
            "fees": tuple(m.fees),
            "recipient": m.who,
        }

    return inputs


def universal_v2(exact):
    def inputs(m):
        given = eth_abi.encode(
            ["address", "uint256", "uint256", "address[]", "bool"],
            [m.who, m.amount, m.limit, m.tokens, m.flag],
        )
        return given, {
            "protocol": "uniswap-v2",
            "exact": exact,
            "amount_in": m.amount if exact == "in" else m.limit,
            "amount_out": m.limit if exact == "in" else m.amount,
            "tokens": tuple(m.tokens),
            "fees": (),
            "recipient": m.who,
        }

    return inputs


def v4(action, parameters, *, protocol="uniswap-v4", router=ROUTER):
    """A V4_SWAP command with one swap between actions that are none."""

    def make(m):
        given, expected = parameters(m)
        swap = eth_abi.encode(
            ["bytes", "bytes[]"], [bytes([0x0B, action, 0x0E]), [b"", given, b""]]
        )
        data = call("execute(bytes,bytes[],uint256)", b"\x10", [swap], m.deadline)
        return data, expected | {
            "protocol": protocol,
            "target": router,
            "deadline_s": m.deadline,
            "inner": 2,
            "depth": 2,
            "recipient": None,
        }

    return make


HOOKS = bytes(20)


KEYS = {  # of a pool, by router: its type, and what stands behind the two tokens
    "2.0": ("(address,address,uint24,int24,address)", lambda fee: (fee, -60, HOOKS)),
    "infinity": (
        "(address,address,address,address,uint24,bytes32)",
        lambda fee: (HOOKS, b"\7" * 20, fee, bytes(30) + b"\0\x0a"),
    ),
}
PATHS = {
    "2.0": ("(address,uint24,int24,address,bytes)", lambda t, fee: (t, fee, -60, HOOKS, b"")),
    "infinity": (
        "(address,uint24,address,address,bytes,bytes32)",
        lambda t, fee: (t, fee, HOOKS, b"\7" * 20, b"", bytes(30) + b"\0\x0a"),
    ),
}


def v4_single(exact, router="2.0"):
    key, behind = KEYS["infinity" if router == "infinity" else "2.0"]
    price = router == "2.1"

    def parameters(m):
        low, high = m.tokens[0], m.tokens[-1]
        given = eth_abi.encode(
            [f"({key},bool,uint128,uint128,{'uint256,' * price}bytes)"],
            [
                (
                    (low, high, *behind(m.fees[0])),
                    *(m.flag, m.small, m.small_limit),
                    *[7 * 10**36] * price,
                    b"hook",
                )
            ],
        )
        return given, {
            "exact": exact,
            "amount_in": m.small if exact == "in" else m.small_limit,
            "amount_out": m.small_limit if exact == "in" else m.small,
            "tokens": (low, high) if m.flag else (high, low),
            "fees": (m.fees[0],),
            "zero_for_one": m.flag,
            "hops": 1,
        }

    return parameters


def v4_path(exact, router="2.0"):
    element, hop = PATHS["infinity" if router == "infinity" else "2.0"]
    price = router == "2.1"

    def parameters(m):
        others = m.tokens[1:] if exact == "in" else m.tokens[:-1]
        path = [hop(t, fee) for t, fee in zip(others, m.fees, strict=True)]
        prices = [[7 * 10**36] * len(path) if m.flag else []] * price
        given = eth_abi.encode(
            [f"(address,{element}[],{'uint256[],' * price}uint128,uint128)"],
            [(m.tokens[0 if exact == "in" else -1], path, *prices, m.small, m.small_limit)],
        )
        return given, {
            "exact": exact,
            "amount_in": m.small if exact == "in" else m.small_limit,
            "amount_out": m.small_limit if exact == "in" else m.small,
            "tokens": tuple(m.tokens),
            "fees": tuple(m.fees),
            "hops": len(m.fees),
        }

    return parameters


def pair(m):
    one = m.amount or 1
    outs = (0, one) if m.flag else (one, 0)
    return call("swap(uint256,uint256,address,bytes)", *outs, m.who, b""), {
        "protocol": "uniswap-v2-pair",
        "exact": "out",
        "amount_out": one,
        "zero_for_one": m.flag,
        "both_out": False,
        "pools": (ROUTER,),
        "recipient": m.who,
        "hops": 1,
    }


def pair_flash(m):
    return call("swap(uint256,uint256,address,bytes)", 5, 6, m.who, b"borrow"), {
        "amount_out": 5,
        "both_out": True,
    }


def pool(m):
    amount = m.amount % 2**255
    signed = -amount if m.flag else amount
    return call("swap(address,bool,int256,uint160,bytes)", m.who, m.flag, signed, m.price, b""), {
        "protocol": "uniswap-v3-pool",
        "exact": "out" if signed < 0 else "in",
        "amount_in": max(signed, 0),
        "amount_out": max(-signed, 0),
        "price_limit": m.price,
        "zero_for_one": m.flag,
        "pools": (ROUTER,),
        "recipient": m.who,
    }


def zero_ex_uniswap(m):
    return call(
        "sellToUniswap(address[],uint256,uint256,bool)", m.tokens, m.amount, m.limit, m.flag
    ), {
        "protocol": "0x",
        "amount_in": m.amount,
        "amount_out": m.limit,
        "tokens": tuple(m.tokens),
        "recipient": None,
    }


def zero_ex_v3(m):
    signature = "sellTokenForTokenToUniswapV3(bytes,uint256,uint256,address)"
    return call(signature, m.packed(), m.amount, m.limit, m.who), {
        "tokens": tuple(m.tokens),
        "fees": tuple(m.fees),
        "amount_in": m.amount,
        "recipient": m.who,
    }


def zero_ex_v3_ether(m):
    return call("sellEthForTokenToUniswapV3(bytes,uint256,address)", m.packed(), m.limit, m.who), {
        "amount_in": m.value,
        "native_in": True,
        "amount_out": m.limit,
    }


def zero_ex_v3_to_ether(m):
    signature = "sellTokenForEthToUniswapV3(bytes,uint256,uint256,address)"
    return call(signature, m.packed(), m.amount, m.limit, m.who), {
        "tokens": tuple(m.tokens),
        "amount_in": m.amount,
        "amount_out": m.limit,
        "native_out": True,
        "recipient": m.who,
    }


def zero_ex_provider(m):
    signature = "sellToLiquidityProvider(address,address,address,address,uint256,uint256,bytes)"
    a, b = m.tokens[:2]
    return call(signature, a, b, ROUTER, m.who, m.amount, m.limit, b"more"), {
        "tokens": (a, b),
        "amount_in": m.amount,
        "amount_out": m.limit,
        "recipient": m.who,
    }


def zero_ex_transform(m):
    signature = "transformERC20(address,address,uint256,uint256,(uint32,bytes)[])"
    a, b = m.tokens[:2]
    return call(signature, a, b, m.amount, m.limit, [(1, b"x")]), {
        "tokens": (a, b),
        "amount_in": m.amount,
        "amount_out": m.limit,
    }


def processor(m):
    a, b = m.tokens[:2]
    signature = "processRoute(address,uint256,address,uint256,address,bytes)"
    return call(signature, a, m.amount, b, m.limit, m.who, b"route"), {
        "protocol": "sushi-route-processor",
        "tokens": (a, b),
        "amount_in": m.amount,
        "amount_out": m.limit,
        "recipient": m.who,
    }


def one_inch(version):
    description = "address,address,address,address,uint256,uint256,uint256"

    def make(m):
        a, b = m.tokens[:2]
        desc = (a, b, ROUTER, m.who, m.amount, m.limit, 4)
        data = {
            4: lambda: call(
                f"swap(address,({description},bytes),bytes)", m.who, (*desc, b"p"), b"d"
            ),
            5: lambda: call(f"swap(address,({description}),bytes,bytes)", m.who, desc, b"p", b"d"),
            6: lambda: call(f"swap(address,({description}),bytes)", m.who, desc, b"d"),
        }[version]()
        return data, {
            "protocol": "1inch",
            "tokens": (a, b),
            "amount_in": m.amount,
            "amount_out": m.limit,
            "recipient": m.who,
        }

    return make


def one_inch_pools(m):
    flagged = [int.from_bytes(t, "big") | 1 << 255 for t in m.tokens]
    data = call(
        "unoswap(address,uint256,uint256,uint256[])", m.tokens[0], m.amount, m.limit, flagged
    )
    return data, {
        "tokens": (m.tokens[0],),
        "pools": tuple(m.tokens[:7]),
        "hops": len(m.tokens),
        "amount_in": m.amount,
    }


def one_inch_to(signature, *, paid):
    """1inch v5: a list of pools, perhaps a recipient, perhaps the token paid."""

    def make(m):
        flagged = [int.from_bytes(t, "big") | 1 << 255 for t in m.tokens]
        to = [m.who] if "address" in signature else []
        data = call(signature, *to, *[m.tokens[0]] * paid, m.amount, m.limit, flagged)
        return data, {
            "tokens": (m.tokens[0],) * paid,
            "pools": tuple(m.tokens[:7]),
            "amount_in": m.amount,
            "amount_out": m.limit,
            "recipient": m.who if to else None,
        }

    return make


def one_inch_numbered(name, count, *, to):
    """1inch v6: up to three pools, each a number of its own."""
    ether = name.startswith("eth")

    def make(m):
        words = [int.from_bytes(m.who, "big") | 1 << 255] * to
        words += [] if ether else [int.from_bytes(m.tokens[0], "big"), m.amount]
        pools = [bytes([n] * 20) for n in range(1, count + 1)]
        words += [m.limit, *(int.from_bytes(p, "big") | 1 << 200 for p in pools)]
        suffix = ("To" if to else "") + (str(count) if count > 1 else "")
        return call(f"{name}{suffix}({','.join(['uint256'] * len(words))})", *words), {
            "protocol": "1inch",
            "tokens": () if ether else (m.tokens[0],),
            "pools": tuple(pools),
            "hops": count,
            "amount_in": m.value if ether else m.amount,
            "amount_out": m.limit,
            "native_in": ether,
            "recipient": m.who if to else None,
        }

    return make


ROUTES = {"(address,address,bool,address)": 4, "(address,address,bool)": 3}


def velodrome(name, route, *, given=True, native=None):
    def make(m):
        hops = [
            (a, b, m.flag, *[m.who] * (ROUTES[route] - 3)) for a, b in itertools.pairwise(m.tokens)
        ]
        types = f"({'uint256,' * given}uint256,{route}[],address,uint256)"
        amounts = [m.amount, m.limit] if given else [m.limit]
        return call(f"{name}{types}", *amounts, hops, m.who, m.deadline), {
            "protocol": "velodrome",
            "exact": "in",
            "tokens": tuple(m.tokens),
            "hops": len(hops),
            "amount_in": m.amount if given else m.value,
            "amount_out": m.limit,
            "recipient": m.who,
            "deadline_s": m.deadline,
            "native_in": native == "in",
            "native_out": native == "out",
            "fee_on_transfer": FEE in name,
        }

    return make


def velodrome_cl(exact):
    name = "exactInputSingle" if exact == "in" else "exactOutputSingle"
    types = "((address,address,int24,address,uint256,uint256,uint256,uint160))"

    def make(m):
        a, b = m.tokens[:2]
        given = (a, b, -200, m.who, m.deadline, m.amount, m.limit, m.price)
        return call(name + types, given), {
            "protocol": "velodrome-cl",
            "exact": exact,
            "tokens": (a, b),
            "amount_in": m.amount if exact == "in" else m.limit,
            "amount_out": m.limit if exact == "in" else m.amount,
            "price_limit": m.price,
            "recipient": m.who,
            "deadline_s": m.deadline,
        }

    return make


def processor_with_value(m):
    a, b = m.tokens[:2]
    types = "(address,uint256,address,uint256,address,uint256,address,bytes)"
    words = (ROUTER, 5, a, m.amount, b, m.limit, m.who, b"route")
    return call("transferValueAndprocessRoute" + types, *words), processor(m)[1]


def snwap(m):
    a, b = m.tokens[:2]
    types = "(address,uint256,address,address,uint256,address,bytes)"
    return call("snwap" + types, a, m.amount, m.who, b, m.limit, ROUTER, b"data"), {
        **processor(m)[1],
        "protocol": "sushi-snwap",
    }


def signed(command, inputs):
    """The same commands, signed by the one who made the route."""

    def make(m):
        given, expected = inputs(m)
        types = "(bytes,bytes[],bytes32,bytes32,bool,bytes32,bytes,uint256)"
        rest = (bytes(32), bytes(32), True, bytes(32), b"signature", m.deadline)
        data = call("executeSigned" + types, bytes([command]), [given], *rest)
        return data, expected | {"deadline_s": m.deadline, "inner": 1, "depth": 1}

    return make


def stable(exact):
    def make(m):
        types = ["address", "uint256", "uint256", "address[]", "uint256[]", "bool"]
        words = [m.who, m.amount, m.limit, m.tokens, [2] * len(m.fees), m.flag]
        given = eth_abi.encode(types, words)
        command = b"\x22" if exact == "in" else b"\x23"
        data = call("execute(bytes,bytes[],uint256)", command, [given], m.deadline)
        return data, universal_v2(exact)(m)[1] | {"protocol": "pancake-stable", "target": INFINITY}

    return make


def one_inch_one(m):
    paid, pool = (int.from_bytes(t, "big") for t in (m.who, m.tokens[0]))
    signature = "unoswap(uint256,uint256,uint256,uint256)"
    return call(signature, paid, m.amount, m.limit, pool | 1 << 253), {
        "tokens": (m.who,),
        "pools": (m.tokens[0],),
        "amount_in": m.amount,
        "hops": 1,
    }


def one_inch_two(m):
    a, b, c = (int.from_bytes(t, "big") for t in (m.who, *m.tokens[:2]))
    signature = "unoswap2(uint256,uint256,uint256,uint256,uint256)"
    return call(signature, a, m.amount, m.limit, b | 1 << 200, c), {
        "tokens": (m.who,),
        "pools": tuple(m.tokens[:2]),
        "hops": 2,
    }


def ether_pool(m):
    return call("ethUnoswap(uint256,uint256)", m.limit, int.from_bytes(m.who, "big")), {
        "tokens": (),
        "pools": (m.who,),
        "native_in": True,
        "amount_in": m.value,
        "amount_out": m.limit,
    }


def multicall(inner):
    def make(m):
        data, expected = inner(m)
        return call("multicall(uint256,bytes[])", m.deadline, [b"skip", data]), expected | {
            "deadline_s": expected.get("deadline_s") or m.deadline,
            "inner": 2,
            "depth": 1,
        }

    return make


FEE = "SupportingFeeOnTransferTokens"
KINDS = {
    "v2 exact tokens for tokens": v2("swapExactTokensForTokens", amounts="in"),
    "v2 exact tokens for ether": v2("swapExactTokensForETH", amounts="in", native="out"),
    "v2 exact ether": v2("swapExactETHForTokens", amounts="limit", native="in"),
    "v2 tokens for exact tokens": v2("swapTokensForExactTokens", amounts="in", exact="out"),
    "v2 tokens for exact ether": v2(
        "swapTokensForExactETH", amounts="in", exact="out", native="out"
    ),
    "v2 ether for exact": v2("swapETHForExactTokens", amounts="limit", exact="out", native="in"),
    "v2 taxed": v2("swapExactTokensForTokens" + FEE, amounts="in", taxed=True),
    "v2 taxed ether in": v2(
        "swapExactETHForTokens" + FEE, amounts="limit", native="in", taxed=True
    ),
    "v2 taxed ether out": v2("swapExactTokensForETH" + FEE, amounts="in", native="out", taxed=True),
    "v2 in SwapRouter02": v2("swapExactTokensForTokens", amounts="in", deadline=False),
    "v2 exact out in SwapRouter02": v2(
        "swapTokensForExactTokens", amounts="in", exact="out", deadline=False
    ),
    "v2 pair": pair,
    "v2 pair flash": pair_flash,
    **{
        f"v3 {name} {exact}{' 02' * (not deadline)}": make(exact, deadline=deadline)
        for name, make in (("single", v3_single), ("path", v3_path))
        for exact in ("in", "out")
        for deadline in (True, False)
    },
    "v3 in a multicall": multicall(v3_path("in", deadline=False)),
    "v3 with its own deadline in a multicall": multicall(v3_single("out", deadline=True)),
    "v3 pool": pool,
    "universal v3 in": universal(0x00, universal_v3("in")),
    "universal v3 out, may revert": universal(0x81, universal_v3("out")),
    "universal v2 in": universal(0x08, universal_v2("in")),
    "universal v2 out": universal(0x09, universal_v2("out")),
    "v4 single in": v4(0x06, v4_single("in")),
    "v4 single out": v4(0x08, v4_single("out")),
    "v4 path in": v4(0x07, v4_path("in")),
    "v4 path out": v4(0x09, v4_path("out")),
    **{
        f"v4 {name} {exact}, {what}": v4(
            (first + number) if router == "infinity" else 0x06 + number,
            make(exact, router),
            protocol=protocol,
            router=to,
        )
        for what, router, to, first, protocol in (
            ("router 2.1.1", "2.1", ROUTER_2_1, 0x06, "uniswap-v4"),
            ("router 2.1.1 elsewhere", "2.1", ROUTER, 0x06, "uniswap-v4"),
            ("router 2.0 of mainnet", "2.0", ROUTER_2_0, 0x06, "uniswap-v4"),
            ("infinity", "infinity", INFINITY, 0x06, "pancake-infinity"),
            ("infinity bin", "infinity", INFINITY, 0x1C, "pancake-infinity-bin"),
        )
        for number, (name, exact, make) in enumerate(
            (
                ("single", "in", v4_single),
                ("path", "in", v4_path),
                ("single", "out", v4_single),
                ("path", "out", v4_path),
            )
        )
    },
    "v4 single in, infinity elsewhere": v4(
        0x06, v4_single("in", "infinity"), protocol="pancake-infinity"
    ),
    "stable in": stable("in"),
    "stable out": stable("out"),
    "universal v3 in, signed": signed(0x00, universal_v3("in")),
    "0x uniswap": zero_ex_uniswap,
    "0x v3": zero_ex_v3,
    "0x v3 ether": zero_ex_v3_ether,
    "0x v3 to ether": zero_ex_v3_to_ether,
    "0x provider": zero_ex_provider,
    "0x transform": zero_ex_transform,
    "sushi route processor": processor,
    "1inch v4": one_inch(4),
    "1inch v5": one_inch(5),
    "1inch v6": one_inch(6),
    "1inch pools": one_inch_pools,
    "1inch pools to another": one_inch_to(
        "unoswapTo(address,address,uint256,uint256,uint256[])", paid=1
    ),
    "1inch v3 pools": one_inch_to("uniswapV3Swap(uint256,uint256,uint256[])", paid=0),
    "1inch v3 pools to another": one_inch_to(
        "uniswapV3SwapTo(address,uint256,uint256,uint256[])", paid=0
    ),
    "1inch one pool": one_inch_one,
    "1inch two pools": one_inch_two,
    "1inch ether": ether_pool,
    **{
        f"1inch {name} {count}{' to another' * to}": one_inch_numbered(name, count, to=to)
        for name in ("unoswap", "ethUnoswap")
        for count in (1, 2, 3)
        for to in (False, True)
    },
    **{
        f"velodrome {name}, routes of {words}": velodrome(name, route, given=given, native=native)
        for route, words in ROUTES.items()
        for base, given, native in (
            ("swapExactTokensForTokens", True, None),
            ("swapExactETHForTokens", False, "in"),
            ("swapExactTokensForETH", True, "out"),
        )
        for name in (base, *([base + FEE] if words == 4 else []))
    },
    "velodrome cl in": velodrome_cl("in"),
    "velodrome cl out": velodrome_cl("out"),
    "sushi route processor, ether first": processor_with_value,
    "sushi snwap": snwap,
}


def word(number: int) -> bytes:
    return (number % 2**256).to_bytes(32, "big")


@pytest.mark.parametrize("back", [0, 32, 2**64, 2**255])
@pytest.mark.parametrize("kind", ["bytes", "tuples"])
def test_an_element_may_lie_before_its_array(kind, back):
    """Solidity counts to it with a sign; before the calldata there is nothing."""
    inner, expected = v3_path("in", deadline=False)(Material(1))
    held = word(len(inner)) + inner + bytes(-len(inner) % 32)
    array = 32 + len(held)  # in the arguments: its offset, what its element holds, and itself
    if kind == "bytes":
        data = selector("multicall(bytes[])") + word(array) + held + word(1)
        data += word(-(len(held) + 32) - back)
    else:  # Multicall3's calls: target, whether it may fail, calldata
        data = selector("aggregate3((address,bool,bytes)[])") + word(array) + held + word(1)
        data += word(32) + word(7) + word(0) + word(-(len(held) + 64) - back)
    found = SwapTable().decode(transaction(data))
    assert [swap.amount_in for swap in found] == ([] if back else [expected["amount_in"]])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_field_by_field(kind):
    for seed in range(30):
        m = Material(seed)
        data, expected = KINDS[kind](m)
        to = expected.get("target", ROUTER)
        (swap,) = TABLE.decode(transaction(data, to=to, value=m.value))
        assert {name: getattr(swap, name) for name in expected} == expected
        assert swap.target == to


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_it_is_whole_or_nothing(kind):
    m = Material(3)
    data, expected = KINDS[kind](m)
    to = expected.get("target", ROUTER)
    whole = TABLE.decode(transaction(data, to=to, value=m.value))
    for length in range(len(data)):
        found = TABLE.decode(transaction(data[:length], to=to, value=m.value))
        assert found in ([], whole)
    assert not TABLE.decode(transaction(data[:36], to=to, value=m.value))


def test_every_standard_declaration_was_tried():
    seen = set()
    for make in KINDS.values():
        m = Material(1)
        data, expected = make(m)
        to = expected.get("target", ROUTER)
        seen |= {swap.selector for swap in TABLE.decode(transaction(data, to=to))}
    assert {parse_function(abi.signature).selector for abi in STANDARD_SWAPS} == seen


def test_several_swaps_in_nested_plans():
    m = Material(5)
    v3, _ = universal_v3("in")(m)
    v2_input, _ = universal_v2("out")(m)
    plan = eth_abi.encode(["bytes", "bytes[]"], [b"\x09\x0b\x09", [v2_input, b"", v2_input]])
    data = call("execute(bytes,bytes[])", b"\x00\x21\x04", [v3, plan, b""])
    found = TABLE.decode(transaction(data))
    assert [(s.protocol, s.exact, s.depth) for s in found] == [
        ("uniswap-v3", "in", 1),
        ("uniswap-v2", "out", 2),
        ("uniswap-v2", "out", 2),
    ]
    assert [s.deadline_s for s in found] == [None] * 3


@pytest.mark.parametrize("length", [8, 9, 40])
def test_long_paths_keep_their_ends(length):
    tokens = [bytes([i + 1] * 20) for i in range(length)]
    m = Material(1)
    m.tokens, m.fees = tokens, list(range(1, length))
    kept = (*tokens[:7], tokens[-1])
    for exact in ("in", "out"):
        for make in (
            v2("swapExactTokensForTokens", amounts="in"),
            v3_path(exact, deadline=True),
            v4(7 if exact == "in" else 9, v4_path(exact)),
        ):
            (swap,) = TABLE.decode(transaction(make(m)[0]))
            assert (swap.tokens, swap.hops) == (kept, length - 1)
            assert swap.fees in ((), tuple(m.fees[:7]))


def test_extremes():
    far = call(
        "multicall(uint256,bytes[])", 2**256 - 1, [v3_single("in", deadline=False)(Material(1))[0]]
    )
    (swap,) = TABLE.decode(transaction(far))
    assert swap.deadline_s == 2**64 - 1
    least = call("swap(address,bool,int256,uint160,bytes)", ROUTER, True, -(2**255), 1, b"")
    (swap,) = TABLE.decode(transaction(least))
    assert (swap.exact, swap.amount_out) == ("out", 2**255)
    assert TABLE.decode(transaction(least, to=None)) == []
    assert TABLE.decode(transaction(b"")) == []


def test_a_path_that_is_none_is_refused():
    bad = SwapTable()
    empty = call("swapExactTokensForTokens(uint256,uint256,address[],address)", 1, 2, [], ROUTER)
    torn = call("exactInput((bytes,address,uint256,uint256))", (b"\1" * 42, ROUTER, 1, 2))
    assert not bad.decode(transaction(empty))
    assert not bad.decode(transaction(torn))
    assert bad.stats.bad == 2


@pytest.mark.parametrize("extra", [1, 7, 22])
@pytest.mark.parametrize("exact", ["in", "out"])
def test_bytes_behind_a_packed_path_are_not_looked_at(extra, exact):
    """tests/chain/test_swaps_executed.py shows that the routers swap all the same."""
    m = Material(1)
    plain = TABLE.decode(transaction(universal(0x00, universal_v3("in"))(m)[0]))
    m.packed = lambda turned=False, made=m.packed: made(turned=turned) + b"\xaa" * extra
    assert TABLE.decode(transaction(universal(0x00, universal_v3("in"))(m)[0])) == plain
    for make in (v3_path(exact, deadline=True), v3_path(exact, deadline=False)):
        data, expected = make(m)
        (swap,) = TABLE.decode(transaction(data))
        assert (swap.tokens, swap.fees) == (expected["tokens"], expected["fees"])


def test_paths_along_which_nothing_is_swapped_are_none():
    table = SwapTable()
    m = Material(1)
    m.tokens, m.fees = m.tokens[:1], []
    calls = [
        v4(7 if exact == "in" else 9, v4_path(exact, router))(m)[0]
        for exact in ("in", "out")
        for router in ("2.0", "2.1", "infinity")
    ]
    calls += [
        v2("swapExactTokensForTokens", amounts="in")(m)[0],
        v3_path("in", deadline=True)(m)[0],
        universal(0x08, universal_v2("in"))(m)[0],
        velodrome("swapExactTokensForTokens", next(iter(ROUTES)))(m)[0],
        call("uniswapV3Swap(uint256,uint256,uint256[])", 1, 2, []),
    ]
    for data in calls:
        assert not table.decode(transaction(data))
    assert table.stats.bad == len(calls)


def test_values_that_are_none_of_their_type_are_no_swap():
    """As the routers, which revert."""
    m = Material(2)
    data, _ = v4(0x06, v4_single("in"))(m)
    flag = data.index(m.small.to_bytes(32, "big")) - 32
    assert len(TABLE.decode(transaction(data))) == 1
    for word in (b"\0" * 31 + b"\2", b"\1" + b"\0" * 31):
        assert not TABLE.decode(transaction(data[:flag] + word + data[flag + 32 :]))


def test_six_bits_name_a_command_to_old_routers_and_seven_to_new_ones():
    m = Material(1)
    data, _ = universal(0x40, universal_v3("in"))(m)  # a bridge, from 2.1 on
    assert len(TABLE.decode(transaction(data, to=ROUTER_2_0))) == 1
    assert not TABLE.decode(transaction(data, to=ROUTER_2_1))
    assert not TABLE.decode(transaction(data))
    data, _ = universal(0x80, universal_v3("in"))(m)
    for to in (ROUTER, ROUTER_2_0, ROUTER_2_1, INFINITY):
        assert len(TABLE.decode(transaction(data, to=to))) == 1


def test_swaps_inside_a_safes_batch():
    m = Material(4)
    inner, expected = v3_single("in", deadline=True)(m)
    ether, _ = ether_pool(m)
    packed = b""
    for operation, to, value, data in (
        (0, m.who, 0, inner),
        (0, ROUTER, 7, ether),
        (0, ROUTER, 1, b""),
    ):
        packed += bytes([operation]) + to + value.to_bytes(32, "big")
        packed += len(data).to_bytes(32, "big") + data
    batch = call("multiSend(bytes)", packed)
    types = "(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
    data = call("execTransaction" + types, ROUTER, 0, batch, 1, 0, 0, 0, ROUTER, ROUTER, b"sig")
    first, second = TABLE.decode(transaction(data))
    assert (first.target, first.amount_in) == (m.who, expected["amount_in"])
    assert (second.target, second.amount_in, second.depth) == (ROUTER, 7, 2)
    table = SwapTable()
    for cut in range(1, len(packed)):
        table.decode(transaction(call("multiSend(bytes)", packed[:-cut])))
    assert table.stats.wrapper_bad == len(packed) - 3  # cut between two calls it is whole


def test_more_swaps_than_there_is_room_for_are_counted():
    table = SwapTable(limit=2)
    one = v3_single("in", deadline=False)(Material(1))[0]
    assert len(table.decode(transaction(call("multicall(bytes[])", [one] * 5)))) == 2
    assert (table.stats.swaps, table.stats.overflow) == (2, 3)


def test_a_block_of_mainnet_in_one_call():
    raw = [encode_transaction(fields) for fields in load_block()["transactions"]]
    burst = Decoder(Rules.preset("london", 1)).decode_burst(raw)
    one_by_one = [(i, swap) for i, tx in enumerate(burst) for swap in TABLE.decode(tx)]
    assert len(one_by_one) == 17
    assert TABLE.decode_burst(burst) == one_by_one


def test_a_function_of_the_users_own():
    table = SwapTable.extended(
        SwapAbi(
            "trade((address give, (uint256 least, uint256 most) amounts, address[] via) order,"
            " address payer)",
            "house",
            route=("order.via",),
            amount_in="order.amounts.most",
            amount_out="order.amounts.least",
            recipient="payer",
        )
    )
    a, b = b"\1" * 20, b"\2" * 20
    data = call("trade((address,(uint256,uint256),address[]),address)", (a, (3, 4), [a, b]), b)
    (swap,) = table.decode(transaction(data))
    assert (swap.protocol, swap.amount_in, swap.amount_out) == ("house", 4, 3)
    assert (swap.tokens, swap.recipient) == ((a, b), b)


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (SwapAbi("f(uint256 a)", "p", amount_in="b"), "'b' is not an argument of f; there are: a"),
        (SwapAbi("f(address a)", "p", amount_in="a"), "'a' is address, not uint"),
        (SwapAbi("f(uint256[] a)", "p", amount_in="a"), "'a' is uint256[], not uint"),
        (SwapAbi("f(bool a)", "p", route=("a",)), "'a' is bool, which is no token or path"),
        (SwapAbi("f(bytes a)", "p", pools=("a",)), "'a' is bytes, which is no pool"),
        (SwapAbi("f((address t, bytes d)[] a)", "p", route=("a",)), "need an address and a uint24"),
        (SwapAbi("f(uint256 a)", "p"), "needs 1 to 24 mapped arguments"),
        (SwapAbi("f(address[] a)", "p", amount_in="a"), "'a' is address[], not uint"),
        (SwapAbi("f(address[] a)", "p", recipient="a"), "'a' is address[], not address"),
        (SwapAbi("f(uint256[70000] a, uint256 b)", "p", amount_in="b"), "beyond word 65,534"),
        (SwapAbi("f(uint256 a, address b)", "p", pair_out="a"), "no uint256 comes behind 'a'"),
        (SwapAbi("f(uint256 a)", "p", pair_out="a"), "no uint256 comes behind 'a'"),
        (SwapAbi("f(uint256 a)", "p", "both", amount_in="a"), "exact = 'both'"),
        (SwapAbi("f(uint256 a", "p", amount_in="a"), "ends too early"),
        (
            SwapAbi(
                "f(((( uint256 x, bytes b) d, bytes c) e, bytes g) h)", "p", amount_in="h.e.d.x"
            ),
            "more than two dynamic tuples",
        ),
    ],
)
def test_a_function_declared_wrongly(abi, words):
    with pytest.raises(ConfigError) as caught:
        SwapTable([abi])
    assert words in caught.value.message
    assert caught.value.message.startswith(f"swap {abi.signature}")


def test_two_of_one_selector():
    with pytest.raises(ConfigError, match="two functions of one selector"):
        SwapTable.extended(STANDARD_SWAPS[0])


def test_a_function_without_arguments():
    table = SwapTable([SwapAbi("buy()", "p", amount_in="@value", pools=("@target",))])
    (swap,) = table.decode(transaction(selector("buy()"), value=7))
    assert (swap.amount_in, swap.pools, swap.hops) == (7, (ROUTER,), 1)


@pytest.mark.parametrize("limit", [0, -1, 2**20])
def test_a_limit_out_of_range(limit):
    with pytest.raises(ConfigError, match=f"limit = {limit}"):
        SwapTable(limit=limit)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 50), st.data())
def test_mangled_calldata_never_crashes(kind, seed, data):
    calldata = bytearray(KINDS[kind](Material(seed))[0])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(calldata) - 1))
        calldata[at] = data.draw(st.integers(0, 255))
    TABLE.decode(transaction(bytes(calldata)))


def test_a_blob_that_is_not_a_table_is_refused():
    blob = TABLE.serialised
    what = ffi.new("const char **")
    for length in [*range(200), len(blob) - 1]:
        assert lib.bw_swaps_load(blob[:length], length, what) == ffi.NULL
        assert ffi.string(what[0])
    rng = random.Random(3)
    for _ in range(2000):
        mangled = bytearray(blob)
        mangled[rng.choice([rng.randrange(32), rng.randrange(len(blob))])] ^= 1 << rng.randrange(8)
        table = lib.bw_swaps_load(bytes(mangled), len(mangled), what)
        if table != ffi.NULL:
            lib.bw_swaps_free(table)
