"""A service manager that starts one service, as systemd does: it hands sockets over, receives
notifications from the main process only, keeps stored descriptors, expects beats, and starts the
service again when it has ended.

Arguments: a JSON object, then the command of the service. Keys of the object:
    sockets    what to hand over: {"name", "kind", "port", "listen": bool}; the kind is tcp,
               udp, both (TCP of both families), unix, abstract or packets
    fdstore    how many descriptors are stored; absent: none, and nothing is said about it
    says       false: nothing is said about the store, as before systemd 254
    watchdog   limit in seconds
    abstract   true: the notifications go to an abstract address
    silent     true: notifications are not read until "hear"
    probe      true: before a socket is removed from the store, a byte goes to its address and back
    extra      further variables of the service

Lines on stdout: "notify TEXT" with "|" between assignments, "stored NAME", "not stored NAME"
(there is no room), "known NAME" (it is stored already), "removed NAME", "started PID", "main PID
own", "main PID alien", "ended STATUS", "socket NAME PORT", "watchdog expired", "served NAME" and
"not served NAME" of a probe, "lost", "found", "deaf", and what the service says.
Lines on stdin: "kill NUMBER", "stop" (no further start), "end" (`systemctl stop`), "hear", "deafen"
(notifications are not read, and no further one can be sent), "lose" (notifications reach nothing,
and the store is empty), "find" (they arrive again).
"""

import array
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time

options = json.loads(sys.argv[1])
command = sys.argv[2:]
directory = tempfile.mkdtemp()


def say(*words):
    print(*words, flush=True)


def handed(one):
    kind = one["kind"]
    if kind == "udp":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind == "tcp":
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    elif kind == "both":
        made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", one["port"]))
    elif kind in ("unix", "abstract"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if kind in ("tcp", "udp"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", one.get("port", 0)))
        say("socket", one["name"], made.getsockname()[1])
    elif kind == "abstract":
        made.bind("\0ringgate-test-%d-listens" % os.getpid())
    elif kind != "both":
        path = os.path.join(directory, one["name"])
        made.bind(path)
        say("socket", one["name"], path)
    if kind != "udp" and one.get("listen", True):
        made.listen(1024)
    return one["name"], made.detach()


FILLER = "X_FILLER=1"
own = [handed(one) for one in options.get("sockets", [])]
store = []
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
if options.get("abstract"):
    name = "@ringgate-test-%d" % os.getpid()
    notify.bind("\0" + name[1:])
else:
    name = os.path.join(directory, "notify")
    notify.bind(name)
# The services of other users may notify, too.
if not options.get("abstract"):
    os.chmod(name, 0o777)
    os.chmod(directory, 0o755)


def start():
    pid = os.fork()
    if pid:
        say("started", pid)
        return pid
    descriptors = store + own
    first = 3 + len(descriptors) + 100
    copies = [os.dup2(fd, first + at) for at, (_, fd) in enumerate(descriptors)]
    for at, copy in enumerate(copies):
        os.dup2(copy, 3 + at)
        os.close(copy)
    environment = dict(os.environ, NOTIFY_SOCKET=name, **options.get("extra", {}))
    if descriptors:
        environment["LISTEN_PID"] = str(os.getpid())
        environment["LISTEN_FDS"] = str(len(descriptors))
        environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in descriptors)
    if "fdstore" in options and options.get("says", True):
        environment["FDSTORE"] = str(options["fdstore"])
    if "watchdog" in options:
        environment["WATCHDOG_PID"] = str(os.getpid())
        environment["WATCHDOG_USEC"] = str(int(options["watchdog"] * 1e6))
    os.execve(command[0], command, environment)


def is_stored(fd):
    facts = os.fstat(fd)
    return any((s.st_dev, s.st_ino) == (facts.st_dev, facts.st_ino)
               for s in (os.fstat(other) for _, other in store))


def probe(name, fd):
    """Whether the service still accepts, long after its workers have read their commands."""
    time.sleep(0.3)
    try:
        with socket.create_connection(socket.socket(fileno=os.dup(fd)).getsockname(), 5) as client:
            client.settimeout(5)
            client.sendall(b"x")
            say("served" if client.recv(1) == b"x" else "not served", name)
    except OSError:
        say("not served", name)


def receive():
    """Reads a notification. Returns its assignments, of the main process."""
    space = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * 253)
    text, control, _, _ = notify.recvmsg(65536, space)
    descriptors, sender = array.array("i"), 0
    for level, kind, data in control:
        if kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[:len(data) - len(data) % 4])
        elif kind == socket.SCM_CREDENTIALS:
            sender = struct.unpack("iII", data)[0]
    text = text.decode()
    if text == FILLER:
        return {}
    if text == "BARRIER=1":
        assert len(descriptors) == 1
        os.close(descriptors[0])
        return {}
    if sender != main:
        say("ignored", sender, text.replace("\n", "|"))
        for fd in descriptors:
            os.close(fd)
        return {}
    fields = dict(line.split("=", 1) for line in text.split("\n") if line)
    if "FDSTORE" in fields:
        for fd in descriptors:
            # Without FDPOLL=0 systemd would poll it.
            if len(store) >= options.get("fdstore", 0) or is_stored(fd):
                # One that is stored already changes nothing (service_add_fd_store).
                say("known" if is_stored(fd) else "not stored", fields["FDNAME"])
                os.close(fd)
                continue
            assert fields["FDPOLL"] == "0", text
            assert len(fields["FDNAME"]) <= 255 and ":" not in fields["FDNAME"], text
            store.append((fields["FDNAME"], fd))
            say("stored", fields["FDNAME"])
    elif "FDSTOREREMOVE" in fields:
        for at in [at for at, one in enumerate(store) if one[0] == fields["FDNAME"]][::-1]:
            if options.get("probe"):
                probe(*store[at])
            os.close(store.pop(at)[1])
            say("removed", fields["FDNAME"])
    else:
        say("notify", text.replace("\n", "|"))
    return fields


