"""The command itself: what it lists, and what it says of what is not there."""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.commands import record
from appliance.metrics.files import create
from barewire.errors import BarewireError, OutageError
from dpdk_bindings.errors import BindingsError

OPTIONAL = {"rpc": "httptools", "keys": "eth_keyfile", "signer": "eth_keyfile"}
OURS = ("appliance.commands.", "appliance.signing", "barewire.rpc", "barewire.execution")


def _without(monkeypatch, *names, ours=OURS):
    """As if these modules were not installed, whether or not they were imported before.

    What is `ours` is imported anew by the test, and is afterwards what it was: in the table of
    modules, and as the attribute of its package that the import has replaced.
    """
    for loaded in list(sys.modules):
        if loaded.split(".")[0] in names or loaded.startswith(ours):
            package, _, name = loaded.rpartition(".")
            if hasattr(sys.modules.get(package), name):
                monkeypatch.setattr(sys.modules[package], name, sys.modules[loaded])
            monkeypatch.delitem(sys.modules, loaded)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_help_needs_no_optional_library(monkeypatch, capsys):
    _without(monkeypatch, *OPTIONAL.values())
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("run", "demo", "publish", *OPTIONAL))


@pytest.mark.parametrize("command", OPTIONAL)
def test_a_missing_library_is_named_with_what_to_install(monkeypatch, capsys, command):
    _without(monkeypatch, OPTIONAL[command])
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert OPTIONAL[command] in said
    assert "pip install 'barewire[" in said


def test_an_unknown_command_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["nosuch"])
    assert stopped.value.code == 2
    assert "'run'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "messages", "rate"),
    [([], 20_000, 2000), (["--messages", "500", "--rate", "10"], 500, 10)],
)
def test_the_demo_is_played_as_its_help_says(monkeypatch, words, messages, rate):
    played = []
    monkeypatch.setattr("appliance.commands.demo.play", lambda show: played.append(show) or 0)
    assert main(["demo", *words]) == 0
    assert [(show.messages, show.rate, show.loss, show.via) for show in played] == [
        (messages, rate, 0.01, None)
    ]


def test_the_live_demo_is_played_as_its_help_says(monkeypatch):
    played = []
    monkeypatch.setattr("appliance.demo.live.play_live", lambda live: played.append(live) or 0)
    assert main(["demo", "--live"]) == 0
    assert [(live.swaps, live.rate) for live in played] == [(500, 50.0)]


def test_a_full_disk_is_no_mistake_of_whoever_named_it(monkeypatch):
    monkeypatch.setattr("appliance.commands.record.read_records", lambda folder: [])
    words = argparse.Namespace(folder=Path(), last=None, output="json", to=Path("/dev/full"))
    with pytest.raises(OutageError, match="/dev/full: No space left on device"):
        record.run(words)
    assert main(["record", "--to", "/nonexistent/capture"]) == 2


def test_lines_of_one_feed_differ(tmp_path, capsys):
    (tmp_path / "a.hex").write_text("00")
    lines = ["--line-a", "127.0.0.1:9", "--line-b", "127.0.0.1:09"]
    assert main(["publish", str(tmp_path / "a.hex"), *lines]) == 2
    assert "is line A" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_full_disk_is_told_in_words(tmp_path, output):
    (tmp_path / "a.json").write_text("{}")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "appliance", "keys", "list", str(tmp_path), "-o", output],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("barewire: not all could be written: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", OPTIONAL)
def test_the_help_of_a_command_needs_nothing_of_it(monkeypatch, capsys, command):
    _without(monkeypatch, OPTIONAL[command])
    for words in ([command, "--help"], ["help", command]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "pip install 'barewire[" in said
        assert f"usage: barewire {command}" in said


def test_run_and_its_check_need_only_what_the_file_asks_for(monkeypatch, tmp_path, capsys):
    ours = (*OURS, "barewire.feeds.", "appliance.stream", "appliance.examine")
    missing = ("websockets", "eth_account", "eth_keyfile", "httptools", "uvloop", "h2")
    _without(monkeypatch, *missing, ours=ours)
    file = tmp_path / "a.toml"
    file.write_text('[[source]]\nname = "s"\nlines = ["127.0.0.1:19981"]\n')
    assert main(["run", "--config", str(file), "--check"]) == 0
    file.write_text('[[source]]\nname = "s"\nurl = "ws://127.0.0.1:1"\n')
    assert main(["run", "--config", str(file), "--check"]) == 2
    assert "pip install 'barewire[feeds]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["help"], "usage: barewire"), (["version"], "0."), (["--version"], "0.")]
)
def test_words_that_people_try(capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    assert said in capsys.readouterr().out


def test_json_is_asked_for_by_either_name(tmp_path):
    for words in (["-o", "json"], ["--json"], ["--output", "json"]):
        assert main(["metrics", "--folder", str(tmp_path / "none"), *words]) == 1


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_a_reader_that_has_read_enough_is_no_failure(tmp_path, output):
    """More than a pipe holds is written to one that nobody reads any more."""
    with create("hot", folder=tmp_path).path.open("rb"):
        code = "import sys; from appliance.cli import main; sys.exit(main())"
        words = [sys.executable, "-c", code, "metrics", "--folder", str(tmp_path), *output]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
            assert shown.stdout is not None
            shown.stdout.close()
            assert shown.stderr is not None
            assert shown.stderr.read() == b""
        assert shown.returncode == 0


def test_hints_stand_in_tracebacks():
    for kind in (BarewireError, BindingsError):
        said = "".join(traceback.format_exception(kind("no way", hint="try another")))
        assert "hint: try another" in said
        assert str(kind("no way", hint="try another")) == "no way"
        assert "hint" not in "".join(traceback.format_exception(kind("no way")))


def test_an_outage_is_told_from_a_mistake(tmp_path, capsys):
    providers = tmp_path / "rpc.toml"
    providers.write_text(
        'chain = "ethereum"\n[[provider]]\nname = "dead"\ntier = "public"\n'
        'http = "http://127.0.0.1:9"\n'
    )
    providers.chmod(0o600)
    nowhere, call = str(tmp_path / "none"), ["rpc", "call", "eth_blockNumber", "--config"]
    outages = (
        [*call, str(providers)],
        ["sources", "--folder", nowhere],
        ["samples", "--folder", nowhere],
        ["why", "ab" * 32, "--folder", nowhere],
        ["record", "--to", str(tmp_path / "x"), "--folder", nowhere],
    )
    assert [main(words) for words in outages] == [1] * len(outages)
    assert main([*call, nowhere]) == 2
    assert main(["why", "0x12", "--folder", nowhere]) == 2
    assert capsys.readouterr().err.count("barewire: ") == len(outages) + 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_failure(closed):
    code = "import sys; from appliance.cli import main; sys.exit(main())"
    words = f'exec "$0" -c "{code}" version {closed}'
    assert subprocess.run(["sh", "-c", words, sys.executable]).returncode == 0
