//! WebSockets over TLS: real Shadowsocks clients against a tunnel that ends in ringgate, and
//! against one that goes on to the plugin of a server.

use crate::chains::{MIB, four_transfers};
use crate::support::{
    Authority, LONG, Ringgate, SHORT, Setup, Socks, Web, inside_namespace, site, ss_server,
    wait_for,
};

const NAME: &str = "live.example.test";

/// What the tunnel does, and over which driver.
#[derive(Clone, Copy)]
struct Tunnel {
    /// `terminate` or `forward`.
    what: &'static str,
    driver: &'static str,
}

const TERMINATED: Tunnel = Tunnel { what: "terminate", driver: "io_uring" };
const TERMINATED_BY_EPOLL: Tunnel = Tunnel { what: "terminate", driver: "epoll" };
const FORWARDED: Tunnel = Tunnel { what: "forward", driver: "io_uring" };

#[derive(Clone, Copy, PartialEq)]
enum Client {
    V2rayPlugin,
    SingBox,
}

#[test]
fn v2ray_plugin_lives_with_a_tunnel_that_ends_here() {
    // See chains.rs.
    if inside_namespace("tls_wss::v2ray_plugin_lives_with_a_tunnel_that_ends_here") {
        TERMINATED.serves(Client::V2rayPlugin);
    }
}

#[test]
fn v2ray_plugin_lives_with_a_tunnel_that_ends_here_over_epoll() {
    // See chains.rs.
    if inside_namespace("tls_wss::v2ray_plugin_lives_with_a_tunnel_that_ends_here_over_epoll") {
        TERMINATED_BY_EPOLL.serves(Client::V2rayPlugin);
    }
}

#[test]
fn v2ray_plugin_lives_with_a_tunnel_that_goes_on() {
    // See chains.rs.
    if inside_namespace("tls_wss::v2ray_plugin_lives_with_a_tunnel_that_goes_on") {
        FORWARDED.serves(Client::V2rayPlugin);
    }
}

#[test]
fn sing_box_lives_with_a_tunnel_that_ends_here() {
    TERMINATED.serves(Client::SingBox);
}

#[test]
fn sing_box_lives_with_a_tunnel_that_goes_on() {
    // See chains.rs.
    if inside_namespace("tls_wss::sing_box_lives_with_a_tunnel_that_goes_on") {
        FORWARDED.serves(Client::SingBox);
    }
}

impl Tunnel {
    fn serves(self, client: Client) {
        let (web, authority) = (Web::start(), Authority::new("authority"));
        let server = match self.what {
            "forward" => ss_server(Some("server;path=/stream;mux=0")),
            _ => ss_server(None),
        };
        let route = format!("path = \"/stream\"\ntunnel = \"{}\"", self.what);
        let config = site(&format!("\"{}\"", server.address()), "", &route, "")
            // The listener's tables come before those of clusters.
            .replacen(
                "[cluster",
                &format!("{}\n[cluster", authority.signs(&[NAME]).rule(&[NAME], "")),
                1,
            );
        let driver = format!("driver = \"{}\"", self.driver);
        let gate = Setup { config, server: driver, ..Setup::default() }.start();
        let front = gate.address("web");
        let trusted = authority.file();
        let options = format!("tls;host={NAME};path=/stream;mux=0;cert={}", trusted.display());
        let start = || match client {
            Client::V2rayPlugin => Socks::start(front, Some(("ss-v2ray-plugin", &options))),
            Client::SingBox => Socks::of_sing_box(front, ("v2ray-plugin", &options)),
        };
        let socks = start();

        // 1. A page load, while the site answers plain requests on the same port.
        four_transfers(&socks, front);
        socks.downloads_to_the_end(&web, 5 * MIB);
        tunnels(&gate, 5);

        // 2. Many at once.
        socks.download_at_once(&web, 50, 60_000);
        tunnels(&gate, 55);
        let sockets = gate.sockets();

        // 3. The client is killed in the middle of a download.
        let other = start();
        let download = other.begins_download(&web);
        drop(other);
        tunnels(&gate, 56);
        drop(download);
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));

        // 4. The server is, in the middle of a download and of an upload.
        let mut download = socks.begins_download(&web);
        let mut upload = socks.begins_upload(&web);
        drop(server);
        assert!(!download.ends_well(LONG), "a download without a server has ended well");
        assert!(!upload.ends_well(LONG), "an upload without a server has ended well");
        tunnels(&gate, 58);
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));
    }
}

/// Waits until so many tunnels are recorded, each of which was over TLS and has ended well or with
/// a reset: real parts end a connection with one when they leave bytes unread.
#[track_caller]
fn tunnels(gate: &Ringgate, count: usize) {
    for record in gate.records_where(count, |record| record.text("route") == "/stream") {
        let end = record.end();
        let is_cut = end == "tls_failed" && record.tls().text("error") == "truncated";
        let is_ended = end.starts_with("client") || end.starts_with("upstream") || is_cut;
        assert!(is_ended, "{record:?}");
        assert_eq!((record.number("status"), record.text("host")), (101, NAME), "{record:?}");
        let tls = record.tls();
        assert_eq!((tls.text("version"), tls.text("sni")), ("1.3", NAME), "{record:?}");
        assert_eq!(tls.text("alpn"), "http/1.1", "{record:?}");
    }
}
