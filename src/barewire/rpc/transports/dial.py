"""Opening connections: names resolved each time, TLS sessions reused, no delay, kept alive.

A name often has several addresses, of which one leads nowhere: so they are tried a quarter of a
second apart, families taking turns, and the first that is there is taken (happy eyeballs, RFC
8305).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from itertools import zip_longest
from typing import Any, TypeVar

from barewire.rpc.addresses import Address
from barewire.rpc.faults import Fault, Trouble

__all__ = ["Dialer", "Resolver"]

_RESOLVE_S = 2.0
"""How long a name may take to resolve; a resolver that hangs must not hold up the checks."""
_NEXT_S = 0.25
"""RFC 8305 section 5: how long one address may be tried alone."""
_PROBE_S = 15
"""Idle seconds after which the kernel asks whether the other side is there; NATs forget sooner."""

Resolver = Callable[[str, int], Awaitable[list[str]]]
P = TypeVar("P", bound=asyncio.BaseProtocol)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` as the system's resolver gives them now.

    A thread of its own asks. Those of libuv, whom uvloop would have asked, are missing in a forked
    child, whose exit waits for them and crashes; those of asyncio hold up the interpreter's exit
    for as long as a resolver hangs.
    """
    try:
        return _addresses(host, port, socket.AI_NUMERICHOST)  # asks nobody
    except OSError:
        pass
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        found: list[str] | Exception
        try:
            found = _addresses(host, port)
        except (OSError, UnicodeError) as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(tell, found)

    def tell(found: list[str] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    threading.Thread(target=look_up, name="barewire-resolve", daemon=True).start()
    return await answer


def _addresses(host: str, port: int, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(_in_numbers(*info[4]) for info in found))


def _in_numbers(address: str | int, _port: int | bytes, *of_six: int) -> str:
    """With the zone of a link-local address, which Python gives apart."""
    return f"{address}%{of_six[1]}" if of_six and of_six[1] else str(address)


async def _connected(ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        failed = sock.connect_ex((ip, port))
        if failed == errno.EINPROGRESS:
            await _writable(sock)
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if failed:
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


async def _writable(sock: socket.socket) -> None:
    """Not by `sock_connect`: uvloop's asks libuv's threads for the address; see `resolve`."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(sock, tell)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


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
        self._reached = ""
        self._failed: set[str] = set()
        self._contexts: dict[str, _ResumingContext] = {}

    async def addresses(self, address: Address) -> list[str]:
        """The IP addresses that the name has now.

        Raises:
            OSError: it does not resolve, or not in time.
        """
        try:
            async with asyncio.timeout(_RESOLVE_S):
                host = f"{address.host}%{address.zone}" if address.zone else address.host
                return await self.resolver(host, address.port)
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
            # Not strerror: asyncio puts the address there, for which the loop was given a number.
            why = f"cannot connect: {os.strerror(error.errno) if error.errno else error}"
        raise Trouble(Fault.TRANSPORT, why, untouched=True)

    async def _tcp(
        self, factory: Callable[[], P], address: Address, alpn: str
    ) -> tuple[asyncio.Transport, P, str]:
        loop = asyncio.get_running_loop()
        ips = self._in_order(await self.addresses(address))
        sock, ip = await self._first(ips, address.port)
        self._failed.add(ip)  # unless it comes to something
        try:
            # Before the transport has it, which closes it as soon as the other side has hung up.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S // 3)
            transport, protocol = await loop.create_connection(
                factory,
                sock=sock,
                ssl=self._context(alpn) if address.secure else None,
                server_hostname=address.host if address.secure else None,
            )
        except BaseException:
            sock.close()
            raise
        self._failed.discard(ip)
        return transport, protocol, ip

    def _in_order(self, ips: list[str]) -> list[str]:
        """The last that was reached first, families in turns, who failed lately last."""
        self._failed &= set(ips)
        six = [ip for ip in ips if ":" in ip]
        four = [ip for ip in ips if ":" not in ip]
        first, other = (six, four) if ips and ":" in ips[0] else (four, six)
        turns = [ip for pair in zip_longest(first, other) for ip in pair if ip is not None]
        return sorted(turns, key=lambda ip: (ip in self._failed, ip != self._reached))

    async def _first(self, ips: list[str], port: int) -> tuple[socket.socket, str]:
        """A connection to whichever of `ips` is there first.

        Raises:
            OSError: none is.
        """
        waiting = list(reversed(ips))
        trying: dict[asyncio.Task[socket.socket], str] = {}
        error: OSError = socket.gaierror(socket.EAI_NONAME, "no addresses")
        try:
            while waiting or trying:
                if waiting:
                    ip = waiting.pop()
                    trying[asyncio.create_task(_connected(ip, port))] = ip
                done, _ = await asyncio.wait(
                    trying,
                    timeout=_NEXT_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    ip = trying.pop(task)
                    failed = task.exception()
                    if failed is None:
                        self._failed |= set(trying.values())  # they had more time
                        self._reached = ip
                        return task.result(), ip
                    if not isinstance(failed, OSError):
                        raise failed
                    self._failed.add(ip)
                    error = failed
            raise error
        finally:
            for task in trying:
                task.cancel()
            for left in await asyncio.gather(*trying, return_exceptions=True):
                if isinstance(left, socket.socket):
                    left.close()

    def keep_session(self, transport: asyncio.BaseTransport, host: str, alpn: str) -> None:
        """Remembers the TLS session of a connection that has been answered on.

        TLS 1.3 sends its tickets after the handshake, so this is called after the first answer.
        """
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.session is not None:
            self._context(alpn).sessions[host] = tls.session
