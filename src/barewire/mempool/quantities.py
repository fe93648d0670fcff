"""Numbers and addresses as people write them in a configuration."""

from __future__ import annotations

import re
from decimal import Decimal

from barewire.errors import ConfigError, shown
from barewire.keccak import keccak256

__all__ = ["address_of", "amount_of", "checksummed"]

_WHOLE = "[0-9]+(?:_[0-9]+)*"  # underscores stand between digits, as in TOML
_AMOUNT = re.compile(rf"({_WHOLE}(?:\.[0-9]+)?)\s*(wei|gwei|ether)")
_LONGEST = 200  # characters; 2^256 in wei has 78 digits
_UNITS = {"wei": 1, "gwei": 10**9, "ether": 10**18}
_MAX = 2**256 - 1


def address_of(where: str, text: str) -> bytes:
    """The 20 bytes of a hexadecimal address, all in small letters, all in capitals, or as EIP-55.

    Raises:
        ConfigError: `text` is not one, or its capitals say that it was mistyped; `where` names the
            key.
    """
    if isinstance(text, str) and re.fullmatch("0x[0-9a-fA-F]{40}", text):
        address = bytes.fromhex(text[2:])
        if text[2:] in (text[2:].lower(), text[2:].upper()) or text == checksummed(address):
            return address
        raise ConfigError(
            f"{where} = {text!r}: its capitals are not those of this address (EIP-55): a digit is "
            "wrong, or a letter's case",
            hint="compare it with its source; without a checksum it is written in small letters",
        )
    raise ConfigError(
        f"{where} = {shown(text)}: not an address", hint="allowed: 0x and 40 hexadecimal digits"
    )


def checksummed(address: bytes) -> str:
    """`address` as text, with EIP-55's capital letters.

    Raises:
        ValueError: it is not 20 bytes.
    """
    if len(address) != 20:
        raise ValueError(f"an address is 20 bytes, not {len(address)}")
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        c.upper() if int(m, 16) > 7 else c for c, m in zip(digits, mask[:40], strict=True)
    )


def amount_of(where: str, value: int | str, most: int = _MAX) -> int:
    """A whole number from 0 to `most`: given, hexadecimal, or an amount like "1.5 ether".

    Raises:
        ConfigError: `value` is none of these; `where` names the key.
    """
    number: int | None = None
    if isinstance(value, int):
        number = value
    elif len(value) > _LONGEST:
        pass
    elif re.fullmatch("0x[0-9a-fA-F]+", value):
        number = int(value, 16)
    elif re.fullmatch(_WHOLE, value):
        number = int(value)
    elif match := _AMOUNT.fullmatch(value):
        exact = Decimal(match.group(1).replace("_", "")).as_tuple()
        scaled = int("".join(map(str, exact.digits))) * _UNITS[match.group(2)]
        exponent = int(exact.exponent)
        number, rest = divmod(scaled, 10**-exponent) if exponent < 0 else (scaled, 0)
        if rest:
            number = None
    if number is None or not 0 <= number <= most:
        bound = "2^256 - 1" if most == _MAX else str(most)
        raise ConfigError(
            f"{where} = {shown(value)}: not a whole number of wei or units in range",
            hint=f'allowed: 0 to {bound}, "0x...", or an amount like "1.5 ether" or "30 gwei"',
        )
    return number
