//! The contenders: what each is started with, and where it listens.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::process::{Launch, Process, version};
use super::results::{Contender, Kit};
use super::servers;
use crate::load::tls::Certificate;
use crate::ports::lend;
use crate::{certificate, while_doing};

const NGINX_CONF: &str = include_str!("../../peers/nginx.conf");
const HAPROXY_CFG: &str = include_str!("../../peers/haproxy.cfg");
const ENVOY_YAML: &str = include_str!("../../peers/envoy.yaml");
const RINGGATE_TOML: &str = include_str!("../../peers/ringgate.toml");
const NGINX_TLS_CONF: &str = include_str!("../../peers/nginx-tls.conf");
const HAPROXY_TLS_CFG: &str = include_str!("../../peers/haproxy-tls.cfg");
const ENVOY_TLS_YAML: &str = include_str!("../../peers/envoy-tls.yaml");
const RINGGATE_TLS_TOML: &str = include_str!("../../peers/ringgate-tls.toml");
const NGINX_SITE_CONF: &str = include_str!("../../peers/nginx-site.conf");
const HAPROXY_SITE_CFG: &str = include_str!("../../peers/haproxy-site.cfg");
const ENVOY_SITE_YAML: &str = include_str!("../../peers/envoy-site.yaml");
const RINGGATE_SITE_TOML: &str = include_str!("../../peers/ringgate-site.toml");
const CADDYFILE: &str = include_str!("../../peers/caddy-site.Caddyfile");

/// How HAProxy splices bulk: what moves fast enough by its own judgement, or all.
const HAPROXY_AUTO: &str = "option splice-auto";
const HAPROXY_ALWAYS: &str = "option splice-request\n    option splice-response";

/// nginx's buffer for each connection and direction: beyond it, ten thousand tunnels would take
/// more memory than most edge boxes have.
const NGINX_BUFFER: &str = "256k";
const NGINX_HUGE_BUFFER: &str = "1m";

/// HAProxy's buffer for bulk in TLS; one size for all connections of a process.
const HAPROXY_BUFFER: &str = "262144";

/// Where the programs are.
pub(super) struct Programs {
    pub(super) ringgate: PathBuf,
    pub(super) nginx: PathBuf,
    /// nginx's module for L4.
    pub(super) stream_module: PathBuf,
    pub(super) haproxy: PathBuf,
    /// None: without Envoy.
    pub(super) envoy: Option<PathBuf>,
    pub(super) caddy: PathBuf,
    /// v2ray-plugin.
    pub(super) v2ray: PathBuf,
    /// Generators of load that others wrote.
    pub(super) openssl: PathBuf,
    pub(super) hey: PathBuf,
    pub(super) wrk: PathBuf,
    pub(super) h2load: PathBuf,
}

/// All that starting a contender needs.
pub(super) struct Setup {
    pub(super) programs: Programs,
    /// Where the servers behind the proxies listen.
    pub(super) servers: Ports,
    pub(super) proxy_cpu: u16,
    pub(super) load_cpu: u16,
    pub(super) directory: PathBuf,
    pub(super) certificate: certificate::Files,
    /// Of the site's files.
    pub(super) root: PathBuf,
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
    /// The site; behind the proxies its backend for small requests.
    pub(super) web: u16,
    /// The site with TLS, where it has a port of its own.
    pub(super) secure: u16,
    /// Behind the proxies alone: the backend for large bodies.
    pub(super) large: u16,
    /// Datagrams.
    pub(super) udp: u16,
}

impl Ports {
    /// Ports that no other program is given.
    pub(super) fn choose() -> io::Result<Self> {
        let (bulk, small, stream, web) = (lend()?, lend()?, lend()?, lend()?);
        let (secure, large, udp) = (lend()?, lend()?, lend()?);
        Ok(Self { bulk, small, stream, web, secure, large, udp })
    }
}

