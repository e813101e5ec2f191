//! nginx as a backend.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::{LentPort, Process, free_port, require, wait_listening};

/// A running nginx with a directory of files; ends with its guard.
pub(crate) struct Nginx {
    port: LentPort,
    dir: TempDir,
    _process: Process,
}

impl Nginx {
    /// Starts with these lines of its server, which has `html` as its root. `tls` is added to
    /// `listen`.
    #[track_caller]
    pub(crate) fn start(listen: &str, server: &str) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("html")).unwrap();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; pid nginx.pid; error_log stderr; {user}\n\
             events {{ }}\n\
             http {{\n  access_log off;\n  client_body_temp_path body;\n  server {{\n\
             listen 127.0.0.1:{} {listen};\nroot html;\n{server}\n  }}\n}}\n",
            port.number()
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut nginx = require("nginx");
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&file);
        let process = Process::spawn(nginx);
        wait_listening(port.number());
        Nginx { port, dir, _process: process }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Writes a file that it serves.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join("html").join(name), content).unwrap();
    }
}
