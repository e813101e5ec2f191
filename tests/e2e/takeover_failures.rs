//! SIGUSR2 where the successor, or the predecessor, fails on the way: nothing changes then.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Echo, LONG, Network, SHORT, Setup, UdpEcho, free_port, inside_namespace, l4, refusing,
    refusing_from, require, wait_for,
};
use crate::takeover::{BOTH, Chain, answers, datagrams_to, echoes, has_ended};

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    for driver in BOTH {
        let (mut chain, path, _dir) = Chain::serving(driver, 2);
        let client = datagrams_to(chain.address("datagrams"));
        let mut failed = 0;
        let mut fails = |chain: &Chain, why: &str, said: &str| {
            let mut tunnel = chain.gate.connect("ingress");
            echoes(&mut tunnel);
            chain.ask();
            failed += 1;
            wait_for(why, LONG, || {
                (chain.count("the take-over has failed") == failed).then_some(())
            });
            // What the successor has said itself comes first.
            let lines = chain.gate.lines();
            let of = |part: &str| lines.iter().rposition(|line| line.contains(part));
            assert!(of(said).is_some_and(|at| Some(at) <= of("has failed")), "{why}: {lines:#?}");
            echoes(&mut tunnel);
            echoes(&mut chain.gate.connect("ingress"));
            echoes(&mut UnixStream::connect(&path).unwrap());
            answers(&client, failed);
        };
        chain.edit("[server]", "[serve]");
        fails(&chain, "a broken configuration", "unknown key `serve`");
        chain.edit("[serve]", "[server]");
        chain.edit("listen = \"127.0.0.1:0\"", "listen = \"192.0.2.1:7\"");
        fails(&chain, "an address of no interface", "192.0.2.1:7");
        chain.edit("listen = \"192.0.2.1:7\"", "listen = \"127.0.0.1:0\"");
        chain.replace_program("exit 7");
        fails(&chain, "a program that exits", "before its first packet (exit status: 7)");
        // It says that it accepts, and does not know that it may.
        let lie = "import os, socket, sys; \
                   s = socket.socket(fileno = int(os.environ[\"RINGGATE_TAKEOVER\"])); \
                   s.send(b\"hello\"); s.send(b\"ready\"); \
                   s.recvmsg(65536, 4096); s.recv(65536); sys.exit(0)";
        chain.replace_program(&format!("exec python3 -c '{lie}'"));
        fails(&chain, "a program that ends when it may accept", "ended before it accepted");
        fs::remove_file(chain.gate.access_log().with_file_name("ringgate")).unwrap();
        fails(&chain, "no program", "/ringgate cannot be started: No such file");
        chain.replace_program(&format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_ringgate")));
        chain.take_over();
        echoes(&mut chain.gate.connect("ingress"));
        answers(&client, 100);
        chain.end();
    }
}

#[test]
fn one_that_hangs_is_killed_with_the_process_or_in_time_and_a_second_signal_is_refused() {
    let (chain, _, _dir) = Chain::serving("io_uring", 2);
    chain.replace_program("exec sleep 1000");
    chain.ask();
    chain.gate.line_with("starting the successor");
    chain.ask();
    chain.gate.line_with("one is in progress");
    echoes(&mut chain.gate.connect("ingress"));
    // After 30 s.
    wait_for("it is given up", LONG, || (chain.count("not ready in time") == 1).then_some(()));
    echoes(&mut chain.gate.connect("ingress"));
    chain.ask();
    wait_for("another one", SHORT, || (chain.count("starting the successor") == 2).then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", chain.current.as_raw_nonzero());
    let child = wait_for("a child", SHORT, || {
        let children = fs::read_to_string(&children).unwrap();
        children.split_ascii_whitespace().next()?.parse().ok().and_then(Pid::from_raw)
    });
    chain.end();
    assert!(has_ended(child));
}

/// What stands behind it, for a shell.
fn quoted(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ")
}

impl Chain {
    /// Puts `between.py` between this process and its successor. `through` runs the successor.
    fn put_between(&self, what: &[&str], through: Option<Command>) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/between.py");
        let python = require("python3").get_program().to_owned();
        let mut words = vec![python.to_str().unwrap(), script.to_str().unwrap()];
        words.extend(what);
        words.push("--");
        if let Some(through) = &through {
            words.push(through.get_program().to_str().unwrap());
            words.extend(through.get_args().map(|argument| argument.to_str().unwrap()));
        }
        words.push(env!("CARGO_BIN_EXE_ringgate"));
        self.replace_program(&format!("exec {} \"$@\"", quoted(&words)));
    }

    /// The id of the successor behind `between.py`, by the number of the attempt.
    #[track_caller]
    fn successor(&self, attempt: usize) -> Pid {
        let id = wait_for("a successor", LONG, || {
            let lines = self.gate.lines();
            let ids = lines.iter().filter_map(|line| line.strip_prefix("between: successor is "));
            ids.map(|id| id.parse().unwrap()).nth(attempt)
        });
        Pid::from_raw(id).unwrap()
    }

    /// Waits until this many take-overs have failed for this reason.
    #[track_caller]
    fn fails(&self, why: &str, failed: usize) {
        wait_for(why, LONG, || (self.count(why) == failed).then_some(()));
    }

    /// Checks that the clients of every listener are served.
    #[track_caller]
    fn serves(&self, path: &Path) {
        for number in 0..20 {
            echoes(&mut self.gate.connect("ingress"));
            echoes(&mut UnixStream::connect(path).unwrap());
            answers(&datagrams_to(self.address("datagrams")), number);
        }
    }
}

