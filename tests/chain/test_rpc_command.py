"""``barewire rpc`` against real nodes, one of which is slow, one down and one of another chain."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AsyncExitStack

import pytest

from appliance.cli import main
from tests.chain.anvil import Anvil
from tests.chain.fault_proxy import FaultProxy
from tests.nobody import NOBODY


@pytest.fixture(scope="module")
def node():
    with Anvil() as running:
        yield running


@pytest.fixture(scope="module")
def configured(node, tmp_path_factory):
    """A file with four providers: good, slow, down, and one of another chain."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()

    async def start() -> list[FaultProxy]:
        proxies = [await stack.enter_async_context(FaultProxy(node.port)) for _ in range(3)]
        await proxies[1].set("slow")
        await proxies[2].set("other-chain")
        return proxies

    good, slow, other = asyncio.run_coroutine_threadsafe(start(), loop).result()
    file = tmp_path_factory.mktemp("rpc") / "rpc.toml"
    urls = {"good": good.http, "slow": slow.http, "other": other.http, "down": f"http://{NOBODY}"}
    tables = [f'[[provider]]\nname = "{name}"\nhttp = "{url}"\n' for name, url in urls.items()]
    file.write_text('chain = "here"\nchain_id = 31337\n' + "".join(tables))
    yield str(file)
    asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def said(capsys, *words: str, status: int = 0):
    assert main(["rpc", *words, "-o", "json"]) == status
    return json.loads(capsys.readouterr().out)


def test_status_has_its_table_where_nobody_can_be_reached(capsys):
    assert main(["rpc", "status", "--url", f"http://{NOBODY}", "--url", f"ws://{NOBODY}"]) == 1
    out = capsys.readouterr().out
    for name in (f"0-{NOBODY}", f"1-{NOBODY}"):
        assert f"{name}: transport: cannot connect: Connection refused" in out


def test_what_is_no_text_and_no_number_is_refused(tmp_path, capsys):
    file = tmp_path / "rpc.toml"
    file.write_bytes(b"\xff\xfe")
    assert main(["rpc", "status", "--config", str(file)]) == 2
    assert "not text" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["rpc", "bench", "--url", "http://127.0.0.1:1", "--samples", "0"])
    assert "0 is not 1 or more" in capsys.readouterr().err


def test_status_ranks_and_says_why(configured, capsys):
    lines = said(capsys, "status", "--config", configured, "--samples", "1", status=1)["providers"]
    by = {line["name"]: line for line in lines}
    assert [line["name"] for line in lines[:2]] == ["good", "slow"]
    assert [by[name]["rank"] for name in ("good", "slow", "other", "down")] == [1, 2, 0, 0]
    assert by["slow"]["p50_us"] > 290_000 > by["good"]["p50_us"]  # quantiles are within 2 %
    assert by["other"]["reason"] == "serves chain 42, but the pool is for chain 31337"
    assert "cannot connect" in by["down"]["reason"]
    assert by["good"]["lag"] == 0


def test_status_for_people(configured, capsys):
    assert main(["rpc", "status", "--config", configured, "--samples", "1"]) == 1
    shown = capsys.readouterr().out
    assert "here at block" in shown
    assert "good" in shown


def test_bench_recommends_less_for_who_does_not_answer(configured, capsys):
    rows = said(capsys, "bench", "--config", configured, "--samples", "1")["rows"]
    by = {row["provider"]: row for row in rows}
    assert by["good"]["p50_ms"] < 300 < by["slow"]["p50_ms"]
    assert by["good"]["answered"] == by["slow"]["answered"] == 4
    assert by["down"]["recommended_weight"] == by["other"]["recommended_weight"] == 0.01
    assert by["slow"]["recommended_weight"] > 0.01  # slow, but steadily so


def test_bench_for_people(node, capsys):
    assert main(["rpc", "bench", "--url", node.http, "--url", node.ws, "--samples", "2"]) == 0
    assert "recommended" in capsys.readouterr().out


def test_call(configured, node, capsys):
    block = said(capsys, "call", "eth_getBlockByNumber", "0x0", "false", "--config", configured)
    assert block["result"]["number"] == "0x0"
    words = ["call", "eth_call", '{"to": "x"}', "latest", "--url", node.http]
    assert said(capsys, *words, status=1)["error"]["code"] == -32602
    assert main(["rpc", *words]) == 1
    assert "-32602" in capsys.readouterr().err


def test_a_chain_that_is_not_in_the_file(configured, capsys):
    words = ["rpc", "call", "eth_chainId", "--config", configured, "--chain", "base"]
    assert main(words) == 2
    complaint = capsys.readouterr().err
    assert "has no pool for 'base'" in complaint
    assert "it has: here" in complaint
