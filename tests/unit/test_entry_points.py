"""Wrong values at public entry points: an error that a caller can handle, never a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from barewire import keccak256
from barewire.errors import BarewireError
from barewire.execution import rlp as strict_rlp
from barewire.execution.keys import Key
from barewire.execution.request import ReadyRequest, checksummed
from barewire.execution.signer import Rfc6979Signer
from barewire.execution.template import sign_authorization
from barewire.rlp import DEPTH, encode
from barewire.rpc.client import RpcClient
from dpdk_bindings.metrics import MetricsError, MetricsReader, MetricsWriter, histogram_values

HERE = Path(__file__).resolve().parent
ADDRESS = "0x" + "11" * 20


def run(script: str, folder: Path, *words: str, isolated: bool = False) -> list[str]:
    alone = ["unshare", "--net", "--pid", "--fork"] if isolated else []
    done = subprocess.run(
        [*alone, sys.executable, str(HERE / script), *words],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-2000:]
    return done.stdout.splitlines()


# ---- what belongs to the interpreter ----


def test_no_import_changes_the_interpreter(tmp_path):
    *changed, count = run("import_limits.py", tmp_path, "ethereum")
    assert not changed
    assert int(count.split()[0]) > 3


@pytest.mark.slow
def test_no_import_changes_the_interpreter_alone_either(tmp_path):
    *changed, _ = run("import_limits.py", tmp_path)
    assert not changed


# ---- every function, every parameter ----


def test_odd_values_do_not_end_the_process(tmp_path):
    names = ("barewire.rlp", "barewire.keccak", "barewire.secp", "dpdk_bindings.metrics")
    *said, count = run("entry_points.py", tmp_path, *names, isolated=True)
    assert not said
    assert int(count.split()[0]) > 15


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_odd_values_do_not_end_the_process_anywhere(tmp_path):
    *said, count = run("entry_points.py", tmp_path, isolated=True)
    assert not said
    assert int(count.split()[0]) > 500


# ---- text where bytes belong, and its kin ----


@pytest.mark.parametrize("item", [ADDRESS, "", [1, ADDRESS], [[b"x", ["y"]]], None, 1.5, {1: 2}])
def test_rlp_has_no_text(item):
    with pytest.raises(TypeError, match="RLP carries integers, bytes and lists of them, not"):
        encode(item)


def test_rlp_ends():
    with pytest.raises(ValueError, match="no numbers below 0"):
        encode([-1])
    item: list[object] = []
    item.append(item)
    with pytest.raises(ValueError, match=f"nested more than {DEPTH} deep"):
        encode(item)
    with pytest.raises(TypeError, match="read from bytes, not str"):
        strict_rlp.decode("\xc0")
    assert encode([bytearray(b"ab"), memoryview(b"cd")]) == encode([b"ab", b"cd"])


def test_text_does_not_end_a_process_whose_limit_another_library_raised():
    script = f"""
import sys
sys.setrecursionlimit(100_000)
from barewire.rlp import encode
from barewire.config import convert
from barewire.mempool.decoder import Rules
deep = "x"
for _ in range(50_000):
    deep = [deep]
for go in (lambda: encode([1, {ADDRESS!r}]), lambda: encode(deep), lambda: Rules.preset(deep),
           lambda: Rules.preset(max_gas=deep)):
    try:
        go()
    except Exception as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    said = ["TypeError", "ValueError", "BarewireError", "BarewireError"]
    assert done.stdout.split() == said


@pytest.mark.parametrize("address", [ADDRESS, b"\1" * 19, None, 5, bytes(21)])
def test_an_authorization_is_for_20_bytes(address):
    with Key.generate() as key, Rfc6979Signer(key) as signer:
        with pytest.raises(BarewireError, match="an authorization's address is 20 bytes, not"):
            sign_authorization(signer, 1, address, 0)
        for chain_id, nonce in ((-1, 0), (1 << 64, 0), (1, (1 << 64) - 1), ("1", 0), (1, None)):
            with pytest.raises(BarewireError, match="of an authorization"):
                sign_authorization(signer, chain_id, b"\1" * 20, nonce)


def test_hashes_and_addresses_are_of_bytes():
    for odd in (ADDRESS, None, 5, [1]):
        with pytest.raises(TypeError):
            keccak256(odd)
    with pytest.raises(ValueError, match="20 bytes, not 19"):
        checksummed(bytes(19))


def test_a_request_is_numbered_by_a_number():
    for odd in ('1,"x":2', None, 1.5):
        with pytest.raises(TypeError, match="a JSON-RPC id here is a whole number"):
            ReadyRequest.send_raw_transaction("relay.example", request_id=odd)
        with pytest.raises(TypeError, match="a JSON-RPC id here is a whole number"):
            ReadyRequest.send_bundle("relay.example", auth=None, request_id=odd)


def test_one_text_is_no_list_of_urls():
    with pytest.raises(TypeError, match="urls is a list of URLs, not the str 'https://one"):
        RpcClient.from_urls("https://one.example")


def test_metrics_have_the_places_that_they_have(tmp_path):
    writer = MetricsWriter(tmp_path / "m", "m", schema=1, counters=3, histograms=2)
    reader = MetricsReader(tmp_path / "m", schema=1, counters=3, histograms=2)
    for place in (3, 1 << 31):
        with pytest.raises(ValueError, match="there are 3"):
            writer.count(place)
        with pytest.raises(ValueError, match="there are 2"):
            writer.observe(place, 1)
    for place in (-1, 2, 1 << 40):
        with pytest.raises(ValueError, match="there are 2"):
            reader.values(place, (0.5,))
        with pytest.raises(ValueError, match="there are 2"):
            reader.cumulative(place, [1])
    with pytest.raises(ValueError, match="they are idle, busy"):
        writer.turn(4, 1)
    with pytest.raises(TypeError, match="a histogram is a pointer"):
        histogram_values(1, (0.5,))
    with pytest.raises(MetricsError, match="at most 65536 of each"):
        MetricsWriter(tmp_path / "n", "n", schema=1, counters=1 << 31, histograms=1)
    writer.count(2)
    assert reader.counters() == [0, 0, 1]
    writer.close()
    reader.close()
