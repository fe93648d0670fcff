"""The small parts of barewire.rpc: framing, faults, cache, addresses, configuration, stitches."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import random
import time
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barewire.errors import BarewireError, ConfigError
from barewire.rpc.addresses import Address, redact, resolve_secrets
from barewire.rpc.cache import Cache
from barewire.rpc.chains import CHAINS
from barewire.rpc.client import RpcClient
from barewire.rpc.confidential import Confidential
from barewire.rpc.config import ProviderConfig, RpcConfig, load
from barewire.rpc.faults import Fault, RpcAnswerError, Trouble, from_error, from_status
from barewire.rpc.heads import Heads
from barewire.rpc.jsonrpc import (
    Reply,
    Splitter,
    decode,
    encode_batch,
    encode_params,
    encode_single,
)
from barewire.rpc.methods import lookup
from barewire.rpc.provider import Provider, Terms
from barewire.rpc.stitch import HeadStitch, LogStitch, OnceStitch
from barewire.rpc.transports.base import understand
from barewire.rpc.transports.http1 import request_headers
from tests.examples import examples
from tests.unit.rpc_sayings import ANSWERS, TROUBLES, UNSURE

ROOT = Path(__file__).resolve().parents[2]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@examples(40, 1000)
@given(
    messages=st.lists(st.dictionaries(st.text(), anything, max_size=4), max_size=6),
    cuts=st.lists(st.integers(1, 40), max_size=60),
    between=st.sampled_from([b"", b"\n", b" \r\n"]),
)
def test_messages_are_found_however_the_stream_is_cut(messages, cuts, between):
    stream = b"".join(json.dumps(m).encode() + between for m in messages)
    splitter = Splitter()
    found = []
    at = 0
    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[at : at + cut])
        at += cut
    assert [json.loads(one) for one in found] == messages
    assert splitter.empty


def test_a_long_message_in_many_parts_is_looked_at_once():
    splitter = Splitter()
    part = b"a" * 1_000
    assert splitter.feed(b'{"a":"') == []
    splitter._buffer = NoCopies(splitter._buffer)
    for _ in range(1_000):
        assert splitter.feed(part) == []
    assert len(splitter.feed(b'"}')) == 1


class NoCopies(bytearray):
    """Complains when all of a long buffer is copied only to look for blanks."""

    def strip(self, *args: object) -> bytearray:
        assert len(self) < 100
        return super().strip(*args)


def test_a_message_without_end_is_refused():
    splitter = Splitter(limit=1_000)
    with pytest.raises(Trouble, match="longer than 1,000"):
        splitter.feed(b'{"a":"' + b"x" * 2_000)


def test_requests_are_json_rpc():
    single = json.loads(encode_single(7, "eth_call", encode_params([{"to": "0x1"}, "latest"])))
    assert single == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "eth_call",
        "params": [{"to": "0x1"}, "latest"],
    }
    batch = json.loads(encode_batch(7, [("a", b"[]"), ("b", b"[1]")]))
    assert [(one["id"], one["method"], one["params"]) for one in batch] == [
        (7, "a", []),
        (8, "b", [1]),
    ]
    loop: list[object] = []
    loop.append(loop)
    for bad in (object(), "\ud800", 10**5_000, loop):
        with pytest.raises(BarewireError, match="not JSON"):
            encode_params([bad])


@pytest.mark.parametrize(
    "text",
    [
        b"<html>",
        b"",
        b'{"id":',
        b"12",
        b'{"id":{}}',
        b'{"result":NaN}',
        b'{"result":%s}' % (b"9" * 5_000),
        b'{"result":1e999}',
        b'{"result":"\xff"}',
        b'{"result":"\\ud800"}',
        b'{"result":%s%s}' % (b"[" * 100_000, b"]" * 100_000),
    ],
    ids=lambda text: text[:12].decode("latin-1"),
)
def test_nonsense_is_the_providers_fault(text):
    with pytest.raises(Trouble) as caught:
        decode(text)
    assert caught.value.fault is Fault.PROVIDER


# What nodes and vendors say, by the words in their sources and documentation.
SAID = [
    (3, "execution reverted: SafeMath", Fault.ANSWER),
    (-32000, "execution reverted", Fault.ANSWER),
    (-32000, "nonce too low: next nonce 5, tx nonce 4", Fault.ANSWER),
    (-32000, "already known", Fault.ANSWER),
    (-32000, "insufficient funds for gas * price + value", Fault.ANSWER),
    (-32602, "invalid argument 0: hex string has length 38", Fault.ANSWER),
    (-32005, "daily request count exceeded, request rate limited", Fault.RATE_LIMIT),
    (429, "Your app has exceeded its compute units per second capacity", Fault.RATE_LIMIT),
    (-32000, "header not found", Fault.STALE),
    (-32000, "missing trie node 3f (path )", Fault.PRUNED),
    (-32001, "Resource not found", Fault.STALE),
    (-32601, "the method debug_x does not exist/is not available", Fault.UNSUPPORTED),
    (-32603, "Internal error", Fault.PROVIDER),
    (-32603, "EVM error: execution reverted", Fault.ANSWER),
    (-32600, "batch requests are not allowed", Fault.BATCH),
    (-32000, "account limit exceeded", Fault.ANSWER),
    (-32000, "exceeds block gas limit", Fault.ANSWER),
    (-32000, "transaction type not supported", Fault.ANSWER),
    (-32000, "pending block is not available", Fault.STALE),
    (-32000, "insufficient credits", Fault.RATE_LIMIT),
    (-32005, "query returned more than 10000 results", Fault.TOO_MUCH),
    (-32600, "Must be authenticated!", Fault.PROVIDER),
    (-39001, "finalized block not found", Fault.STALE),
]


@pytest.mark.parametrize(("code", "message", "fault"), SAID)
def test_errors_are_told_apart(code, message, fault):
    assert from_error({"code": code, "message": message}).fault is fault


@pytest.mark.parametrize(
    ("userinfo", "sent"),
    [
        ("u:plain", "u:plain"),
        ("u:p%40ss%3Aw%2Frd", "u:p@ss:w/rd"),
        (":SECRET", ":SECRET"),
        ("u", "u:"),
        ("u:", "u:"),
        ("%C3%BC:%25", "ü:%"),
        ("%E4:%ff%00", "\udce4:\udcff\x00"),  # bytes that are no UTF-8 stay what they are
    ],
)
def test_credentials_of_an_address_become_a_header(userinfo, sent):
    address = Address(f"https://{userinfo}@one.example/v3/KEY")
    header = request_headers(address, {})["authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == sent.encode(errors="surrogateescape")
    assert "authorization" not in request_headers(Address("https://one.example"), {})
    assert "SECRET" not in str(address)


def test_a_whole_address_may_be_a_secret(monkeypatch):
    monkeypatch.setenv("RPC_URL", "https://[2001:db8::1]:8545/v2/KEY")
    for key, fine in (("http", True), ("ws", False)):
        config = load(f'[[provider]]\nname = "a"\n{key} = "${{env:RPC_URL}}"\n')[0]
        if fine:
            address = RpcClient(config).links[0].http.address
            assert address.url.endswith("/KEY")
            assert str(address) == "https://[2001:db8::1]:8545/..."
        else:
            with pytest.raises(ConfigError, match=r"ws = 'https://\[2001:db8::1\]:8545/...'"):
                RpcClient(config)
    assert ProviderConfig.from_url("${env:RPC_URL}").http == "${env:RPC_URL}"


def meant(code, message, data):
    return from_error({"code": code, "message": message, "data": data}).fault


def test_what_nodes_and_vendors_really_say_is_told_apart():
    assert [said for said in ANSWERS if meant(*said) is not Fault.ANSWER] == []
    assert [said for said in UNSURE if meant(*said) is not Fault.UNSURE] == []
    honest = Fault.ANSWER, Fault.UNSURE
    assert [said for said in TROUBLES if meant(*said) in honest] == []


def test_statuses_are_told_apart():
    assert from_status(429, "7").retry_after_ms == 7_000
    assert from_status(429).fault is Fault.RATE_LIMIT
    assert from_status(503, "7").retry_after_ms == 7_000
    assert from_status(503, "7").fault is Fault.RATE_LIMIT
    infura = {"code": -32005, "message": "x", "data": {"rate": {"backoff_seconds": 30.5}}}
    assert from_error(infura).retry_after_ms == 30_500
    for odd in (
        None,
        {},
        {"rate": {"backoff_seconds": "soon"}},
        {"rate": {"backoff_seconds": 1e99}},
    ):
        assert from_error({"code": -32005, "data": odd}).retry_after_ms == 0
    assert from_status(413).fault is Fault.BATCH
    assert from_status(401).message == "HTTP 401: the credentials were refused"
    assert from_status(502).fault is Fault.PROVIDER
    assert "not followed" in from_status(302).message
    # Retry-After as RFC 9110 allows it, and as it does not.
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25_000 < from_status(429, format_datetime(soon, usegmt=True)).retry_after_ms <= 30_000
    assert from_status(429, "Wed, 21 Oct 2015 07:28:00 GMT").retry_after_ms == 0
    assert from_status(429, "9" * 5_000).retry_after_ms == 3_600_000
    assert from_status(429, " 1.5 ").retry_after_ms == 1_500
    assert from_status(429, "0.0001").retry_after_ms == 1
    nonsense = ("-1", "1.5.5", "1,5", "1e3", "soon", "\xb2", "0x10")
    for odd in ("", *nonsense, "Wed, 99 Oct 9999 99:99:99 GMT"):
        assert from_status(429, odd).retry_after_ms == 0
    assert from_error("broken").fault is Fault.PROVIDER
    # A limit is kept, in whatever status it is wrapped.
    body = b'{"id":1,"error":{"code":-32005,"message":"request rate exceeded"}}'
    for status in (200, 400):
        with pytest.raises(Trouble) as limit:
            understand(status, body, "7")
        assert limit.value.fault is Fault.RATE_LIMIT
        assert limit.value.retry_after_ms == 7_000
    assert isinstance(understand(200, body, ""), Reply)


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
def test_the_older_forms_of_dates_are_of_greenwich_too(monkeypatch, form):
    """RFC 9110, 5.6.7: of RFC 850, and of asctime()."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        asked_ms = from_status(429, soon.strftime(form)).retry_after_ms
    time.tzset()
    assert 60_000 < asked_ms <= 90_000


