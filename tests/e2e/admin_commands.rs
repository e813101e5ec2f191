//! The commands that ask a running process: what they print, and how they exit.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::admin::admin;
use crate::reload::{cluster, page, start, tcp};
use crate::support::{Echo, LONG, connect, free_port, run, wait_for};

/// The exit code of a command, and what it has printed: on stdout, then on stderr.
fn command(admin: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    let output = run(command.args(arguments).env("RINGGATE_ADMIN", admin));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn they_show_and_change_what_runs() {
    let echo = Echo::start();
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", directory.path().join("admin.sock").display());
    let own = free_port().address();
    let by_path = format!("[admin]\nlisten = {path:?}\n");
    for (config, address) in [(admin(own), own.to_string()), (by_path, path)] {
        let raw = free_port().address();
        let config = config + &tcp("raw", raw, "c") + &cluster("c", echo.address());
        let mut gate = start(&config, "io_uring");
        let ask = |arguments: &[&str]| command(&address, arguments);
        let json = |arguments: &[&str]| {
            let (code, out, err) = ask(arguments);
            assert_eq!((code, err.as_str()), (0, ""), "{out}");
            serde_json::from_str::<Value>(&out).unwrap()
        };

        let (code, out, err) = ask(&["status"]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("serving") && out.contains("raw"), "{out}");
        assert_eq!(json(&["status", "--json"])["state"], "serving");

        let mut tunnel = connect(raw);
        tunnel.write_all(b"1234").unwrap();
        tunnel.read_exact(&mut [0; 4]).unwrap();
        let (code, out, _) = ask(&["connections"]);
        let client = tunnel.local_addr().unwrap().to_string();
        assert!(code == 0 && out.contains(&client), "{out}");
        let listed = json(&["connections", "--json", "--limit", "5"]);
        assert_eq!(
            (&listed["total"], &listed["connections"][0]["bytes_up"]),
            (&1.into(), &4.into())
        );
        let id = listed["connections"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(ask(&["close", &id]).0, 0);
        assert!(tunnel.read(&mut [0]).is_err(), "it is reset");
        wait_for("it is not listed", LONG, || (ask(&["close", &id]).0 == 1).then_some(()));

        let (code, out, err) = ask(&["reload"]);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "reloaded\n", ""));
        fs::write(gate.config_file(), "[[listener]]\nname = \"raw\"\n").unwrap();
        let (code, _, err) = ask(&["reload"]);
        assert!(code == 1 && err.contains("needs `listen`"), "{code}: {err}");

        assert_eq!(ask(&["drain"]), (0, "draining\n".to_owned(), String::new()));
        assert!(gate.wait_exit(LONG).success());
        let (code, _, err) = ask(&["status"]);
        assert!(code == 2 && err.contains("--admin"), "{code}: {err}");
    }
}

#[test]
fn a_token_is_shown_where_it_is_needed() {
    let own = free_port().address();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let raw = tcp("raw", free_port().address(), "c") + &cluster("c", own);
    let _gate = start(&(admin(own) + &format!("token_file = {file:?}\n") + &raw), "epoll");
    let address = own.to_string();
    let (code, _, err) = command(&address, &["status"]);
    assert!(code == 1 && err.contains("token_file"), "{code}: {err}");
    let file = file.to_str().unwrap();
    assert_eq!(command(&address, &["status", "--token-file", file]).0, 0);
    // As a unit has it for `systemctl reload`.
    let mut reload = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    reload.arg("reload").env("RINGGATE_ADMIN", &address).env("RINGGATE_ADMIN_TOKEN_FILE", file);
    assert!(run(&mut reload).status.success());
}

#[test]
fn something_else_that_answers_is_not_taken_for_the_endpoint() {
    let web = free_port().address();
    let _gate = start(&page("web", web, "\\u001b[2Jhello"), "epoll");
    for name in ["status", "reload", "drain", "connections"] {
        for more in [&[][..], &["--json"]] {
            let (code, out, err) = command(&web.to_string(), &[&[name], more].concat());
            assert_eq!((code, out.as_str()), (2, ""), "{name}: {err}");
            assert!(err.contains("something else answers") && !err.contains('\u{1b}'), "{err:?}");
        }
    }
}
