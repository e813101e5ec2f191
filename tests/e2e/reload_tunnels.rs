//! Shadowsocks tunnels that outlive the configuration they were opened under.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use crate::chains::MIB;
use crate::support::{
    Authority, Echo, HttpClient, LentPort, Ringgate, SHORT, Server, Setup, Socks, bytes, free_port,
    inside_namespace, ss_server, wait_for,
};
use crate::takeover::{Chain, has_ended};

const NAME: &str = "live.example.test";

const RELOADS: usize = 20;
/// For so many edits the site keeps its name.
const SAME_SITE: usize = 4;
const TAKE_OVERS: usize = 3;

/// What stays the same in each edit: addresses, and what the tunnels need.
struct Place {
    plain: LentPort,
    web: LentPort,
    edge: LentPort,
    /// A listener that comes and goes.
    other: LentPort,
    server: SocketAddr,
    /// A server behind a plugin, which ends the tunnel itself.
    plugin_server: SocketAddr,
    rule: String,
}

impl Place {
    /// The configuration after so many edits. Each one renames two listeners and all clusters,
    /// changes a route, and adds a listener or removes it again. Some rename the site.
    fn config(&self, edit: usize) -> String {
        let Place { plain, web, edge, other, server, plugin_server, rule } = self;
        let [plain, web, edge, other] = [plain, web, edge, other].map(|port| port.address());
        let name = edit / SAME_SITE;
        let other = match edit % 2 {
            0 => String::new(),
            _ => format!(
                "[[listener]]\nname = \"other\"\nlisten = \"{other}\"\nprotocol = \"tcp\"\n\
                 cluster = \"bare-{edit}\"\n"
            ),
        };
        format!(
            r#"
            [[listener]]
            name = "plain-{edit}"
            listen = "{plain}"
            protocol = "tcp"
            cluster = "bare-{edit}"

            [[listener]]
            name = "edge-{edit}"
            listen = "{edge}"
            protocol = "tls"
              [[listener.tls]]
              names = ["cdn.example.test"]
              simple_obfs = true
              cluster = "bare-{edit}"

            {other}

            [[listener]]
            name = "web-{name}"
            listen = "{web}"
            protocol = "http"
            {rule}
              [[listener.host]]

                [[listener.host.route]]
                path = "/edit"
                respond = {{ body = "{edit}" }}

                [[listener.host.route]]
                path = "/"
                upgrade = "websocket"
                cluster = "bare-{edit}"
                tunnel = "terminate"
                accept = ["obfs"]

                [[listener.host.route]]
                path = "/stream"
                upgrade = "websocket"
                cluster = "bare-{edit}"
                tunnel = "terminate"

                [[listener.host.route]]
                path = "/forward"
                upgrade = "websocket"
                cluster = "plugin-{edit}"

            [cluster.bare-{edit}]
            endpoints = ["{server}"]

            [cluster.plugin-{edit}]
            endpoints = ["{plugin_server}"]
            "#
        )
    }
}

#[test]
fn tunnels_live_through_twenty_reloads() {
    // See chains.rs.
    if inside_namespace("reload_tunnels::tunnels_live_through_twenty_reloads") {
        live_through_reloads("io_uring");
    }
}

#[test]
fn tunnels_live_through_twenty_reloads_over_epoll() {
    // See chains.rs.
    if inside_namespace("reload_tunnels::tunnels_live_through_twenty_reloads_over_epoll") {
        live_through_reloads("epoll");
    }
}

#[test]
fn tunnels_live_through_three_take_overs() {
    // See chains.rs.
    if inside_namespace("reload_tunnels::tunnels_live_through_three_take_overs") {
        live_through_take_overs("io_uring");
    }
}

#[test]
fn tunnels_live_through_three_take_overs_over_epoll() {
    // See chains.rs.
    if inside_namespace("reload_tunnels::tunnels_live_through_three_take_overs_over_epoll") {
        live_through_take_overs("epoll");
    }
}

fn live_through_reloads(driver: &str) {
    let live = Live::start(driver);
    let mut tunnels = live.tunnels();
    exchange(&mut tunnels, 1000);
    let mut page = HttpClient::connect(live.place.web.address());
    for edit in 1..=RELOADS {
        live.chain.gate.reload(&live.place.config(edit));
        // A connection that was there before, a new one, and the tunnels. A listener with another
        // name is another one, and idle connections of the one before end.
        if edit % SAME_SITE == 0 {
            page.expect_end();
            page = HttpClient::connect(live.place.web.address());
        }
        live.answers(&mut page, edit);
        live.answers(&mut HttpClient::connect(live.place.web.address()), edit);
        exchange(&mut tunnels, 1000);
    }
    exchange(&mut tunnels, 20 * MIB);

    let mut later = live.tunnels();
    exchange(&mut later, 300 * 1024);
    drop((tunnels, later));
    ended_well(&live.chain.gate, 2 * live.clients.len());
}

