//! A name server and the system's configuration of names, inside a namespace of the test's own.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Process, SHORT, require, run};

/// `/etc/resolv.conf`, `/etc/hosts` and a dnsmasq that serves the zone `test` from a file.
pub(crate) struct Network {
    dir: TempDir,
    server: Option<Process>,
    ttl: u32,
}

impl Network {
    /// A resolver configuration with these further lines, these lines in `/etc/hosts`, and no
    /// server yet.
    pub(crate) fn new(resolv: &str, hosts: &str) -> Self {
        Self::with_resolv_conf(&format!("nameserver 127.0.0.1\n{resolv}"), hosts)
    }

    /// [`Network::new`] with all of the resolver's configuration.
    pub(crate) fn with_resolv_conf(resolv: &str, hosts: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network { dir, server: None, ttl: 1 };
        network.over("resolv.conf", resolv);
        network.over("hosts", &format!("127.0.0.1 localhost\n{hosts}"));
        network.over("nsswitch.conf", "hosts: files dns\n");
        network
    }

    /// [`Network::new`] with a server that knows these `(name, address)`.
    pub(crate) fn serving(names: &[(&str, &str)]) -> Self {
        let mut network = Network::new("", "");
        network.names(names);
        network.start_server();
        network
    }

    fn over(&self, name: &str, text: &str) {
        let file = self.dir.path().join(name);
        fs::write(&file, text).unwrap();
        let target = Path::new("/etc").join(name);
        let mounted = run(require("mount").arg("--bind").arg(file).arg(target));
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    }

    /// Answers last this long, in seconds; 1 unless told.
    pub(crate) fn time_to_live(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// What the server knows from now on.
    pub(crate) fn names(&self, names: &[(&str, &str)]) {
        let lines: String = names.iter().map(|(name, ip)| format!("{ip} {name}\n")).collect();
        fs::write(self.dir.path().join("zone"), lines).unwrap();
        if let Some(server) = &self.server {
            server.signal(Signal::HUP);
        }
    }

    pub(crate) fn start_server(&mut self) {
        let mut command = require("dnsmasq");
        // Its debugging mode keeps it in the foreground, and the user that it is started as: one
        // that is root in its own namespace only has no groups to change to.
        command.args(["--no-daemon", "--conf-file=/dev/null", "--pid-file="]);
        command.args(["--no-resolv", "--no-hosts", "--local=/test/"]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
        command.arg(format!("--local-ttl={}", self.ttl));
        let zone = self.dir.path().join("zone");
        command.arg(format!("--addn-hosts={}", zone.display()));
        let server = Process::spawn(command);
        server.line_with("read ", SHORT);
        self.server = Some(server);
    }

    pub(crate) fn stop_server(&mut self) {
        self.server = None;
    }
}
