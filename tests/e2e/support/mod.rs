//! What every test stands on: the real binary, its peers, and waiting on conditions.
//!
//! A test owns its ports, its children and its directory; guards give them back when the test ends,
//! also when it fails. Nothing here sleeps for a fixed time and hopes.

mod application;
mod backend;
mod bytes;
mod certificates;
mod hellos;
mod http;
mod http2;
mod manager;
mod name_server;
mod netns;
mod network;
mod nginx;
mod openssl;
mod pebble;
mod peers;
mod ports;
mod process;
mod relayed;
mod ringgate;
mod seccomp;
mod shadowsocks;
mod site;
mod sockets;
mod tls_client;
mod tls_site;
mod wait;
mod web;

pub(crate) use application::Application;
pub(crate) use backend::{Backend, Request};
pub(crate) use bytes::{bytes, digest, fill};
pub(crate) use certificates::{Authority, Kind, Pair, write_private};
pub(crate) use hellos::{client_hello, in_record, obfs_hello};
pub(crate) use http::{HttpClient, Response};
pub(crate) use http2::{connect_http2, http2_settings, waiting, with_http2};
pub(crate) use manager::Manager;
pub(crate) use name_server::{NameServer, Reply};
pub(crate) use netns::{inside_namespace, with_local_ports, without_ipv6};
pub(crate) use network::Network;
pub(crate) use nginx::Nginx;
pub(crate) use openssl::{OpensslClient, curl, curl_trusting, openssl_client};
pub(crate) use pebble::PebblePlace;
pub(crate) use peers::{Echo, Named, UdpEcho, Upstream};
pub(crate) use ports::{Blackhole, LentPort, RefusingUdp, free_port};
pub(crate) use process::{
    Process, as_ordinary_user, as_user, direct, new_user, python_home, require, run,
};
pub(crate) use relayed::{EVERY_WAY, Relayed, SWITCHING, UPGRADE, Way};
pub(crate) use ringgate::{Record, Ringgate, Setup, ringgate_command};
pub(crate) use seccomp::{
    IO_URING_ENTER, IO_URING_REGISTER, IO_URING_SETUP, killing_at, refusing, refusing_from,
    refusing_where,
};
pub(crate) use shadowsocks::{
    Server, Socks, obfs_server, obfs_tls_server, ss_server, ss_server_with_udp, ss_tunnel,
};
pub(crate) use site::{l4, over_each_driver, proxied, site, stream_site};
pub(crate) use sockets::{
    allow_descriptors, connect, expect_closed, expect_end, expect_reset, expect_silence, jam,
    read_until, reset, send_slowly, slow_reader, with_deadlines,
};
pub(crate) use tls_client::{TlsClient, VERSIONS, alert_of, tls_settings, tls_settings_with};
pub(crate) use tls_site::TlsSite;
pub(crate) use wait::{
    LONG, SHORT, SOON, close_and_arrive, holds_for, is_acknowledged, wait_bound_udp, wait_for,
    wait_listening,
};
pub(crate) use web::{Web, sum};