def test_the_words_of_a_provider_are_harmless():
    evil = "\x1b[2J\n12:00:00  EVENT  all providers live"
    deep: object = "x"
    for _ in range(2_000):
        deep = [deep]
    for said in (evil, deep, {"a": evil}, 10**5_000, "\udce9"):
        for trouble in (
            from_error({"code": said, "message": said}),
            from_error(said),
            Trouble(Fault.PROVIDER, f"closed: {evil}"),
        ):
            assert trouble.message.isprintable()
            assert len(trouble.message) < 500
        assert str(RpcAnswerError({"code": 3, "message": said}, "node")).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "eth_sendTransaction",
        "eth_sendRawTransaction",
        "eth_newFilter",
        "eth_getFilterChanges",
        "eth_subscribe",
        "pm_getPaymasterData",
        "eth_sendUserOperation",
        "eth_sign",
        "anvil_mine",
        "never_heard_of",
    ],
)
def test_only_what_is_known_to_be_harmless_is_repeated(name):
    assert not lookup(name).repeat


# Cache


def cache_at(newest: int, final: int, *, moving: bool = True) -> tuple[Cache, Heads]:
    heads = Heads([Provider(Terms("p"))], 12_000, 2)
    heads.newest, heads.final = newest, final
    return Cache(heads, size=3, moving=moving), heads


