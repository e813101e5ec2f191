//! Clients that read nothing, more of them than the memory budget of a worker has room for: memory
//! stays within the documented bound, also where a cgroup enforces it, and others are served.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::DRIVERS;
use crate::support::{
    Authority, Echo, HttpClient, LONG, Ringgate, SHORT, Setup, TlsClient, UPGRADE, VERSIONS, Web,
    allow_descriptors, holds_for, http2_settings, inside_namespace, l4, require, slow_reader,
    tls_settings, wait_for,
};

const MIB: u64 = 1024 * 1024;
/// docs/operations.md: what a worker keeps for its connections.
const BUDGET: u64 = 64 * MIB;
/// Of each kind: together they would keep six times the budget.
const CLIENTS: usize = 240;
/// The same for one client beyond the budget: 4 KiB for each direction, its state, and that of TLS.
const EACH: u64 = 32 * 1024;
/// Logs, the worker's buffer and what the allocator does not give back.
const REST: u64 = 40 * MIB;

/// A control group that bounds memory; removed with this.
struct Group {
    folder: PathBuf,
}

impl Group {
    /// `None` where this process may not make one.
    fn new(limit: u64) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        // cgroups(7): of version 1 `4:memory:/path`, of version 2 `0::/path`.
        let path = |prefix: &str| own.lines().find_map(|line| line.split_once(prefix)?.1.into());
        let one = path(":memory:")
            .map(|path: &str| (format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"));
        let two = path("0::").map(|path: &str| (format!("/sys/fs/cgroup{path}"), "memory.max"));
        [one, two].into_iter().flatten().find_map(|(parent, key)| {
            let folder = Path::new(&parent).join(format!("ringgate-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Group { folder };
            fs::write(group.folder.join(key), limit.to_string()).ok().map(|()| group)
        })
    }

    /// Runs what stands behind it in the group.
    fn through(&self) -> Command {
        let mut command = require("sh");
        let procs = self.folder.join("cgroup.procs");
        command.args(["-c", &format!("echo $$ >{procs:?} && exec \"$0\" \"$@\"")]);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty a moment after its process has ended.
        let start = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && start.elapsed() < SHORT {
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Sends to each client for ever.
fn flood() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {});
        }
    });
    address
}

/// Socket buffers of the namespace: small, because the kernel's memory is not what this is about.
fn with_small_buffers() {
    for (key, sizes) in [("tcp_rmem", "4096 65536 131072"), ("tcp_wmem", "4096 16384 65536")] {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), sizes).unwrap();
    }
}

struct Place {
    gate: Ringgate,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    _authority: Authority,
    _files: tempfile::TempDir,
}

const NAME: &str = "live.example.test";

