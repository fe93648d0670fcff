"""What `barewire run` answers to a wrong configuration: the key, the value, what is allowed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from eth_account import Account

from appliance import config, flight
from appliance.cli import main
from appliance.config_sources import Source, Url
from appliance.stream_files import headers_of
from barewire import ConfigError
from barewire.mempool.triggers import Trigger, Word
from dpdk_bindings.ring import RingKind, RingProducer
from tests.unit.certificates import Authority

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
[[source]]
name = "site"
lines = ["127.0.0.1:19001"]

[[destination]]
name = "gateway"
address = "127.0.0.1:7000"

[[trigger]]
name = "router"
to = ["0x7a250d5630b4cf539739df2c5dacb4c659f2488d"]
shot = "answer"

[[shot]]
name = "answer"
destination = "gateway"
payload = "answer.hex"
payload_kind = "bytes"
expires_after_ms = 1000

[fire]
unjournalled = true
"""


@pytest.fixture
def check(tmp_path, capfd):
    def answer(text: str, payload: str = "00ff") -> tuple[int, str]:
        (tmp_path / "answer.hex").write_text(payload)
        path = tmp_path / "appliance.toml"
        path.write_text(text)
        status = main(["run", "--config", str(path), "--check"])
        said = capfd.readouterr()
        return status, said.out + said.err

    return answer


def test_a_good_configuration(check):
    status, said = check(GOOD)
    assert status == 0
    assert "good" in said


@pytest.mark.parametrize("name", ["appliance", "streams"])
def test_the_examples_are_good(capfd, name):
    status = main(["run", "--config", str(ROOT / f"examples/{name}.toml"), "--check"])
    assert status == 0, capfd.readouterr().err


TWO_ON_ONE = (
    '[[core]]\nname = "a"\ncpu = 1\nstages = ["receive"]\n'
    '[[core]]\nname = "b"\ncpu = 1\nstages = ["feed", "decode", "trigger"]\n'
)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("127.0.0.1:19001", "127.0.0.1", ["source[0].lines[0]", "'127.0.0.1'"]),
        ("127.0.0.1:19001", "127.0.0.1:99999", ["source[0].lines[0]", "99999"]),
        ('name = "site"', 'name = "site"\nvia = "afxd:eth1"', ["source[0].via", "afxdp:INTERFACE"]),
        ('name = "site"', 'name = "site"\ntrust = true', ["source[0].trust", "trusted"]),
        ('name = "site"', 'name = "a b"', ["source[0].name", "'a b'"]),
        ('destination = "gateway"', 'destination = "gate"', ["shot[0].destination", "gateway"]),
        ('shot = "answer"', 'shot = "other"', ["trigger[0].shot", "'other'", "answer"]),
        ("unjournalled = true", "unjournalled = false", ["fire.unjournalled", "no journal"]),
        ("expires_after_ms = 1000", "expires_after_ms = 0", ["expires_after_ms", "0"]),
        ("expires_after_ms = 1000", "", ["expires_after_ms", "missing"]),
        ("0x7a250d", "0x7a250", ["router"]),
        ("[fire]", '[chain]\nfork = "petersburg"\n[fire]', ["chain.fork", "prague", "osaka"]),
        ("[fire]", '[fire]\nmax_fee = "1 gas"', ["fire.max_fee", "'1 gas'", "gwei"]),
        ("[fire]", "[core]\ncpu = -1\n[fire]", ["core.cpu", "-1"]),
        ("[fire]", '[strategy]\nload = "nosuch_module:X"\n[fire]', ["strategy.load", "nosuch"]),
        ("[[destination]]", '[[source]]\nname = "site"\nlines = ["[::1]:1"]\n[[destination]]',
         ["source[1].name", "used twice"]),
        ("[fire]", "[fire", ["appliance.toml"]),
        ("[fire]", "[core]\ncpu = 99999\n[fire]", ["core.cpu", "99999"]),
        ("[fire]", "[metrics]\nstall_ms = inf\n[fire]", ["metrics.stall_ms", "inf"]),
        ("[fire]", "[metrics]\nstall_ms = 1e30\n[fire]", ["metrics.stall_ms", "at most"]),
        ("[fire]", '[strategy]\nload = "a:b"\nlimit_ms = nan\n[fire]', ["strategy.limit_ms"]),
        ("[fire]", TWO_ON_ONE + "[fire]", ["core 'b'", "that of core 'a'"]),
        ("[fire]", "[core]\ncpu = 1\n[senders]\nworkers = 1\ncpus = [1]\n[fire]",
         ["senders.cpus", "that of core 'hot'"]),
        ("[[source]]", "statistics_every_s = inf\n[[source]]", ["statistics_every_s"]),
        ("expires_after_ms = 1000", "expires_after_ms = 999999999999999999", ["expires_after_ms"]),
        ("unjournalled = true", f"unjournalled = true\nmax_total = {10**30}", ["max_total"]),
        ('name = "site"', 'name = "site\\n"', ["source[0].name"]),
        ('name = "site"', 'name = "site"\nvia = "afxdp:veth0?mode=fast"', ["mode=fast"]),
        ('name = "site"', 'name = "site"\nvia = "afxdp:veth0?quick=yes"', ["quick=yes"]),
        ('name = "site"', 'name = "site"\nvia = "afxdp:a\\u0000b"', ["source[0].via"]),
        ('["127.0.0.1:19001"]', '["127.0.0.1:9", "127.0.0.1:9"]', ["lines[1]", "lines[0]"]),
        ('["127.0.0.1:19001"]', '["127.0.0.1:0"]', ["lines[0]", "port 0"]),
        ("127.0.0.1:7000", "127.0.0.1:0", ["destination[0].address", "port 0"]),
        ('["127.0.0.1:19001"]', '["0.0.0.0:9"]\nvia = "afxdp:eth1"', ["lines[0]", "0.0.0.0"]),
    ],
)  # fmt: skip
def test_an_error_names_the_key_the_value_and_what_is_allowed(check, before, after, words):
    assert before in GOOD
    status, said = check(GOOD.replace(before, after, 1))
    assert status == 2
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("payload", ["", "xyz", "abc"])
def test_a_payload_that_is_no_hexadecimal(check, payload):
    status, said = check(GOOD, payload)
    assert status == 2
    assert "answer.hex" in said
    assert "'answer'" in said


