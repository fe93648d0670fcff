"""The only modules of barewire.rpc that open sockets: HTTP/1.1, HTTP/2, WebSocket, IPC.

All of them carry `Exchange` objects and report what became of each; none of them decides anything.
"""

from barewire.rpc.transports.base import Channel, Exchange, Sink
from barewire.rpc.transports.dial import Dialer
from barewire.rpc.transports.http1 import Http1Channel
from barewire.rpc.transports.http2 import Http2Channel
from barewire.rpc.transports.ipc import IpcChannel
from barewire.rpc.transports.websocket import WebSocketChannel

__all__ = [
    "Channel",
    "Dialer",
    "Exchange",
    "Http1Channel",
    "Http2Channel",
    "IpcChannel",
    "Sink",
    "WebSocketChannel",
]