impl Place {
    /// Listeners `ingress` and `echo` (L4), `tls` (L4 behind TLS), `web`, `secure` and `brief`
    /// (HTTP).
    fn start(driver: &str, through: Option<Command>) -> Place {
        let (flood, web, authority) = (flood(), Web::start(), Authority::new("authority"));
        let files = tempfile::tempdir().unwrap();
        fs::File::create(files.path().join("large")).unwrap().set_len(200 * MIB).unwrap();
        let pair = authority.signs(&[NAME]);
        let echo = l4(Echo::start().address(), "", "");
        let echo = echo.replace("ingress", "echo").replace("backend", "echo");
        let tls = format!(
            "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n{}",
            pair.rule(&[NAME], "cluster = \"backend\"")
        );
        let routes = format!(
            "[[listener.host]]\nroute = [{{ path = \"/stream\", upgrade = \"websocket\", \
             tunnel = \"terminate\", cluster = \"backend\" }}, \
             {{ path = \"/large\", root = {:?} }}, \
             {{ path = \"/moved\", redirect = {{ scheme = \"https\" }} }}, \
             {{ prefix = \"/\", cluster = \"app\" }}]\n",
            files.path()
        );
        let http = |name: &str, rules: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
                 {rules}{routes}"
            )
        };
        let app = web.url("").replace("http://", "");
        let app = format!("[cluster.app]\nendpoints = [\"{app}\"]\n");
        let brief = "keepalive_timeout = \"2s\"\n".to_owned() + &pair.rule(&[NAME], "");
        let secure = http("secure", &pair.rule(&[NAME], ""));
        let sites = http("web", "") + &secure + &http("brief", &brief);
        let config = [l4(flood, "", ""), echo, tls, sites, app].concat();
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        let gate = Setup { config, server, through, ..Setup::default() }.start();
        let http1 = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let http2 = http2_settings(&authority);
        Place { gate, http1, http2, _authority: authority, _files: files }
    }

    fn plain(&self, listener: &str, request: &[u8]) -> TcpStream {
        let mut client = slow_reader(self.gate.address(listener));
        client.write_all(request).unwrap();
        client
    }

    fn tls(&self, listener: &str, settings: &Arc<ClientConfig>, request: &[u8]) -> TcpStream {
        let socket = slow_reader(self.gate.address(listener));
        let mut client = TlsClient::over(socket, settings, NAME);
        client.shake_hands().unwrap();
        client.send(request);
        client.socket
    }

    /// Clients of all kinds that ask for much and read nothing.
    fn jam(&self) -> Vec<TcpStream> {
        let get = |path| format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").into_bytes();
        let (endless, large) = (get("/endless"), get("/large"));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(self.plain("ingress", b""));
            clients.push(self.plain("web", UPGRADE.as_bytes()));
            clients.push(self.plain("web", &endless));
            clients.push(self.plain("web", &large));
            clients.push(self.tls("tls", &self.http1, b""));
            clients.push(self.tls("secure", &self.http1, &endless));
            clients.push(self.tls("secure", &self.http1, &large));
        }
        for _ in 0..CLIENTS / 6 {
            clients.push(self.tls("secure", &self.http2, &http2_requests(20, "/large")));
            clients.push(self.tls("secure", &self.http2, &http2_requests(20, "/endless")));
        }
        clients
    }

    /// Clients that spend the budget.
    #[track_caller]
    fn spend(&self) -> Vec<TcpStream> {
        let before = self.gate.anonymous_kib() * 1024;
        let mut clients = Vec::new();
        wait_for("the budget is spent", LONG, || {
            clients.push(self.tls("secure", &self.http2, &http2_requests(98, "/large")));
            (self.gate.anonymous_kib() * 1024 > before + BUDGET).then_some(())
        });
        clients
    }

    /// New clients are served.
    #[track_caller]
    fn serves(&self) {
        let mut echo = self.gate.connect("echo");
        echo.write_all(b"here").unwrap();
        echo.read_exact(&mut [0; 4]).unwrap();
        let mut client = HttpClient::connect(self.gate.address("web"));
        for (path, status) in [("/moved", 301), ("/bytes/1000", 200), ("/moved", 301)] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
            assert_eq!(client.response().status, status, "{path}");
        }
        let secure = self.gate.address("secure");
        let mut client = HttpClient::over(TlsClient::connect(secure, &self.http1, NAME));
        client.send(format!("GET /bytes/1000 HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        assert_eq!(client.response().status, 200);
    }
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client whose windows have no end sends first (RFC 9113 sections 3.4 and 6).
fn http2_preface() -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE of the connection.
    let window = [&[0, 4][..], &0x7fff_ffffu32.to_be_bytes()].concat();
    let update = frame(8, 0, 0, &0x7000_0000u32.to_be_bytes());
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &window), update].concat()
}

/// A request on this stream.
fn http2_request(stream: u32, path: &str) -> Vec<u8> {
    // GET and https of the static table, the authority and the path as literals (RFC 7541).
    let literal = |index: u8, value: &str| [&[index, value.len() as u8], value.as_bytes()].concat();
    let head = [vec![0x82, 0x87], literal(0x01, NAME), literal(0x04, path)].concat();
    // END_STREAM and END_HEADERS.
    frame(1, 5, stream, &head)
}

/// The preface and requests on the first streams.
fn http2_requests(count: u32, path: &str) -> Vec<u8> {
    let requests = (0..count).flat_map(|at| http2_request(2 * at + 1, path));
    http2_preface().into_iter().chain(requests).collect()
}

