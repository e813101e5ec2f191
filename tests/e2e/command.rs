//! The command line: what `check` says of a file, what it does not wait for, and the right form of
//! what was written wrong.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::support::{Process, Ringgate, SHORT, free_port, l4, require, ringgate_command, run};

/// Runs `ringgate` with a configuration file to its end.
fn ringgate_with(arguments: &[&str], config: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringgate.toml");
    fs::write(&file, config).unwrap();
    run(ringgate_command(arguments).arg(file))
}

#[test]
fn a_warning_is_shown_and_the_configuration_is_good() {
    let odd = l4(free_port().address(), "max_connections = 2000000000", "")
        + "[cluster.unused]\nendpoints = [\"127.0.0.1:1\"]\n";
    let output = ringgate_with(&["check"], &odd);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ringgate.toml: ok\n"));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "warning: nothing uses the cluster `unused`",
        "warning: `max_connections` needs more descriptors",
        "ringgate.toml:",
        "[cluster.unused]\n",
        "  = name it in a listener",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // They are told at the start, too.
    let gate = Ringgate::start(&odd);
    for (what, advice) in [
        ("nothing uses the cluster `unused`", "name it in a listener"),
        ("`max_connections` needs more descriptors than", "LimitNOFILE"),
    ] {
        let line = gate.line_with(&format!(" WARN {what}"));
        let (_, fields) = line.split_once(" file=").unwrap_or_else(|| panic!("{line}"));
        for part in ["ringgate.toml", " line=", " column=", " advice=", advice] {
            assert!(fields.contains(part), "no {part:?} in {line}");
        }
    }
}

#[test]
fn a_stdout_that_takes_nothing_hides_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name);
    fs::write(path("bad.toml"), "[log]\nlevel = 1\n").unwrap();
    fs::write(path("good.toml"), l4(free_port().address(), "", "")).unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for files in [["good.toml", "bad.toml"], ["bad.toml", "good.toml"]] {
        let mut command = ringgate_command(&["check"]);
        let output = command.args(files.map(path)).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("`level` must be"), "{said}");
    }
    let mut command = ringgate_command(&["check"]);
    let output = command.arg(path("good.toml")).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout: No space"));
}

#[test]
fn standard_input_is_read_once() {
    let (code, _, said) = ringgate_reading(&["check", "-", "-"], Stdio::null());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot read standard input twice"), "{said}");
    assert!(said.contains("name `-` once"), "{said}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    for arguments in [&["config", "schema"][..], &["config", "reference"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ringgate_command(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
}

#[test]
fn the_name_of_a_file_does_not_reach_the_terminal_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let good = l4(free_port().address(), "", "");
    for config in [good.as_str(), "[log]\nlevel = 1\n"] {
        let file = dir.path().join("a\u{1b}]0;b\u{7}\nerror: c\u{9b}2J.toml");
        fs::write(&file, config).unwrap();
        for command in ["check", "run", "-t"] {
            if command == "run" && config == good {
                continue;
            }
            let mut arguments = vec![command];
            arguments.extend((command == "run").then_some("-c"));
            let output = run(ringgate_command(&arguments).arg(&file));
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{said:?}");
            assert!(!said.contains("\nerror: c"), "{said:?}");
        }
    }
}

#[test]
fn a_configuration_is_shown_with_its_defaults() {
    let config = l4(free_port().address(), "", "");
    let output = ringgate_with(&["config", "show"], &config);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("drain_timeout = \"30s\"\n"));
    let output = ringgate_with(&["config", "show", "--json"], &config);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["listener"][0]["half_closed_timeout"], "1m");
    let output = ringgate_with(&["config", "show"], "[log]\nlevel = 1\n");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
}

#[test]
fn a_pipe_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(run(require("mkfifo").arg(&fifo)).status.success());
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\nroute = [{{ prefix = \"/\", respond = {{ file = {fifo:?} }} }}]\n"
    );
    std::thread::scope(|scope| {
        for arguments in [["check"].as_slice(), &["run", "-c"]] {
            let fifo = &fifo;
            scope.spawn(move || {
                let mut ringgate = Process::spawn({
                    let mut command = ringgate_command(arguments);
                    command.arg(fifo);
                    command
                });
                ringgate.line_with("it is a pipe that has not ended within 5 s", SHORT);
                ringgate.line_with("  = start the program that writes to the pipe", SHORT);
                assert_eq!(ringgate.wait_exit(SHORT).code(), Some(64), "{arguments:?}");
            });
        }
        // Nor is one that the configuration names.
        let output = ringgate_with(&["check"], &config);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cannot be read: it is a pipe"), "{said}");
    });
}

#[test]
fn a_pipe_that_ends_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(run(require("mkfifo").arg(&fifo)).status.success());
    let writer = fifo.clone();
    let config = l4(free_port().address(), "", "") + &"# more than a pipe holds\n".repeat(10_000);
    std::thread::spawn(move || fs::write(writer, config).unwrap());
    let output = run(ringgate_command(&["check"]).arg(&fifo));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let huge = dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    for (path, reason) in [
        (Path::new("/dev/zero"), "it is a device\n"),
        (Path::new("/dev/null"), "it is a device\n"),
        (&socket, "it is a socket\n"),
        (dir.path(), "Is a directory"),
        (&huge, "it is longer than 16 MiB\n"),
    ] {
        for arguments in [["check"].as_slice(), &["run", "-c"]] {
            let output = run(ringgate_command(arguments).arg(path));
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{said}");
            assert!(said.contains(reason) && said.contains("\n  = "), "{}: {said}", path.display());
        }
    }
}

