//! Every kind of Shadowsocks client against one bare ss-server: what a page load is made of, many
//! at once, and ends in the middle.

use std::net::SocketAddr;

use crate::chains::{MIB, four_transfers};
use crate::support::{
    LONG, Ringgate, SHORT, Socks, Web, inside_namespace, l4, site, ss_server, wait_for,
};

/// A kind of client and what it is served by.
struct Disguise {
    listener: &'static str,
    plugin: Option<(&'static str, &'static str)>,
    /// The configuration, given the address of the server.
    config: fn(SocketAddr) -> String,
}

const OBFS_HTTP: Disguise = Disguise {
    listener: "web",
    plugin: Some(("obfs-local", "obfs=http;obfs-host=live.example.test")),
    // Debian's obfs-local asks for the path / whatever it is told.
    config: |server| site(&format!("\"{server}\""), "", "path = \"/\"\ntunnel = \"terminate\"", ""),
};

const WEBSOCKET: Disguise = Disguise {
    listener: "web",
    plugin: Some(("ss-v2ray-plugin", "path=/stream;host=live.example.test;mux=0")),
    config: |server| {
        let route = "path = \"/stream\"\ntunnel = \"terminate\"";
        site(&format!("\"{server}\""), "", route, "")
    },
};

const OBFS_TLS: Disguise = Disguise {
    listener: "edge",
    plugin: Some(("obfs-local", "obfs=tls;obfs-host=cdn.example.test")),
    config: |server| {
        format!(
            r#"
            [[listener]]
            name = "edge"
            listen = "127.0.0.1:0"
            protocol = "tls"
              [[listener.tls]]
              names = ["cdn.example.test"]
              simple_obfs = true
              cluster = "shadowsocks"
            [cluster.shadowsocks]
            endpoints = ["{server}"]
            "#
        )
    },
};

const PLAIN: Disguise =
    Disguise { listener: "ingress", plugin: None, config: |server| l4(server, "", "") };

#[test]
fn simple_obfs_http_ends_here() {
    // See chains.rs.
    if inside_namespace("disguises::simple_obfs_http_ends_here") {
        OBFS_HTTP.lives();
    }
}

#[test]
fn simple_obfs_tls_ends_here() {
    // See chains.rs.
    if inside_namespace("disguises::simple_obfs_tls_ends_here") {
        OBFS_TLS.lives();
    }
}

#[test]
fn v2ray_plugin_ends_here() {
    // See chains.rs.
    if inside_namespace("disguises::v2ray_plugin_ends_here") {
        WEBSOCKET.lives();
    }
}

#[test]
fn plain_shadowsocks_goes_through() {
    PLAIN.lives();
}

impl Disguise {
    fn lives(&self) {
        let web = Web::start();
        let server = ss_server(None);
        let gate = Ringgate::start(&(self.config)(server.address()));
        let front = gate.address(self.listener);
        let socks = Socks::start(front, self.plugin);

        // 1. A page load, while the site answers others on the same port.
        if self.listener == "web" {
            four_transfers(&socks, front);
        } else {
            socks.downloads(&web, 1000);
            socks.downloads(&web, 20 * MIB);
            socks.uploads(&web, 300 * 1024);
            socks.uploads(&web, 20 * MIB);
        }
        self.tunnels(&gate, 4);

        // 2. Many at once.
        socks.download_at_once(&web, 50, 60_000);
        self.tunnels(&gate, 54);
        let sockets = gate.sockets();

        // 3. The client is killed in the middle of a download.
        let other = Socks::start(front, self.plugin);
        let _download = other.begins_download(&web);
        drop(other);
        self.tunnels(&gate, 55);
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));

        // 4. The server is, in the middle of a download and of an upload.
        let mut download = socks.begins_download(&web);
        let mut upload = socks.begins_upload(&web);
        drop(server);
        assert!(!download.ends_well(LONG), "a download without a server has ended well");
        assert!(!upload.ends_well(LONG), "an upload without a server has ended well");
        self.tunnels(&gate, 57);
        wait_for("its sockets are closed", SHORT, || (gate.sockets() <= sockets).then_some(()));
    }

    /// Waits until so many tunnels are recorded, each of which has ended well or with a reset:
    /// real parts end a connection with one when they leave bytes unread.
    fn tunnels(&self, gate: &Ringgate, count: usize) {
        let records = gate.records_where(count, |record| record.text("route") != "/*");
        for record in records {
            let end = record.end();
            assert!(end.starts_with("client") || end.starts_with("upstream"), "{record:?}");
            if self.listener == "web" {
                assert_eq!(record.number("status"), 101, "{record:?}");
            }
        }
    }
}
