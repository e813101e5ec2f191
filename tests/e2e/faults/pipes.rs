//! No pipe for a splice: bytes are copied instead, and the records say so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use super::DRIVERS;
use crate::support::{
    Process, SHORT, Setup, Upstream, as_user, bytes, l4, new_user, refusing, require,
};

const LENGTH: usize = 24 * 1024 * 1024;

/// Much passes in both directions, byte-exact, and is copied for this reason.
#[track_caller]
fn is_copied(driver: &str, through: std::process::Command) {
    let backend = Upstream::listen();
    let (config, server) = (l4(backend.address(), "", ""), format!("driver = \"{driver}\""));
    let gate = Setup { config, server, through: Some(through), ..Setup::default() }.start();
    let (client, upstream) = (gate.connect("ingress"), backend.accept());
    let ways = [(&client, &upstream, bytes(1, LENGTH)), (&upstream, &client, bytes(2, LENGTH))];
    thread::scope(|scope| {
        for (from, to, sent) in &ways {
            let (mut from, mut to): (&TcpStream, &TcpStream) = (from, to);
            scope.spawn(move || from.write_all(sent).unwrap());
            scope.spawn(move || {
                let mut received = vec![0; sent.len()];
                to.read_exact(&mut received).unwrap();
                assert!(received == *sent, "other bytes over {driver}");
            });
        }
    });
    drop((client, upstream));
    let record = gate.record();
    let relay = (record.text("relay"), record.text("relay_reason"));
    assert_eq!(relay, ("copy", "no_pipe"), "{driver}: {record:?}");
    let moved = (record.number("bytes_up"), record.number("bytes_down"));
    assert_eq!(moved, (LENGTH as u64, LENGTH as u64), "{driver}");
}

#[test]
fn where_pipes_are_refused_bytes_are_copied() {
    for driver in DRIVERS {
        for error in [libc::EMFILE, libc::ENFILE, libc::EPERM] {
            is_copied(driver, refusing(libc::SYS_pipe2 as u32, error));
        }
    }
}

/// Becomes this user and takes all pages that its pipes may have, until it is ended.
const TAKE_ALL_PAGES: &str = "
import fcntl, os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
F_SETPIPE_SZ, F_GETPIPE_SZ, pipes = 1031, 1032, []
while not pipes or fcntl.fcntl(pipes[-1][0], F_GETPIPE_SZ) >= 65536:
    pipes.append(os.pipe())
    try:
        fcntl.fcntl(pipes[-1][0], F_SETPIPE_SZ, 1 << 20)
    except PermissionError:
        pass
print('all taken', flush=True)
time.sleep(600)
";

#[test]
fn an_ordinary_user_without_pipe_pages_is_served_by_copies() {
    // Otherwise the pages would be missing in other tests: they all have the same user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for driver in DRIVERS {
        let user = new_user();
        let mut takes = require("python3");
        takes.args(["-c", TAKE_ALL_PAGES, &user.to_string()]);
        let takes = Process::spawn(takes);
        takes.line_with("all taken", SHORT);
        is_copied(driver, as_user(user, "true"));
    }
}
