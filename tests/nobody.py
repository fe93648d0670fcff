"""An address at which nobody listens, for sure: its port is taken as long as this process lives."""

from __future__ import annotations

import os
import socket

__all__ = ["NOBODY"]

with socket.socket() as _socket:
    _socket.bind(("127.0.0.1", 0))
    NOBODY = f"127.0.0.1:{_socket.getsockname()[1]}"
    os.dup(_socket.fileno())  # which holds it: connections are refused
