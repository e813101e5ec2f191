"""Stands between a predecessor and its successor, passes their packets on, and does one thing:

    refuse FILE   makes FILE when the successor may accept
    refuse-early FILE   the same when it has got the sockets
    keep          does not pass on that the successor accepts
    kill          kills the successor when it may accept
    stop          stops the successor (SIGSTOP) when it may accept
    still PID FILE  stops the process PID before the successor gets the sockets, which it does when
                  there is FILE, and does not pass on that it is ready: a line says both
    end           ends the predecessor (SIGTERM) when the successor accepts, and passes a SIGTERM on
                  to the successor

Arguments: these words, "--", the command of the successor. A line on stderr: "between: successor
is PID".

The predecessor takes the process that says "hello" for the successor, and kills it. Here that is a
process that does nothing else, so that what is done about the successor itself can be seen.
"""

import os
import select
import signal
import socket
import struct
import sys
import time

split = sys.argv.index("--")
what, command = sys.argv[1:split], sys.argv[split + 1:]
above = socket.socket(fileno=int(os.environ["RINGGATE_TAKEOVER"]))
above.setblocking(True)
RIGHTS = socket.CMSG_SPACE(4 * 253) + socket.CMSG_SPACE(12)


def say(*words):
    os.write(2, (" ".join(map(str, ("between:",) + words)) + "\n").encode())


def receive(sender):
    """Returns the bytes, the descriptors and the id of the sender of a packet."""
    descriptors, pid = [], 0
    while True:
        try:
            data, control, _, _ = sender.recvmsg(1 << 16, RIGHTS)
            break
        except ConnectionResetError:
            pass  # what was sent before is still there
    for level, kind, value in control:
        if kind == socket.SCM_RIGHTS:
            count = len(value) // 4
            descriptors = list(struct.unpack("%di" % count, value[:4 * count]))
        elif kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("iII", value)[0]
    return data, descriptors, pid


def passed(receiver, data, descriptors):
    rights = struct.pack("%di" % len(descriptors), *descriptors)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    try:
        receiver.sendmsg([data], control)
    except BrokenPipeError:
        pass
    for fd in descriptors:
        os.close(fd)


def end_predecessor():
    """Stops it, so that what follows arrives at one moment."""
    os.kill(predecessor, signal.SIGSTOP)
    while True:
        with open("/proc/%d/stat" % predecessor) as stat:
            if stat.read().rsplit(") ", 1)[1].startswith("T"):
                break
    os.kill(predecessor, signal.SIGTERM)


def relay(below):
    successor = 0
    if what[0] == "end":
        signal.signal(signal.SIGTERM, lambda *_: os.kill(successor, signal.SIGTERM))
    waits = select.poll()
    waits.register(above, select.POLLIN)
    waits.register(below, select.POLLIN)
    while True:
        for fd, _ in waits.poll():
            is_from_above = fd == above.fileno()
            data, descriptors, pid = receive(above if is_from_above else below)
            if not data and is_from_above:
                below.shutdown(socket.SHUT_WR)
                waits.unregister(above)
                continue
            if not data:
                return
            if data == b"hello":
                successor = pid
                say("successor is", pid)
                continue
            if is_from_above and descriptors and what[0] == "refuse-early":
                open(what[1], "w").close()
            elif is_from_above and descriptors and what[0] == "still":
                os.kill(int(what[1]), signal.SIGSTOP)
                say("stopped")
                while not os.path.exists(what[2]):
                    time.sleep(0.01)
            elif data == b"ready" and what[0] == "still":
                say("ready")
                continue
            elif data == b"go" and what[0] == "refuse":
                open(what[1], "w").close()
            elif data == b"go" and what[0] in ("kill", "stop"):
                os.kill(successor, signal.SIGKILL if what[0] == "kill" else signal.SIGSTOP)
                if what[0] == "kill":
                    continue
            elif data.startswith(b"accepting") and what[0] == "keep":
                continue
            elif data.startswith(b"accepting") and what[0] == "end":
                end_predecessor()
            passed(below if is_from_above else above, data, descriptors)
            if data.startswith(b"accepting") and what[0] == "end":
                os.kill(predecessor, signal.SIGCONT)


predecessor = os.getppid()
relays = os.fork()
if relays:
    if what[0] == "end":
        signal.signal(signal.SIGTERM, lambda *_: os.kill(relays, signal.SIGTERM))
    above.send(b"hello")
    # The other process alone has the packets from here on.
    above.close()
    while True:
        signal.pause()
below, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
below.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
theirs.setblocking(False)
if os.fork() == 0:
    os.environ["RINGGATE_TAKEOVER"] = str(theirs.fileno())
    theirs.set_inheritable(True)
    below.close()
    above.close()
    os.execv(command[0], command)
theirs.close()
relay(below)
# The signal may come after the packets.
while what[0] == "end":
    time.sleep(0.02)
