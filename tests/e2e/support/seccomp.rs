//! A kernel that refuses a system call: seccomp filters (seccomp(2)) around ringgate.

use std::path::Path;
use std::process::Command;

use super::require;

/// Numbers of system calls. These are the same on every architecture.
pub(crate) const IO_URING_SETUP: u32 = 425;
pub(crate) const IO_URING_ENTER: u32 = 426;
pub(crate) const IO_URING_REGISTER: u32 = 427;

/// What stands behind it runs with a filter that refuses a call with an error, where its argument
/// `at` (from 0) has the low half `value`; without one always.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
number, error, at, value = map(int, sys.argv[1:5])
LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 3 if at >= 0 else 1, number)]
if at >= 0:
    steps += [(LOAD, 0, 0, 16 + 8 * at), (EQUAL, 0, 1, value)]
steps += [(RETURN, 0, 0, ERRNO | error), (RETURN, 0, 0, ALLOW)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
header = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filters))
program = ctypes.create_string_buffer(header)
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0) == 0
os.execv(sys.argv[5], sys.argv[5:])
"#;

/// The same from the moment on at which a file is there: until then a process of its own lets each
/// call pass (seccomp_unotify(2)).
const REFUSE_LATER: &str = r#"
import ctypes, fcntl, os, platform, select, socket, struct, sys
number, error, flag = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
LOAD, EQUAL, RETURN, ALLOW, NOTIFY = 0x20, 0x15, 0x06, 0x7FFF0000, 0x7FC00000
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
ours, theirs = socket.socketpair()
if os.fork() == 0:
    theirs.close()
    os.setpgid(0, 0)
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    waits = select.poll()
    waits.register(listener, select.POLLIN)
    while not any(events & select.POLLHUP for _, events in waits.poll()):
        call = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, call)
            answer = (-error, 0) if os.path.exists(flag) else (0, CONTINUE)
            reply = struct.pack("QqiI", *struct.unpack_from("Q", call), 0, *answer)
            fcntl.ioctl(listener, SEND, reply)
        except FileNotFoundError:
            pass  # the thread is gone
    os._exit(0)
ours.close()
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, NOTIFY), (RETURN, 0, 0, ALLOW)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
header = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filters))
program = ctypes.create_string_buffer(header)
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 8
seccomp = {"x86_64": 317, "aarch64": 277}[platform.machine()]
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
listener = libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(program))
assert listener >= 0, ctypes.get_errno()
socket.send_fds(theirs, [b"x"], [listener])
os.close(listener)
os.execv(sys.argv[4], sys.argv[4:])
"#;

/// Refuses every call of this number.
pub(crate) fn refusing(number: u32, error: i32) -> Command {
    python(REFUSE, &[number.to_string(), error.to_string(), "-1".into(), "0".into()])
}

/// Refuses calls of this number whose argument `at`, counted from 0, is `value`.
pub(crate) fn refusing_where(number: u32, error: i32, at: u32, value: u32) -> Command {
    let arguments = [number.to_string(), error.to_string(), at.to_string(), value.to_string()];
    python(REFUSE, &arguments)
}

/// Kills the thread that makes a call of this number, and no other one.
pub(crate) fn killing_at(number: u32) -> Command {
    // The action SECCOMP_RET_KILL_THREAD is 0.
    let script = REFUSE.replace("ERRNO | error", "0");
    python(&script, &[number.to_string(), "0".into(), "-1".into(), "0".into()])
}

/// Refuses calls of this number from the moment on at which the file exists.
pub(crate) fn refusing_from(number: u32, error: i32, file: &Path) -> Command {
    let file = file.to_str().unwrap().to_owned();
    python(REFUSE_LATER, &[number.to_string(), error.to_string(), file])
}

fn python(script: &str, arguments: &[String]) -> Command {
    let mut command = require("python3");
    command.arg("-c").arg(script).args(arguments);
    command
}
