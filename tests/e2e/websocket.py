"""Speaks to a WebSocket tunnel as a well-kept client library does; any complaint is an exit code.

Usage: websocket.py ECHO_URL NAME_URL: behind the first URL is a server that sends back what it
receives, behind the second one that sends "name" and closes.
"""

import asyncio
import sys

import websockets

LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 65537, 3_000_000]


def pattern(length):
    return bytes(index * 31 % 251 for index in range(min(length, 10_007))) * (length // 10_007 + 1)


async def expect_echo(tunnel, expected):
    """Frames may be cut anywhere: only the bytes count."""
    received = bytearray()
    while len(received) < len(expected):
        received += await tunnel.recv()
    assert received == expected, f"{len(received)} bytes are not the {len(expected)} that were sent"


async def messages_of_every_length(url):
    async with websockets.connect(url, max_size=None) as tunnel:
        for length in LENGTHS:
            payload = pattern(length)[:length]
            sending = asyncio.ensure_future(tunnel.send(payload))
            await expect_echo(tunnel, payload)
            await sending
    assert tunnel.close_code == 1000, tunnel.close_code


async def pings_between_fragments(url):
    async with websockets.connect(url, max_size=None) as tunnel:

        async def fragments():
            for index in range(20):
                yield pattern(1000 + index)
                pong = await tunnel.ping(b"ping %d" % index)
                await asyncio.wait_for(pong, 5)

        expected = b"".join(pattern(1000 + index) for index in range(20))
        sending = asyncio.ensure_future(tunnel.send(fragments()))
        await expect_echo(tunnel, expected)
        await sending


async def closes(url):
    for code in [1000, 1001, 3000, 4999]:
        tunnel = await websockets.connect(url)
        await tunnel.close(code, "enough")
        assert tunnel.close_code == code, (tunnel.close_code, code)


async def text_is_refused(url):
    async with websockets.connect(url) as tunnel:
        await tunnel.send("text")
        try:
            await tunnel.recv()
        except websockets.ConnectionClosedError as error:
            assert error.code == 1003, error
        else:
            raise AssertionError("text is not refused")


async def no_subprotocol_is_agreed_on(url):
    for names in [["chat"], ["mqtt"], ["chat", "superchat"]]:
        async with websockets.connect(url, subprotocols=names) as tunnel:
            assert tunnel.subprotocol is None, tunnel.subprotocol
            await tunnel.send(b"payload")
            await expect_echo(tunnel, b"payload")


async def the_end_of_the_upstream_is_a_close(url):
    async with websockets.connect(url) as tunnel:
        await expect_echo(tunnel, b"name")
        try:
            await tunnel.recv()
        except websockets.ConnectionClosedOK as error:
            assert error.code == 1000, error
        else:
            raise AssertionError("more than the name")


async def main():
    echo, name = sys.argv[1:]
    await messages_of_every_length(echo)
    await pings_between_fragments(echo)
    await closes(echo)
    await text_is_refused(echo)
    await no_subprotocol_is_agreed_on(echo)
    await the_end_of_the_upstream_is_a_close(name)


asyncio.run(asyncio.wait_for(main(), 60))
