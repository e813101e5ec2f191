//! A real worker on a thread of this process.

use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringgate::config::{self, AccessLog, Config, Discovery, LogPath, Protocol};
use ringgate::front::{Layout, Resources};
use ringgate::observe::access_log::{Target, Writer};
use ringgate::observe::counters::Registry;
use ringgate::observe::endpoints::Endpoints;
use ringgate::sys::{self, Address, Shares, SpareDescriptor};
use ringgate::timers::TICK;
use ringgate::worker::{self, Balance, Command, Datagrams, Gate, Plan, Setup, Socket, Trial};

use super::counter;

/// For what takes milliseconds; a worker that hangs fails the test instead of hanging it.
const LIMIT: Duration = Duration::from_secs(60);

/// A running worker with one listener; ends with its guard.
pub(crate) struct Worker {
    address: SocketAddr,
    allocations: &'static AtomicU64,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    writer: Option<Writer>,
}

/// What a worker allocated, and in which time.
pub(crate) struct Counted {
    pub(crate) total: u64,
    time: Duration,
}

/// A listener that gives every byte to `upstream`.
pub(crate) fn l4(upstream: SocketAddr, listener: &str) -> String {
    format!(
        "[[listener]]\nname = \"l4\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         cluster = \"c\"\n{listener}\n[cluster.c]\nendpoints = [\"{upstream}\"]\n"
    )
}

/// A listener that passes datagrams on to `upstream`.
pub(crate) fn udp(upstream: SocketAddr) -> String {
    l4(upstream, "").replace("\"tcp\"", "\"udp\"")
}

/// A listener that redirects everything.
pub(crate) fn site(listener: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n{listener}\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         redirect = {{ scheme = \"https\", host = \"www.example.test\", status = 301 }}\n"
    )
}

impl Worker {
    /// Starts a worker with this driver; without a log unless the listener says otherwise.
    pub(crate) fn start(driver: &str, listeners: &str) -> Worker {
        let text =
            format!("[server]\ndriver = \"{driver}\"\n[access_log]\npath = \"off\"\n{listeners}");
        let config = config::parse("test", &text, Path::new("")).unwrap_or_else(|e| panic!("{e}"));
        let mut writer = Writer::start().unwrap();
        let open = |log: &AccessLog| match &log.path {
            LogPath::File(path) => writer.open(&Target::File(path.clone())),
            other => panic!("tests log to files, not to {other:?}"),
        };
        let layout = Layout::new(
            &config,
            Resources::default(),
            &HashMap::new(),
            &mut Registry::new(1),
            open,
        );
        let layout = Arc::new(layout.unwrap_or_else(|e| panic!("{e}")));
        let (mut sockets, mut datagrams) = (Vec::new(), Vec::new());
        let address = match (&config.listeners[0].protocol, &config.listeners[0].addresses[0]) {
            (Protocol::Udp(_), Address::Ip(ip)) => {
                let socket = sys::bind_udp(*ip, true).unwrap();
                let (listener, socket) = (Arc::clone(&config.listeners[0].name), Arc::new(socket));
                let spare = SpareDescriptor::default();
                datagrams.push(Datagrams { listener, socket, spare, offload: None });
                datagrams[0].socket.local_addr().unwrap()
            }
            _ => {
                sockets.push(listen(&config));
                sockets[0].socket.local_addr().unwrap()
            }
        };
        let (commands, received) = channel();
        for command in endpoints(&config) {
            commands.send(command).unwrap();
        }
        let (started, reports) = channel();
        let (plan, plans) = channel();
        let (built, results) = channel();
        let first = if driver == "epoll" { Plan::Epoll } else { Plan::RINGS[0] };
        plan.send(Trial { plan: first, retry_for: Duration::ZERO }).unwrap();
        drop(plan);
        let shares = Shares::of(1024, &config.needs(1));
        let (balance, inbox) = Balance::for_workers(1, 1000).unwrap().remove(0);
        let setup = Setup {
            index: 0,
            cpu: None,
            layout,
            sockets,
            datagrams,
            workers: 1,
            failures: sync_channel(1).0,
            shares,
            shortage: Arc::default(),
            balance,
            inbox,
            commands: received,
            plans,
            built,
            pulse: Arc::default(),
            started,
        };
        let ((gate, opened), (passed, serving)) = (channel(), channel());
        let gated = Gate { opened, passed };
        let allocations: &'static AtomicU64 = Box::leak(Box::default());
        let thread = thread::spawn(move || {
            counter::count_into(allocations);
            worker::run(setup, gated);
        });
        results.recv_timeout(LIMIT).unwrap().unwrap_or_else(|e| panic!("{e}"));
        let running = reports.recv_timeout(LIMIT).unwrap().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(running.driver_name(), driver);
        gate.send(()).unwrap();
        serving.recv_timeout(LIMIT).unwrap();
        Worker { address, allocations, commands, thread: Some(thread), writer: Some(writer) }
    }

    /// A socket that sends to its listener.
    pub(crate) fn datagrams(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    /// A connection to its listener.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// What the worker allocates meanwhile.
    pub(crate) fn count(&self, meanwhile: impl FnOnce()) -> Counted {
        let (before, start) = (self.allocations.load(Ordering::Relaxed), Instant::now());
        meanwhile();
        let total = self.allocations.load(Ordering::Relaxed) - before;
        Counted { total, time: start.elapsed() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported already.
            let _ = thread.join();
        }
        if let Some(writer) = self.writer.take() {
            writer.close();
        }
    }
}

impl Counted {
    /// Ticks that may have passed.
    pub(crate) fn ticks(&self) -> u64 {
        self.time.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
    }

    /// A connection's limit is looked at when the first one of the connection would have been over,
    /// which is 200 ticks for a head, and then at each turn of the wheel of the timers. It may find
    /// its next slot without room. This is 0 in any test that takes less than 5 s.
    pub(crate) fn wheel_turns(&self) -> u64 {
        self.ticks() / 100
    }

    /// A tick gives the room of its slot of the wheel back, so the first limits that are put into
    /// the slots after it need new room: those of connects and those of connections.
    pub(crate) fn wheel_slots(&self) -> u64 {
        2 * self.ticks()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} allocations in {:?}", self.total, self.time)
    }
}

/// The socket of the only listener, as the control plane binds it.
fn listen(config: &Config) -> Socket {
    let listener = &config.listeners[0];
    let socket = sys::listen(&listener.addresses[0], &listener.socket, false).unwrap();
    let (listener, spare) = (Arc::clone(&listener.name), SpareDescriptor::default());
    Socket { listener, socket: Arc::new(socket), unix: false, spare }
}

/// What the control plane says of static clusters.
fn endpoints(config: &Config) -> Vec<Command> {
    let command = |config: &Arc<config::Cluster>| {
        let cluster = Arc::clone(&config.name);
        let Discovery::Static(addresses) = &config.discovery else { panic!("not static") };
        let endpoints = Arc::new(Endpoints::unshared(addresses, 1));
        Command::Endpoints { cluster, endpoints }
    };
    config.clusters.iter().map(command).collect()
}
