"""A real nginx before a real node: what it takes, leaves and closes; nothing executed is lost.

`./run test` unpacks Debian's nginx without installing it, which would start its service.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from tests.chain.anvil import Anvil

pytestmark = pytest.mark.asyncio

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream node {{ server 127.0.0.1:{node}; keepalive 16; }}
    proxy_http_version 1.1; proxy_set_header Connection "";
    server {{
        listen 127.0.0.1:{http2} http2; keepalive_requests 7;
        location / {{ proxy_pass http://node; }}
    }}
    server {{
        listen 127.0.0.1:{few} http2; http2_max_concurrent_streams 2;
        location / {{ proxy_pass http://node; }}
    }}
    server {{
        listen 127.0.0.1:{short}; keepalive_requests 3;
        location / {{ proxy_pass http://node; }}
    }}
    server {{
        listen 127.0.0.1:{small}; client_max_body_size 2k;
        location / {{ proxy_pass http://node; }}
    }}
}}
"""
NAMES = ("http2", "few", "short", "small")


def free_ports(many: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(many)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with Anvil() as running:
        yield running


@pytest.fixture(scope="module")
def nginx(node: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    program = shutil.which("nginx")
    assert program, "nginx is not on the PATH: `./run test` unpacks it"
    folder = tmp_path_factory.mktemp("nginx")
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    text = CONFIGURATION.format(folder=folder, node=node.port, **ports)
    (folder / "nginx.conf").write_text(text)
    running = subprocess.Popen(
        [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 30
    while True:
        try:
            for port in ports.values():
                socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert running.poll() is None, errors(folder)
            assert time.monotonic() < until, errors(folder)
            time.sleep(0.02)
    yield ports
    running.terminate()
    running.wait(30)


def errors(folder: Path) -> str:
    log = folder / "error.log"
    return log.read_text() if log.exists() else "nginx says nothing"


def client_of(port: int, *, http2: bool = False) -> RpcClient:
    provider = ProviderConfig(name="nginx", http=f"http://127.0.0.1:{port}", http2=http2)
    return RpcClient(RpcConfig(providers=[provider], chain_id=31337))


async def echo(client: RpcClient, i: int) -> None:
    call = {"to": "0x" + "00" * 19 + "04", "data": f"0x{i:064x}"}
    assert int(await client.request("eth_call", [call, "latest"], fresh=True), 16) == i


@pytest.mark.parametrize(("where", "http2"), [("http2", True), ("short", False)])
async def test_what_is_executed_is_reported_once(node, nginx, where, http2):
    """It closes after a few requests, over HTTP/2 with a GOAWAY that names the last."""
    me = node.rpc("eth_accounts")[0]
    before = int(node.rpc("eth_getTransactionCount", me, "latest"), 16)
    async with asyncio.timeout(60), client_of(nginx[where], http2=http2) as client:
        pay = {"from": me, "to": me, "value": "0x1"}
        for i in range(60):  # one at a time, for anvil counts nonces; reads beside them
            sent = client.request("eth_sendTransaction", [pay])
            await asyncio.gather(sent, echo(client, i), echo(client, i + 100))
        assert client.pool.providers[0].tally.faults == {}
    assert int(node.rpc("eth_getTransactionCount", me, "latest"), 16) - before == 60


@pytest.mark.parametrize(("where", "http2"), [("few", True), ("small", False)])
async def test_a_crowd_at_a_narrow_door(nginx, where, http2):
    """Two streams at once, or bodies of 2 kB: every call is answered, with its own answer."""
    async with asyncio.timeout(60), client_of(nginx[where], http2=http2) as client:
        await asyncio.gather(*(echo(client, i) for i in range(200)))
