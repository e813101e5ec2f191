"""A WebSocket server and its client from a well-kept library, for a tunnel between them.

Usage: websocket_forwarded.py serve      sends messages back; says on stdout where it listens
       websocket_forwarded.py ask URL    any complaint is an exit code
"""

import asyncio
import sys

import websockets


async def echo(tunnel, path=None):
    async for message in tunnel:
        await tunnel.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, subprotocols=["chat"]) as server:
        print("listening on %s:%d" % server.sockets[0].getsockname(), flush=True)
        await asyncio.Future()


async def ask(url):
    async with websockets.connect(url, subprotocols=["mqtt", "chat"]) as tunnel:
        assert tunnel.subprotocol == "chat", tunnel.subprotocol
        for message in ["text", b"bytes", b"x" * 100_000]:
            await tunnel.send(message)
            assert await tunnel.recv() == message
    # Other protocols on the list and on a line of their own: the server is to see one alone.
    fields = [("Upgrade", "h2c"), ("Upgrade", "TLS/1.0, websocket")]
    async with websockets.connect(url, extra_headers=fields) as tunnel:
        await tunnel.send("text")
        assert await tunnel.recv() == "text"


if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    asyncio.run(asyncio.wait_for(ask(sys.argv[2]), 30))
