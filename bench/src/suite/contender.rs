//! The contenders: what each is started with, and where it listens.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::process::{Launch, Process, version};
use super::results::Contender;
use super::servers;
use crate::ports::lend;
use crate::while_doing;

const NGINX_CONF: &str = include_str!("../../peers/nginx.conf");
const HAPROXY_CFG: &str = include_str!("../../peers/haproxy.cfg");
const ENVOY_YAML: &str = include_str!("../../peers/envoy.yaml");
const RINGGATE_TOML: &str = include_str!("../../peers/ringgate.toml");

/// How HAProxy splices bulk: what moves fast enough by its own judgement, or all.
const HAPROXY_AUTO: &str = "option splice-auto";
const HAPROXY_ALWAYS: &str = "option splice-request\n    option splice-response";

/// nginx's buffer for each connection and direction: beyond it, ten thousand tunnels would take
/// more memory than most edge boxes have.
const NGINX_BUFFER: &str = "256k";
const NGINX_HUGE_BUFFER: &str = "1m";

/// Where the programs are.
pub(super) struct Programs {
    pub(super) ringgate: PathBuf,
    pub(super) nginx: PathBuf,
    /// nginx's module for L4.
    pub(super) stream_module: PathBuf,
    pub(super) haproxy: PathBuf,
    /// None: without Envoy.
    pub(super) envoy: Option<PathBuf>,
    /// v2ray-plugin.
    pub(super) v2ray: PathBuf,
}

/// All that starting a contender needs.
pub(super) struct Setup {
    pub(super) programs: Programs,
    /// Where the servers behind the proxies listen.
    pub(super) servers: Ports,
    pub(super) proxy_cpu: u16,
    pub(super) load_cpu: u16,
    pub(super) directory: PathBuf,
}

/// Ports on 127.0.0.1, one for each kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Bulk at L4.
    pub(super) bulk: u16,
    /// Round trips, churn and idle pairs at L4.
    pub(super) small: u16,
    /// `/stream`, where it is not on the port of the site.
    pub(super) stream: u16,
    /// The site.
    pub(super) web: u16,
    /// Datagrams.
    pub(super) udp: u16,
}

impl Ports {
    /// Ports that no other program is given.
    pub(super) fn choose() -> io::Result<Self> {
        let (bulk, small, stream, web) = (lend()?, lend()?, lend()?, lend()?);
        Ok(Self { bulk, small, stream, web, udp: lend()? })
    }
}

/// A port of 127.0.0.1.
pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A contender that runs.
pub(super) struct Running {
    pub(super) contender: Contender,
    pub(super) ports: Ports,
    /// The process whose CPU time and memory count; none without a proxy.
    pub(super) pid: Option<u32>,
    /// Ends with this value.
    _processes: Vec<Process>,
}

impl Running {
    /// Starts a contender.
    pub(super) fn start(contender: Contender, setup: &Setup) -> io::Result<Self> {
        let ports = Ports::choose()?;
        match contender {
            Contender::Direct => {
                let ports = setup.servers;
                Ok(Running { contender, ports, pid: None, _processes: Vec::new() })
            }
            Contender::Floor => start_floor(setup, ports),
            Contender::V2ray => start_v2ray(setup, ports),
            Contender::Nginx | Contender::NginxHuge => {
                let process = start_with_file(contender, setup, ports)?;
                let pid = Some(process.only_child()?);
                // The site's port has `/stream`, too.
                let ports = Ports { stream: ports.web, ..ports };
                Ok(Running { contender, ports, pid, _processes: vec![process] })
            }
            Contender::Haproxy | Contender::HaproxySplice => {
                let process = start_with_file(contender, setup, ports)?;
                let pid = Some(process.pid());
                Ok(Running { contender, ports, pid, _processes: vec![process] })
            }
            // The same bytes to the same server as through a tunnel.
            Contender::RinggateL4 => {
                let process = start_with_file(contender, setup, ports)?;
                let pid = Some(process.pid());
                Ok(Running { contender, ports, pid, _processes: vec![process] })
            }
            _ => {
                let process = start_with_file(contender, setup, ports)?;
                let pid = Some(process.pid());
                let ports = Ports { stream: ports.web, ..ports };
                Ok(Running { contender, ports, pid, _processes: vec![process] })
            }
        }
    }
}