@pytest.mark.parametrize(
    ("method", "params", "result", "after_head", "after_second"),
    [
        ("eth_chainId", [], "0x1", True, True),
        ("eth_call", [{}, hex(90)], "0x1", True, True),
        ("eth_call", [{}, hex(98)], "0x1", False, False),
        ("eth_call", [{}, "latest"], "0x1", False, False),
        ("eth_call", [{}], "0x1", False, False),
        ("eth_call", [{}, {"blockHash": "0x" + "11" * 32}], "0x1", True, True),
        ("eth_getBlockByNumber", [hex(90), False], {"number": hex(90)}, True, True),
        ("eth_getTransactionReceipt", ["0x1"], {"blockNumber": hex(90)}, True, True),
        ("eth_getTransactionReceipt", ["0x1"], {"blockNumber": hex(99)}, False, False),
        ("eth_blockNumber", [], "0x64", False, False),
    ],
)
def test_results_live_as_long_as_they_are_true(method, params, result, after_head, after_second):
    cache, heads = cache_at(100, 95)
    key = (method, encode_params(params), "", -1)
    cache.put(key, lookup(method), params, result, 0)
    assert cache.get(key, 1) == (result,)
    assert (cache.get(key, 2_000_000_000) is not None) is after_second
    cache.put(key, lookup(method), params, result, 0)
    heads.newest = 101
    assert (cache.get(key, 1) is not None) is after_head


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("eth_getTransactionReceipt", ["0x1"], None),
        ("eth_getBlockByNumber", ["pending", False], {"number": "0x1"}),
        ("eth_getLogs", [{}], []),
        ("eth_sendRawTransaction", ["0x1"], "0x2"),
        ("made_up", [], 1),
        *(
            ("eth_getTransactionReceipt", ["0x1"], {"blockNumber": rubbish})
            for rubbish in ("0x", "0xzz", "0x-1", " 0x1", "latest", 5, [], None, "0x" + "f" * 64)
        ),
        ("eth_getTransactionReceipt", ["0x1"], "0x"),
        *(("eth_call", [{}, rubbish], "0x") for rubbish in ("0x", "0xg", " 0x1", 5, [], "0x1_0")),
        ("eth_call", [{}, {"blockNumber": "0xg"}], "0x"),
    ],
)
def test_what_may_change_is_not_kept(method, params, result):
    cache, _ = cache_at(100, 95)
    key = (method, encode_params(params), "", -1)
    cache.put(key, lookup(method), params, result, 0)
    assert cache.get(key, 1) is None


