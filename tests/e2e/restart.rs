//! One process after another, and beside another, on the same addresses.
//!
//! The tests have a network of their own: addresses must stay the same from one process to the
//! next, and free in between.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{PidfdFlags, Signal, pidfd_open};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{
    Echo, Ringgate, SHORT, SOON, Setup, UdpEcho, inside_namespace, l4, require, wait_for,
    with_deadlines,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// Below the ports that the kernel chooses from.
const ADDRESS: &str = "127.0.0.1:7000";

fn address() -> SocketAddr {
    ADDRESS.parse().unwrap()
}

/// TCP and UDP on [`ADDRESS`], to these echoes.
fn config(tcp: &Echo, udp: &UdpEcho) -> String {
    let datagrams = format!(
        "[[listener]]\nname = \"datagrams\"\nlisten = \"{ADDRESS}\"\nprotocol = \"udp\"\n\
         cluster = \"datagrams\"\n[cluster.datagrams]\nendpoints = [\"{}\"]\n",
        udp.address()
    );
    l4(tcp.address(), "", "").replace("127.0.0.1:0", ADDRESS) + &datagrams
}

fn setup(config: &str, driver: &str) -> Setup {
    let server = format!("driver = \"{driver}\"");
    Setup { config: config.to_owned(), server, ..Setup::default() }
}

fn tcp_client() -> TcpStream {
    with_deadlines(TcpStream::connect(address()).unwrap())
}

fn udp_client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address()).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

#[track_caller]
fn echoes(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[track_caller]
fn answers(client: &UdpSocket) {
    client.send(b"hello").unwrap();
    let mut answer = [0; 10];
    let length = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"hello");
}

/// Waits for the end of the process without losing a moment.
#[track_caller]
fn is_gone(gate: &Ringgate) {
    let process = pidfd_open(gate.pid(), PidfdFlags::empty()).unwrap();
    let limit = Timespec::try_from(SHORT).unwrap();
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    assert_eq!(poll(&mut ended, Some(&limit)), Ok(1), "it does not end");
}

#[test]
fn its_ports_are_free_when_it_is_gone() {
    if !inside_namespace("restart::its_ports_are_free_when_it_is_gone") {
        return;
    }
    let config = config(&Echo::start(), &UdpEcho::start(""));
    for driver in BOTH {
        for round in 0..20 {
            let mut gate = setup(&config, driver).start();
            // A connection that the test closes first leaves nothing behind at the port.
            echoes(&mut tcp_client());
            answers(&udp_client());
            gate.signal(Signal::TERM);
            is_gone(&gate);
            // Without a second try, and without a wish to share them.
            let udp = UdpSocket::bind(address());
            assert!(udp.is_ok(), "UDP, {driver}, round {round}: {udp:?}");
            let tcp = TcpListener::bind(address());
            assert!(tcp.is_ok(), "TCP, {driver}, round {round}: {tcp:?}");
            assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        }
    }
}

