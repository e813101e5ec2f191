//! A private network and mount namespace for tests that need port 53, `/etc/hosts`,
//! `/etc/resolv.conf`, thousands of ports, or ports that a program finds in an unsafe way.

use std::process::Command;

use super::{require, run};

const INSIDE: &str = "RINGGATE_E2E_INSIDE";

/// Whether this process is already inside. When it is not, the test named `test` (its full path in
/// this target) is run again inside, with a loopback interface and nothing else, and its failure is
/// passed on.
///
/// ```ignore
/// if !inside_namespace("dns::a_test") { return; }
/// ```
#[track_caller]
pub(crate) fn inside_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        bring_loopback_up();
        return true;
    }
    require("ip");
    require("mount");
    let mut command = require("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--mount", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = run(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 passed") && output.status.success(), "inside: {said}");
    false
}

fn bring_loopback_up() {
    let mut command: Command = require("ip");
    let output = run(command.args(["link", "set", "lo", "up"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lets the kernel choose local ports from this range only, in the namespace of the test.
#[track_caller]
pub(crate) fn with_local_ports(low: u16, high: u16) {
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    std::fs::write(range, format!("{low} {high}")).unwrap();
}

/// Takes the IPv6 addresses from every interface of the namespace of the test.
#[track_caller]
pub(crate) fn without_ipv6() {
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
}
