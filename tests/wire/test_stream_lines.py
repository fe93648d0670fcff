"""One stream source at a time: names that move, certificates that are shown, sessions resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from appliance.config import Source, Url
from appliance.names import Found
from appliance.stream_line import Line
from barewire.mempool.decoder import Decoder, Rules
from dpdk_bindings.stream import open_stream
from tests.chain.test_feed_anvil import CHAIN
from tests.chain.test_stream_sources import Run, text
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import notification, spelled


class Moving:
    """A resolver that gives the next of `answers` at each question."""

    def __init__(self, *answers: list[str] | str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(self, host: str) -> int:
        self.asked.append(host)
        return len(self.asked)

    def answer(self, number: int) -> Found | None:
        found = self.answers[number - 1]
        if isinstance(found, str):
            return Found(number, trouble=found)
        return Found(number, found)


def test_a_name_is_looked_up_for_every_connection_and_its_addresses_are_tried_in_turn(tmp_path):
    names = Moving("nobody knows it", ["127.0.0.2"], ["127.0.0.3", "127.0.0.2"], ["127.0.0.3"])
    listeners = {}
    port = 0
    for n in (2, 3):
        listener = socket.create_server((f"127.0.0.{n}", port))
        port = listener.getsockname()[1]
        listener.setblocking(False)
        listeners[f"127.0.0.{n}"] = listener
    came, whys = [], []
    with open_stream("kernel") as endpoint:
        line = Line(
            Source(name="node", url=Url.parse(f"ws://node.example:{port}")),
            0,
            endpoint=endpoint,
            names=names,
            where=tmp_path / "appliance.toml",
            decoder=Decoder(Rules.preset("osaka", CHAIN)),
            heard=lambda *_: False,
        )
        until = time.monotonic() + 20
        while len(came) < 3:
            assert time.monotonic() < until, (came, line.stats())
            endpoint.poll()
            line.housekeeping(time.monotonic_ns())
            if line.pipe is not None:
                line.receive()
                line.send()
            if line.last_why not in whys:
                whys.append(line.last_why)
            for address, listener in listeners.items():
                try:
                    connection = listener.accept()[0]
                except BlockingIOError:
                    continue
                came.append(address)
                connection.close()
        line.close()
    for listener in listeners.values():
        listener.close()
    # The second connection takes the second address of its answer, as the first had the first.
    assert came == ["127.0.0.2", "127.0.0.2", "127.0.0.3"]
    assert names.asked == ["node.example"] * 4
    assert "nobody knows it" in whys
    assert line.stats()["failures"] == 3


def test_a_name_that_is_not_found_is_told_and_holds_up_nobody(tmp_path):
    with node(None) as port:
        sources = (
            f'name = "lost"\nurl = "ws://no-such-host.invalid:{port}"',
            f'name = "found"\nurl = "ws://localhost:{port}"',
        )
        with Run(tmp_path, text(*sources)) as run:
            run.until(lambda said: said["pump"]["matched"] == len(TOLD))
            said = run.until(lambda said: said["streams"]["lost"]["attempts"] >= 3)
            lost = said["streams"]["lost"]
            assert lost["why"].startswith("'no-such-host.invalid' has no address: ")
            assert lost["failures"] >= 2
            assert said["streams"]["found"]["state"] == "live"
            code, rows = run.sources()
            assert code == 1
            assert rows["lost"]["why"] == lost["why"]


RNG = random.Random(1)
TOLD = [notification(spelled(2, make(RNG, 2, CHAIN))) for _ in range(30)]


@contextmanager
def node(context: ssl.SSLContext | None, lives_s: float = 3600):
    """A node that tells TOLD, and ends each connection after a while."""

    def talk(connection) -> None:
        ends = time.monotonic() + lives_s
        try:
            while (left := ends - time.monotonic()) > 0:
                request = json.loads(connection.recv(timeout=left))
                connection.send(json.dumps({"id": request["id"], "result": hex(CHAIN)}))
                if request["method"] == "eth_subscribe":
                    for tx in TOLD:
                        connection.send(json.dumps(tx))
        except (TimeoutError, ConnectionClosed):
            return

    with serve(talk, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(10)


def test_a_client_certificate_is_shown_and_secrets_are_logged_where_that_is_asked_for(tmp_path):
    authority = Authority(tmp_path)
    context = authority.server_that_asks("localhost")
    certificate, key = authority.issue("client")
    with node(context) as port:
        common = f'url = "wss://localhost:{port}"\nca_file = "{authority.ca.name}"'
        shown = f'certificate_file = "{certificate.name}"\nkey_file = "{key.name}"'
        sources = (
            f'name = "shown"\n{common}\n{shown}\nkey_log_file = "secrets"',
            f'name = "bare"\n{common}',
        )
        with Run(tmp_path, text(*sources)) as run:
            assert any("whoever reads that file" in said for said in run.start["warnings"])
            said = run.until(lambda said: said["pump"]["matched"] == len(TOLD))
            assert said["streams"]["shown"]["tls"]["version"] == "TLSv1.3"
            # Of the addresses of localhost, another one may refuse in between.
            run.until(lambda said: "certificate required" in said["streams"]["bare"]["why"])
    secrets = tmp_path / "secrets"
    assert "CLIENT_TRAFFIC_SECRET_0" in secrets.read_text()
    assert secrets.stat().st_mode & 0o777 == 0o600


def test_a_tls_session_is_resumed_after_a_reconnect(tmp_path):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    with node(context, lives_s=1) as port:
        source = f'name = "node"\nurl = "wss://127.0.0.1:{port}"\nca_file = "{authority.ca.name}"'
        with Run(tmp_path, text(source)) as run:
            first = run.until(lambda said: said["streams"]["node"]["tls"].get("version"))
            assert first["streams"]["node"]["tls"]["resumed"] is False
            run.until(lambda said: said["streams"]["node"]["tls"].get("resumed"))


@pytest.mark.parametrize("moment", ["before", "between"])
def test_the_process_that_looks_names_up_dies(tmp_path, moment):
    """It is started again, by whoever asks next."""
    with node(None, lives_s=1) as port:
        with Run(tmp_path, text(f'name = "node"\nurl = "ws://localhost:{port}"')) as run:
            if moment == "between":
                run.until(lambda said: said["streams"]["node"]["state"] == "live")
            _kill_resolver(run.process.pid)
            run.until(
                lambda said: (
                    said["streams"]["node"]["state"] == "live"
                    and said["streams"]["node"]["connections"] >= 2
                )
            )


def _kill_resolver(parent: int) -> None:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"appliance.names" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            return
    raise AssertionError("nobody looks names up")