def deafen():
    """Fills the queue of notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        filler.connect(notify.getsockname())
        try:
            while True:
                filler.send(FILLER.encode())
        except BlockingIOError:
            pass


def is_own(pid):
    """Whether a process is a child of this one, so that its end is noticed."""
    with open("/proc/%d/status" % pid) as status:
        parent, = (line.split()[1] for line in status if line.startswith("PPid:"))
    return int(parent) == os.getpid()


# A process whose parent has ended becomes a child of this one, as of process 1
# (PR_SET_CHILD_SUBREAPER).
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
main, is_alien, goes_on, is_ready, last_beat = start(), False, True, False, 0.0
commands = b""
wait = select.poll()
wait.register(0, select.POLLIN)
is_deaf = options.get("silent", False)
if not is_deaf:
    wait.register(notify, select.POLLIN)
while True:
    for fd, _ in wait.poll(5):
        if fd == notify.fileno():
            fields = receive()
            if "READY" in fields:
                is_ready = True
            if "MAINPID" in fields:
                # Looked at once, as systemd does (service_set_main_pid).
                main = int(fields["MAINPID"])
                is_alien = not is_own(main)
                say("main", main, "alien" if is_alien else "own")
            if "READY" in fields or "WATCHDOG" in fields:
                last_beat = time.monotonic()
        else:
            more = os.read(0, 4096)
            if not more:
                wait.unregister(0)
            *lines, commands = (commands + more).split(b"\n")
            for line in lines:
                word, *rest = line.decode().split()
                if word == "kill":
                    os.kill(main, int(rest[0]))
                elif word == "hear":
                    is_deaf = False
                    wait.register(notify, select.POLLIN)
                elif word == "deafen":
                    is_deaf = True
                    wait.unregister(notify)
                    deafen()
                    say("deaf")
                elif word == "lose":
                    os.rename(name, name + "-away")
                    while store:
                        os.close(store.pop()[1])
                    say("lost")
                elif word == "find":
                    os.rename(name + "-away", name)
                    say("found")
                else:
                    goes_on = False
                if word == "end":
                    os.kill(main, signal.SIGTERM)
                    if is_alien:
                        # It does not wait for what is not its child (unit_kill_context).
                        os.kill(main, signal.SIGKILL)
    if "watchdog" in options and is_ready:
        if time.monotonic() - last_beat > options["watchdog"]:
            say("watchdog expired")
            is_ready = False
    try:
        ended, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        # The successor's predecessor is about to end.
        continue
    if ended == main:
        # What it has sent comes first.
        while not is_deaf and select.select([notify], [], [], 0)[0]:
            receive()
        say("ended", status)
        is_ready = False
        if not goes_on:
            sys.exit(0)
        main, is_alien = start(), False