/// What the contender says of its version.
pub(super) fn describe(contender: Contender, programs: &Programs) -> io::Result<Option<String>> {
    let text = match contender {
        Contender::Ringgate => version(&programs.ringgate, "--version")?,
        Contender::Nginx => {
            version(&programs.nginx, "-v")?.replace("nginx version: ", "").replace('/', " ")
        }
        Contender::Haproxy => {
            let text = version(&programs.haproxy, "-v")?;
            text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
        }
        Contender::Envoy => match &programs.envoy {
            Some(program) => {
                // `PATH version: COMMIT/1.2.3/Clean/RELEASE/BoringSSL`
                let text = version(program, "--version")?;
                let fields = text.rsplit("version: ").next().unwrap_or_default();
                let number = fields.split('/').nth(1).unwrap_or("of unknown version");
                format!("Envoy {number}")
            }
            None => return Ok(None),
        },
        Contender::V2ray => {
            let text = version(&programs.v2ray, "-version")?;
            text.lines().next().unwrap_or_default().to_string()
        }
        _ => return Ok(None),
    };
    Ok(Some(text))
}

/// The floor takes one port in and one port out, so that there is one process for each.
fn start_floor(setup: &Setup, ports: Ports) -> io::Result<Running> {
    let program = std::env::current_exe()?;
    let (listen, connect) = (local(ports.bulk), local(setup.servers.bulk));
    let command = vec![
        program.into_os_string(),
        "floor".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--connect".into(),
        connect.to_string().into(),
        "--seconds".into(),
        servers::LIMIT.as_secs().to_string().into(),
    ];
    let process = Process::start(Launch {
        name: "floor".into(),
        command,
        cpus: setup.proxy_cpu.to_string(),
        unprivileged: false,
        directory: &setup.directory,
        ready: vec![listen],
    })?;
    let pid = Some(process.pid());
    Ok(Running { contender: Contender::Floor, ports, pid, _processes: vec![process] })
}

/// The plugin's server side, without the ss-server that it usually stands before: as for everyone
/// else, the server of bulk is behind it.
fn start_v2ray(setup: &Setup, ports: Ports) -> io::Result<Running> {
    let program = setup.programs.v2ray.clone().into_os_string();
    let (listen, connect) = (ports.web.to_string(), setup.servers.bulk.to_string());
    let mut command = vec![program];
    // In server mode `local` is where it listens.
    for argument in [
        "-server",
        "-mode",
        "websocket",
        "-path",
        "/framed",
        "-mux",
        "0",
        "-loglevel",
        "none",
        "-localAddr",
        "127.0.0.1",
        "-localPort",
        &listen,
        "-remoteAddr",
        "127.0.0.1",
        "-remotePort",
        &connect,
    ] {
        command.push(argument.into());
    }
    let process = Process::start(Launch {
        name: "v2ray".into(),
        command,
        cpus: setup.proxy_cpu.to_string(),
        unprivileged: false,
        directory: &setup.directory,
        ready: vec![local(ports.web)],
    })?;
    let pid = Some(process.pid());
    Ok(Running { contender: Contender::V2ray, ports, pid, _processes: vec![process] })
}

/// Starts a program that takes its ports from a configuration file.
fn start_with_file(contender: Contender, setup: &Setup, ports: Ports) -> io::Result<Process> {
    let (template, extension) = match contender {
        Contender::Nginx | Contender::NginxHuge => (NGINX_CONF, "conf"),
        Contender::Haproxy | Contender::HaproxySplice => (HAPROXY_CFG, "cfg"),
        Contender::Envoy => (ENVOY_YAML, "yaml"),
        _ => (RINGGATE_TOML, "toml"),
    };
    let name = format!("{contender:?}").to_lowercase();
    let directory = setup.directory.join(&name);
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{name}.{extension}"));
    fs::write(&file, fill_in(template, contender, setup, ports, &directory))?;
    let mut ready = vec![local(ports.bulk), local(ports.small), local(ports.web)];
    if matches!(contender, Contender::Haproxy | Contender::HaproxySplice) {
        ready.push(local(ports.stream));
    }
    Process::start(Launch {
        command: command(contender, setup, &file)?,
        name,
        cpus: cpus(contender, setup),
        unprivileged: contender == Contender::RinggateUser,
        directory: &setup.directory,
        ready,
    })
}

