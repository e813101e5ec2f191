//! Diagnostics and errors on stderr: fields, colour, and a stderr that blocks.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::support::{
    Echo, SHORT, SOON, Setup, free_port, holds_for, l4, require, ringgate_command, run,
    stream_site, wait_for, with_deadlines,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// A pipe that takes nothing more, and a command that makes it the stderr of another.
fn full_pipe() -> (PipeReader, PipeWriter, Command) {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // A write of a page or less is all or nothing (pipe(7)).
    for length in [4096, 1] {
        while writer.write(&[b'\n'; 4096][..length]).is_ok() {}
    }
    // Opened anew it blocks: the flag is one of the open file, not of the pipe.
    let path = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    let mut command = require("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" 2>{path}")]);
    (reader, writer, command)
}

/// An L4 listener on this address that writes everything there is to say, and its access log, to
/// stderr.
fn talkative(echo: &Echo, address: SocketAddr, driver: &str, stderr: Command) -> Setup {
    Setup {
        config: l4(echo.address(), "access_log = { path = \"stderr\" }", "")
            .replace("127.0.0.1:0", &address.to_string()),
        server: format!("driver = \"{driver}\""),
        env: vec![("RINGGATE_LOG", "trace".to_owned())],
        through: Some(stderr),
    }
}

/// A connection through it, once it serves.
#[track_caller]
fn served(address: SocketAddr) -> TcpStream {
    wait_for("it serves", SHORT, || {
        let mut client = with_deadlines(TcpStream::connect(address).ok()?);
        client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).ok()?;
        Some(client)
    })
}

/// Everything in the pipe, once `condition` holds for it.
#[track_caller]
fn read_until(reader: &mut PipeReader, what: &str, condition: impl Fn(&str) -> bool) -> String {
    rustix::io::ioctl_fionbio(&*reader, true).unwrap();
    let (mut text, mut part) = (String::new(), vec![0; 1 << 20]);
    wait_for(what, SHORT, || {
        if let Ok(length) = reader.read(&mut part) {
            text += str::from_utf8(&part[..length]).unwrap();
        }
        condition(&text).then_some(())
    });
    text
}

#[test]
fn an_unread_stderr_stops_no_worker_and_is_written_when_it_is_read() {
    for driver in BOTH {
        let echo = Echo::start();
        let (mut reader, _writer, stderr) = full_pipe();
        let port = free_port();
        let address = port.address();
        let gate = talkative(&echo, address, driver, stderr).spawn();
        let _lasting = served(address);

        // Out of descriptors, there is something to report while the pipe is full.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let set_limit = |current| {
            let limit = Rlimit { current: Some(current), maximum };
            prlimit(Some(gate.pid()), Resource::Nofile, limit).unwrap();
        };
        let numbers = format!("/proc/{}/fd", gate.pid().as_raw_nonzero());
        let before = gate.frozen(|| {
            let taken = |number: &u64| Path::new(&format!("{numbers}/{number}")).exists();
            set_limit((0..).find(|number| !taken(number)).unwrap());
            gate.descriptors()
        });
        // So many that the kernel's hash gives each of them some. The ring's accepts that are in
        // flight, eight for each socket, still have the limit that held when they began.
        let connect = || with_deadlines(TcpStream::connect(address).unwrap());
        let waiting: Vec<TcpStream> = (0..80).map(|_| connect()).collect();
        // A busy machine stands still for longer than workers need to try.
        holds_for("most of them wait", Duration::from_secs(2), || gate.descriptors() < before + 20);
        set_limit(1000);
        drop(waiting);
        for client in &mut (0..40).map(|_| connect()).collect::<Vec<_>>() {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }

        let said = read_until(&mut reader, "what the workers were short of", |text| {
            text.contains("no descriptors are left")
        });
        assert!(said.contains(" ready workers=2 "), "{said}");
    }
}

#[test]
fn an_unread_stderr_does_not_hold_up_the_end() {
    for driver in BOTH {
        let echo = Echo::start();
        let (_reader, _writer, stderr) = full_pipe();
        let port = free_port();
        let address = port.address();
        let mut gate = talkative(&echo, address, driver, stderr).spawn();
        (0..20).for_each(|_| drop(served(address)));
        gate.signal(Signal::HUP);
        let start = Instant::now();
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
        assert!(start.elapsed() < SOON, "{driver}: {:?}", start.elapsed());
    }
}

#[test]
fn an_unread_stderr_does_not_hold_up_a_start_that_fails() {
    let (_reader, _writer, stderr) = full_pipe();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut gate = talkative(&Echo::start(), address, "auto", stderr).spawn();
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
}

#[test]
fn as_json_an_event_has_fields() {
    let config = "[log]\nformat = \"json\"\n".to_owned() + &stream_site(free_port().address(), "");
    let mut gate = Setup { config, ..Setup::default() }.spawn();
    let event = |message: &str| -> Value {
        let line = gate.line_with(&format!("\"message\":\"{message}"));
        serde_json::from_str::<Value>(&line).unwrap()["fields"].take()
    };
    let listening = event("listening");
    assert_eq!((&listening["name"], &listening["protocol"]), (&"web".into(), &"http".into()));
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    let ready = event("ready");
    assert_eq!(ready["workers"], 2);
    assert!(["io_uring", "epoll"].contains(&ready["driver"].as_str().unwrap()), "{ready}");
    assert!(ready["file_limit"].is_u64() && ready["ring_size"].is_u64(), "{ready}");
    assert!(ready["connection_limit"].is_u64(), "{ready}");
    assert_eq!(ready["udp_session_limit"], 0, "there is no udp listener");
    TcpStream::connect(address).unwrap();
    gate.signal(Signal::ALARM);
    assert_eq!(event("the signal has no effect")["signal"], "SIGALRM");
    gate.signal(Signal::TERM);
    let draining = event("no new connections");
    assert_eq!(
        (&draining["signal"], &draining["drain_timeout"]),
        (&"SIGTERM".into(), &"30s".into())
    );
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
}

