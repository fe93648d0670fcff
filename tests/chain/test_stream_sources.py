"""The appliance on streams: a real node over WebSocket and IPC, compared, cut off, and shown."""

import contextlib
import json
import os
import random
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.server import serve

from appliance import config
from barewire.errors import ConfigError
from tests.chain.anvil import Anvil
from tests.chain.test_feed_anvil import CHAIN, KEYS, send, signed
from tests.running import Run
from tests.transactions import make
from tests.unit.certificates import Authority
from tests.unit.txjson_texts import notification, spelled


class Relay:
    """A TCP relay before the node that can be shut: it then resets whoever comes or is there."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.shut = False
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        pairs: dict[socket.socket, socket.socket] = {}
        while not self._over:
            ready = select.select([self._listener, *pairs], [], [], 0.01)[0]
            for one in ready:
                if one is self._listener:
                    near = one.accept()[0]
                    far = socket.create_connection(("127.0.0.1", self._target))
                    pairs |= {near: far, far: near}
                elif one in pairs:
                    with contextlib.suppress(ConnectionError):
                        if data := one.recv(65536):
                            pairs[one].sendall(data)
                            continue
                    self._drop(pairs, one)
            for one in list(pairs) if self.shut else ():
                self._drop(pairs, one)
        for one in list(pairs):
            self._drop(pairs, one)

    def _drop(self, pairs: dict, one: socket.socket) -> None:
        if (other := pairs.pop(one, None)) is not None:
            pairs.pop(other)
            for end in (one, other):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over = True
        self._thread.join()
        self._listener.close()


def text(*sources: str) -> str:
    return "\n".join(
        [
            "statistics_every_s = 0.2",
            'core = { lock_memory = false, name = "streams" }',
            f"chain = {{ id = {CHAIN}, fork = 'prague' }}",
            "recorder = { megabytes = 0 }",
            '[[trigger]]\nname = "any"\nvalue_wei = { min = 0 }',
            *(f"[[source]]\n{source}" for source in sources),
        ]
    )


def live(*names: str):
    return lambda said: all(said["streams"][name]["state"] == "live" for name in names)


def test_three_lines_to_one_node(tmp_path):
    raws = signed(160, seed=5)
    with Anvil("--no-mining", "--hardfork", "prague", "--gas-limit", "30000000000") as node:
        for key in KEYS:
            node.rpc("anvil_setBalance", key.address, hex(10**24))
        with Run(
            tmp_path,
            text(
                f'name = "bodies"\nurl = "{node.ws}"\ntrusted = true',
                f'name = "hashes"\nurl = "{node.ws}"\nsubscribe = "hashes"',
                f'name = "socket"\nurl = "ipc://{node.ipc}"',
            ),
        ) as run:
            assert run.start["chosen"]["bodies"]["url"] == node.ws
            run.until(live("bodies", "hashes", "socket"))
            send(node, raws)
            run.until(lambda said: said["pump"]["matched"] == len(raws))
            run.until(lambda said: said["streams"]["socket"]["transactions"] == len(raws))
            time.sleep(0.5)
            code, rows = run.sources()
            summary = run.stop()
    assert code == 0
    assert sum(row["first"] for row in rows.values()) == len(raws)
    for name, row in rows.items():
        assert (row["state"], row["unlike_clocks"], row["refused"]) == ("live", 0, 0), name
        assert row["lead"]["n"] + row["lag"]["n"] > 0
    brought = rows["bodies"]["first"] + rows["bodies"]["behind"]
    assert brought == rows["socket"]["first"] + rows["socket"]["behind"] == len(raws)
    streams = summary["streams"]
    # What another line had brought by then was not fetched again.
    assert streams["hashes"]["fetched"] + streams["hashes"]["known"] == len(raws)
    assert summary["pump"]["matched"] == len(raws)
    assert summary["pump"]["refused"] == 0


CLOCKED = """
class Clocked:
    def __init__(self, actions, options):
        self.log, self.timers = open(options["log"], "w"), 0

    def on_match(self, match):
        pass

    def on_timer(self):
        self.timers += 1

    def on_block(self, block):
        print(block.number, block.hash.hex(), block.timestamp_s, block.base_fee_wei, file=self.log)

    def on_stop(self):
        print(self.timers, file=self.log, flush=True)