#[test]
fn a_file_named_in_another_way_is_answered_with_the_right_form() {
    let run_or_check = "write `ringgate run -c edge.toml`, or `ringgate check edge.toml`";
    for (arguments, form) in [
        (&["run", "edge.toml"][..], "write `ringgate run -c edge.toml`\n"),
        (&["check", "-c", "edge.toml"], "write `ringgate check edge.toml`\n"),
        (&["check", "--config", "edge.toml"], "write `ringgate check edge.toml`\n"),
        (&["check", "--config=edge.toml"], "write `ringgate check edge.toml`\n"),
        (&["-c", "edge.toml"], run_or_check),
        (&["-t", "-c", "edge.toml"], run_or_check),
        (&["edge.toml"], run_or_check),
        (&["run", "--foo"], "unexpected argument '--foo'"),
        (&["chek", "edge.toml"], "'check'"),
    ] {
        let output = run(&mut ringgate_command(arguments));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("error: ") && said.contains(form), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let odd = std::ffi::OsStr::from_bytes(b"\xff.toml");
    assert_eq!(run(ringgate_command(&["run"]).arg(odd)).status.code(), Some(2));
}

#[test]
fn the_version_says_commit_and_drivers() {
    for flag in ["--version", "-V"] {
        let output = run(&mut ringgate_command(&[flag]));
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "ringgate {version} ({}; drivers io_uring and epoll)\n",
            env!("RINGGATE_COMMIT")
        );
        assert_eq!(said, expected);
    }
}

/// Runs `ringgate` with a configuration as its standard input.
fn ringgate_reading(arguments: &[&str], stdin: impl Into<Stdio>) -> (Option<i32>, String, String) {
    let output = ringgate_command(arguments).stdin(stdin).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_dash_is_standard_input_and_every_message_calls_it_so() {
    let dir = tempfile::tempdir().unwrap();
    let as_file = |text: &str| {
        let path = dir.path().join("text");
        fs::write(&path, text).unwrap();
        Stdio::from(fs::File::open(path).unwrap())
    };
    let as_pipe = |text: &str| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        Stdio::from(reader)
    };
    let good = l4(free_port().address(), "", "");
    let odd = format!("{good}\n[cluster.unused]\nendpoints = [\"127.0.0.1:1\"]\n");
    for (text, code, out, error) in [
        ("x = 1\n", 64, "", " --> <stdin>:1:1\n"),
        (&*good, 0, "<stdin>: ok\n", ""),
        (&*odd, 0, "<stdin>: ok\n", " --> <stdin>:"),
    ] {
        for stdin in [as_file(text), as_pipe(text)] {
            let (status, stdout, stderr) = ringgate_reading(&["check", "-"], stdin);
            assert_eq!((status, &*stdout), (Some(code), out), "{stderr}");
            assert!(stderr.contains(error) && stderr.is_empty() == error.is_empty(), "{stderr}");
        }
    }
    let (status, _, stderr) = ringgate_reading(&["run", "-c", "-"], as_pipe("x = 1\n"));
    assert_eq!(status, Some(64));
    assert!(stderr.contains(" --> <stdin>:1:1\n"), "{stderr}");
    let (status, _, stderr) = ringgate_reading(&["check", "-"], Stdio::null());
    assert_eq!(status, Some(64));
    assert!(stderr.starts_with("error: cannot read the configuration <stdin>: "), "{stderr}");
}

#[test]
fn an_access_log_that_cannot_be_opened_says_where_what_and_how_to_mend_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no");
    let log = missing.join("access.log");
    let config = format!("[access_log]\npath = {log:?}\n{}", l4(free_port().address(), "", ""));
    let output = ringgate_with(&["run", "-c"], &config);
    let expected = format!(
        "error: cannot open the access log {}: No such file or directory (os error 2)\n  = create \
         the directory {} first\n",
        log.display(),
        missing.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(1));
}
