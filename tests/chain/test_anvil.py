"""The node that the other tests here trust starts, answers and stops."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.chain.anvil import Anvil, RpcError


def test_it_answers_and_leaves_nothing():
    with Anvil("--chain-id", "4242") as node, Anvil() as other:
        assert node.port != other.port
        assert node.rpc("eth_chainId") == hex(4242)
        assert other.rpc("eth_blockNumber") == "0x0"
        assert Path(node.ipc).is_socket()
        with pytest.raises(RpcError):
            node.rpc("eth_noSuchMethod")
    assert not Path(node.ipc).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port))


def test_a_node_that_does_not_start_says_why():
    with pytest.raises(RuntimeError, match="no-such-option"):
        Anvil("--no-such-option").__enter__()
