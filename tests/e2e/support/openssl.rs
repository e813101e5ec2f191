//! TLS clients that others wrote: openssl's and curl's.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Authority, Process, SHORT, require, run, wait_for};

/// `openssl s_client`: what is typed to it goes to the server, but for lines that are a command.
pub(crate) struct OpensslClient {
    process: Process,
}

/// `openssl s_client` for this server name, with these further arguments.
pub(crate) fn openssl_client(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    arguments: &[&str],
) -> Command {
    let mut command = require("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", name]);
    command.args(["-verify_return_error", "-CAfile"]).arg(authority.file()).args(arguments);
    command
}

impl OpensslClient {
    /// Connects and makes the handshake.
    #[track_caller]
    pub(crate) fn start(
        address: SocketAddr,
        authority: &Authority,
        name: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = openssl_client(address, authority, name, arguments);
        command.stdin(Stdio::piped());
        let process = Process::spawn_with_input(command);
        process.line_with("Verify return code: 0", SHORT);
        OpensslClient { process }
    }

    /// Types a line. `R` asks for a new handshake, `Q` ends.
    #[track_caller]
    pub(crate) fn types(&mut self, line: &str) {
        self.process.write(format!("{line}\n").as_bytes());
    }

    /// Asks for new keys on both sides, for the `count`th time. What is typed before it has said so
    /// would be lost.
    #[track_caller]
    pub(crate) fn asks_for_new_keys(&mut self, count: usize) {
        self.types("K");
        wait_for("KEYUPDATE", SHORT, || {
            let said = self.process.lines();
            (said.iter().filter(|line| line.contains("KEYUPDATE")).count() == count).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn line_with(&self, part: &str) -> String {
        self.process.line_with(part, SHORT)
    }

    /// Types a line and waits until it comes back.
    #[track_caller]
    pub(crate) fn echoes(&mut self, line: &str) {
        self.types(line);
        self.line_with(line);
    }

    /// Everything it has said by its end.
    #[track_caller]
    pub(crate) fn ends(mut self) -> String {
        self.process.wait_exit(SHORT);
        self.process.lines().join("\n")
    }
}

/// Runs curl with trust in `authority`, connected to `address` whatever the URLs say.
pub(crate) fn curl(address: SocketAddr, authority: &Authority, arguments: &[&str]) -> Output {
    curl_trusting(address, &authority.file(), arguments)
}

/// [`curl`] with trust in the certificates of this file.
pub(crate) fn curl_trusting(address: SocketAddr, trusted: &Path, arguments: &[&str]) -> Output {
    let mut command = require("curl");
    command.args(["-q", "-sS", "-m", "30", "--connect-to", &format!("::{address}")]);
    run(command.arg("--cacert").arg(trusted).args(arguments))
}
