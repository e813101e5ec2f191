//! SIGUSR2: a new process takes the sockets over, and nothing is lost on the way.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use rustls::HandshakeKind;

use crate::support::{
    Authority, Echo, HttpClient, LONG, Process, Ringgate, SHORT, Setup, TlsClient, UdpEcho,
    VERSIONS, as_ordinary_user, free_port, l4, require, ringgate_command, stream_site,
    tls_settings, wait_for, with_deadlines,
};

pub(crate) const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// A process and those that take it over, all in one process group.
pub(crate) struct Chain {
    pub(crate) gate: Ringgate,
    pub(crate) current: Pid,
    taken_over: usize,
}

impl Chain {
    pub(crate) fn start(setup: Setup) -> Chain {
        let gate = setup.start();
        Chain { current: gate.pid(), gate, taken_over: 0 }
    }

    /// With these echoes behind it: TCP, UDP and a Unix path, which is returned, too.
    pub(crate) fn serving(driver: &str, workers: usize) -> (Chain, PathBuf, tempfile::TempDir) {
        Chain::serving_through(require("env"), driver, workers)
    }

    /// The same, started by a command that runs what stands behind it.
    pub(crate) fn serving_through(
        through: Command,
        driver: &str,
        workers: usize,
    ) -> (Chain, PathBuf, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let config = serving(&path);
        let server = format!("workers = {workers}\ndriver = \"{driver}\"\ndrain_timeout = \"10m\"");
        let setup = Setup { config, server, through: Some(through), ..Setup::default() };
        (Chain::start(setup), path, dir)
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.gate.address(listener)
    }

    /// The lines so far that have this part.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.gate.lines().iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn ask(&self) {
        kill_process(self.current, Signal::USR2).unwrap();
    }

    /// Waits until another process has taken over.
    #[track_caller]
    pub(crate) fn succeeds(&mut self) -> Pid {
        let line = wait_for("the take-over", LONG, || {
            let lines = self.gate.lines();
            let mut lines = lines.iter().filter(|line| line.contains("taken over"));
            lines.nth(self.taken_over).cloned()
        });
        self.taken_over += 1;
        let (_, pid) = line.split_once("successor=").unwrap();
        let pid = pid.split_ascii_whitespace().next().unwrap().parse().unwrap();
        std::mem::replace(&mut self.current, Pid::from_raw(pid).unwrap())
    }

    #[track_caller]
    pub(crate) fn take_over(&mut self) -> Pid {
        self.ask();
        self.succeeds()
    }

    /// Changes the configuration file.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.gate.access_log().with_file_name("ringgate.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} in {text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }

    /// Puts a script in the place of the program that is started again.
    pub(crate) fn replace_program(&self, script: &str) {
        let program = self.gate.access_log().with_file_name("ringgate");
        // Another file: the one before is a link to the real program.
        let new = program.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, program).unwrap();
    }

    /// Ends the process that serves, and waits for it.
    #[track_caller]
    pub(crate) fn end(self) {
        kill_process(self.current, Signal::TERM).unwrap();
        wait_for("the last one ends", SHORT, || has_ended(self.current).then_some(()));
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The first process is not waited for, so its id and that of the group are still ours.
        let _ = kill_process_group(self.gate.pid(), Signal::KILL);
    }
}

/// Whether all of its threads have ended.
pub(crate) fn has_ended(pid: Pid) -> bool {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let stat = fs::read_to_string(format!("{process}/stat"));
    let threads = fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count);
    stat.map_or(true, |stat| {
        // proc(5): the state stands behind the name in parentheses. It is that of the first thread.
        let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        is_zombie && threads <= 1
    })
}

/// `ingress` and `path` over TCP and a Unix path, and `datagrams`, to echoes.
fn serving(path: &std::path::Path) -> String {
    let (tcp, udp) = (Echo::start(), UdpEcho::start(""));
    l4(tcp.address(), "", "")
        + &format!(
            "[[listener]]\nname = \"path\"\nlisten = \"unix:{}\"\nprotocol = \"tcp\"\n\
             cluster = \"backend\"\n[[listener]]\nname = \"datagrams\"\n\
             listen = \"127.0.0.1:0\"\nprotocol = \"udp\"\ncluster = \"echo\"\n\
             [cluster.echo]\nendpoints = [\"{}\"]\n",
            path.display(),
            udp.address()
        )
}

