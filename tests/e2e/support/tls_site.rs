//! A web site behind real TLS: nginx with a certificate of the test's own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{LentPort, Pair, Process, free_port, require, run, wait_listening};

/// A running nginx; ends with its guard.
pub(crate) struct TlsSite {
    port: LentPort,
    dir: TempDir,
    _process: Process,
}

impl TlsSite {
    /// Serves `page` under every path to whoever asks for `name`.
    pub(crate) fn start(name: &str, page: &str) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let mut openssl = require("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
        openssl.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
        openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(dir.path());
        let output = run(&mut openssl);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::serve(port, dir, name, page)
    }

    /// The same with a certificate that an authority has signed.
    pub(crate) fn with(pair: &Pair, name: &str, page: &str) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        fs::copy(&pair.certificate, dir.path().join("cert.pem")).unwrap();
        fs::copy(&pair.key, dir.path().join("key.pem")).unwrap();
        Self::serve(port, dir, name, page)
    }

    fn serve(port: LentPort, dir: TempDir, name: &str, page: &str) -> Self {
        let config = format!(
            "daemon off; pid nginx.pid; error_log stderr;\n\
             events {{ }}\n\
             http {{\n  access_log off;\n  server {{\n\
             listen 127.0.0.1:{} ssl; server_name {name};\n\
             ssl_certificate cert.pem; ssl_certificate_key key.pem;\n\
             location / {{ return 200 '{page}'; }}\n  }}\n}}\n",
            port.number()
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut nginx = require("nginx");
        nginx.arg("-p").arg(dir.path()).arg("-c").arg(&file);
        let process = Process::spawn(nginx);
        wait_listening(port.number());
        TlsSite { port, dir, _process: process }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The certificate that its clients are to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }
}
