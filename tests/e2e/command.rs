//! The command line: what `check` says of a file, what it does not wait for, and the right form of
//! what was written wrong.

use std::fs;
use std::process::Output;

use crate::support::{Ringgate, free_port, l4, ringgate_command, run};

/// Runs `ringgate` with a configuration file to its end.
fn ringgate_with(arguments: &[&str], config: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringgate.toml");
    fs::write(&file, config).unwrap();
    run(ringgate_command(arguments).arg(file))
}

#[test]
fn a_warning_is_shown_and_the_configuration_is_good() {
    let odd = l4(free_port().address(), "max_connections = 1000000000000", "")
        + "[cluster.unused]\nendpoints = [\"127.0.0.1:1\"]\n";
    let output = ringgate_with(&["check"], &odd);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ringgate.toml: ok\n"));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "warning: nothing uses the cluster `unused`",
        "warning: `max_connections` is more than",
        "ringgate.toml:",
        "[cluster.unused]\n",
        "  = name it in a listener",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // They are told at the start, too.
    let gate = Ringgate::start(&odd);
    for part in ["nothing uses the cluster `unused`", "`max_connections` is more than"] {
        let line = gate.line_with(part);
        assert!(line.contains("WARN") && line.contains("ringgate.toml:"), "{line}");
    }
}
