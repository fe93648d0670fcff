"""Frames in, frames out: AF_XDP, captures and kernel sockets for Python.

Knows Ethernet, IP, UDP and TCP, and nothing of what the bytes mean.
"""

from pathlib import Path

from dpdk_bindings.datagram import Channel, DatagramEndpoint, Datagrams, open_datagram
from dpdk_bindings.errors import BindingsError, Released
from dpdk_bindings.port import FLOW_NONE, Burst, Port, frame_dtype, open_port
from dpdk_bindings.shared_port import SharedPort
from dpdk_bindings.stream import Connection, StreamEndpoint, StreamState, open_stream

__all__ = [
    "FLOW_NONE",
    "BindingsError",
    "Burst",
    "Channel",
    "Connection",
    "DatagramEndpoint",
    "Datagrams",
    "Port",
    "Released",
    "SharedPort",
    "StreamEndpoint",
    "StreamState",
    "frame_dtype",
    "include_dir",
    "open_datagram",
    "open_port",
    "open_stream",
]


def include_dir() -> Path:
    """The folder to put on a C compiler's include path for ``dpdk_bindings/*.h``."""
    return Path(__file__).resolve().parent / "include"