#[track_caller]
pub(crate) fn echoes(client: &mut (impl Read + Write)) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

pub(crate) fn datagrams_to(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

#[track_caller]
pub(crate) fn answers(client: &UdpSocket, number: usize) {
    client.send(&number.to_be_bytes()).unwrap();
    let mut answer = [0; 16];
    let length = client.recv(&mut answer).unwrap();
    assert_eq!(answer[..length], number.to_be_bytes(), "{number}");
}

#[test]
fn tunnels_go_on_and_new_connections_go_to_the_new_process() {
    for driver in BOTH {
        let (mut chain, path, _dir) = Chain::serving(driver, 2);
        let mut tunnel = chain.gate.connect("ingress");
        echoes(&mut tunnel);
        let client = datagrams_to(chain.address("datagrams"));
        answers(&client, 1);
        let first = chain.take_over();
        // The session of the client has begun again, in the new process.
        (2..10).for_each(|number| answers(&client, number));
        echoes(&mut chain.gate.connect("ingress"));
        echoes(&mut UnixStream::connect(&path).unwrap());
        echoes(&mut tunnel);
        assert!(!has_ended(first), "it has the tunnel");
        drop(tunnel);
        wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
        // The path is the new one's now, which removes it at its own end.
        echoes(&mut UnixStream::connect(&path).unwrap());
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

/// A connection stays open as long as any process has it.
#[test]
fn connections_end_with_the_process_that_has_them() {
    for driver in BOTH {
        let (mut chain, _, _dir) = Chain::serving(driver, 2);
        let mut clients: Vec<_> = (0..4).map(|_| chain.gate.connect("ingress")).collect();
        clients.iter_mut().for_each(echoes);
        let first = chain.take_over();
        kill_process(first, Signal::KILL).unwrap();
        for mut client in clients {
            let read = client.read(&mut [0]).map_err(|error| error.kind());
            assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?} {driver}");
        }
    }
}

#[test]
fn a_connection_between_two_requests_has_time_for_one_more() {
    for driver in BOTH {
        let config = stream_site(free_port().address(), "");
        let server = format!("driver = \"{driver}\"");
        let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
        let [mut asks, mut rests] = [0; 2].map(|_| HttpClient::over(chain.gate.connect("web")));
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for client in [&mut asks, &mut rests] {
            client.send(request);
            assert_eq!(client.response().field("connection"), None);
        }
        let first = chain.take_over();
        // Every request is answered. The workers read the command to drain within a tick.
        wait_for("a last response", SHORT, || {
            asks.send(request);
            (asks.response().field("connection") == Some("close")).then_some(())
        });
        asks.expect_end();
        rests.expect_end();
        wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
    }
}

/// Ends the threads of a scope, also after a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn twenty_in_a_row_lose_nothing() {
    for driver in BOTH {
        let (mut chain, path, _dir) = Chain::serving(driver, 2);
        let (tcp, udp) = (chain.address("ingress"), chain.address("datagrams"));
        let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        let go_on = || !is_over.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            let _end = End(&is_over);
            for _ in 0..3 {
                scope.spawn(|| {
                    while go_on() {
                        echoes(&mut with_deadlines(TcpStream::connect(tcp).unwrap()));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
                scope.spawn(|| {
                    let client = datagrams_to(udp);
                    (0..).take_while(|_| go_on()).for_each(|number| answers(&client, number));
                });
            }
            scope.spawn(|| {
                while go_on() {
                    echoes(&mut UnixStream::connect(&path).unwrap());
                }
            });
            let mut tunnels = Vec::new();
            for _ in 0..20 {
                tunnels.push(chain.gate.connect("ingress"));
                echoes(tunnels.last_mut().unwrap());
                chain.take_over();
                let before = served.load(Ordering::Relaxed);
                wait_for("it serves", SHORT, || {
                    (served.load(Ordering::Relaxed) > before + 20).then_some(())
                });
            }
            tunnels.iter_mut().for_each(echoes);
        });
        let bad = ["client_reset", "upstream_reset", "drain"];
        let lost = chain.gate.records_where(0, |record| {
            record.text("listener") == "ingress" && bad.contains(&record.end())
        });
        assert!(lost.is_empty(), "{driver}: {lost:?}");
        chain.end();
    }
}

#[test]
fn workers_become_fewer_and_more() {
    for driver in BOTH {
        let (mut chain, path, _dir) = Chain::serving(driver, 2);
        let (tcp, udp) = (chain.address("ingress"), chain.address("datagrams"));
        for (from, to) in [(2, 1), (1, 2), (2, 3), (3, 1)] {
            chain.edit(&format!("workers = {from}"), &format!("workers = {to}"));
            chain.take_over();
            wait_for("the line of this start", SHORT, || {
                (chain.count("ready workers=") == chain.taken_over + 1).then_some(())
            });
            let clients: Vec<UdpSocket> = (0..50).map(|_| datagrams_to(udp)).collect();
            clients.iter().enumerate().for_each(|(number, client)| answers(client, number));
            for _ in 0..50 {
                echoes(&mut with_deadlines(TcpStream::connect(tcp).unwrap()));
                echoes(&mut UnixStream::connect(&path).unwrap());
            }
        }
        chain.end();
    }
}

#[test]
fn drivers_change() {
    let (mut chain, path, _dir) = Chain::serving("io_uring", 2);
    let client = datagrams_to(chain.address("datagrams"));
    let mut tunnels = Vec::new();
    for (from, to) in [("io_uring", "epoll"), ("epoll", "io_uring"), ("io_uring", "epoll")] {
        chain.edit(&format!("driver = \"{from}\""), &format!("driver = \"{to}\""));
        tunnels.push(chain.gate.connect("ingress"));
        chain.take_over();
        for number in 0..50 {
            echoes(&mut chain.gate.connect("ingress"));
            echoes(&mut UnixStream::connect(&path).unwrap());
            answers(&client, number);
        }
        tunnels.iter_mut().for_each(echoes);
    }
    drop(tunnels);
    chain.end();
}

#[test]
fn a_process_of_another_user_shares_what_it_cannot_bind() {
    if !geteuid().is_root() {
        eprintln!("not tested: only root can start a process of another user");
        return;
    }
    for driver in BOTH {
        let (mut chain, path, dir) = Chain::serving(driver, 1);
        for path in [dir.path(), &chain.gate.access_log(), &path] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let program = chain.gate.access_log().with_file_name("real");
        fs::rename(program.with_file_name("ringgate"), &program).unwrap();
        chain.replace_program(&format!(
            "exec setpriv --reuid=65534 --regid=65534 --clear-groups {} \"$@\"",
            program.display()
        ));
        chain.edit("workers = 1", "workers = 3");
        chain.take_over();
        chain.gate.line_with("workers share an inherited socket");
        let (tcp, udp) = (chain.address("ingress"), chain.address("datagrams"));
        let mut held: Vec<TcpStream> =
            (0..60).map(|_| with_deadlines(TcpStream::connect(tcp).unwrap())).collect();
        held.iter_mut().for_each(echoes);
        (0..60).for_each(|number| answers(&datagrams_to(udp), number));
        echoes(&mut UnixStream::connect(&path).unwrap());
        drop(held);
        chain.end();
    }
}

#[test]
fn a_wrapper_that_waits_for_the_program_is_no_obstacle() {
    let strace = require("strace").get_program().to_owned();
    let strace = format!("{} -f -q -o /dev/null -e trace=none ", strace.display());
    for wrapper in ["", &strace] {
        let (mut chain, path, _dir) = Chain::serving("io_uring", 2);
        let program = env!("CARGO_BIN_EXE_ringgate");
        chain.replace_program(&format!("{wrapper}{program} \"$@\"\nexit $?"));
        let mut tunnel = chain.gate.connect("ingress");
        let first = chain.take_over();
        // The successor itself, and neither the wrapper nor what that has started.
        let started = fs::read_link(format!("/proc/{}/exe", chain.current.as_raw_nonzero()));
        assert_eq!(started.unwrap().to_str(), Some(program));
        echoes(&mut tunnel);
        echoes(&mut UnixStream::connect(&path).unwrap());
        drop(tunnel);
        wait_for("the first one ends", LONG, || has_ended(first).then_some(()));
        chain.end();
    }
}

#[test]
fn an_ordinary_user_takes_over() {
    for driver in BOTH {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let path = dir.path().join("socket");
        let (config, server) = (serving(&path), format!("driver = \"{driver}\""));
        let through = Some(as_ordinary_user("true"));
        let mut chain = Chain::start(Setup { config, server, through, ..Setup::default() });
        let mut tunnel = chain.gate.connect("ingress");
        chain.take_over();
        echoes(&mut tunnel);
        echoes(&mut chain.gate.connect("ingress"));
        drop(tunnel);
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

#[test]
fn an_address_that_goes_is_closed_and_its_path_removed() {
    let (mut chain, path, _dir) = Chain::serving("io_uring", 2);
    let tcp = chain.address("ingress");
    chain.edit(&format!("unix:{}", path.display()), &format!("unix:{}2", path.display()));
    chain.edit("name = \"ingress\"", "name = \"renamed\"");
    let first = chain.take_over();
    wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
    assert!(!path.exists());
    echoes(&mut UnixStream::connect(path.with_file_name("socket2")).unwrap());
    echoes(&mut with_deadlines(TcpStream::connect(tcp).unwrap()));
    chain.end();
}

#[test]
fn a_port_that_the_kernel_chose_stays_with_its_listener() {
    let echoes_of = |name: &str, echo: &Echo| {
        format!(
            "[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
             cluster = \"{name}\"\n[cluster.{name}]\nendpoints = [\"{}\"]\n",
            echo.address()
        )
    };
    let (one, other) = (Echo::start(), Echo::start());
    let parts = [echoes_of("one", &one), echoes_of("other", &other)];
    let mut chain = Chain::start(Setup { config: parts.concat(), ..Setup::default() });
    let before = ["one", "other"].map(|name| chain.address(name));
    chain.edit(&parts.concat(), &[&*parts[1], &*parts[0]].concat());
    chain.take_over();
    for (name, address) in ["one", "other"].into_iter().zip(before) {
        let line = format!("listening name={name} protocol=tcp address={address}");
        wait_for("the same ports", SHORT, || (chain.count(&line) == 2).then_some(()));
    }
    chain.end();
}

#[test]
fn sessions_of_tls_resume_in_the_new_process() {
    const NAME: &str = "site.test";
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let rule = authority.signs(&[NAME]).rule(&[NAME], "cluster = \"echo\"");
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n{rule}\
         [cluster.echo]\nendpoints = [\"{}\"]\n",
        echo.address()
    );
    let mut chain = Chain::start(Setup { config, ..Setup::default() });
    for version in VERSIONS {
        let settings = Arc::new(tls_settings(&authority, version));
        let handshake = |chain: &Chain| {
            let mut client = TlsClient::connect(chain.address("edge"), &settings, NAME);
            client.send(b"hello");
            client.expect(b"hello");
            client.close_notify();
            client.expect_close_notify();
            client.session.handshake_kind().unwrap()
        };
        assert_eq!(handshake(&chain), HandshakeKind::Full);
        for _ in 0..2 {
            chain.take_over();
            assert_eq!(handshake(&chain), HandshakeKind::Resumed, "{version:?}");
        }
    }
    chain.end();
}

#[test]
fn a_configuration_from_standard_input_and_process_1_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringgate.toml");
    fs::write(&file, l4(Echo::start().address(), "", "")).unwrap();
    let binary = ringgate_command(&[]).get_program().to_owned();
    let mut from_input = require("sh");
    from_input.arg("-c").arg("exec \"$0\" run -c - < \"$1\"").arg(&binary).arg(&file);
    let process = Process::spawn(from_input);
    process.line_with("ready workers=", LONG);
    process.signal(Signal::USR2);
    process.line_with("no take-over", SHORT);

    let mut as_first = require("unshare");
    as_first.args(["--pid", "--fork", "--kill-child"]);
    if !geteuid().is_root() {
        as_first.arg("--map-root-user");
    }
    as_first.arg(&binary).args(["run", "-c"]).arg(&file);
    let process = Process::spawn(as_first);
    process.line_with("ready workers=", LONG);
    let children = format!("/proc/{0}/task/{0}/children", process.pid().as_raw_nonzero());
    let child = fs::read_to_string(children).unwrap();
    let child = child.split_ascii_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(child).unwrap(), Signal::USR2).unwrap();
    process.line_with("this is process 1", SHORT);
}
