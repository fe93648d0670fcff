"""Addresses and amounts as people type them."""

from __future__ import annotations

import pytest
from eth_utils import is_checksum_address, to_checksum_address

from appliance import cli
from appliance.config import Amount
from barewire.errors import BarewireError, ConfigError
from barewire.execution.calldata import Slot, encode_call
from barewire.mempool.quantities import address_of, amount_of, checksummed
from barewire.mempool.triggers import Trigger, Word, compile_triggers

GOOD = "0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D"
MISTYPED = "0x7a250d5630B4cF539739dF2C5dAcb4c659F2488E"
RAW = bytes.fromhex(GOOD[2:])


def test_the_capitals_are_those_of_another_implementation():
    for seed in range(50):
        address = bytes([seed, 255 - seed]) * 10
        assert checksummed(address) == to_checksum_address(address)
        assert address_of("to", checksummed(address)) == address
        swapped = checksummed(address).swapcase().replace("X", "x")
        if not is_checksum_address(swapped) and swapped[2:] not in (
            swapped[2:].lower(),
            swapped[2:].upper(),
        ):
            with pytest.raises(ConfigError, match="EIP-55"):
                address_of("to", swapped)


def test_without_a_checksum_there_is_none_to_be_wrong():
    for text in (GOOD, GOOD.lower(), "0x" + GOOD[2:].upper()):
        assert address_of("to", text) == RAW


@pytest.mark.parametrize("text", [MISTYPED, GOOD.replace("B", "b", 1), GOOD.replace("d", "D", 1)])
def test_a_mistyped_address_is_refused_wherever_it_is_typed(text, capsys):
    for trigger in (
        Trigger("t", to=[text]),
        Trigger("t", sender=[text]),
        Trigger("t", words=[Word(index=0, equals=text)]),
    ):
        with pytest.raises(ConfigError, match="EIP-55"):
            compile_triggers([trigger])
    call = encode_call("transfer(address,uint256)", [Slot("to"), 1])
    with pytest.raises(BarewireError, match="EIP-55"):
        call.pack(to=text)
    assert call.pack(to=GOOD) == call.pack(to=RAW) == call.pack(to=GOOD[2:].lower())
    words = ["signer", "--key", "none", "--listen", "none", "--chain", "1"]
    caps = ["--max-value-wei", "1", "--max-fee-wei", "1"]
    assert cli.main([*words, "--target", text, *caps]) == 2
    assert "EIP-55" in capsys.readouterr().err


def test_amounts_have_units_wherever_they_are_typed(capsys):
    for text, wei in (("0.1 ether", 10**17), ("30 gwei", 3 * 10**10), ("7", 7), ("0x10", 16)):
        assert amount_of("x", text) == Amount.parse(text).wei == wei
    words = ["signer", "--key", "/nothing", "--listen", "none", "--chain", "1", "--target", GOOD]
    assert cli.main([*words, "--max-value-wei", "0.1 ether", "--max-fee-wei", "30 gwei"]) == 2
    assert "No such file" in capsys.readouterr().err  # as far as the key
    assert cli.main([*words, "--max-value-wei", "-1", "--max-fee-wei", "1"]) == 2
    assert "not a whole number of wei" in capsys.readouterr().err