def test_a_payload_longer_than_a_datagram(check):
    status, said = check(GOOD, "00" * 70_000)
    assert status == 2
    assert "70000 bytes" in said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys\nsys.exit(7)", ["SystemExit", "strategy.py:2"]),
        ("1 / 0", ["ZeroDivisionError", "strategy.py:1"]),
        ("class X: pass", ["no class X with on_match"]),
    ],
)
def test_a_strategy_that_cannot_be_loaded(check, tmp_path, code, words):
    (tmp_path / "strategy.py").write_text(code)
    status, said = check(GOOD + '[strategy]\nload = "strategy.py:X"\n')
    assert status == 2
    for word in words:
        assert word in said, said


def test_what_is_no_file_is_not_read(capfd):
    assert main(["run", "--config", "/dev/zero"]) == 2
    assert "not a file" in capfd.readouterr().err


def test_tables_in_tables_without_end(check):
    status, said = check("x = " + "[" * 100_000)
    assert status == 2
    assert "appliance.toml" in said


def test_a_file_that_is_not_there(capfd):
    assert main(["run", "--config", "/nonexistent/appliance.toml"]) == 2
    assert "/nonexistent/appliance.toml" in capfd.readouterr().err


NODE = """
[[source]]
name = "node"
url = "wss://node.example/ws"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            NODE + 'certificat_file = "x"',
            ["certificat_file = 'x'", "did you mean certificate_file"],
        ),
        (NODE + 'key_file = "x"', ["source[0].key_file = 'x'", "no certificate_file"]),
        (NODE + 'ca_file = "none.pem"', ["'node'", "none.pem", "No such file"]),
        (NODE + 'ca_file = "answer.hex"', ["'node'", "answer.hex", "no certificate"]),
        (NODE + 'certificate_file = "none.pem"', ["'node'", "none.pem", "No such file"]),
        (NODE + 'headers_file = "none"', ["'node'", "headers_file", "No such file"]),
        (NODE + 'publishers = ["10.0.0.1"]', ["source[0].publishers = ['10.0.0.1']", "MoldUDP64"]),
        (NODE + 'fallback = "kernel"', ["source[0].fallback = 'kernel'", "the same"]),
        (NODE.replace("wss", "ws") + 'ca_file = "x"', ["ca_file = 'x'", "not encrypted"]),
        (NODE.replace("wss", "ws") + "verify = false", ["verify = False", "not encrypted"]),
        (NODE.replace("wss", "ws") + 'key_log_file = "x"', ["key_log_file", "not encrypted"]),
        (NODE.replace("wss://node.example", "ipc://") + "deflate = true", ["deflate = True"]),
        (
            NODE.replace("wss://node.example", "ipc:///node") + 'subscribe = "bloxroute"',
            ["source[0].subscribe = 'bloxroute'", "'hashes'"],
        ),
        (NODE.replace("node.example", ""), ["source[0].url", "names no host", "allowed: "]),
        (NODE.replace("example", "example:99999"), ["source[0].url", "99999"]),
        (NODE.replace("example", "example:0"), ["source[0].url", "port 0"]),
        (NODE.replace("node.example", "m\u00fcnchen.example"), ["source[0].url", "xn--"]),
        (NODE.replace("node.example", "node.example/w s"), ["source[0].url", "characters"]),
        (NODE.replace("node.example", "node.example/#top"), ["source[0].url", "fragment"]),
        (NODE.replace("wss://node.example", "ipc://node.ipc"), ["begins with /"]),
        (GOOD.replace('name = "site"', 'name = "site"\nca_file = "x"'), ["source[0].ca_file"]),
        (GOOD.replace('name = "site"', 'name = "site"\nverify = false'), ["source[0].verify"]),
        (
            GOOD.replace('name = "site"', 'name = "site"\nsubscribe = "hashes"'),
            ["source[0].subscribe = 'hashes'", "MoldUDP64"],
        ),
        (
            GOOD.replace('name = "site"', 'name = "site"\nvia = "afxdp:eth1"')
            + NODE
            + 'via = "afxdp:eth1?mode=skb"',
            ["source[1].via = 'afxdp:eth1?mode=skb'", "source[0].via", "write the same"],
        ),
        (
            GOOD.replace('name = "site"', 'name = "a"\nvia = ["afxdp:eth1", "afxdp:eth1?ring=64"]'),
            ["source[0].via = 'afxdp:eth1?ring=64'", "the same interface"],
        ),
        (
            GOOD.replace('name = "site"', 'name = "site"\nvia = ["afxdp:eth1", "afxdp:eth1"]'),
            ["source[0].via", "twice"],
        ),
        (
            GOOD.replace('name = "site"', 'name = "site"\nvia = []'),
            ["source[0].via", "a list of 1 to 8"],
        ),
        (
            GOOD.replace('name = "site"', 'name = "site"\nvia = ["afxdp:eth1", 7]'),
            ["source[0].via", "expected a string"],
        ),
        (NODE + 'via = ["afxdp:eth1", "kernel"]', ["source[0].via", "one way"]),
    ],
)
def test_what_does_not_fit_in_a_source(check, text, words):
    status, said = check(text)
    assert status == 2, said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    "url",
    [
        "wsss://me:sesame@h/sesame",
        "wss://me:sesame@h:99999/sesame",
        "me:sesame@h:1",
        "wss:/sesame@h",
    ],
)
def test_a_mistyped_url_is_told_without_its_secrets(check, url):
    status, said = check(NODE.replace("wss://node.example/ws", url))
    assert status == 2
    assert "source[0].url" in said
    assert "sesame" not in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("X Y: a", ["line 1 is no header"]),
        ("X: a\rInjected: b", ["line 1 is no header"]),
        ("A: b\n\nX: caf\u00e9", ["line 3 is no header", "ASCII"]),
        ("X: \u2028", ["line 1 is no header"]),
        (":authority: x", ["line 1 is no header"]),
        ("just words", ["line 1 is no header"]),
        ("Host: a\nhost: b", ["line 2: host is there already"]),
        ("sec-websocket-key: x", ["line 1: sec-websocket-key is of the handshake itself"]),
    ],
)
def test_what_is_no_header_for_the_handshake(check, tmp_path, lines, words):
    path = tmp_path / "headers"
    path.touch(mode=0o600)
    path.write_text(lines, encoding="utf-8")
    status, said = check(NODE + 'headers_file = "headers"')
    assert status == 2
    for word in words:
        assert word in said, said
    path.write_text("Host: node.internal\r\nAuthorization: Bearer a\n", encoding="utf-8")
    assert check(NODE + 'headers_file = "headers"')[0] == 0


def test_a_source_over_tls_with_everything(check, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    (tmp_path / "headers").touch(mode=0o600)
    good = (
        NODE
        + f'ca_file = "{authority.ca.name}"\ncertificate_file = "{certificate.name}"\n'
        + f'key_file = "{key.name}"\nkey_log_file = "keys"\nheaders_file = "headers"\n'
    )
    assert check(good)[0] == 0
    assert not (tmp_path / "keys").exists()  # to check leaves nothing behind
    key.chmod(0o644)
    status, said = check(good)
    assert status == 2
    assert "can be read by others (mode 0644)" in said
    key.chmod(0o600)
    (tmp_path / "headers").chmod(0o640)
    assert "can be read by others (mode 0640)" in check(good)[1]


CUT = """
[[core]]
name = "rx"
stages = ["receive", "feed"]
[[core]]
name = "hit"
stages = ["decode", "trigger"]
"""


def test_streams_and_a_path_that_is_cut(check):
    assert check(GOOD + NODE + CUT)[0] == 0
    status, said = check(NODE + CUT)
    assert status == 2
    assert "all sources are streams" in said
    over_port = 'via = "afxdp:eth1"\n'
    shared = GOOD.replace('name = "site"', f'name = "site"\n{over_port}') + NODE + over_port
    assert check(shared)[0] == 0
    status, said = check(shared + CUT)
    assert status == 2
    assert "core 'rx' takes datagrams, and core 'hit' reads streams" in said


def test_a_hundred_thousand_triggers_are_as_good_as_one():
    """In time too: what compares each name with every other one takes minutes for so many."""
    loaded = config.load(Path("examples/appliance.toml"))
    many = [Trigger(name=str(number), to=[f"0x{number:040x}"]) for number in range(100_000)]
    config.check(msgspec.structs.replace(loaded, trigger=many), "many")
    with pytest.raises(ConfigError, match=r"trigger\[100000\].name = '7': used twice"):
        config.check(msgspec.structs.replace(loaded, trigger=[*many, many[7]]), "many")


def test_what_is_read_again_is_written_down_as_it_came(tmp_path):
    triggers = [
        Trigger("a", to=["0x" + "12" * 20], words=[Word(index=1, equals=[3])]),
        Trigger("b"),
    ]
    about = flight.About("loop", ["trigger"], "osaka", 1)
    (tmp_path / "loop.flight").touch()
    with RingProducer.create("memfd:t", kind=RingKind.LOSSY, depth=2, mtu=8) as ring:
        flight.write_about(tmp_path, about, ring, msgspec.json.encode(triggers))
    assert flight.read_about(tmp_path)["loop"] == [
        (1, msgspec.structs.replace(about, triggers=triggers))
    ]


def test_every_mistake_is_named(check):
    """Not the first only: values of a wrong kind, unknown and missing keys."""
    text = GOOD.replace('"127.0.0.1:19001"', '"127.0.0.1"').replace("1000", '"soon"')
    text = text.replace('address = "127.0.0.1:7000"', 'adress = "127.0.0.1:7000"')
    status, said = check(text + 'max_fee = "1 either"\n[chain]\nid = 0\nfork = "osaca"\n')
    assert status == 2
    for words in (
        "source[0].lines[0] = '127.0.0.1'",
        "destination[0].adress = '127.0.0.1:7000': no such key",
        "destination[0].address is missing",
        "shot[0].expires_after_ms = 'soon'",
        "fire.max_fee = '1 either'",
        "chain.id = 0",
        "chain.fork = 'osaca'",
    ):
        assert words in said


def test_wrong_values_do_not_hide_what_is_in_right_entries(check):
    text = GOOD.replace("1000", '"soon"') + "[[trigger]]\nname = 'short'\nto = ['0x7a25']\n"
    text += "[[trigger]]\nname = 'units'\nvalue_wei = { min = '5 eth' }\n"
    text += "[[shot]]\nname = 'b'\ndestination = 'gateway'\npayload = 'none.hex'\n"
    text += "expires_after_ms = 1\n[strategy]\nload = 'nothing.py:None'\n"
    status, said = check(text)
    assert status == 2
    for words in (
        "shot[0].expires_after_ms = 'soon'",
        "trigger 'short'",
        "trigger 'units'",
        "none.hex: No such file",
        "there is no file",
    ):
        assert words in said, said
    assert "Errno" not in said


def test_wrong_values_do_not_hide_what_others_are_together(check, tmp_path):
    """Nor do wrong conditions of a trigger hide its others, or one file of TLS another."""
    text = GOOD.replace("1000", '"soon"').replace('"gateway"\npayload', '"nowhere"\npayload')
    text += (
        "[[trigger]]\nname = 'router'\nto = ['0x7a25', 'uniswap.eth']\ngas = { min = 2, max = 1 }\n"
    )
    text += "tip_wei = { min = '1 gwei', max = nan }\nvalue_wei = { min = 'x', max = '-1' }\n"
    text += "[[trigger.words]]\nindex = 0\n"
    text += "equals = ['0x7a250d5630B4cF539739dF2C5dAcb4c659F2488E', 'y']\n"
    text += NODE + 'ca_file = "none.pem"\ncertificate_file = "open.pem"\nlines = ["127.0.0.1:5"]\n'
    text += "deflat = true\n[recorder]\nmegabytes = 63\n[senders]\nworkers = 1\ncpus = [1, 2]\n"
    (tmp_path / "open.pem").write_text("")
    status, said = check(text)
    assert status == 2
    for words in (
        "shot[0].expires_after_ms = 'soon'",
        "recorder.megabytes = 63",
        "trigger[1].name = 'router': used twice",
        "trigger[1].tip_wei.max = nan",
        "shot[0].destination = 'nowhere': there is none of that name",
        "senders.cpus = [1, 2]: 1 workers",
        "to[0] = '0x7a25'",
        "to[1] = 'uniswap.eth'",
        "gas.min = 2",
        "value_wei.min = 'x'",
        "value_wei.max = '-1'",
        "words[0].equals[0] = '0x7a250d5630B4cF539739dF2C5dAcb4c659F2488E': its capitals",
        "words[0].equals[1] = 'y'",
        "source[1].deflat = True: no such key",
        "source[1].lines = ['127.0.0.1:5']",
        "none.pem",
        "open.pem can be read by others",
    ):
        assert said.count(words) == 1, (words, said)


def test_a_wrong_value_is_no_second_mistake(check):
    """What would follow from another value in its place is not said."""
    text = GOOD.replace('name = "gateway"', "name = 7").replace("127.0.0.1:19001", "127.0.0.1")
    text += '[[core]]\nstages = ["receive", "fed"]\n[senders]\nworkers = "2"\ncpus = [1]\n'
    text += '[strategy]\nload = "a b"\n[[trigger]]\nname = "t"\nshot = "armed by it"\n'
    status, said = check(text.replace("unjournalled = true", "unjournalled = 1"))
    assert status == 2
    assert said.count("barewire: ") == 6, said


@pytest.mark.parametrize(
    "wrong",
    [
        "[[shot]]\nname = 's'\ndestination = 'gateway'\npayload = 5\nexpires_after_ms = 1\n",
        "[[shot]]\nname = 's'\ndestination = 'gateway'\nexpires_after_ms = 1\n",
        "[[trigger]]\nname = 't'\nwords = [{ index = 'x', equals = [1] }]\n",
        "[[trigger]]\nname = 't'\nwords = [{ offset = 'x', min = 1 }]\n",
        "[[trigger]]\nname = 't'\nwords = [{ index = 0, equals = 1, mask = [] }]\n",
        NODE + "headers_file = 5\n",
        NODE + "ca_file = 5\n",
        NODE + "key_log_file = 5\n",
        NODE + "certificate_file = 5\nkey_file = 'x'\n",
        "[strategy]\nload = 5\n",
        "[recorder]\nmegabytes = 'x'\n[metrics]\nfolder = 5\n",
        "[core]\ncpu = 'x'\nstages = 5\n",
    ],
    ids=str,
)
def test_nothing_is_calculated_from_a_wrong_value(check, wrong):
    """No sum, no path; that it is wrong is all that is said."""
    status, said = check(GOOD + wrong)
    assert status == 2
    assert "barewire: " in said
    assert "Unread" not in said
    assert "Traceback" not in said


def test_an_entry_whose_name_is_wrong_is_read_all_the_same(check):
    wrong = NODE.replace('"node"', "5") + 'headers_file = "absent"\n'
    status, said = check(GOOD + wrong)
    assert status == 2
    assert "source ?: headers_file" in said


def test_triggers_that_are_too_many_together_are_named_before_the_start(check):
    many = "".join(f"[[trigger]]\nname = 't{n}'\ngas = {{ min = {n} }}\n" for n in range(65))
    status, said = check(GOOD + many)
    assert status == 2
    assert "64" in said


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("", f"statistics_every_s = {'9' * 5000}\n", "not TOML"),
        ("", "[" + ".".join("a" * 4000) + "]\nb = 1\n", "a = {'a':"),
        ("", '"\\u001b[31mred" = 1\n', "\\x1b[31mred = 1: no such key"),
    ],
)
def test_texts_that_readers_and_terminals_do_not_expect(check, before, after, words):
    status, said = check(before + after + GOOD)
    assert status == 2
    assert words in said
    assert said.replace("\n", "").isprintable()


def test_a_byte_order_mark_means_nothing(check):
    assert check("\ufeff" + GOOD)[0] == 0


def test_every_mistake_of_values_together_is_named(check):
    text = GOOD.replace("2488d", "2488E".upper()).replace(
        '"gateway"\npayload', '"nowhere"\npayload'
    )
    text = text.replace("unjournalled = true", "unjournalled = false")
    text += "[[trigger]]\nname = 'router'\nto = ['0x7a250d5630B4cF539739dF2C5dAcb4c659F2488E']\n"
    text += "[strategy]\nload = 'nothing.py:None'\n"
    status, said = check(text)
    assert status == 2
    for words in (
        "trigger[1].name = 'router': used twice",
        "shot[0].destination = 'nowhere'",
        "fire.unjournalled = false",
        "0x7a250d5630B4cF539739dF2C5dAcb4c659F2488E': its capitals are not those",
        "nothing.py",
    ):
        assert words in said
    assert said.count("barewire: ") >= 5


KEY = "0x" + "42" * 32


def signed(**changed: object) -> str:
    fields = {"to": "0x" + "11" * 20, "value": 1, "gas": 21000, "nonce": 0, "chainId": 1}
    fields |= {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 1}
    return Account.sign_transaction({**fields, **changed}, KEY).raw_transaction.hex()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("deadbeef", "no transaction that osaka takes (rlp_truncated)"),
        (signed(chainId=10), "a transaction of another chain than 1"),
        (signed(gas=20999), "no transaction that osaka takes (gas_intrinsic)"),
        (signed(gas=2**24 + 1), "no transaction that osaka takes (gas_max)"),
        (signed(), ""),
    ],
)
def test_a_payload_that_is_no_transaction_is_named(check, payload, words):
    status, said = check(GOOD.replace('payload_kind = "bytes"\n', ""), payload)
    assert (status, words in said) == (2 if words else 0, True)
    assert check(GOOD, payload)[0] == 0  # where it says that it is not meant to be one


def test_headers_that_come_twice_are_one(tmp_path):
    path = tmp_path / "headers"
    path.touch(mode=0o600)
    path.write_bytes(b"\xef\xbb\xbfX-A: 1\r\nCookie: a=b\r\nx-a: 2\r\ncookie: c=d\r\nHost: h\r\n")
    source = Source(name="n", url=Url.parse("ws://node.example"), headers_file="headers")
    got = headers_of(source, tmp_path / "appliance.toml")
    assert got == {"X-A": "1, 2", "Cookie": "a=b; c=d", "Host": "h"}