/// A port of 127.0.0.1.
pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A process, and the one whose CPU time counts: nginx has its worker do the work.
type Started = (u32, Process);

/// A contender that runs.
pub(super) struct Running {
    pub(super) contender: Contender,
    pub(super) kit: Kit,
    pub(super) ports: Ports,
    /// What its ports show, those that speak TLS.
    pub(super) certificate: Option<Certificate>,
    /// The processes whose CPU time and memory count; none without a proxy.
    pub(super) pids: Vec<u32>,
    /// End with this value.
    _processes: Vec<Process>,
}

impl Running {
    /// Starts a contender for one kind of work.
    pub(super) fn start(contender: Contender, kit: Kit, setup: &Setup) -> io::Result<Self> {
        let ports = Ports::choose()?;
        // Where `/stream` is on the site's port.
        let shared = Ports { stream: ports.web, ..ports };
        let (ports, started) = match contender {
            Contender::Direct => (setup.servers, Vec::new()),
            Contender::Floor => (ports, vec![start_floor(setup, ports)?]),
            Contender::V2ray => (ports, vec![start_v2ray(setup, ports.web, "/framed")?]),
            // nginx passes `/stream` on to the plugin; every other contender does without one.
            Contender::NginxV2ray => {
                let plugin = start_v2ray(setup, ports.stream, "/stream")?;
                (shared, vec![plugin, start_with_file(contender, kit, setup, ports)?])
            }
            // L4 has the same bytes to the same server as a tunnel.
            Contender::Haproxy | Contender::HaproxySplice | Contender::RinggateL4 => {
                (ports, vec![start_with_file(contender, kit, setup, ports)?])
            }
            _ => (shared, vec![start_with_file(contender, kit, setup, ports)?]),
        };
        let certificate = (kit != Kit::Plain).then(|| setup.certificate.pinned.clone());
        let (pids, processes) = started.into_iter().unzip();
        Ok(Self { contender, kit, ports, certificate, pids, _processes: processes })
    }

    /// The process that is weighed.
    pub(super) fn only_pid(&self) -> io::Result<u32> {
        match self.pids[..] {
            [pid] => Ok(pid),
            _ => Err(io::Error::other(format!("{} is not one process", self.contender))),
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
        Contender::Caddy => format!("Caddy {}", version(&programs.caddy, "version")?),
        Contender::V2ray => {
            let text = version(&programs.v2ray, "-version")?;
            text.lines().next().unwrap_or_default().to_string()
        }
        _ => return Ok(None),
    };
    Ok(Some(text))
}

/// The floor takes one port in and one port out, so that there is one process for each.
fn start_floor(setup: &Setup, ports: Ports) -> io::Result<Started> {
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
    Ok((process.pid(), process))
}

/// The plugin's server side, without the ss-server that it usually stands before: as for everyone
/// else, the server of bulk is behind it.
fn start_v2ray(setup: &Setup, port: u16, path: &str) -> io::Result<Started> {
    let program = setup.programs.v2ray.clone().into_os_string();
    let (listen, connect) = (port.to_string(), setup.servers.bulk.to_string());
    let mut command = vec![program];
    // In server mode `local` is where it listens.
    for argument in [
        "-server",
        "-mode",
        "websocket",
        "-path",
        path,
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
        ready: vec![local(port)],
    })?;
    Ok((process.pid(), process))
}