def test_the_cache_is_bounded_and_by_default_keeps_only_what_is_final():
    cache, _ = cache_at(100, 95, moving=False)
    for number in range(10):
        params = [{}, hex(number)]
        key = ("eth_call", encode_params(params), "", -1)
        cache.put(key, lookup("eth_call"), params, "0x", 0)
    assert cache.get(("eth_call", encode_params([{}, hex(9)]), "", -1), 1)
    assert not cache.get(("eth_call", encode_params([{}, hex(5)]), "", -1), 1)
    cache.put(("eth_blockNumber", b"[]", "", -1), lookup("eth_blockNumber"), [], "0x64", 0)
    assert not cache.get(("eth_blockNumber", b"[]", "", -1), 1)


# Addresses and secrets


def test_addresses_are_shown_without_their_secrets():
    url = "https://me:pw@rpc.example:8443/v2/topsecretkey?x=alsosecret"
    address = Address(url)
    for text in (str(address), repr(address), redact(url), f"{address}"):
        assert "secret" not in text
        assert "pw" not in text
        assert "rpc.example:8443" in text
    assert address.target == "/v2/topsecretkey?x=alsosecret"
    with pytest.raises(ConfigError) as caught:
        Address("ftp://host/secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://h:99999",
        "http://h:abc",
        "http://h:0",
        "https://example/a key",
        "https://example/a\nkey",
        "https://b\u00fccher.example/k\u00e9y",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(url):
    with pytest.raises(ConfigError, match="not an URL") as caught:
        Address(url)
    assert "key" not in caught.value.message


def test_an_address_without_a_scheme_is_no_path():
    with pytest.raises(ConfigError, match="has no scheme") as caught:
        ProviderConfig.from_url("localhost:8545")
    assert "http://localhost:8545" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://me:sesame@h/sesame", "wss://h/..."),
        ("wss:/me:sesame@h/sesame", "..."),
        ("wss//me:sesame@h/sesame", "..."),
        ("me:sesame@h:8546", "..."),
        ("wss://me:sesame@/sesame", "wss://..."),
        ("http://me:sesame@h:port", "http://..."),
        ("http://me:ses/ame@h", "http://..."),
        ("http://h:99999/sesame", "http://h:99999"),
        ("/run/geth.ipc", "/run/geth.ipc"),
        ("localhost:8545", "localhost:8545"),
        ("mold://239.1.1.1:9000@eth1", "mold://239.1.1.1:9000@eth1"),
    ],
)
def test_what_is_mistyped_is_shown_without_its_secrets_too(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    "table",
    [
        'htp = "https://me:sesame@h/sesame"',
        'htp = ["https://me:sesame@h/sesame"]',
        'header = { authorization = "sesame" }',
        'headers = "Bearer sesame"',
        'ws = "http://me:sesame@h/sesame"',
        'http = "https:/me:sesame@h/sesame"',
        'http = "me:sesame@h:1"',
        'tier = "https://me:sesame@h/sesame"',
        'http = ["https://me:sesame@h/sesame"]',
    ],
)
def test_mistakes_of_a_configuration_are_told_without_its_secrets(table):
    with pytest.raises(ConfigError) as caught:
        load(f'[[provider]]\nname = "a"\n{table}\n')
    assert "sesame" not in f"{caught.value} {caught.value.hint}"


