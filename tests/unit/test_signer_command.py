"""``barewire signer``: a key in a process of its own."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from appliance import cli
from appliance.signing import RingExchange, SocketExchange
from barewire.errors import BarewireError
from barewire.execution.external import ExternalSigner
from barewire.execution.template import Caps, Template
from dpdk_bindings.ring import remove_ring

SECRET = b"\x51" * 32
ADDRESS = Account.from_key(SECRET).address
TARGET = b"\x61" * 20
POLICY = [
    *("--chain", "1", "--target", "0x" + TARGET.hex()),
    *("--max-value-wei", "1000", "--max-fee-wei", "2100000"),
]


def started(folder: Path, *words: object) -> subprocess.Popen[str]:
    (folder / "trader").write_text(SECRET.hex())
    (folder / "trader").chmod(0o400)
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "appliance", "signer"),
            *("--credential", "trader", *POLICY, *map(str, words)),
        ],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(folder), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


def use(signer: ExternalSigner) -> None:
    """Signs 100 times within the policy, and once outside of it."""
    caps = Caps(fee_cap_wei=10**9, value_wei=10**9)
    template = Template(signer, type=2, chain_id=1, to=TARGET, gas=21000, caps=caps)
    for nonce in range(100):
        raw = bytes(template.fire(nonce, 100, value_wei=nonce))
        assert Account.recover_transaction(raw) == ADDRESS
    with pytest.raises(BarewireError, match="value 1001 wei: the policy allows 1000"):
        template.fire(100, 100, value_wei=1001)


def test_over_a_socket(tmp_path):
    path = tmp_path / "signer.sock"
    process = started(tmp_path, "--listen", path)
    until = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    exchange = SocketExchange(path)
    use(ExternalSigner(exchange))
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE)[0] == 0
    exchange.close()
    said = ended(process)
    assert f"signing for {ADDRESS}" in said
    assert "signed 100, refused 1" in said
    assert not path.exists()


@pytest.fixture
def rings() -> Iterator[str]:
    name = f"test-command-{os.getpid()}"
    yield name
    for side in ("asks", "answers"):
        if Path(f"/dev/shm/dpb-{name}-{side}.ring").exists():
            remove_ring(f"shm:{name}-{side}")


def test_over_rings_with_presignatures(tmp_path, rings):
    presign = ("--presign", 512, "--presign-core", 0, "--accept-snapshot-risk")
    process = started(tmp_path, "--rings", rings, *presign)
    exchange = RingExchange(rings, timeout_s=20)
    use(ExternalSigner(exchange))
    exchange.close()
    again = RingExchange(rings, timeout_s=20)  # who asks may be started anew
    use(ExternalSigner(again))
    assert "signed 200, refused 2" in ended(process)
    again.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--credential", "x", "--listen", "/tmp/x", *POLICY], "no systemd credentials"),
        (["--key", "/no/such", "--listen", "/tmp/x", *POLICY], "No such file"),
        (
            ["--key", "/no/such", "--listen", "/tmp/x", *POLICY, "--max-fee-wei", "-1"],
            "not a whole number",
        ),
    ],
)
def test_what_is_refused(words, said, capsys, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("appliance.commands.signer.harden", lambda: None)
    assert cli.main(["signer", *words]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("target", ["0x12", "zz" * 20])
def test_what_is_no_address_is_refused(target, capsys):
    words = ["signer", "--key", "x", "--listen", "y", *POLICY, "--target", target]
    assert cli.main(words) == 2
    assert target in capsys.readouterr().err
