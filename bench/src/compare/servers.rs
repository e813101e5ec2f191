//! Starting the two proxies with their configuration files, and ending exactly those processes.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::{Arguments, Proxy};
use crate::{usage, while_doing};

const NGINX_CONF: &str = include_str!("../../peers/nginx.conf");
const RINGGATE_TOML: &str = include_str!("../../peers/ringgate.toml");
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Ports that were free when the run began.
pub(crate) struct Ports {
    pub(crate) sink: u16,
    pub(crate) upgrade_sink: u16,
    ringgate_l4: u16,
    ringgate_web: u16,
    nginx_l4: u16,
    nginx_idle: u16,
    nginx_web: u16,
}

impl Ports {
    pub(crate) fn choose() -> io::Result<Self> {
        // All seven are held at once, so that the kernel gives seven different ones.
        let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held: Vec<TcpListener> = (0..7).map(bind).collect::<io::Result<_>>()?;
        let mut ports = Vec::new();
        for listener in &held {
            ports.push(listener.local_addr()?.port());
        }
        Ok(Self {
            sink: ports[0],
            upgrade_sink: ports[1],
            ringgate_l4: ports[2],
            ringgate_web: ports[3],
            nginx_l4: ports[4],
            nginx_idle: ports[5],
            nginx_web: ports[6],
        })
    }

    pub(crate) fn l4(&self, proxy: Proxy) -> SocketAddr {
        local(if proxy == Proxy::Nginx { self.nginx_l4 } else { self.ringgate_l4 })
    }

    /// nginx holds idle pairs in a listener with small buffers; ringgate has one listener for all.
    pub(crate) fn idle(&self, proxy: Proxy) -> SocketAddr {
        local(if proxy == Proxy::Nginx { self.nginx_idle } else { self.ringgate_l4 })
    }

    pub(crate) fn web(&self, proxy: Proxy) -> SocketAddr {
        local(if proxy == Proxy::Nginx { self.nginx_web } else { self.ringgate_web })
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Both proxies, running. Dropping it ends them.
pub(crate) struct Servers {
    ringgate: Server,
    _nginx: Server,
    nginx_worker: u32,
    pub(crate) versions: String,
    _directory: TempDir,
}

impl Servers {
    pub(crate) fn start(arguments: &Arguments, ports: &Ports) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ringgate-bench-").tempdir()?;
        let ringgate_program = arguments.ringgate.clone().map_or_else(beside_this_program, Ok)?;
        let versions = format!(
            "{}; {}",
            version(&ringgate_program, "--version")?,
            version(&arguments.nginx, "-v")?
        );

        let ringgate_config = directory.path().join("ringgate.toml");
        fs::write(&ringgate_config, fill_in(RINGGATE_TOML, arguments, ports, directory.path()))?;
        let command = [ringgate_program.as_os_str(), "run".as_ref(), "-c".as_ref()];
        let command = [&command[..], &[ringgate_config.as_os_str()]].concat();
        let log = directory.path().join("ringgate.log");
        let ready = [ports.ringgate_l4, ports.ringgate_web];
        let ringgate = Server::start("ringgate", &command, arguments.proxy_cpu, log, &ready)?;

        let nginx_config = directory.path().join("nginx.conf");
        fs::write(&nginx_config, fill_in(NGINX_CONF, arguments, ports, directory.path()))?;
        let command = [arguments.nginx.as_os_str(), "-e".as_ref(), "stderr".as_ref()];
        let command = [&command[..], &["-c".as_ref(), nginx_config.as_os_str()]].concat();
        let log = directory.path().join("nginx.log");
        let ready = [ports.nginx_l4, ports.nginx_idle, ports.nginx_web];
        let nginx = Server::start("nginx", &command, arguments.proxy_cpu, log, &ready)?;
        let nginx_worker = only_child(nginx.child.id())?;
        Ok(Self { ringgate, _nginx: nginx, nginx_worker, versions, _directory: directory })
    }

    /// The process that does the proxy's work.
    pub(crate) fn pid(&self, proxy: Proxy) -> u32 {
        match proxy {
            Proxy::Ringgate => self.ringgate.child.id(),
            Proxy::Nginx => self.nginx_worker,
        }
    }
}

fn fill_in(template: &str, arguments: &Arguments, ports: &Ports, directory: &Path) -> String {
    let is_nginx = template == NGINX_CONF;
    let proxy = if is_nginx { Proxy::Nginx } else { Proxy::Ringgate };
    let mask = 1u64 << arguments.proxy_cpu;
    [
        ("@CPU@", arguments.proxy_cpu.to_string()),
        ("@CPU_MASK@", format!("{mask:b}")),
        ("@DIRECTORY@", directory.display().to_string()),
        ("@STREAM_MODULE@", arguments.stream_module.display().to_string()),
        ("@BUFFER@", arguments.nginx_buffer.clone()),
        ("@SINK@", ports.sink.to_string()),
        ("@UPGRADE_SINK@", ports.upgrade_sink.to_string()),
        ("@L4@", ports.l4(proxy).port().to_string()),
        ("@IDLE@", ports.idle(proxy).port().to_string()),
        ("@WEB@", ports.web(proxy).port().to_string()),
    ]
    .into_iter()
    .fold(template.to_string(), |text, (name, value)| text.replace(name, &value))
}

fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("ringgate"))
}

/// First line of what the program says about itself, on either stream.
fn version(program: &Path, flag: &str) -> io::Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .map_err(while_doing(format!("cannot run {}", program.display())))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().replace("nginx version: ", ""))
}

/// The worker of an nginx that has exactly one.
fn only_child(parent: u32) -> io::Result<u32> {
    let mut children = Vec::new();
    usage::wait_until(START_LIMIT, || {
        children.clear();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end while the list is read.
            if usage::parent_of(pid).is_ok_and(|its_parent| its_parent == parent) {
                children.push(pid);
            }
        }
        Ok(children.len() == 1)
    })?;
    match children[..] {
        [worker] => Ok(worker),
        _ => Err(io::Error::other(format!("nginx has {} workers, not one", children.len()))),
    }
}

struct Server {
    name: &'static str,
    child: Child,
}

impl Server {
    /// Starts the program on one CPU and waits until every port accepts.
    fn start(
        name: &'static str,
        command: &[&std::ffi::OsStr],
        cpu: u16,
        log: PathBuf,
        ports: &[u16],
    ) -> io::Result<Self> {
        let output = File::create(&log)?;
        // setpriv has the kernel end the proxy when this program dies, however it dies; setpriv and
        // taskset both become the proxy, which therefore has the pid of the child.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &cpu.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(while_doing("cannot run setpriv (package util-linux)"))?;
        let mut server = Self { name, child };
        let accepts = usage::wait_until(START_LIMIT, || {
            if let Some(status) = server.child.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(io::Error::other(format!("{name} ended at once, {status}\n{said}")));
            }
            Ok(ports.iter().all(|&port| TcpStream::connect(local(port)).is_ok()))
        })?;
        if accepts {
            return Ok(server);
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(io::Error::other(format!("{name} does not accept on {ports:?}\n{said}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself; `try_wait` below tells.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let ended = usage::wait_until(STOP_LIMIT, || Ok(self.child.try_wait()?.is_some()));
        if !matches!(ended, Ok(true)) {
            eprintln!("ringgate-bench: {} did not end when asked; killing it", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