def test_addresses_given_to_a_client_are_told_without_their_secrets():
    with pytest.raises(ConfigError, match="'h:8545' has no scheme") as caught:
        RpcClient.from_urls(["me:sesame@h:8545"])
    assert "sesame" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(TypeError, match="urls is a list of URLs") as wrong:
        RpcClient.from_urls("http://me:sesame@h")
    assert "sesame" not in str(wrong.value)


def test_a_header_with_a_line_end_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("KEY", "sesame\n")
    header = {"x-api-key": "${env:KEY}"}
    provider = ProviderConfig(name="a", http="http://a", headers=header)
    with pytest.raises(ConfigError, match="characters that a header cannot have") as caught:
        RpcClient(RpcConfig(providers=[provider]))
    assert "sesame" not in str(caught.value)


def test_secrets_come_from_the_environment_and_private_files(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "abc")
    assert resolve_secrets("https://h/${env:A_KEY}/x", "w") == "https://h/abc/x"
    with pytest.raises(ConfigError, match="NOT_THERE is not set"):
        resolve_secrets("${env:NOT_THERE}", "w")
    secret = tmp_path / "key"
    secret.write_text("def\n")
    secret.chmod(0o600)
    assert resolve_secrets(f"${{file:{secret}}}", "w") == "def"
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        resolve_secrets(f"${{file:{secret}}}", "w")
    assert caught.value.hint == f"chmod 0600 {secret}"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve_secrets(f"${{file:{secret}}}", "w") == "def"


# Routes


