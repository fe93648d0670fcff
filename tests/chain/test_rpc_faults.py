"""Providers that break in every way, before a real node; the client must not show it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import os
import signal
import socket
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from eth_account import Account
from web3 import AsyncWeb3

from barewire.errors import BarewireError
from barewire.rpc.client import RpcClient
from barewire.rpc.config import ProviderConfig, RpcConfig
from barewire.rpc.faults import AllProvidersFailed, RpcAnswerError
from barewire.rpc.status import snapshot
from barewire.rpc.web3_provider import BarewireProvider
from tests.chain.anvil import Anvil
from tests.chain.fault_proxy import FaultProxy
from tests.nobody import NOBODY

pytestmark = pytest.mark.asyncio

IDENTITY = {"to": "0x0000000000000000000000000000000000000004", "data": "0x1234"}
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first


@pytest.fixture(scope="module")
def node():
    with Anvil("--block-time", "1") as running:
        yield running


@pytest_asyncio.fixture
async def lab(node):
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(node.port)) for _ in range(5)]

        async def connect(urls=None, **config) -> RpcClient:
            urls = urls or [p.http for p in proxies]
            how = {"check_ms": 500, "block_time_ms": 1_000, "max_lag": 1} | config
            return await stack.enter_async_context(RpcClient.from_urls(urls, **how))

        yield proxies, connect


def best_of(client: RpcClient, proxies: list[FaultProxy]) -> FaultProxy:
    busiest = max(client.pool.providers, key=lambda p: p.tally.sent)
    return proxies[client.pool.providers.index(busiest)]


async def load(client: RpcClient, calls: int, per_s: int = 200) -> list[float]:
    """Calls at a rate; the latencies in ms. A failure fails the test."""
    taken: list[float] = []

    async def one(number: int) -> None:
        start = time.perf_counter()
        call = IDENTITY | {"data": f"0x{number:064x}"}
        said = await client.request("eth_call", [call, "latest"])
        assert int(said, 16) == number
        taken.append((time.perf_counter() - start) * 1000)

    tasks = []
    for number in range(calls):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(1 / per_s)
    await asyncio.gather(*tasks)
    return taken


@pytest.mark.parametrize("way", ["http", "ws"])
@pytest.mark.parametrize(
    "fault", ["hang", "reset", "500", "429", "garbage", "stale", "slow", "drip"]
)
async def test_the_best_provider_breaks_and_no_call_is_lost(lab, fault, way):
    proxies, connect = lab
    client = await connect(urls=[getattr(p, way) for p in proxies])
    await load(client, 30)
    await best_of(client, proxies).set(fault)
    assert len(await load(client, 100)) == 100


async def test_three_of_five_break_and_no_call_is_lost(lab):
    proxies, connect = lab
    client = await connect()
    await load(client, 30)
    for proxy, fault in zip(proxies, ("hang", "reset", "garbage"), strict=False):
        await proxy.set(fault)
    assert len(await load(client, 150)) == 150


async def test_a_stale_provider_is_left_out_once_its_head_is_behind(lab):
    proxies, connect = lab
    client = await connect()
    await load(client, 30)
    stale = best_of(client, proxies)
    await stale.set("stale")
    provider = client.pool.providers[proxies.index(stale)]
    async with asyncio.timeout(60):  # some blocks and checks later
        while not client.pool.heads.behind(provider):
            await asyncio.sleep(0.05)
    before = stale.seen.count("eth_call")
    await load(client, 100)
    assert stale.seen.count("eth_call") - before <= 5  # mirrors only
    assert client.pool.heads.behind(provider)


async def test_at_least_never_goes_backwards_over_a_stale_provider(lab):
    proxies, connect = lab
    client = await connect()
    floor = -1
    await proxies[0].set("stale")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        said = int(await client.request("eth_blockNumber", at_least=floor, fresh=True), 16)
        assert said >= floor
        floor = said
        block = await client.request("eth_getBlockByNumber", ["latest", False], at_least=floor)
        assert int(block["number"], 16) >= floor
        await asyncio.sleep(0.05)


async def test_a_provider_of_another_chain_is_refused_with_a_clear_message(lab):
    proxies, connect = lab
    await proxies[1].set("other-chain")
    client = await connect(chain="here", chain_id=31337)
    refused = client.pool.providers[1]
    assert refused.refused == "serves chain 42, but the pool is for chain 31337"
    await load(client, 30)
    assert proxies[1].seen.count("eth_call") == 0
    with pytest.raises(BarewireError, match="serves chain 31337, but the pool is for chain 1"):
        await connect(urls=[proxies[0].http], chain="ethereum")


async def test_a_provider_that_lies_about_its_head_is_not_believed(lab):
    proxies, connect = lab
    client = await connect()
    await proxies[2].set("lying")
    liar = client.pool.providers[2]
    async with asyncio.timeout(60):
        while not liar.doubtful:
            await asyncio.sleep(0.05)
    assert "ahead of everyone" in liar.doubtful
    assert client.pool.heads.newest < 900
    before = proxies[2].seen.count("eth_call")
    assert len(await load(client, 50)) == 50
    assert proxies[2].seen.count("eth_call") - before <= 2


def signed(node, nonce: int, value: int = 1) -> tuple[str, str]:
    transaction = {
        "to": "0x" + "77" * 20,
        "value": value,
        "gas": 21_000,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 10**9,
        "nonce": nonce,
        "chainId": 31337,
        "type": 2,
    }
    done = Account.sign_transaction(transaction, KEY)
    return "0x" + done.raw_transaction.hex(), "0x" + done.hash.hex()


async def test_a_transaction_that_one_provider_swallows_lands_all_the_same(lab, node):
    proxies, connect = lab
    client = await connect()
    await proxies[0].set("swallow")
    me = Account.from_key(KEY).address
    nonce = int(await client.request("eth_getTransactionCount", [me, "latest"]), 16)
    raw, number = signed(node, nonce)
    assert await client.request("eth_sendRawTransaction", [raw]) == number
    async with asyncio.timeout(60):
        while not await client.request("eth_getTransactionReceipt", [number], fresh=True):
            await asyncio.sleep(0.1)
        while not all("eth_sendRawTransaction" in p.seen for p in proxies):
            await asyncio.sleep(0.05)
    assert all(p.seen.count("eth_sendRawTransaction") == 1 for p in proxies)
    # Once more: the nonce is used, by these very bytes, which is success.
    sent = await client.send_raw(raw)
    assert sent.landed or sent.accepted
    await proxies[0].set("ok")
    other, _ = signed(node, nonce, value=2)
    with pytest.raises(RpcAnswerError, match="nonce too low"):
        await client.send_raw(other)


async def test_private_bytes_reach_only_their_route(lab, node):
    proxies, _ = lab
    providers = [
        ProviderConfig(name=f"p{i}", http=p.http, private="dark" if i in (1, 3) else "")
        for i, p in enumerate(proxies)
    ]
    me = Account.from_key(KEY).address
    async with RpcClient(RpcConfig(providers=providers, mirror_share=1.0)) as client:
        nonce = int(await client.request("eth_getTransactionCount", [me, "pending"]), 16)
        raw, number = signed(node, nonce)
        await proxies[1].set("500")
        await client.request("eth_sendRawTransaction", [raw], route="dark")
        for _ in range(20):
            await client.request("eth_getTransactionReceipt", [number], route="dark", fresh=True)
        await proxies[1].set("hang")
        await client.request("eth_getTransactionByHash", [number], route="dark", fresh=True)
    told = {"eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getTransactionByHash"}
    for index in (0, 2, 4):
        assert not told & set(proxies[index].seen)
    assert "eth_sendRawTransaction" in proxies[3].seen


async def test_a_receipt_poll_without_a_route_follows_the_private_one(lab, node):
    proxies, _ = lab
    providers = [ProviderConfig(name="dark", http=proxies[0].http, private="dark")]
    providers += [ProviderConfig(name=f"p{i}", http=proxies[i].http) for i in (1, 2)]
    me = Account.from_key(KEY).address
    async with RpcClient(RpcConfig(providers=providers, mirror_share=1.0)) as client:
        nonce = int(await client.request("eth_getTransactionCount", [me, "pending"]), 16)
        raw, number = signed(node, nonce)
        await client.send_raw(raw, route="dark")
        for method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
            await client.request(method, [number])
        with pytest.raises(BarewireError, match="was sent on the private route 'dark'"):
            await client.send_raw(raw)
    told = {"eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getTransactionByHash"}
    assert told <= set(proxies[0].seen)
    assert not told & (set(proxies[1].seen) | set(proxies[2].seen))


async def test_web3_with_a_route_stays_on_it(lab):
    proxies, _ = lab
    providers = [ProviderConfig(name="dark", http=proxies[0].http, private="dark")]
    providers += [ProviderConfig(name="lit", http=proxies[1].http)]
    async with AsyncWeb3(BarewireProvider(RpcConfig(providers=providers), route="dark")) as w3:
        await w3.eth.get_balance(IDENTITY["to"])
    assert "eth_getBalance" in proxies[0].seen
    assert "eth_getBalance" not in proxies[1].seen


async def test_real_nodes_stopped_and_killed():
    """SIGSTOP is a hang that no proxy plays: the kernel goes on taking what is sent."""
    with Anvil("--block-time", "1") as a, Anvil("--block-time", "1") as b, Anvil() as c:
        nodes = [a, b, c]
        providers = [
            ProviderConfig(name=f"node{i}", ws=one.ws, http=one.http) for i, one in enumerate(nodes)
        ]
        config = RpcConfig(providers=providers, max_lag=1_000, check_ms=500)
        async with RpcClient(config) as client:
            await load(client, 30)
            busiest = max(client.pool.providers, key=lambda p: p.tally.sent)
            first = nodes.pop(client.pool.providers.index(busiest))
            os.kill(first.pid, signal.SIGSTOP)
            try:
                assert max(await load(client, 100)) < 5_000  # not its whole time
                os.kill(nodes[0].pid, signal.SIGKILL)
                assert len(await load(client, 100)) == 100
                # Whom nobody asks any more is not put out before a check finds it silent, too.
                async with asyncio.timeout(20):
                    while not client.pool.ejection.is_out(busiest, time.monotonic_ns()):
                        await load(client, 20)
            finally:
                os.kill(first.pid, signal.SIGCONT)


async def test_an_ejected_provider_comes_back_without_traffic(lab):
    proxies, connect = lab
    client = await connect(check_ms=100)
    await load(client, 30)
    sick = best_of(client, proxies)
    provider = client.pool.providers[proxies.index(sick)]
    await sick.set("500")
    await load(client, 30)
    assert client.pool.ejection.is_out(provider, time.monotonic_ns())
    await sick.set("ok")
    async with asyncio.timeout(60):
        while client.pool.ejection.is_out(provider, time.monotonic_ns()):
            await asyncio.sleep(0.05)
    assert "eth_call" not in sick.seen[-3:]  # nothing but the health check's questions


async def test_no_more_connections_than_configured_and_none_delayed(node):
    async with FaultProxy(node.port) as proxy:
        await proxy.set("slow")
        provider = ProviderConfig(name="a", http=proxy.http, connections=7, batch_items=1)
        async with RpcClient(RpcConfig(providers=[provider], sharing=False)) as client:
            calls = [client.request("eth_getCode", [IDENTITY["to"], "latest"]) for _ in range(16)]
            assert await asyncio.gather(*calls) == ["0x"] * 16
            channel = client.links[0].http
            assert len(channel._all) == 7
            for connection in channel._all:
                sock = connection.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert ProviderConfig(name="b", http="http://b").connections == 100


async def test_no_log_line_shows_a_credential(node, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    async with FaultProxy(node.port) as proxy:
        headers = {"x-api-key": "sesame-in-a-header"}
        providers = [
            ProviderConfig(name="http", http=f"{proxy.http}/sesame-in-a-path", headers=headers),
            ProviderConfig(name="ws", ws=f"{proxy.ws}/sesame-in-a-path", headers=headers),
            ProviderConfig(
                name="down", http=f"http://u:sesame@{NOBODY}/sesame?k=sesame", headers=headers
            ),
        ]
        async with RpcClient(RpcConfig(providers=providers)) as client:
            await load(client, 20)
            for mode in ("garbage", "500", "reset", "ok"):
                await proxy.set(mode)
                with contextlib.suppress(AllProvidersFailed):
                    await client.request("eth_getCode", [IDENTITY["to"], "latest"], timeout_ms=300)
            shown = [msgspec.json.encode(snapshot(client)).decode(), repr(client.config.policy())]
            shown += [str(link.http.address) for link in client.links if link.http]
            shown += [repr(client.config)]
    assert "sesame" not in caplog.text
    assert "sesame" not in "".join(shown)


async def test_a_refused_batch_is_split_and_nothing_is_lost(lab):
    proxies, connect = lab
    await proxies[0].set("refuse-batch")
    client = await connect(urls=[proxies[0].http])
    calls = [("eth_call", [IDENTITY | {"data": f"0x{n:064x}"}, "latest"]) for n in range(150)]
    said = await client.batch(calls)
    assert [int(one, 16) for one in said] == list(range(150))
    assert client.links[0].priority.items < 100


async def test_a_batch_has_errors_for_its_items_alone(lab):
    _, connect = lab
    client = await connect()
    calls = [("eth_call", [IDENTITY, "latest"])] * 10 + [("eth_call", [{"to": "x"}, "latest"])]
    said = await client.batch(calls)
    assert all(one == "0x1234" for one in said[:10])
    assert isinstance(said[10], RpcAnswerError)


async def test_websocket_first_and_http_behind_it(node):
    async with FaultProxy(node.port) as over_ws, FaultProxy(node.port) as over_http:
        provider = ProviderConfig(name="both", ws=over_ws.ws, http=over_http.http)
        async with RpcClient(RpcConfig(providers=[provider])) as client:
            await load(client, 20)
            assert over_http.seen.count("eth_call") == 0
            await over_ws.set("reset")
            await load(client, 50)
            assert over_http.seen.count("eth_call") > 0
            await over_ws.set("ok")
            stream = client.links[0].stream
            async with asyncio.timeout(60):
                while not stream.is_up:
                    await asyncio.sleep(0.05)
            before = over_http.seen.count("eth_call")
            await load(client, 20)
            assert over_http.seen.count("eth_call") == before


async def test_identical_reads_in_flight_are_asked_once(lab):
    proxies, connect = lab
    client = await connect(mirror_share=0.0)
    await load(client, 20)
    before = sum(p.seen.count("eth_getCode") for p in proxies)
    asked = [client.request("eth_getCode", [IDENTITY["to"], "latest"]) for _ in range(50)]
    said = await asyncio.gather(*asked)
    assert set(said) == {"0x"}
    assert sum(p.seen.count("eth_getCode") for p in proxies) - before <= 5


async def test_one_who_gives_up_does_not_take_the_others_with_him(lab):
    proxies, connect = lab
    client = await connect(urls=[proxies[0].http])
    await proxies[0].set("slow")
    params = [IDENTITY["to"], "latest"]
    impatient = asyncio.create_task(client.request("eth_getCode", params))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(client.request("eth_getCode", params))
    await asyncio.sleep(0.05)
    impatient.cancel()
    assert await patient == "0x"


# TLS and names


def certificate(folder: Path, *, days: int) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for provider.test that ends in `days`, and a server with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"provider {days}")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("provider.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / f"cert{days}.pem", folder / f"key{days}.pem"
    pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_an_expired_certificate_is_named_and_the_others_serve(node, tmp_path, scheme):
    pem, expired = certificate(tmp_path, days=-1)
    async with FaultProxy(node.port, tls=expired) as bad, FaultProxy(node.port) as good:
        key = "http" if scheme == "https" else "ws"
        url = bad.http if scheme == "https" else bad.ws
        providers = [
            ProviderConfig(name="expired", ca_file=str(pem), **{key: url}),
            ProviderConfig(name="good", http=good.http),
        ]
        async with RpcClient(RpcConfig(providers=providers)) as client:
            await load(client, 30)
            assert "certificate has expired" in client.pool.providers[0].last_trouble
            assert client.pool.providers[0].state(time.monotonic_ns()) == "down"


async def test_a_certificate_that_expires_while_in_use(node, tmp_path):
    """What is connected goes on; a new connection is refused, and the next provider serves."""
    pem, context = certificate(tmp_path, days=30)
    context.num_tickets = 0  # a resumed session would not look at the certificate again
    later, _ = certificate(tmp_path, days=-1)
    trusted = tmp_path / "both.pem"
    trusted.write_bytes(pem.read_bytes() + later.read_bytes())
    async with FaultProxy(node.port, tls=context) as bad, FaultProxy(node.port) as good:
        providers = [
            ProviderConfig(name="bad", ca_file=str(trusted), http=bad.http),
            ProviderConfig(name="good", http=good.http),
        ]
        async with RpcClient(RpcConfig(providers=providers)) as client:
            await load(client, 20)
            assert bad.seen
            context.load_cert_chain(later, tmp_path / "key-1.pem")
            await load(client, 20)
            bad.cut()
            assert len(await load(client, 50)) == 50
            async with asyncio.timeout(60):
                while "certificate has expired" not in client.pool.providers[0].last_trouble:
                    await client.request("eth_gasPrice", fresh=True)
                    await asyncio.sleep(0.05)


async def test_tls_sessions_are_resumed(node, tmp_path):
    pem, context = certificate(tmp_path, days=30)

    async with FaultProxy(node.port, tls=context) as proxy:
        provider = ProviderConfig(name="tls", ca_file=str(pem), http=proxy.http)
        async with RpcClient(RpcConfig(providers=[provider])) as client:
            await load(client, 20)
            proxy.cut()
            await load(client, 20)
            connection = next(iter(client.links[0].http._all))
            assert connection.transport.get_extra_info("ssl_object").session_reused


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_name_that_moves_is_followed(node, scheme):
    where = {"moving.test": ["127.0.0.1"]}

    async def resolver(host: str, port: int) -> list[str]:
        return where.get(host, [host])

    async with FaultProxy(node.port) as old:
        async with FaultProxy(node.port, host="127.0.0.2", listen=old.port) as new:
            url = f"{scheme}://moving.test:{old.port}"
            provider = ProviderConfig(name="moving", **{scheme: url})
            config = RpcConfig(providers=[provider], check_ms=200)
            async with RpcClient(config, resolver=resolver) as client:
                await client.request("eth_gasPrice")
                connected_to_new = len(new._writers)
                assert connected_to_new == 0
                where["moving.test"] = ["127.0.0.2"]
                async with asyncio.timeout(5):
                    while not new._writers or old._writers:
                        await client.request("eth_gasPrice", fresh=True)
                        await asyncio.sleep(0.02)


async def test_nothing_can_be_reached_and_the_error_says_what():
    with pytest.raises(BarewireError, match="cannot connect") as caught:
        async with RpcClient.from_urls([f"http://user:secret@{NOBODY}/v2/apikey"]):
            pass
    assert "secret" not in str(caught.value)
    assert "apikey" not in str(caught.value)


async def test_http2_against_an_independent_server(node, tmp_path, caplog):
    """node's http2 (nghttp2) before anvil, in plain text with prior knowledge."""
    caplog.set_level(logging.DEBUG)
    script = tmp_path / "h2.js"
    script.write_text(
        """
        const http2 = require('http2'), http = require('http');
        const agent = new http.Agent({keepAlive: true});
        const server = http2.createServer();
        server.on('stream', (stream, headers) => {
          let body = [];
          stream.on('data', d => body.push(d));
          stream.on('end', () => {
            const r = http.request({host: '127.0.0.1', port: +process.argv[2], agent,
              method: 'POST', headers: {'content-type': 'application/json'}}, res => {
              stream.respond({':status': res.statusCode, 'content-type': 'application/json'});
              res.pipe(stream);
            });
            r.end(Buffer.concat(body));
          });
          stream.on('error', () => {});
        });
        server.listen(0, '127.0.0.1', () => console.log(server.address().port));
        """
    )
    process = await asyncio.create_subprocess_exec(
        "node", str(script), str(node.port), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        provider = ProviderConfig(
            name="h2",
            http=f"http://127.0.0.1:{port}/sesame",
            http2=True,
            headers={"x-api-key": "sesame"},
        )
        async with RpcClient(RpcConfig(providers=[provider])) as client:
            assert len(await load(client, 50)) == 50
            big = IDENTITY | {"data": "0x" + "ab" * 100_000}
            said = await client.request("eth_call", [big, "latest"])
            assert said == big["data"]
        assert "sesame" not in caplog.text
        assert "hpack" not in caplog.text
    finally:
        process.kill()
        await process.wait()
        process._transport.close()


async def test_who_hangs_up_leaves_the_call_that_may_not_be_repeated_failed(lab):
    proxies, connect = lab
    client = await connect(urls=[proxies[0].http])
    await proxies[0].set("500")
    with pytest.raises(AllProvidersFailed):
        await client.request("eth_sendTransaction", [{"to": IDENTITY["to"]}])
    assert proxies[0].seen.count("eth_sendTransaction") == 1
