"""What `barewire run` answers to a wrong configuration: the key, the value, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli import main

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


def test_the_example_is_good(capfd):
    status = main(["run", "--config", str(ROOT / "examples/appliance.toml"), "--check"])
    assert status == 0, capfd.readouterr().err


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
