"""Numbers and addresses as people write them in a configuration."""

from __future__ import annotations

import re
from decimal import Decimal

from barewire.errors import ConfigError, shown

__all__ = ["address_of", "amount_of"]

_WHOLE = "[0-9]+(?:_[0-9]+)*"  # underscores stand between digits, as in TOML
_AMOUNT = re.compile(rf"({_WHOLE}(?:\.[0-9]+)?)\s*(wei|gwei|ether)")
_LONGEST = 200  # characters; 2^256 in wei has 78 digits
_UNITS = {"wei": 1, "gwei": 10**9, "ether": 10**18}
_MAX = 2**256 - 1


def address_of(where: str, text: str) -> bytes:
    """The 20 bytes of a hexadecimal address; capitals (EIP-55) are not checked.

    Raises:
        ConfigError: `text` is not one; `where` names the key.
    """
    if re.fullmatch("0x[0-9a-fA-F]{40}", text):
        return bytes.fromhex(text[2:])
    raise ConfigError(
        f"{where} = {shown(text)}: not an address", hint="allowed: 0x and 40 hexadecimal digits"
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
