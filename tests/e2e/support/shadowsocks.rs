//! The real parts of a Shadowsocks chain and a browser's place in front of it.

use std::io::Write;
use std::net::SocketAddr;

use tempfile::NamedTempFile;

use super::web::sum;
use super::{Process, ReservedPort, Web, bytes, free_port, require, run, wait_listening};

const SECRET: [&str; 4] = ["-k", "not a secret", "-m", "chacha20-ietf-poly1305"];

/// A server of a chain; ends with its guard.
pub(crate) struct Server {
    port: ReservedPort,
    _process: Process,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

/// `ss-server`, bare or behind its v2ray-plugin with these options.
pub(crate) fn ss_server(plugin: Option<&str>) -> Server {
    let port = free_port();
    let mut command = require("ss-server");
    command.args(["-s", "127.0.0.1", "-p", &port.number().to_string(), "-t", "600"]).args(SECRET);
    if let Some(options) = plugin {
        require("ss-v2ray-plugin");
        command.args(["--plugin", "ss-v2ray-plugin", "--plugin-opts", options]);
    }
    let process = Process::spawn(command);
    wait_listening(port.number());
    process.line_with("listening at", super::SHORT);
    Server { port, _process: process }
}

/// A stand-alone `obfs-server` in http mode in front of `upstream`, with these further arguments.
pub(crate) fn obfs_server(upstream: SocketAddr, more: &[&str]) -> Server {
    let port = free_port();
    let mut command = require("obfs-server");
    command.args(["-s", "127.0.0.1", "-p", &port.number().to_string(), "--obfs", "http"]);
    command.args(["-r", &upstream.to_string()]).args(more);
    let process = Process::spawn(command);
    wait_listening(port.number());
    Server { port, _process: process }
}

/// `ss-local`: the SOCKS port that a browser would use.
pub(crate) struct Socks {
    port: ReservedPort,
    _process: Process,
}

impl Socks {
    /// Connects to `server`, through this plugin with these options.
    pub(crate) fn start(server: SocketAddr, plugin: Option<(&str, &str)>) -> Self {
        let port = free_port();
        let (host, number) = (server.ip().to_string(), server.port().to_string());
        let mut command = require("ss-local");
        command.args(["-s", &host, "-p", &number, "-b", "127.0.0.1", "-t", "600"]).args(SECRET);
        command.args(["-l", &port.number().to_string()]);
        if let Some((name, options)) = plugin {
            require(name);
            command.args(["--plugin", name, "--plugin-opts", options]);
        }
        let process = Process::spawn(command);
        wait_listening(port.number());
        Socks { port, _process: process }
    }

    /// Downloads `count` bytes and compares every one.
    #[track_caller]
    pub(crate) fn downloads(&self, web: &Web, count: usize) {
        let body = self.curl(&[&web.url(&format!("/bytes/{count}"))]);
        assert_eq!(body.len(), count, "bytes of the download");
        assert!(body == bytes(count as u64, count), "the download is not what was sent");
    }

    /// Uploads `count` bytes and compares what the server saw.
    #[track_caller]
    pub(crate) fn uploads(&self, web: &Web, count: usize) {
        let body = bytes(!(count as u64), count);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&body).unwrap();
        let data = format!("@{}", file.path().display());
        let answer = self.curl(&["--data-binary", &data, &web.url("/sum")]);
        assert_eq!(String::from_utf8_lossy(&answer), sum(&body), "what the server saw");
    }

    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = require("curl");
        command.args(["-q", "-sS", "--fail", "-m", "60"]);
        command.args(["--socks5-hostname", &self.port.address().to_string()]).args(arguments);
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl {arguments:?}: {said}");
        output.stdout
    }
}
