"""The command itself: what it lists, and what it says of what is not there."""

from __future__ import annotations

import sys

import pytest

from appliance.cli import main

OPTIONAL = {"rpc": "httptools", "keys": "eth_keyfile", "signer": "eth_keyfile"}


def _without(monkeypatch, *names):
    """As if these modules were not installed, whether or not they were imported before."""
    for loaded in list(sys.modules):
        if loaded.split(".")[0] in names or loaded.startswith(
            ("appliance.commands.", "appliance.signing", "barewire.rpc", "barewire.execution")
        ):
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
