"""Opening connections: names resolved each time, TLS sessions reused, no delay, kept alive."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble

__all__ = ["Dialer", "Resolver"]

_RESOLVE_S = 2.0
"""How long a name may take to resolve; a resolver that hangs must not hold up the checks."""
_PROBE_S = 15
"""Idle seconds after which the kernel asks whether the other side is there; NATs forget sooner."""

Resolver = Callable[[str, int], Awaitable[list[str]]]
P = TypeVar("P", bound=asyncio.BaseProtocol)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` as the system's resolver gives them now."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class _ResumingContext(ssl.SSLContext):
    """Hands the last session of each host to the next connection.

    asyncio and uvloop both make their TLS objects by `wrap_bio`, without a way to name a session.
    """

    sessions: dict[str, ssl.SSLSession]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        host = kwargs.get("server_hostname")
        if kwargs.get("session") is None and host in self.sessions:
            kwargs["session"] = self.sessions[host]
        return super().wrap_bio(*args, **kwargs)


class Dialer:
    """Opens the connections of one provider.

    Attributes:
        resolver: host and port to IP addresses.
        connect_timeout_s: for name, TCP and TLS together.
    """

    def __init__(
        self,
        *,
        resolver: Resolver = resolve,
        ca_file: str = "",
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.resolver = resolver
        self.connect_timeout_s = connect_timeout_s
        self._ca_file = ca_file
        self._contexts: dict[str, _ResumingContext] = {}

    async def addresses(self, address: Address) -> list[str]:
        """The IP addresses that the name has now.

        Raises:
            OSError: it does not resolve, or not in time.
        """
        try:
            async with asyncio.timeout(_RESOLVE_S):
                return await self.resolver(address.host, address.port)
        except UnicodeError as error:  # no name that DNS could hold
            raise socket.gaierror(socket.EAI_NONAME, str(error)) from error

    def _context(self, alpn: str) -> _ResumingContext:
        context = self._contexts.get(alpn)
        if context is None:
            context = _ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
            context.sessions = {}
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._ca_file:
                context.load_verify_locations(self._ca_file)
            else:
                context.load_default_certs()
            context.set_alpn_protocols([alpn])
            self._contexts[alpn] = context
        return context

    async def tcp(
        self, factory: Callable[[], P], address: Address, alpn: str = "http/1.1"
    ) -> tuple[asyncio.Transport, P, str]:
        """Connects to one of the host's present addresses.

        Returns:
            The transport, the protocol, and the IP address that was reached.

        Raises:
            Trouble: with `Fault.TRANSPORT`, saying which step failed.
        """
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                return await self._tcp(factory, address, alpn)
        except TimeoutError:
            why = f"no connection within {self.connect_timeout_s:g} s"
        except ssl.SSLCertVerificationError as error:
            why = f"TLS certificate refused: {error.verify_message}"
        except ssl.SSLError as error:
            why = f"TLS: {error.reason or error}"
        except socket.gaierror as error:
            why = f"cannot resolve {address.host}: {error.strerror}"
        except OSError as error:
            why = f"cannot connect: {error.strerror or error}"
        raise Trouble(Fault.TRANSPORT, why, untouched=True)

    async def _tcp(
        self, factory: Callable[[], P], address: Address, alpn: str
    ) -> tuple[asyncio.Transport, P, str]:
        loop = asyncio.get_running_loop()
        addresses = await self.addresses(address)
        error: OSError = socket.gaierror(socket.EAI_NONAME, "no addresses")
        for ip in addresses:
            try:
                transport, protocol = await loop.create_connection(
                    factory,
                    ip,
                    address.port,
                    ssl=self._context(alpn) if address.secure else None,
                    server_hostname=address.host if address.secure else None,
                )
            except ssl.SSLError:
                raise
            except OSError as failed:
                error = failed
                continue
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S // 3)
            return transport, protocol, ip
        raise error

    def keep_session(self, transport: asyncio.BaseTransport, host: str, alpn: str) -> None:
        """Remembers the TLS session of a connection that has been answered on.

        TLS 1.3 sends its tickets after the handshake, so this is called after the first answer.
        """
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.session is not None:
            self._context(alpn).sessions[host] = tls.session
