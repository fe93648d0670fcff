"""Where datagrams go or come from, as a person writes it: ``239.1.1.1:9000@eth1``."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import ClassVar

from barewire.errors import BarewireError

__all__ = ["Place"]

_PATTERN = re.compile(
    r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\d+)(?:@(?P<interface>\S+))?"
)


class Place:
    """A UDP address.

    Attributes:
        address: IPv4 or IPv6, unicast or a multicast group.
        port: 0 to 65535; 0 takes one that is free, where that makes sense.
        interface: where a group is joined or sent to; None: where the kernel's routes say.

    Not a dataclass, because those are tables in a configuration, and this is written as a string.
    """

    __slots__ = ("address", "interface", "port")

    allowed: ClassVar[str] = "'192.0.2.1:9000', '[2001:db8::1]:9000' or '239.1.1.1:9000@eth1'"

    def __init__(self, address: str, port: int, interface: str | None = None) -> None:
        self.address = address
        self.port = port
        self.interface = interface

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that `text` writes.

        Raises:
            ValueError: it is not one; the sentence says why.
        """
        match = _PATTERN.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not ADDRESS:PORT or ADDRESS:PORT@INTERFACE")
        ip = ip_address(match["v6"] or match["v4"])
        if (ip.version == 6) != bool(match["v6"]):
            raise ValueError(f"{text!r}: only IPv6 addresses stand in brackets, and they have to")
        if isinstance(ip, IPv6Address) and ip.scope_id is not None:
            raise ValueError(f"{text!r} has a zone: write the interface behind it, @{ip.scope_id}")
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is an IPv4 address: write {ip.ipv4_mapped}:{match['port']}")
        if int(match["port"]) > 65535:
            raise ValueError(f"{text!r}: ports end at 65535")
        return cls(str(ip), int(match["port"]), match["interface"])

    @classmethod
    def argument(cls, text: str) -> Place:
        """For argparse's ``type=``: as :meth:`parse`, with an error that says what is allowed."""
        try:
            return cls.parse(text)
        except ValueError as error:
            raise BarewireError(f"{error}", hint=f"allowed: {cls.allowed}") from None

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}" + (f"@{self.interface}" if self.interface else "")