@pytest.mark.parametrize("method", ["eth_sendBundle", "eth_callBundle", "mev_sendBundle"])
def test_what_carries_bundles_is_not_sent_without_a_route(method):
    client = RpcClient.from_urls(["http://127.0.0.1:1"])
    with pytest.raises(BarewireError, match="has no route"):
        asyncio.run(client.request(method, [{}]))


def test_a_private_hash_is_asked_for_and_sent_on_its_route_alone():
    secret = Confidential()
    assert not secret
    secret.sending("0xab", "")  # a public one needs no memory
    assert not secret
    secret.sending("0xcd", "dark")
    secret.sending("0xcd", "dark")
    assert secret.route_of(["0xCD"], "") == "dark"
    assert secret.route_of(["0xcd"], "dark") == "dark"
    assert secret.route_of(["0xab"], "") == ""
    for other in ("", "light"):
        with pytest.raises(BarewireError, match="private route 'dark'"):
            secret.sending("0xcd", other)
    with pytest.raises(BarewireError, match="belongs to the private route 'dark'"):
        secret.route_of(["0xcd"], "light")


# Configuration

GOOD = """
chain = "ethereum"
[[provider]]
name = "a"
http = "https://a.example"
"""


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            GOOD + 'teir = "public"',
            "provider 'a': unknown key 'teir' (= 'public')",
            "did you mean tier?",
        ),
        (
            GOOD + 'tier = "moon"',
            "tier = 'moon' is not allowed",
            "allowed: colocated, regional, public",
        ),
        (
            'cache = "all"' + GOOD,
            "cache = 'all' is not allowed",
            "allowed: off, final, head",
        ),
        (GOOD + 'priority = "high"', "priority = 'high' is not allowed", "Expected `int`"),
        (GOOD + "weight = 0.0", "weight = 0.0 is not allowed", "greater than 0"),
        (GOOD + 'ws = "https://b"', "ws = 'https://b' is not allowed", "ws:// or wss://"),
        (GOOD.replace("ethereum", "mars"), "chain 'mars' is not known", "known are ethereum"),
        ("chain_id = 5\n" + GOOD, "has id 1, but chain_id = 5", "leave chain_id out"),
        ('chain = "base"', "no provider is configured", "[[provider]]"),
        (GOOD + '[[provider]]\nname = "a"\nhttp = "http://b"', "two providers are named", "rename"),
        (GOOD + '[[provider]]\nname = "b"', "provider 'b' has no address", "http, ws, ipc"),
        ("hedge_floor_ms = 300\n" + GOOD, "hedge_floor_ms = 300", "20 and 250"),
        ("hedge_share = 2.0\n" + GOOD, "hedge_share = 2.0", "0 to 1"),
        ("x = [", "is not TOML", ""),
        ("pool = []", "pool is not a list of tables", "[[pool]]"),
        ("pool = 5", "pool is not a list of tables", "[[pool]]"),
        ('chain = "base"\n[provider]\nname = "a"', "provider is not a list", "[[provider]]"),
        (GOOD + "weight = nan", "weight = nan is not allowed", "greater than 0"),
        (GOOD + "requests_per_s = -1.0", "requests_per_s = -1.0", "no limit"),
        ("check_ms = 0\n" + GOOD, "check_ms = 0 is not allowed", "10 or more"),
        ("timeout_ms = 0\n" + GOOD, "timeout_ms = 0 is not allowed", "1 or more"),
        ("hedge_ceiling_ms = inf\n" + GOOD, "hedge_ceiling_ms = inf", "20 and 250"),
    ],
)
def test_a_wrong_configuration_says_key_value_and_what_is_allowed(text, message, hint):
    with pytest.raises(ConfigError) as caught:
        load(text, where="rpc.toml")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_every_mistake_of_a_configuration_is_said(tmp_path, capfd, monkeypatch):
    from appliance.cli import main

    wrong = GOOD.replace("ethereum", "mars") + 'htpp = "x"\ntier = "moon"\nweight = nan\n'
    wrong += '[[provider]]\nname = "a"\nhttp = "ws://b"\nws = 5\npriority = -1\n'
    file = tmp_path / "rpc.toml"
    file.write_text("hedge_share = 3\ncheck_ms = true\ntimeout_ms = -1\n" + wrong)
    assert main(["rpc", "status", "--config", str(file)]) == 2
    said = capfd.readouterr().err
    for words in ("mars", "htpp", "moon", "weight = nan", "ws://b", "ws = 5", "priority = -1"):
        assert said.count(words) == 1, (words, said)
    for words in ("hedge_share = 3", "check_ms = True", "timeout_ms = -1", "two providers"):
        assert said.count(words) == 1, (words, said)
    file.write_text((ROOT / "examples/rpc.toml").read_text())
    for name in ("ALCHEMY_KEY", "QUICKNODE_HOST", "QUICKNODE_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["rpc", "status", "--config", str(file)]) == 2
    said = capfd.readouterr().err
    assert "provider 'alchemy': ws: the environment variable ALCHEMY_KEY is not set" in said
    assert "QUICKNODE_HOST and QUICKNODE_KEY" in said


@pytest.mark.parametrize("key", ["http", "ws"])
def test_an_address_that_an_empty_secret_fills_is_none(tmp_path, capfd, monkeypatch, key):
    """Such a provider would be there and never be asked."""
    from appliance.cli import main

    monkeypatch.setenv("BAREWIRE_TEST_NODE", "")
    file = tmp_path / "rpc.toml"
    provider = f'[[provider]]\nname = "a"\n{key} = "${{env:BAREWIRE_TEST_NODE}}"\n'
    file.write_text('chain = "ethereum"\n' + provider)
    assert main(["rpc", "status", "--config", str(file)]) == 2
    said = capfd.readouterr().err
    assert f"provider 'a': {key} = '${{env:BAREWIRE_TEST_NODE}}' is empty" in said


@pytest.mark.parametrize("text", ["chain_id = " + "9" * 5000, "a = " + "[" * 5_000])
def test_no_text_of_a_configuration_is_too_much(text):
    with pytest.raises(ConfigError):
        load(text)


def test_secrets_inside_an_address_that_is_given_alone(monkeypatch):
    monkeypatch.setenv("RPC_HOST", "node.example")
    given = ProviderConfig.from_url("wss://${env:RPC_HOST}/key")
    assert (given.name, given.ws) == ("0-node.example", "wss://${env:RPC_HOST}/key")
    monkeypatch.delenv("RPC_HOST")
    with pytest.raises(ConfigError, match="RPC_HOST is not set"):
        ProviderConfig.from_url("wss://${env:RPC_HOST}/key")


def test_the_example_loads_with_its_five_providers():
    (pool,) = load((ROOT / "examples/rpc.toml").read_text())
    assert pool.chain_facts().chain_id == 1
    assert [p.name for p in pool.providers] == ["rack", "cage", "alchemy", "quicknode", "public"]
    assert pool.policy().max_lag == 2


def test_one_pool_a_chain():
    two = '[[pool]]\nchain = "base"\n[[pool.provider]]\nname = "a"\nhttp = "http://a"\n'
    pools = load(two + two.replace("base", "arbitrum"))
    assert [p.chain_facts().chain_id for p in pools] == [8453, 42161]
    with pytest.raises(ConfigError, match="two pools for chain 8453"):
        load(two + two)
    assert {c.name for c in CHAINS.values()} == {
        "ethereum",
        "arbitrum",
        "optimism",
        "base",
        "polygon",
    }
    assert RpcConfig(chain="devnet", chain_id=99).chain_facts().chain_id == 99


def test_an_url_is_enough():
    assert ProviderConfig.from_url("wss://h:1/k").ws == "wss://h:1/k"
    assert ProviderConfig.from_url("/run/geth.ipc").ipc == "/run/geth.ipc"
    assert "secret" not in ProviderConfig.from_url("https://h/secret").name


# Stitches


def chain_of(n: int, fork: str = "a", start: int = 1, parent: str = "0xa0") -> list[dict]:
    blocks = []
    for number in range(start, start + n):
        block = {"number": hex(number), "hash": f"0x{fork}{number}", "parentHash": parent}
        blocks.append(block)
        parent = block["hash"]
    return blocks


@examples(40, 500)
@given(seed=st.integers(0, 10_000), twice=st.integers(0, 20))
def test_each_block_passes_once_whatever_is_repeated(seed, twice):
    rng = random.Random(seed)
    blocks = chain_of(30)
    repeated = sorted(blocks + rng.choices(blocks, k=twice), key=lambda b: int(b["number"], 16))
    stitch = HeadStitch()
    passed = [b for b in map(stitch.take, repeated) if b]
    assert [b["number"] for b in passed] == [b["number"] for b in blocks]


def test_gaps_are_named_and_reorganisations_seen():
    stitch = HeadStitch()
    blocks = chain_of(3)
    for block in blocks:
        assert stitch.has_parent(block) or block is blocks[0]
        stitch.take(block)
    assert list(stitch.missing(7)) == [4, 5, 6]
    assert not stitch.missing(4)
    other = chain_of(1, "b", 3, blocks[1]["hash"])[0]
    assert stitch.has_parent(other)
    assert stitch.take(other)
    assert not stitch.has_parent(chain_of(1, "c", 4, "0xc3")[0])
    assert stitch.knows(2)
    assert not stitch.knows(0)


def test_logs_pass_once_and_their_removal_is_another_thing():
    stitch = LogStitch()
    one = {"blockHash": "0x1", "logIndex": "0x0", "blockNumber": "0x5"}
    assert stitch.take(one)
    assert not stitch.take(dict(one))
    assert stitch.take(one | {"removed": True})
    assert not stitch.take(one | {"removed": True})
    once = OnceStitch()
    assert once.take("0xabc")
    assert not once.take("0xabc")
    assert not once.take({"hash": "0xabc", "nonce": "0x1"})


def test_a_chain_that_comes_back_to_a_swept_block_is_swept_there_again():
    """It was swept, left by what was pushed, and nobody pushed that it came back."""
    header = {"number": "0x7", "hash": "0xa7", "parentHash": "0xa6"}
    mine = {"blockHash": "0xa6", "logIndex": "0x0", "blockNumber": "0x6"}
    theirs = mine | {"blockHash": "0xb6"}

    def swept() -> LogStitch:
        stitch = LogStitch()
        stitch.begin({"number": "0x5", "hash": "0xa5"})
        assert stitch.swept(5, header, [mine], {}) == ([], [mine])
        assert stitch.anchors(7) == [5, 7]
        return stitch

    left = swept()
    assert left.take(mine | {"removed": True})
    assert (left.covered, left.anchors(7)) == (5, [5])
    assert left.swept(5, header, [mine], {}) == ([], [mine])

    # So where the other branch's log is all that was pushed, or the swept one had none.
    replaced = swept()
    assert replaced.take(theirs) == [mine | {"removed": True}, theirs]
    assert (replaced.covered, replaced.anchors(7)) == (5, [5])
    assert replaced.swept(5, header, [mine], {}) == ([theirs | {"removed": True}], [mine])
    bare = LogStitch()
    bare.begin({"number": "0x5", "hash": "0xa5"})
    bare.swept(5, header, [], {})
    assert bare.take(theirs) == [theirs]
    assert bare.anchors(7) == [5]
    assert bare.swept(5, header, [], {6: "0xa6"}) == ([theirs | {"removed": True}], [])

    # What is pushed of the chain as it was swept changes nothing.
    late = swept()
    assert late.take(mine) == []
    assert (late.covered, late.anchors(7)) == (7, [5, 7])