/// On a connection that takes nothing only one stream reads while the budget is spent. The others
/// wait, and leave nothing behind when they are reset.
#[test]
fn streams_that_are_reset_while_they_wait_leave_nothing() {
    /// At a time: fewer than those for which the `h2` crate ends a connection.
    const STREAMS: u32 = 18;
    const ROUNDS: u32 = 48;
    if !inside_namespace("faults::memory::streams_that_are_reset_while_they_wait_leave_nothing") {
        return;
    }
    with_small_buffers();
    for driver in DRIVERS {
        let place = Place::start(driver, None);
        let _clients = place.spend();
        let socket = slow_reader(place.gate.address("secure"));
        let mut client = TlsClient::over(socket, &place.http2, NAME);
        client.shake_hands().unwrap();
        client.send(http2_requests(1, "/large"));
        let mut grown = Vec::new();
        for round in 0..ROUNDS {
            let streams = (1..=STREAMS).map(|at| 2 * (round * STREAMS + at) + 1);
            // RST_STREAM with CANCEL.
            let reset = |stream| frame(3, 0, stream, &8u32.to_be_bytes());
            let requests = streams.clone().flat_map(|one| http2_request(one, "/large"));
            client.send(requests.collect::<Vec<_>>());
            client.send(streams.flat_map(reset).collect::<Vec<_>>());
            place.gate.records(((round + 1) * STREAMS) as usize);
            grown.push(place.gate.anonymous_kib());
        }
        // The first rounds make what later ones use again.
        let kib = grown[ROUNDS as usize - 1].saturating_sub(grown[ROUNDS as usize / 4]);
        let each = kib * 1024 / u64::from(STREAMS * ROUNDS * 3 / 4);
        assert!(each < 1024, "{each} bytes stay of each stream over {driver}");
    }
}

/// They take turns, and the limit of one that waits for its turn counts from what the client has
/// read of the others.
#[test]
fn while_the_budget_is_spent_streams_of_a_slow_client_go_on() {
    if !inside_namespace("faults::memory::while_the_budget_is_spent_streams_of_a_slow_client_go_on")
    {
        return;
    }
    with_small_buffers();
    for driver in DRIVERS {
        let place = Place::start(driver, None);
        let _clients = place.spend();
        let mut client =
            TlsClient::over(slow_reader(place.gate.address("brief")), &place.http2, NAME);
        client.shake_hands().unwrap();
        client.send(http2_requests(6, "/large"));
        // Three times the limit, at about 400 KB/s.
        let begun = Instant::now();
        let mut bytes = 0;
        while begun.elapsed() < Duration::from_secs(6) {
            let (kind, payload) = client.http2_frame();
            assert!(kind != 3, "a stream was reset after {:?} over {driver}", begun.elapsed());
            bytes += payload.len();
            thread::park_timeout(Duration::from_millis(10));
        }
        println!("{bytes} bytes over {driver}");
    }
}

#[test]
fn clients_that_read_nothing_take_bounded_memory_and_others_are_served() {
    if !inside_namespace(
        "faults::memory::clients_that_read_nothing_take_bounded_memory_and_others_are_served",
    ) {
        return;
    }
    allow_descriptors(8000);
    with_small_buffers();
    let most = BUDGET + REST + 8 * CLIENTS as u64 * EACH;
    for driver in DRIVERS {
        // What the process has at its start and the kernel keeps for it count there, too.
        let group = Group::new(most);
        println!("over {driver}, in a control group: {}", group.is_some());
        let place = Place::start(driver, group.as_ref().map(Group::through));
        place.serves();
        let before = place.gate.anonymous_kib() * 1024;
        let clients = place.jam();
        let mut peak = 0;
        let mut last = (0, 0);
        wait_for("nothing grows any more", LONG, || {
            let now = place.gate.anonymous_kib() * 1024 - before;
            peak = peak.max(now);
            last = if now.abs_diff(last.0) < MIB / 4 { (last.0, last.1 + 1) } else { (now, 0) };
            assert!(now < most, "{} MiB over {driver}, {} at most", now / MIB, most / MIB);
            (last.1 > 1000).then_some(())
        });
        println!("{} MiB for {} clients", peak / MIB, clients.len());
        assert!(peak > BUDGET * 3 / 4, "the budget is not reached: {} MiB", peak / MIB);
        holds_for("others are served", Duration::from_secs(2), || {
            place.serves();
            true
        });
        // They leave, and what they kept is free for others.
        drop(clients);
        place.serves();
        drop(place);
    }
}
