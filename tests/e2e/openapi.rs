//! The OpenAPI file of the admin endpoint: a validator takes it, and what the endpoint answers is
//! what it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::admin::{admin, asks};
use crate::reload::{cluster, page, start, tcp};
use crate::support::{Echo, connect, direct, free_port, python_home, run};
use crate::takeover::echoes;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/schemathesis.toml");
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program that `scripts/test` installs.
fn installed(program: &str) -> Command {
    let file = python_home().join("bin").join(program);
    assert!(file.is_file(), "this test needs {program}: scripts/test installs it");
    direct(Command::new(file))
}

#[test]
fn a_validator_accepts_the_file() {
    let output = run(installed("openapi-spec-validator").arg(FILE));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Lets schemathesis ask what the file describes, and much that it does not.
fn probes(files: &Path, token: Option<&str>) {
    let echo = Echo::start();
    let [own, web, raw] = [(); 3].map(|()| free_port().address());
    let mut config = admin(own);
    if let Some(token) = token {
        let file = files.join("token");
        fs::write(&file, token).unwrap();
        config += &format!("token_file = {file:?}\n");
    }
    config += &page("web", web, "hello");
    config += &tcp("raw", raw, "c");
    config += &cluster("c", echo.address());
    let gate = start(&config, "io_uring");
    let mut tunnel = connect(raw);
    echoes(&mut tunnel);

    let mut schemathesis = installed("schemathesis");
    schemathesis
        .current_dir(files)
        .args(["--config-file", SETTINGS, "run", FILE, "--url", &format!("http://{own}")])
        // Each of them ends the process.
        .args(["--exclude-path", "/drain", "--exclude-path", "/upgrade"])
        .args(["--seed", "1", "--generation-database", "none", "--no-color"]);
    if let Some(token) = token {
        schemathesis.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = run(&mut schemathesis);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");

    // It has changed endpoints and levels, and the process serves on.
    let fields = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let fields = fields.unwrap_or_default();
    assert_eq!(asks(own, "GET /ready", &fields), (200, "serving\n".to_owned()));
    assert_eq!(asks(own, "GET /stats", &fields).0, 200);
    echoes(&mut tunnel);
    drop(gate);
}

#[test]
fn what_it_answers_is_what_the_file_says() {
    probes(tempfile::tempdir().unwrap().path(), None);
}

#[test]
fn with_a_token_it_is_what_the_file_says_too() {
    probes(tempfile::tempdir().unwrap().path(), Some(TOKEN));
}
