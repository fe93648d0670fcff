import asyncio
import gc
import socket
from contextlib import suppress

import pytest

from tests.stream_server import StreamServer


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_accepted_as_it_closes_is_closed_too(turns, recwarn):
    """At every stage of being accepted: in the backlog, taken, a transport, a task, served."""

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)

    async def main() -> None:
        server = StreamServer(serve)
        port = await server.listen()
        client.connect(("127.0.0.1", port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.close()
        assert server.connections == 0

    with socket.socket() as client:
        asyncio.run(main())
        gc.collect()
        client.settimeout(5)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert not [one.message for one in recwarn if one.category is ResourceWarning]


def test_a_server_that_fails_is_told_of():
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        raise AssertionError("what it was asked is wrong")

    async def main() -> None:
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        server = StreamServer(serve)
        port = await server.listen()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"?")
        async with asyncio.timeout(20):
            while not told:
                await asyncio.sleep(0.001)
        writer.close()
        await server.close()
        assert str(told[0]["exception"]) == "what it was asked is wrong"

    asyncio.run(main())