#[test]
fn a_start_succeeds_right_behind_a_kill() {
    if !inside_namespace("restart::a_start_succeeds_right_behind_a_kill") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listen = format!("[\"{ADDRESS}\", \"unix:{}\"]", path.display());
    let config = config(&Echo::start(), &UdpEcho::start(""));
    // The first listener is the one for TCP.
    let config = config.replacen(&format!("\"{ADDRESS}\""), &listen, 1);
    for driver in BOTH {
        let mut gate = setup(&config, driver).start();
        for _ in 0..8 {
            let mut clients: Vec<TcpStream> = (0..100).map(|_| tcp_client()).collect();
            clients.iter_mut().for_each(echoes);
            let datagrams: Vec<UdpSocket> = (0..100).map(|_| udp_client()).collect();
            datagrams.iter().for_each(answers);
            UnixStream::connect(&path).unwrap();
            gate.signal(Signal::KILL);
            is_gone(&gate);
            gate = setup(&config, driver).start();
        }
        echoes(&mut tcp_client());
        answers(&udp_client());
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn a_new_process_starts_beside_one_that_drains() {
    if !inside_namespace("restart::a_new_process_starts_beside_one_that_drains") {
        return;
    }
    let config = config(&Echo::start(), &UdpEcho::start(""));
    for driver in BOTH {
        let mut old = setup(&config, driver).start();
        let sockets = old.sockets();
        let mut lasting = tcp_client();
        echoes(&mut lasting);
        let datagrams: Vec<UdpSocket> = (0..20).map(|_| udp_client()).collect();
        datagrams.iter().for_each(answers);
        old.signal(Signal::TERM);
        let mut new = setup(&config, driver).start();
        wait_for("the old one closes its sockets", SHORT, || {
            // Two workers, TCP and UDP; two more are the lasting connection's.
            (old.sockets() <= sockets + 2 - 4).then_some(())
        });

        // What runs goes on in the old one; the sessions of UDP are over.
        echoes(&mut lasting);
        let sessions = old.records_where(20, |record| record.text("protocol") == "udp");
        assert!(sessions.iter().all(|session| session.end() == "drain"), "{sessions:?}");
        // New connections and datagrams reach the new one alone.
        datagrams.iter().for_each(answers);
        (0..20).for_each(|_| echoes(&mut tcp_client()));
        let records = new.records_where(20, |record| record.text("protocol") == "tcp");
        assert_eq!(records.len(), 20, "{driver}");

        echoes(&mut lasting);
        drop(lasting);
        assert_eq!(old.wait_exit(SHORT).code(), Some(0), "{driver}");
        datagrams.iter().for_each(answers);
        new.signal(Signal::TERM);
        assert_eq!(new.wait_exit(SHORT).code(), Some(0), "{driver}");
        // One session for each client: none went to the old one.
        let sessions = new.records_where(20, |record| record.text("protocol") == "udp");
        assert_eq!(sessions.len(), 20, "{driver}");
    }
}

#[test]
fn beside_one_that_does_not_drain_it_is_an_error_with_advice() {
    if !inside_namespace("restart::beside_one_that_does_not_drain_it_is_an_error_with_advice") {
        return;
    }
    let both = config(&Echo::start(), &UdpEcho::start(""));
    let (tcp, udp) = both.split_at(both.rfind("[[listener]]").unwrap());
    let first = setup(&both, "io_uring").start();
    for config in [tcp, udp] {
        let start = Instant::now();
        let mut second = setup(config, "io_uring").spawn();
        second.line_with(&format!("cannot listen on {ADDRESS}"));
        second.line_with("ss -lntup");
        assert_eq!(second.wait_exit(SHORT).code(), Some(1));
        assert!(start.elapsed() > Duration::from_secs(1), "it does not try again");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    // Meanwhile it can be ended.
    let mut third = setup(&both, "io_uring").spawn();
    third.line_with("address in use: retrying");
    third.signal(Signal::TERM);
    assert_eq!(third.wait_exit(SHORT).code(), Some(0));
    echoes(&mut tcp_client());
    answers(&udp_client());
    drop(first);
}

#[test]
fn a_path_that_is_in_use_and_does_not_answer_is_an_error_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _fill = fill(&path);
    let config = l4(Echo::start().address(), "", "");
    let config = config.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let mut gate = setup(&config, "io_uring").spawn();
    gate.line_with("cannot listen on");
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
    assert!(path.exists());
}

/// Connects until the accept queue is full.
fn fill(path: &Path) -> Vec<Socket> {
    let mut clients = Vec::new();
    wait_for("the accept queue is full", SHORT, || {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let refused = client.connect(&SockAddr::unix(path).unwrap()).err();
        clients.push(client);
        refused
    });
    clients
}

#[test]
fn a_path_is_taken_over_from_one_that_drains() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let echo = Echo::start();
    let config = l4(echo.address(), "", "");
    let config = config.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    for driver in BOTH {
        let mut old = setup(&config, driver).start();
        let mut lasting = UnixStream::connect(&path).unwrap();
        let echoes = |client: &mut UnixStream| {
            client.set_read_timeout(Some(SHORT)).unwrap();
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        };
        echoes(&mut lasting);
        old.signal(Signal::TERM);
        let _new = setup(&config, driver).start();
        echoes(&mut UnixStream::connect(&path).unwrap());
        echoes(&mut lasting);
        drop(lasting);
        assert_eq!(old.wait_exit(SHORT).code(), Some(0));
        // The end of the old one leaves the new one's path alone.
        echoes(&mut UnixStream::connect(&path).unwrap());
    }
}

/// A listener at this path in front of an echo.
fn at_path(path: &Path, echo: &Echo) -> String {
    let listen = format!("unix:{}", path.display());
    l4(echo.address(), "", "").replace("127.0.0.1:0", &listen)
}

#[track_caller]
fn path_echoes(path: &Path) {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(SHORT)).unwrap();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// What stands behind it runs with a system call that is delayed (strace(1)).
fn delaying(inject: &str) -> Command {
    let mut strace = require("strace");
    // -D: what is traced stays our child, and strace is the one in the background.
    strace.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", inject]);
    strace
}

#[test]
fn a_path_that_is_another_file_by_now_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let echo = Echo::start();
    let mut gate = setup(&at_path(&path, &echo), "io_uring").start();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert!(path.exists());
}

#[test]
fn an_end_that_is_slow_leaves_the_path_of_the_next_process_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let echo = Echo::start();
    let config = at_path(&path, &echo);
    let through = Some(delaying("inject=unlink,unlinkat:delay_enter=300000"));
    let mut old = Setup { through, ..setup(&config, "io_uring") }.start();
    old.signal(Signal::TERM);
    let _new = setup(&config, "io_uring").start();
    assert_eq!(old.wait_exit(SHORT).code(), Some(0));
    path_echoes(&path);
}

#[test]
fn a_start_at_an_abandoned_path_waits_for_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let echo = Echo::start();
    // What another start holds from before it binds until it listens.
    let lock = File::open(directory.path()).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let gate = setup(&at_path(&path, &echo), "io_uring").spawn();
    gate.line_with("address in use: retrying");
    drop(lock);
    gate.line_with("ready workers=");
    path_echoes(&path);
}

#[test]
fn a_lock_that_somebody_keeps_does_not_prevent_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let echo = Echo::start();
    // Every user who may read the directory can lock it.
    let lock = File::open(directory.path()).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let gate = setup(&at_path(&path, &echo), "io_uring").spawn();
    gate.line_with("address in use: retrying");
    gate.line_with("ready workers=");
    path_echoes(&path);
}

#[test]
fn a_client_that_connects_during_the_start_is_served() {
    if !inside_namespace("restart::a_client_that_connects_during_the_start_is_served") {
        return;
    }
    let config = config(&Echo::start(), &UdpEcho::start(""));
    // Time to connect to the first socket that listens.
    let through = Some(delaying("inject=listen:delay_exit=300000:when=1"));
    let _gate = Setup { through, ..setup(&config, "io_uring") }.spawn();
    let client = wait_for("a connection", SHORT, || TcpStream::connect(address()).ok());
    echoes(&mut with_deadlines(client));
}
