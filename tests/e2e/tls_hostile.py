"""A TLS client that breaks rules, or comes close; any surprise is an exit code.

Usage: tls_hostile.py WHAT ADDRESS...: behind each address TLS ends in front of an echo. WHAT is the
name of a function below.

It uses names of tlslite-ng that are not public, so that version is pinned where it is installed.
"""

import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import AlertDescription, AlertLevel, KeyUpdateMessageType
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert
from tlslite.messages import Alert, ApplicationData

TLS12, TLS13 = (3, 3), (3, 4)


def connect(address, version, record_limit=None):
    host, port = address.rsplit(":", 1)
    raw = socket.create_connection((host, int(port)), 20)
    client = TLSConnection(raw)
    client.closeSocket = False
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = version
    settings.keyShares = ["x25519"]
    if record_limit:
        client._recordLayer.send_record_limit = record_limit
        client._send_record_limit = record_limit
    client.handshakeClientCert(serverName="mail.test", settings=settings)
    return client, raw


def send(client, message):
    for _ in client._sendMsg(message):
        pass


def expect_echo(client, payload):
    client.write(payload)
    received = client.read(min=len(payload), max=len(payload))
    assert received == payload, f"{received!r} is not {payload!r}"


def flood(client, count, one):
    """Sends `one` message `count` times, of which an early one is too much: no clean end follows."""
    try:
        for _ in range(count):
            one()
        while client.read(min=1, max=65536):
            pass
    except (ConnectionError, TLSAbruptCloseError, TLSRemoteAlert):
        return
    raise AssertionError("a clean end")


def key_updates_without_data(address):
    for kind in [KeyUpdateMessageType.update_requested, KeyUpdateMessageType.update_not_requested]:
        client, _ = connect(address, TLS13)
        expect_echo(client, b"before")

        def one():
            for _ in client.send_keyupdate_request(kind):
                pass

        flood(client, 2000, one)


def key_updates_with_data(address):
    client, _ = connect(address, TLS13)
    for count in range(60):
        for _ in client.send_keyupdate_request(KeyUpdateMessageType.update_requested):
            pass
        expect_echo(client, b"message %d" % count)


def empty_records(address):
    for version in [TLS12, TLS13]:
        client, _ = connect(address, version)
        expect_echo(client, b"before")
        # A message of its own for each: sending changes it.
        flood(client, 3000, lambda: send(client, ApplicationData().create(bytearray(0))))


def a_few_empty_records(address):
    for version in [TLS12, TLS13]:
        client, _ = connect(address, version)
        for count in range(10):
            send(client, ApplicationData().create(bytearray(0)))
            expect_echo(client, b"message %d" % count)


def warnings(address):
    client, _ = connect(address, TLS12)
    expect_echo(client, b"before")
    canceled = AlertDescription.user_canceled
    flood(client, 300, lambda: send(client, Alert().create(canceled, AlertLevel.warning)))


def a_hello_in_records_of_8_bytes(address):
    for version in [TLS12, TLS13]:
        client, _ = connect(address, version, record_limit=8)
        expect_echo(client, b"x" * 100)


def half_closed(address):
    for version in [TLS12, TLS13]:
        client, _ = connect(address, version)
        # In one segment: the answer is to be sent when the end has come.
        client.sock.buffer_writes = True
        client.write(b"question")
        send(client, Alert().create(AlertDescription.close_notify, AlertLevel.warning))
        client.sock.flush()
        client.sock.buffer_writes = False
        assert client.read(min=8, max=100) == b"question"
        # Its end is a close_notify, not just that of the connection.
        assert client.read(min=1, max=100) == b""


what, *addresses = sys.argv[1:]
for one in addresses:
    globals()[what](one)