fn command(contender: Contender, setup: &Setup, file: &Path) -> io::Result<Vec<OsString>> {
    let programs = &setup.programs;
    let (program, arguments): (PathBuf, Vec<&str>) = match contender {
        Contender::Nginx | Contender::NginxHuge => {
            (programs.nginx.clone(), vec!["-e", "stderr", "-c"])
        }
        Contender::Haproxy | Contender::HaproxySplice => {
            (programs.haproxy.clone(), vec!["-db", "-f"])
        }
        Contender::Envoy => {
            let program = programs.envoy.clone();
            let program = program.ok_or_else(|| io::Error::other("no Envoy to be started"))?;
            let arguments =
                vec!["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];
            (program, arguments)
        }
        Contender::RinggateUser => {
            // The user may not be allowed to where the program was built.
            let copy = file.with_extension("program");
            fs::copy(&programs.ringgate, &copy)
                .map_err(while_doing(format!("cannot copy to {}", copy.display())))?;
            (copy, vec!["run", "-c"])
        }
        _ => (programs.ringgate.clone(), vec!["run", "-c"]),
    };
    let mut command = vec![program.into_os_string()];
    command.extend(arguments.into_iter().map(OsString::from));
    command.push(file.as_os_str().to_owned());
    Ok(command)
}

/// The CPUs of a contender: one, but for the one that is about two. Where four workers are compared
/// with each other, all are on the same: beside the load a message costs them less.
fn cpus(contender: Contender, setup: &Setup) -> String {
    match contender {
        Contender::RinggateTwo => format!("{},{}", setup.proxy_cpu, setup.load_cpu),
        _ => setup.proxy_cpu.to_string(),
    }
}

fn workers(contender: Contender, setup: &Setup) -> String {
    match contender {
        Contender::RinggateTwo => format!("[{}, {}]", setup.proxy_cpu, setup.load_cpu),
        Contender::RinggateFour => "4".to_string(),
        _ => format!("[{}]", setup.proxy_cpu),
    }
}

fn fill_in(
    template: &str,
    contender: Contender,
    setup: &Setup,
    ports: Ports,
    directory: &Path,
) -> String {
    let huge = contender == Contender::NginxHuge;
    let always = contender == Contender::HaproxySplice;
    let mask = 1u64 << setup.proxy_cpu;
    [
        ("@WORKERS@", workers(contender, setup)),
        ("@CPU_MASK@", format!("{mask:b}")),
        ("@DIRECTORY@", directory.display().to_string()),
        ("@STREAM_MODULE@", setup.programs.stream_module.display().to_string()),
        ("@BUFFER@", if huge { NGINX_HUGE_BUFFER } else { NGINX_BUFFER }.to_string()),
        ("@SPLICE@", if always { HAPROXY_ALWAYS } else { HAPROXY_AUTO }.to_string()),
        ("@BULK_SERVER@", setup.servers.bulk.to_string()),
        ("@SMALL_SERVER@", setup.servers.small.to_string()),
        ("@UPGRADE_SERVER@", setup.servers.stream.to_string()),
        ("@BULK@", ports.bulk.to_string()),
        ("@SMALL@", ports.small.to_string()),
        ("@STREAM@", ports.stream.to_string()),
        ("@WEB@", ports.web.to_string()),
        ("@UDP@", ports.udp.to_string()),
        ("@UDP_SERVER@", setup.servers.udp.to_string()),
    ]
    .into_iter()
    .fold(template.to_string(), |text, (name, value)| text.replace(name, &value))
}
