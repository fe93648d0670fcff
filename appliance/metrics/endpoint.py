"""The endpoint that Prometheus scrapes. It runs in a process of its own, never in a hot one."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from appliance.metrics.exposition import CONTENT_TYPE, exposition
from appliance.metrics.files import open_all
from barewire.errors import BarewireError

__all__ = ["server"]


def server(address: str, folder: Path) -> ThreadingHTTPServer:
    """A server on `address` (HOST:PORT; port 0 takes a free one) for the loops in `folder`.

    Raises:
        BarewireError: an address that cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics; files are opened anew, so that loops may come and go."""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "metrics are at /metrics")
                return
            try:
                readers = open_all(folder)
            except BarewireError as error:
                self.send_error(503, error.message)
                return
            body = exposition(readers).encode()
            for reader in readers:
                reader.close()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    host, _, port = address.rpartition(":")
    try:
        return ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise BarewireError(
            f"metrics cannot be served on {address}: {error}",
            hint="HOST:PORT of this machine, for example 127.0.0.1:9464",
        ) from error