#[track_caller]
fn ends(process: Pid) {
    wait_for("the successor ends", SHORT, || has_ended(process).then_some(()));
}

#[test]
fn from_the_moment_on_at_which_clients_wait_nothing_can_be_refused() {
    for driver in BOTH {
        let (mut chain, path, dir) = Chain::serving(driver, 2);
        let file = dir.path().join("from-now-on");
        let call = libc::SYS_socketpair as u32;
        let through = refusing_from(call, libc::EMFILE, &file);
        chain.put_between(&["refuse", file.to_str().unwrap()], Some(through));
        let mut tunnel = chain.gate.connect("ingress");
        echoes(&mut tunnel);
        chain.take_over();
        assert!(file.exists());
        chain.current = chain.successor(0);
        chain.serves(&path);
        echoes(&mut tunnel);
        drop(tunnel);
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

#[test]
fn without_descriptors_for_its_workers_a_successor_changes_nothing() {
    for driver in BOTH {
        let (mut chain, path, dir) = Chain::serving(driver, 2);
        let file = dir.path().join("from-now-on");
        let through = refusing_from(libc::SYS_socketpair as u32, libc::EMFILE, &file);
        chain.put_between(&["refuse-early", file.to_str().unwrap()], Some(through));
        let client = datagrams_to(chain.address("datagrams"));
        answers(&client, 1);
        chain.ask();
        chain.fails("ended before it was ready", 1);
        chain.serves(&path);
        answers(&client, 2);
        ends(chain.successor(0));
        fs::remove_file(&file).unwrap();
        chain.replace_program(&format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_ringgate")));
        chain.take_over();
        chain.end();
    }
}

/// A process of another user cannot be killed, so that it must end by itself.
#[test]
fn a_successor_that_is_given_up_after_it_accepts_leaves_everything() {
    for driver in BOTH {
        let (chain, path, _dir) = Chain::serving(driver, 1);
        chain.put_between(&["keep"], None);
        chain.edit("workers = 1", "workers = 2");
        for attempt in 0..2 {
            chain.ask();
            chain.fails("did not accept in time", attempt + 1);
            ends(chain.successor(attempt));
            chain.serves(&path);
            if attempt == 0 {
                // A path that the successor has no listener for is not removed, either.
                let old = format!("unix:{}", path.display());
                chain.edit(&old, &format!("{old}2"));
            }
        }
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

#[test]
fn a_successor_that_dies_or_stands_still_when_it_may_accept_changes_nothing() {
    for driver in BOTH {
        let (chain, path, _dir) = Chain::serving(driver, 2);
        chain.put_between(&["kill"], None);
        chain.ask();
        chain.fails("ended before it accepted", 1);
        chain.serves(&path);
        chain.put_between(&["stop"], None);
        chain.ask();
        chain.fails("did not accept in time", 1);
        chain.serves(&path);
        // When it goes on it finds that it was given up.
        let successor = chain.successor(1);
        kill_process(successor, Signal::CONT).unwrap();
        ends(successor);
        chain.serves(&path);
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

/// The name servers may be down at the moment of a take-over.
#[test]
fn a_successor_knows_the_addresses_that_were_known() {
    if !inside_namespace("takeover_failures::a_successor_knows_the_addresses_that_were_known") {
        return;
    }
    let mut network = Network::serving(&[("echo.test", "127.0.0.1")]).time_to_live(1);
    for driver in BOTH {
        let echo = Echo::start().address();
        let cluster = "discovery = \"strict_dns\"\ndns_family = \"ipv4\"\ndns_refresh = \"100ms\"";
        let config = l4(echo, "", cluster)
            .replace("\"127.0.0.1:", "\"echo.test:")
            .replace("echo.test:0", "127.0.0.1:0");
        let server = format!("workers = 2\ndriver = \"{driver}\"");
        let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
        echoes(&mut chain.gate.connect("ingress"));
        network.stop_server();
        chain.gate.line_with("cannot look up names");
        for _ in 0..2 {
            chain.take_over();
            (0..10).for_each(|_| echoes(&mut chain.gate.connect("ingress")));
        }
        chain.end();
        network.start_server();
    }
}

/// The sockets are many, so that the other tasks of the successor's worker run while it takes them.
#[test]
fn a_successor_reads_no_datagram_before_it_may() {
    for driver in BOTH {
        let echo = UdpEcho::start("");
        let port = free_port();
        let addresses: Vec<SocketAddr> =
            (1..=40).map(|last| ([127, 0, 0, last], port.number()).into()).collect();
        let listen: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
        let config = format!(
            "[[listener]]\nname = \"datagrams\"\nlisten = [{}]\nprotocol = \"udp\"\n\
             cluster = \"echo\"\n[cluster.echo]\nendpoints = [\"{}\"]\n",
            listen.join(", "),
            echo.address()
        );
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let through = Some(require("env"));
        let chain = Chain::start(Setup { config, server, through, ..Setup::default() });
        let clients: Vec<UdpSocket> = addresses.iter().map(|one| datagrams_to(*one)).collect();
        let file = chain.gate.access_log().with_file_name("go-on");
        let id = chain.current.as_raw_nonzero().to_string();
        chain.put_between(&["still", &id, file.to_str().unwrap()], None);
        chain.ask();
        chain.gate.line_with("between: stopped");
        for (number, client) in clients.iter().enumerate() {
            client.send(&number.to_be_bytes()).unwrap();
        }
        fs::write(&file, "").unwrap();
        chain.gate.line_with("between: ready");
        kill_process(chain.successor(0), Signal::KILL).unwrap();
        kill_process(chain.current, Signal::CONT).unwrap();
        for (number, client) in clients.iter().enumerate() {
            let mut answer = [0; 16];
            let length = client.recv(&mut answer).expect("the datagram was lost");
            assert_eq!(answer[..length], number.to_be_bytes());
        }
        chain.end();
    }
}

#[test]
fn a_unix_path_that_something_has_removed_is_bound_again() {
    for driver in BOTH {
        let (mut chain, path, _dir) = Chain::serving(driver, 2);
        let mut before = UnixStream::connect(&path).unwrap();
        echoes(&mut before);
        fs::remove_file(&path).unwrap();
        chain.gate.signal(Signal::HUP);
        chain.gate.line_with("reloaded");
        assert_eq!(chain.count("it is bound again"), 1);
        echoes(&mut UnixStream::connect(&path).unwrap());
        fs::remove_file(&path).unwrap();
        chain.take_over();
        assert_eq!(chain.count("its path is gone"), 1);
        echoes(&mut UnixStream::connect(&path).unwrap());
        echoes(&mut before);
        drop(before);
        chain.end();
        assert!(!path.exists(), "{driver}");
    }
}

/// The service is to end, whichever of the two has it at that moment.
#[test]
fn a_signal_that_comes_when_the_successor_accepts_ends_it_too() {
    for driver in BOTH {
        let (chain, path, _dir) = Chain::serving(driver, 2);
        let mut tunnel = chain.gate.connect("ingress");
        echoes(&mut tunnel);
        chain.put_between(&["end"], None);
        chain.ask();
        chain.gate.line_with("the signal is passed on");
        let successor = chain.successor(0);
        wait_for("it ends", SHORT, || has_ended(successor).then_some(()));
        // It has drained, as the predecessor does.
        chain.gate.line_with("no new connections are accepted");
        assert!(!path.exists(), "{driver}");
        echoes(&mut tunnel);
        drop(tunnel);
        wait_for("both end", SHORT, || (chain.count("ended cut_off=0") == 2).then_some(()));
    }
}

/// What was started has ended long before.
#[test]
fn a_successor_that_hangs_is_killed_by_its_own_id() {
    // Also where the kernel has no descriptors for processes.
    let without = refusing(libc::SYS_pidfd_open as u32, libc::ENOSYS);
    for through in [require("env"), without] {
        let (chain, _, dir) = Chain::serving_through(through, "io_uring", 2);
        let file = dir.path().join("successor");
        let hangs = format!(
            "import os, signal, socket; \
             s = socket.socket(fileno = int(os.environ[\"RINGGATE_TAKEOVER\"])); \
             os.fork() and os._exit(0); s.send(b\"hello\"); \
             open(\"{0}.new\", \"w\").write(str(os.getpid())); \
             os.rename(\"{0}.new\", \"{0}\"); signal.pause()",
            file.display()
        );
        chain.replace_program(&format!("exec python3 -c '{hangs}'"));
        chain.ask();
        let successor = wait_for("a successor", LONG, || fs::read_to_string(&file).ok());
        let successor = Pid::from_raw(successor.parse().unwrap()).unwrap();
        chain.end();
        assert!(has_ended(successor));
    }
}
