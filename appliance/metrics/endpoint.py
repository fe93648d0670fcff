"""The endpoint that Prometheus scrapes. It runs in a process of its own, never in a hot one."""

from __future__ import annotations

import socket
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from appliance import causes
from appliance.metrics.exposition import CONTENT_TYPE, exposition
from appliance.metrics.files import open_all
from barewire.errors import BarewireError

__all__ = ["server"]

_PATIENCE_S = 10.0  # with a scraper that does not ask, or does not take its answer


class _Server(ThreadingHTTPServer):
    """As its parent, but for IPv6 too, without a look-up of names, and calm about who hangs up."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def server(address: str, folder: Path) -> ThreadingHTTPServer:
    """A server on `address` (HOST:PORT; port 0 takes a free one) for the loops in `folder`.

    Raises:
        BarewireError: an address that cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics; files are opened anew, so that loops may come and go."""

        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "metrics are at /metrics")
                return
            try:
                with open_all(folder) as (readers, refused):
                    body = exposition(readers, len(refused), causes.read(folder)).encode()
            except BarewireError as error:
                self.send_error(503, error.message)
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        raise _refusal(address, "a host or a port is missing")
    try:
        return _Server((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        raise _refusal(address, error.strerror or str(error)) from error
    except (ValueError, OverflowError) as error:  # a name that cannot be one, a port above 65535
        raise _refusal(address, str(error)) from error


def _refusal(address: str, why: str) -> BarewireError:
    return BarewireError(
        f"metrics cannot be served on {address}: {why}",
        hint="HOST:PORT of this machine, for example 127.0.0.1:9464",
    )