/// Starts a program that takes its ports from a configuration file.
fn start_with_file(
    contender: Contender,
    kit: Kit,
    setup: &Setup,
    ports: Ports,
) -> io::Result<Started> {
    let (template, extension) = template(contender, kit);
    let name = format!("{contender:?}-{kit:?}").to_lowercase();
    let directory = setup.directory.join(&name);
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{name}.{extension}"));
    fs::write(&file, fill_in(template, contender, kit, setup, ports, &directory))?;
    let mut ready = match kit {
        Kit::Site => vec![local(ports.web), local(ports.secure)],
        _ => vec![local(ports.bulk), local(ports.small), local(ports.web)],
    };
    if template.contains("bind 127.0.0.1:@STREAM@") {
        ready.push(local(ports.stream));
    }
    let process = Process::start(Launch {
        command: command(contender, setup, &file)?,
        name,
        cpus: cpus(contender, setup),
        unprivileged: contender == Contender::RinggateUser,
        directory: &setup.directory,
        ready,
    })?;
    let pid = match contender {
        Contender::Nginx | Contender::NginxHuge | Contender::NginxV2ray => process.only_child()?,
        _ => process.pid(),
    };
    Ok((pid, process))
}

/// What a contender is configured by, and the extension of the file.
fn template(contender: Contender, kit: Kit) -> (&'static str, &'static str) {
    let (plain, tls, site, extension) = match contender {
        Contender::Nginx | Contender::NginxHuge | Contender::NginxV2ray => {
            (NGINX_CONF, NGINX_TLS_CONF, NGINX_SITE_CONF, "conf")
        }
        Contender::Haproxy | Contender::HaproxySplice => {
            (HAPROXY_CFG, HAPROXY_TLS_CFG, HAPROXY_SITE_CFG, "cfg")
        }
        Contender::Envoy => (ENVOY_YAML, ENVOY_TLS_YAML, ENVOY_SITE_YAML, "yaml"),
        Contender::Caddy => (CADDYFILE, CADDYFILE, CADDYFILE, "Caddyfile"),
        _ => (RINGGATE_TOML, RINGGATE_TLS_TOML, RINGGATE_SITE_TOML, "toml"),
    };
    let template = match kit {
        Kit::Plain => plain,
        Kit::Tls | Kit::TlsBulk => tls,
        Kit::Site => site,
    };
    (template, extension)
}

fn command(contender: Contender, setup: &Setup, file: &Path) -> io::Result<Vec<OsString>> {
    let programs = &setup.programs;
    let (home, caddy) = (format!("HOME={}", setup.directory.display()), programs.caddy.display());
    let caddy = caddy.to_string();
    let (program, arguments): (PathBuf, Vec<&str>) = match contender {
        Contender::Nginx | Contender::NginxHuge | Contender::NginxV2ray => {
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
        // One CPU, so one thread that runs Go at a time; what it would write to a home is its
        // directory's.
        Contender::Caddy => (
            PathBuf::from("env"),
            vec!["GOMAXPROCS=1", &home, &caddy, "run", "--adapter", "caddyfile", "--config"],
        ),
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
    kit: Kit,
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
        ("@BUFSIZE@", if kit == Kit::TlsBulk { HAPROXY_BUFFER } else { "16384" }.to_string()),
        ("@CERTIFICATE@", setup.certificate.certificate.display().to_string()),
        ("@KEY@", setup.certificate.key.display().to_string()),
        ("@CERTIFICATE_AND_KEY@", setup.certificate.both.display().to_string()),
        ("@BULK_SERVER@", setup.servers.bulk.to_string()),
        ("@SMALL_SERVER@", setup.servers.small.to_string()),
        ("@UPGRADE_SERVER@", setup.servers.stream.to_string()),
        ("@BULK@", ports.bulk.to_string()),
        ("@SMALL@", ports.small.to_string()),
        ("@STREAM@", ports.stream.to_string()),
        ("@WEB@", ports.web.to_string()),
        ("@SECURE@", ports.secure.to_string()),
        ("@ROOT@", setup.root.display().to_string()),
        ("@SMALL_BACKEND@", setup.servers.web.to_string()),
        ("@LARGE_BACKEND@", setup.servers.large.to_string()),
        ("@UDP@", ports.udp.to_string()),
        ("@UDP_SERVER@", setup.servers.udp.to_string()),
    ]
    .into_iter()
    .fold(template.to_string(), |text, (name, value)| text.replace(name, &value))
}