"""


def test_a_strategy_hears_of_blocks_once_and_has_a_timer(tmp_path):
    (tmp_path / "clocked.py").write_text(CLOCKED)
    log = tmp_path / "log"
    strategy = (
        f'[strategy]\nload = "clocked.py:Clocked"\noptions = {{ log = "{log}" }}\ntimer_ms = 10\n'
    )
    with Anvil("--no-mining", "--hardfork", "prague") as node:
        sources = (
            f'name = "bodies"\nurl = "{node.ws}"',
            f'name = "socket"\nurl = "ipc://{node.ipc}"\nsubscribe = "hashes"',
        )
        with Run(tmp_path, text(*sources) + "\n" + strategy) as run:
            run.until(live("bodies", "socket"))
            said = run.until(  # both are subscribed to blocks a little later than they are live
                lambda said: (
                    node.rpc("evm_mine") == "0x0" and said["strategy"]["blocks"]["repeated"] >= 2
                )
            )
            run.stop()
            *told, timers = [line.split() for line in log.read_text().splitlines()]
            mined = [node.rpc("eth_getBlockByNumber", hex(int(one[0])), False) for one in told]
    assert said["strategy"]["blocks"]["refused"] == 0
    assert int(timers[0]) > 3
    assert told == [
        [
            str(int(one["number"], 16)),
            one["hash"][2:],
            str(int(one["timestamp"], 16)),
            str(int(one["baseFeePerGas"], 16)),
        ]
        for one in mined
    ]
    assert len(told) == len({one[1] for one in told}) >= 2


def test_a_line_that_is_cut_comes_back_and_fills_its_hole(tmp_path):
    raws = signed(60, seed=6)
    with Anvil("--no-mining", "--hardfork", "prague", "--gas-limit", "30000000000") as node:
        for key in KEYS:
            node.rpc("anvil_setBalance", key.address, hex(10**24))
        with Relay(node.port) as relay:
            with Run(tmp_path, text(f'name = "node"\nurl = "ws://127.0.0.1:{relay.port}"')) as run:
                run.until(live("node"))
                send(node, raws[:20])
                run.until(lambda said: said["pump"]["matched"] == 20)
                relay.shut = True
                run.until(lambda said: said["streams"]["node"]["attempts"] >= 3)
                send(node, raws[20:40])
                relay.shut = False
                run.until(live("node"))
                run.until(lambda said: said["pump"]["matched"] == 40)
                send(node, raws[40:])
                run.until(lambda said: said["pump"]["matched"] == 60)
                _, rows = run.sources()
                summary = run.stop()
    assert rows["node"]["filled"] == 20
    assert summary["streams"]["node"]["hole"]["filled"] == 40
    assert summary["pump"]["duplicates"] == 20


def test_nobody_there(tmp_path):
    with Run(tmp_path, text('name = "node"\nurl = "ws://127.0.0.1:9"')) as run:
        said = run.until(lambda said: said["streams"]["node"]["attempts"] >= 2)
        assert said["streams"]["node"]["why"] == "Connection refused"
        run.until(lambda said: said["streams"]["node"]["attempts"] >= 3)
        code, rows = run.sources()
        assert code == 1
        assert rows["node"]["quiet_ms"] is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('name = "x"', "lines and no url"),
        ('name = "x"\nurl = "http://node"', "not a source"),
        ('name = "x"\nurl = "mold://nowhere"', "ADDRESS:PORT"),
        (
            'name = "x"\nurl = "ws://n"\nlines = ["10.0.0.1:1"]',
            "lines = ['10.0.0.1:1']: it is of MoldUDP64",
        ),
        ('name = "x"\nurl = "ipc:///x"\nvia = "afxdp:eth0"', "Unix socket"),
    ],
)
def test_configurations_that_are_refused(tmp_path, source, words):
    file = tmp_path / "appliance.toml"
    file.write_text(text(source))
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert words in f"{caught.value} {caught.value.hint}"


def test_mold_as_a_url(tmp_path):
    file = tmp_path / "appliance.toml"
    file.write_text(text('name = "x"\nurl = "mold://239.1.1.1:9000@lo,239.1.1.2:9000@lo"'))
    [source] = config.load(file).source
    assert [str(line) for line in source.lines] == ["239.1.1.1:9000@lo", "239.1.1.2:9000@lo"]
    assert not source.is_stream


def refusal(folder: Path, source: str) -> str:
    """What the appliance says when it does not start."""
    file = folder / "refused.toml"
    file.write_text(f'{text(source)}\n[metrics]\nfolder = "/dev/shm/barewire-{os.getpid()}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "run", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    shutil.rmtree(f"/dev/shm/barewire-{os.getpid()}", ignore_errors=True)
    assert done.returncode == 2, done.stdout
    return done.stderr


def test_a_fallback_is_taken_only_where_it_is_named(tmp_path):
    source = 'name = "node"\nurl = "ws://127.0.0.1:9"\nvia = "afxdp:nosuch0"'
    with Run(tmp_path, text(source + '\nfallback = "kernel"')) as run:
        assert any("its fallback kernel is used" in said for said in run.start["warnings"])
        run.until(lambda said: said["streams"]["node"]["attempts"] >= 1)
    assert 'interface "nosuch0": No such device' in refusal(tmp_path, source)


def test_credentials_that_others_can_read_are_refused(tmp_path):
    secret = tmp_path / "node.headers"
    secret.write_text("Authorization: Bearer secret\n")
    secret.chmod(0o644)
    source = 'name = "node"\nurl = "ws://127.0.0.1:9"\nheaders_file = "node.headers"'
    assert "can be read by others (mode 0644)" in refusal(tmp_path, source)


def test_over_tls_with_a_private_authority_and_not_without(tmp_path):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    rng = random.Random(1)
    told = [notification(spelled(2, make(rng, 2, CHAIN))) for _ in range(30)]

    def node(connection) -> None:
        for message in connection:
            request = json.loads(message)
            connection.send(json.dumps({"id": request["id"], "result": hex(CHAIN)}))
            if request["method"] == "eth_subscribe":
                for tx in told:
                    connection.send(json.dumps(tx))

    with serve(node, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"wss://127.0.0.1:{server.socket.getsockname()[1]}"
        sources = (
            f'name = "known"\nurl = "{url}"\nca_file = "{authority.ca.name}"',
            f'name = "unknown"\nurl = "{url}"',
        )
        with Run(tmp_path, text(*sources)) as run:
            run.until(lambda said: said["pump"]["matched"] == len(told))
            said = run.until(lambda said: said["streams"]["unknown"]["attempts"] >= 2)
            assert "certificate of 127.0.0.1 is refused" in said["streams"]["unknown"]["why"]
            assert said["streams"]["known"]["state"] == "live"
            assert said["streams"]["unknown"]["transactions"] == 0
        server.shutdown()
        thread.join(10)
