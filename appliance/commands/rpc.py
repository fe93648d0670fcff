"""Look at the RPC providers: status, bench, call.

``status`` connects to all configured providers and shows who would be asked first and why.
``bench`` measures them fairly (same methods, taking turns) and recommends weights.
``call`` asks through the pool, as the service would: ``barewire rpc call eth_blockNumber``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from appliance.output import add_output_argument, complain, console, print_json, refuse
from barewire.errors import BarewireError, ConfigError
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig, load, mistakes
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.methods import lookup
from barewire.rpc.provider import Provider
from barewire.rpc.status import snapshot

__all__ = ["add_arguments", "run"]

_METHODS: tuple[tuple[str, list[Any]], ...] = (
    ("eth_blockNumber", []),
    ("eth_getBlockByNumber", ["latest", False]),
    ("eth_call", [{"to": "0x" + "00" * 19 + "04", "data": "0x1234"}, "latest"]),
    ("eth_gasPrice", []),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands and their options."""
    commands = parser.add_subparsers(dest="rpc_command", required=True, metavar="COMMAND")
    for name, text in (
        ("status", "who would be asked first, and why"),
        ("bench", "measure the providers side by side and recommend weights"),
        ("call", "ask one method through the pool"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        where = sub.add_mutually_exclusive_group(required=True)
        where.add_argument("--config", type=Path, metavar="FILE", help="see examples/rpc.toml")
        where.add_argument("--url", action="append", metavar="URL", help="an address; repeatable")
        sub.add_argument("--chain", default="", help="which pool of the file, by name")
        add_output_argument(sub)
        if name != "call":
            sub.add_argument(
                "--samples", type=_positive, default=20, help="calls of each method (default 20)"
            )
        else:
            sub.add_argument("method")
            sub.add_argument("params", nargs="*", help="JSON; what is not JSON is text")
            sub.add_argument("--route", default="", help="the private route it belongs to")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command."""
    pool = _pool(args)
    work = {"status": _status, "bench": _bench, "call": _call}[args.rpc_command]
    return _on_loop(work(pool, args))


def _on_loop(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    status: int = uvloop.run(work)
    return status


def _pool(args: argparse.Namespace) -> RpcConfig:
    if args.url:
        providers = [ProviderConfig.from_url(url, i) for i, url in enumerate(args.url)]
        pool = RpcConfig(providers=providers, chain=args.chain)
        refuse([*pool.mistakes()])
        return _filled(pool)
    try:
        text = args.config.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not text ({error.reason})"
        raise ConfigError(
            f"cannot read {args.config}: {why}", hint="start from examples/rpc.toml"
        ) from error
    refuse([*mistakes(text, where=str(args.config))])
    return _filled(_chosen(load(text, where=str(args.config)), args))


def _filled(pool: RpcConfig) -> RpcConfig:
    """`pool`, whose secrets are all there."""
    refuse([mistake for provider in pool.providers for mistake in provider.unfilled()])
    return pool


def _chosen(pools: list[RpcConfig], args: argparse.Namespace) -> RpcConfig:
    if not args.chain:
        if len(pools) > 1:
            names = ", ".join(p.chain for p in pools)
            raise ConfigError(f"{args.config} has {len(pools)} pools", hint=f"--chain {names}")
        return pools[0]
    for pool in pools:
        if pool.chain == args.chain:
            return pool
    known = ", ".join(p.chain for p in pools)
    raise ConfigError(f"{args.config} has no pool for {args.chain!r}", hint=f"it has: {known}")


async def _measure(client: RpcClient, samples: int) -> dict[Provider, dict[str, list[float]]]:
    """Milliseconds of each method at each provider, all taking turns; failures are left out."""
    taken: dict[Provider, dict[str, list[float]]] = {}
    for provider in client.pool.providers:
        taken[provider] = {method: [] for method, _ in _METHODS}
    asked = list(client.pool.providers)
    for _ in range(samples):
        asked.append(asked.pop(0))  # nobody is always first
        for method, params in _METHODS:
            for provider in asked:
                if not provider.connected or not provider.may_serve(lookup(method)):
                    continue
                start = time.perf_counter()
                try:
                    await client.ask(provider, method, params, timeout_ms=3_000)
                except (RpcAnswerError, AllProvidersFailed):
                    continue  # counted by the pool
                taken[provider][method].append((time.perf_counter() - start) * 1000)
    return taken


async def _status(pool: RpcConfig, args: argparse.Namespace) -> int:
    client = RpcClient(pool)
    async with AsyncExitStack() as stack:
        with contextlib.suppress(BarewireError):  # then the table says of each why it is out
            await stack.enter_async_context(client)
            await client.settle()
        await _measure(client, min(args.samples, 5))
        lines = snapshot(client)
        if args.output == "json":
            print_json({"chain": pool.chain, "head": client.pool.heads.newest, "providers": lines})
        else:
            newest = client.pool.heads.newest
            where = "no block known" if newest < 0 else f"at block {newest}"
            table = Table(title=f"{pool.chain or 'chain'} {where}")
            for name in ("rank", "provider", "tier", "state", "p50 ms", "p99 ms", "lag", "errors"):
                right = "ms" in name
                table.add_column(name, justify="right" if right else "left", no_wrap=True)
            for line in lines:
                errors = ", ".join(f"{cause} {n}" for cause, n in line.errors.items())
                table.add_row(
                    str(line.rank or "-"),
                    line.name,
                    line.tier,
                    line.state,
                    f"{line.p50_us / 1000:.2f}",
                    f"{line.p99_us / 1000:.2f}",
                    str(line.lag),
                    errors or "-",
                )
            console.print(table)
            for line in lines:
                console.print(f"{line.name}: {line.reason}", markup=False, soft_wrap=True)
        return 0 if all(line.rank for line in lines) else 1


async def _bench(pool: RpcConfig, args: argparse.Namespace) -> int:
    async with RpcClient(pool) as client:
        await client.settle()
        taken = await _measure(client, args.samples)
        rows = [_figures(provider, by_method) for provider, by_method in taken.items()]
        _recommend(rows)
        if args.output == "json":
            print_json({"chain": pool.chain, "methods": [m for m, _ in _METHODS], "rows": rows})
            return 0
        table = Table(title=f"{args.samples} calls of each method, interleaved; milliseconds")
        for name in ("provider", "p50", "p95", "max", "failed", "weight now", "recommended"):
            table.add_column(name, justify="left" if name == "provider" else "right")
        for row in rows:
            figures = [f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "max_ms")]
            table.add_row(
                row["provider"],
                *figures,
                str(row["failed"]),
                f"{row['weight']:g}",
                f"{row['recommended_weight']:g}",
            )
        console.print(table)
        console.print(
            "The pool goes by the average by itself; the weight carries tail and failures."
        )
    return 0


def _figures(provider: Provider, by_method: dict[str, list[float]]) -> dict[str, Any]:
    every = sorted(ms for values in by_method.values() for ms in values)
    p95 = every[min(int(len(every) * 0.95), len(every) - 1)] if every else 0.0
    return {
        "provider": provider.name,
        "p50_ms": statistics.median(every) if every else 0.0,
        "p95_ms": p95,
        "max_ms": every[-1] if every else 0.0,
        "answered": len(every),
        "failed": sum(provider.tally.faults.values()),
        "by_method_p50_ms": {m: statistics.median(v) for m, v in by_method.items() if v},
        "weight": provider.terms.weight,
    }


def _recommend(rows: list[dict[str, Any]]) -> None:
    """Weights from what the average hides: how far the tail reaches, and how often it fails."""
    steadiest = max((r["p50_ms"] / r["p95_ms"] for r in rows if r["p95_ms"]), default=1.0)
    for row in rows:
        if not row["answered"]:
            row["recommended_weight"] = 0.01
            continue
        steadiness = row["p50_ms"] / row["p95_ms"] / steadiest
        served = row["answered"] / (row["answered"] + row["failed"])
        row["recommended_weight"] = round(max(steadiness * served**2, 0.01), 2)


async def _call(pool: RpcConfig, args: argparse.Namespace) -> int:
    params = [_param(text) for text in args.params]
    async with RpcClient(pool) as client:
        try:
            if args.method == "eth_sendRawTransaction":  # to all of them, before the process ends
                raw = params[0] if params else ""
                result = (await client.send_raw(raw, route=args.route, settle=True)).hash
            else:
                result = await client.request(args.method, params, route=args.route)
        except RpcAnswerError as error:
            if args.output == "json":
                print_json({"error": error.error, "provider": error.provider})
            else:
                complain(
                    f"{args.method}: {error.message} (code {error.code}, said {error.provider})"
                )
            return 1
        if args.output == "json":
            print_json({"result": result})
        else:
            console.print_json(msgspec.json.encode(result).decode())
    return 0


def _param(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