/// An L4 listener on this address, with diagnostics as JSON and these lines of `[log]`.
fn json_on(address: SocketAddr, log: &str) -> String {
    let listener = l4(free_port().address(), "", "").replace("127.0.0.1:0", &address.to_string());
    format!("[log]\nformat = \"json\"\n{log}\n{listener}")
}

/// Runs it to its end; gives the exit code, and every line of stderr as the JSON that it must be.
#[track_caller]
fn json_events(config: &str, env: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringgate.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = ringgate_command(&["run", "-c", file.to_str().unwrap()]);
    let output = run(command.envs(env.iter().copied()));
    let said = String::from_utf8(output.stderr).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.code(), said.lines().map(parse).collect())
}

#[test]
fn as_json_the_error_that_ends_a_start_is_an_event_at_every_level() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for log in ["", "level = \"error\"", "level = \"off\""] {
        let (code, mut events) = json_events(&json_on(address, log), &[]);
        assert_eq!(code, Some(1));
        let error = events.pop().unwrap();
        assert_eq!(error["level"], "ERROR", "{error}");
        let fields = &error["fields"];
        assert_eq!(fields["message"], format!("cannot listen on {address} (listener ingress)"));
        assert!(fields["error"].as_str().unwrap().starts_with("Address already in use"), "{error}");
        assert!(fields["advice"].as_str().unwrap().contains("ss -lntup"), "{error}");
        assert_eq!(events.is_empty(), !log.is_empty(), "{events:?}");
    }
}

#[test]
fn as_json_a_log_level_that_is_none_is_an_event() {
    let env = [("RINGGATE_LOG", "blah")];
    let (code, events) = json_events(&json_on(free_port().address(), ""), &env);
    assert_eq!((code, events.len()), (Some(64), 1), "{events:?}");
    assert_eq!(events[0]["level"], "ERROR");
    let fields = &events[0]["fields"];
    assert_eq!(fields["message"], "RINGGATE_LOG cannot be \"blah\"");
    assert!(fields["advice"].as_str().unwrap().starts_with("write error, warn, info"), "{fields}");
}

#[test]
fn as_json_a_warning_about_the_configuration_says_what_and_where() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let odd = "[cluster.unused]\nendpoints = [\"127.0.0.1:1\"]\n";
    let config = json_on(taken.local_addr().unwrap(), "") + odd;
    let (_, events) = json_events(&config, &[]);
    let warning = &events[0];
    assert_eq!(warning["level"], "WARN", "{warning}");
    let fields = &warning["fields"];
    assert_eq!(fields["message"], "nothing uses the cluster `unused`");
    assert!(fields["file"].as_str().unwrap().ends_with("/ringgate.toml"), "{warning}");
    let line = config.lines().position(|line| line.contains("[cluster.unused]")).unwrap() + 1;
    assert_eq!(fields["line"], line, "{warning}");
    assert!(fields["column"].is_u64() && fields["advice"].is_string(), "{warning}");
}

/// Where stderr goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stderr {
    Terminal,
    Pipe,
}

/// What a command writes to stderr, with these environment variables.
fn said(arguments: &[&str], stderr: Stderr, env: &[(&str, &str)]) -> String {
    let mut command = ringgate_command(arguments);
    // All that decides about colour is the test's own, also where tests run under `CI`.
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm").envs(env.iter().copied());
    if stderr == Stderr::Pipe {
        return String::from_utf8(run(&mut command).stderr).unwrap();
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    // Not as the terminal of this process, which would be sent SIGHUP with its end.
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32);
    let terminal = options.open(name).unwrap();
    let mut child = command.stdin(Stdio::null()).stderr(terminal).spawn().unwrap();
    // The other end is the child's alone now.
    drop(command);
    let mut text = Vec::new();
    // EIO when the child has closed it (pty(7)).
    let _ = File::from(master).read_to_end(&mut text);
    child.wait().unwrap();
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_colour_unless_it_is_not_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringgate.toml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = l4(free_port().address(), "", "").replace("127.0.0.1:0", &address);
    let file = file.to_str().unwrap();
    let cases = [
        // What is wrong with a configuration, and a port that is taken behind a diagnostic.
        (vec!["check", file], config.replace("protocol", "protcol"), "did you mean"),
        (vec!["run", "-c", file], config, "ss -lntup"),
    ];
    for (arguments, config, part) in cases {
        std::fs::write(file, config).unwrap();
        let plain = said(&arguments, Stderr::Pipe, &[]);
        assert!(plain.contains("error: ") && plain.contains(part), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        for env in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = said(&arguments, Stderr::Terminal, &[env]);
            assert!(plain.contains(part) && !plain.contains('\u{1b}'), "{env:?}: {plain:?}");
        }
        for env in [("TERM", "xterm"), ("NO_COLOR", "")] {
            let coloured = said(&arguments, Stderr::Terminal, &[env]);
            assert!(coloured.contains("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m"), "{coloured:?}");
            if arguments[0] == "run" {
                assert!(coloured.contains("\u{1b}[32m INFO\u{1b}[0m"), "{coloured:?}");
            }
        }
    }
}