fn live_through_take_overs(driver: &str) {
    let mut live = Live::start(driver);
    let mut tunnels = live.tunnels();
    exchange(&mut tunnels, 1000);
    let mut predecessors = Vec::new();
    for edit in 1..=TAKE_OVERS {
        let body = |edit| format!("body = \"{edit}\"");
        live.chain.edit(&body(edit - 1), &body(edit));
        predecessors.push(live.chain.take_over());
        live.answers(&mut HttpClient::connect(live.place.web.address()), edit);
        tunnels.extend(live.tunnels());
        exchange(&mut tunnels, 1000);
    }
    // The first ones go through the first process, which drains since the first take-over.
    exchange(&mut tunnels[..live.clients.len()], 20 * MIB);

    assert!(!predecessors.iter().any(|process| has_ended(*process)), "with its tunnels open");
    let count = tunnels.len();
    drop(tunnels);
    ended_well(&live.chain.gate, count);
    for process in predecessors {
        wait_for("a process without connections ends", SHORT, || has_ended(process).then_some(()));
    }
}

/// ringgate with a client of each kind.
struct Live {
    place: Place,
    chain: Chain,
    echo: Echo,
    clients: Vec<Socks>,
    _authority: Authority,
    _servers: [Server; 2],
}

impl Live {
    fn start(driver: &str) -> Live {
        let authority = Authority::new("authority");
        let servers = [ss_server(None), ss_server(Some("server;path=/forward;mux=0"))];
        let [server, plugin_server] = &servers;
        let place = Place {
            plain: free_port(),
            web: free_port(),
            edge: free_port(),
            other: free_port(),
            server: server.address(),
            plugin_server: plugin_server.address(),
            rule: authority.signs(&[NAME]).rule(&[NAME], ""),
        };
        let server = format!("driver = \"{driver}\"\ndrain_timeout = \"10m\"");
        let setup = Setup { config: place.config(0), server, ..Setup::default() };
        let chain = Chain::start(setup);
        let clients = clients(&place, &authority);
        let echo = Echo::start();
        Live { place, chain, echo, clients, _authority: authority, _servers: servers }
    }

    /// A tunnel of each client.
    #[track_caller]
    fn tunnels(&self) -> Vec<TcpStream> {
        self.clients.iter().map(|client| client.connects(self.echo.address())).collect()
    }

    /// A request is answered by the configuration of this edit.
    #[track_caller]
    fn answers(&self, client: &mut HttpClient, edit: usize) {
        client.send(format!("GET /edit HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        assert_eq!(client.response().body, edit.to_string().as_bytes());
    }
}

/// A client of each kind.
fn clients(place: &Place, authority: &Authority) -> Vec<Socks> {
    let [plain, web, edge] = [place.plain, place.web, place.edge].map(LentPort::address);
    let trusted = authority.file();
    let trusted = format!("tls;host={NAME};mux=0;cert={}", trusted.display());
    let websocket = |path: &str| format!("host={NAME};mux=0;path={path}");
    vec![
        Socks::start(plain, None),
        Socks::start(web, Some(("obfs-local", &format!("obfs=http;obfs-host={NAME}")))),
        Socks::start(edge, Some(("obfs-local", "obfs=tls;obfs-host=cdn.example.test"))),
        Socks::start(web, Some(("ss-v2ray-plugin", &websocket("/stream")))),
        Socks::start(web, Some(("ss-v2ray-plugin", &websocket("/forward")))),
        Socks::start(web, Some(("ss-v2ray-plugin", &format!("{trusted};path=/stream")))),
        Socks::start(web, Some(("ss-v2ray-plugin", &format!("{trusted};path=/forward")))),
        Socks::of_sing_box(web, ("v2ray-plugin", &format!("{trusted};path=/stream"))),
    ]
}

/// Sends so many bytes through each tunnel at the same time, and compares what comes back.
#[track_caller]
fn exchange(tunnels: &mut [TcpStream], count: usize) {
    thread::scope(|scope| {
        for (index, tunnel) in tunnels.iter_mut().enumerate() {
            scope.spawn(move || {
                let payload = bytes((index + count) as u64, count);
                let mut echoed = vec![0; count];
                let mut sending = tunnel.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| sending.write_all(&payload).unwrap());
                    let read = tunnel.read_exact(&mut echoed);
                    assert!(read.is_ok(), "tunnel {index} of {count} bytes: {read:?}");
                });
                assert!(echoed == payload, "tunnel {index}: the echo is not what was sent");
            });
        }
    });
}

/// Waits for the records of so many tunnels, of which none was cut.
#[track_caller]
fn ended_well(gate: &Ringgate, count: usize) {
    let records = gate.records_where(count, |record| record.text("path") != "/edit");
    assert_eq!(records.len(), count, "{records:#?}");
    for record in records {
        let end = record.end();
        assert!(end.starts_with("client") || end.starts_with("upstream"), "{record:?}");
    }
}
