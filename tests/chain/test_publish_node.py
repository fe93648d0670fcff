"""``barewire publish`` fed by a real node: in a namespace, cut off, gone, refused."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from appliance.cli import main
from appliance.lab import INTERFACE, Pair
from barewire.feeds.envelope import Reassembler
from barewire.feeds.moldudp64 import MoldReceiver
from barewire.keccak import keccak256
from dpdk_bindings.datagram import Channel, open_datagram
from tests.chain.anvil import Anvil
from tests.chain.test_feed_anvil import KEYS, send, signed
from tests.chain.test_stream_sources import Relay
from tests.requires import requires_root
from tests.unit.certificates import Authority
from tests.wire.test_stream_lines import TOLD
from tests.wire.test_stream_lines import node as fake_node


class Ear:
    """Hears a line, here or in a namespace; what came, put together."""

    def __init__(self, endpoint) -> None:
        self.endpoint = endpoint
        self.mold = MoldReceiver()
        self._reassembler = Reassembler()
        self.got: list[bytes] = []

    def until(self, condition, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (len(self.got), self.mold.stats())
            now = time.monotonic_ns()
            with self.endpoint.recv() as burst:
                for i in range(len(burst)):
                    for message in self.mold.receive(0, burst[i], now):
                        if envelope := self._reassembler.push(message.data, now):
                            self.got.append(envelope)
            self.endpoint.housekeeping()
            time.sleep(0.001)

    @property
    def hashes(self) -> list[bytes]:
        return [keccak256(envelope) for envelope in self.got]


class Command:
    """``barewire publish``, its words on stderr as they come."""

    def __init__(self, *words: str, enter=None) -> None:
        command = [sys.executable, "-m", "appliance", "publish", *words, "-o", "json"]
        with enter or contextlib.nullcontext():
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONSAFEPATH": "1"},
            )
        self.said = ""

    def until_said(self, words: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        fd = self.process.stderr.fileno()
        while words not in self.said:
            left = max(0, end - time.monotonic())
            assert select.select([fd], [], [], left)[0], self.said
            chunk = os.read(fd, 65536)
            assert chunk, self.said
            self.said += chunk.decode()

    def stop(self) -> tuple[int, dict]:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, dict]:
        out, err = self.process.communicate(timeout=20)
        assert out, err.decode()
        return self.process.returncode, json.loads(out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def node(*options: str):
    with Anvil(
        "--no-mining", "--hardfork", "prague", "--gas-limit", "30000000000", *options
    ) as made:
        for key in KEYS:
            made.rpc("anvil_setBalance", key.address, hex(10**24))
        yield made


@contextlib.contextmanager
def ear(address: str = "127.0.0.1", port: int = 0, interface: str | None = None):
    with open_datagram("kernel", channels=[Channel(address, port, interface)]) as endpoint:
        yield Ear(endpoint)


@pytest.mark.parametrize("kind", ["bodies", "hashes", "ipc"])
def test_what_a_node_announces_is_published_once(kind):
    raws = signed(120, seed=21)
    with node() as made, ear() as site:
        line = f"127.0.0.1:{site.endpoint.channels[0].port}"
        url = f"ipc://{made.ipc}" if kind == "ipc" else made.ws
        words = [url, "--line-a", line]
        if kind == "hashes":
            words += ["--subscribe", "hashes"]
        with Command(*words) as command:
            command.until_said("node: live")
            send(made, raws)
            site.until(lambda: len(site.got) == len(raws))
            code, summary = command.stop()
            site.until(lambda: site.mold.stats()["state"] == "ended")
    assert code == 0
    assert sorted(site.got) == sorted(raws)
    assert site.mold.stats()["lost"] == 0
    assert summary["transactions"] == summary["source"]["first"] == len(raws)
    assert summary["source"]["refused"] == {}
    assert summary["lateness_from"] == "received"
    assert summary["lateness_p50_us"] > 0


def test_in_a_namespace_over_af_xdp():
    """A node beside the publisher, the receiver at the other end of a veth."""
    requires_root()
    raws = signed(40, seed=22)
    with Pair() as pair, contextlib.ExitStack() as stack:
        with pair.a:
            made = stack.enter_context(node())
        with pair.b:
            site = stack.enter_context(ear("239.1.1.7", 9107, INTERFACE))
        words = [made.ws, "--line-a", f"239.1.1.7:9107@{INTERFACE}", "--via", f"afxdp:{INTERFACE}"]
        words += ["--count", str(len(raws))]
        command = stack.enter_context(Command(*words, enter=pair.a))
        command.until_said("node: live")
        with pair.a:
            send(made, raws)
        site.until(lambda: len(site.got) == len(raws))
        code, summary = command.end()  # with --count it ends by itself
    assert code == 0
    assert sorted(site.got) == sorted(raws)
    assert summary["transactions"] == len(raws)
    assert [line["unsent"] for line in summary["lines"]] == [0]


def test_a_node_that_is_cut_off_is_come_back_to_and_nothing_is_published_twice():
    raws = signed(60, seed=23)
    with node() as made, Relay(made.port) as relay, ear() as site:
        line = f"127.0.0.1:{site.endpoint.channels[0].port}"
        with Command(f"ws://127.0.0.1:{relay.port}", "--line-a", line) as command:
            command.until_said("node: live")
            send(made, raws[:20])
            site.until(lambda: len(site.got) == 20)
            relay.shut = True
            command.until_said("node: connection 2 ended")
            send(made, raws[20:40])
            relay.shut = False
            site.until(lambda: len(site.got) == 40)
            command.said = ""
            send(made, raws[40:])
            site.until(lambda: len(site.got) == 60)
            code, summary = command.stop()
    assert code == 0
    assert len(set(site.hashes)) == len(site.hashes) == 60
    source = summary["source"]
    assert source["filled"] == 20  # from the pool
    assert source["repeated"] == 20  # there too, and published already
    assert source["hole"]["holes"] == 1
    assert sum(source["ended"].values()) == source["failures"] >= 2


def test_nobody_there_is_tried_again_until_there_is():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ear() as site:
        line = f"127.0.0.1:{site.endpoint.channels[0].port}"
        with Command(f"ws://127.0.0.1:{port}", "--line-a", line) as command:
            command.until_said("node: connection 3 ended: Connection refused")
            # Receivers are told all the while that the session lives.
            site.until(lambda: site.mold.stats()["state"] == "active")
            code, summary = command.stop()
    assert code == 0
    assert summary["transactions"] == 0
    assert summary["source"]["attempts"] >= 3


def test_over_tls_with_a_client_certificate_and_not_without(tmp_path):
    authority = Authority(tmp_path)
    context = authority.server_that_asks("localhost")
    certificate, key = authority.issue("client")
    with fake_node(context) as port, ear() as site:
        words = [f"wss://localhost:{port}", "--ca-file", str(authority.ca)]
        words += ["--line-a", f"127.0.0.1:{site.endpoint.channels[0].port}"]
        with Command(*words) as command:
            command.until_said("certificate required")
        shown = ["--certificate-file", str(certificate), "--key-file", str(key)]
        with Command(*words, *shown, "--count", str(len(TOLD))) as command:
            site.until(lambda: len(site.got) == len(TOLD))
            code, summary = command.end()
    assert code == 0
    assert summary["transactions"] == len(TOLD)
    assert summary["source"]["tls"]["version"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://127.0.0.1:8545"], "publish: url = 'http://127.0.0.1:8545': not a source"),
        (["ws://"], "publish: url = 'ws://'"),
        (["mold://239.1.1.1:9000@lo"], "it is a feed already"),
        (["ws://node", "--rate", "5"], "--rate 5.0: it is of files"),
        (["ws://node", "--format", "hex"], "--format hex: it is of files"),
        (["ws://node", "--ca-file", "x"], "ca_file = 'x': it is of TLS"),
        (["wss://node", "--ca-file", "x"], "x': No such file"),
        (["wss://node", "--key-file", "x"], "no certificate_file"),
        (["txs.hex", "--subscribe", "hashes"], "--subscribe hashes: it is of nodes"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["publish", *words, "--line-a", "127.0.0.1:9"]) == 2
    assert said in capsys.readouterr().err
