//! The servers behind the proxies, each in a thread of this process.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use super::contender::Ports;
use crate::load::datagrams;
use crate::load::source::Send;
use crate::sink::{self, Manner, Opening};

/// They end by themselves after this time, whatever happens to the run.
pub(super) const LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Bytes of uploads that have arrived.
pub(super) static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// What serves bulk gives way to what serves round trips, from now on.
pub(super) static BULK_GIVES_WAY: AtomicBool = AtomicBool::new(false);
/// Addresses of the small server: endpoints take turns, and a port is free again sooner.
const SMALL_ADDRESSES: u8 = 4;

/// Starts them all and says where they listen.
pub(super) fn start(send: Send) -> io::Result<Ports> {
    let ports = Ports::choose()?;
    let bulk = listen(1, ports.bulk)?;
    let upgrade = listen(1, ports.stream)?;
    let small = (1..=SMALL_ADDRESSES)
        .map(|host| listen(host, ports.small))
        .collect::<io::Result<Vec<TcpListener>>>()?;
    let (discard, discarded) = (sink::discard(false), Some(&ARRIVED));
    let manner = Manner { opening: Opening::Command, discard, send, nice: None, discarded };
    let nice = Some(&BULK_GIVES_WAY);
    serve(vec![bulk], Manner { nice, ..manner });
    serve(small, manner);
    serve(vec![upgrade], Manner { opening: Opening::Upgrade, ..manner });
    // Small requests do not wait for large bodies.
    let requests = Manner { opening: Opening::Requests, ..manner };
    serve(vec![listen(1, ports.web)?], requests);
    serve(vec![listen(1, ports.large)?], Manner { nice, ..requests });
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, ports.udp))?;
    std::thread::spawn(move || {
        if let Err(error) = datagrams::serve(udp, &AtomicBool::new(false)) {
            eprintln!("ringgate-bench: the server of datagrams failed: {error}");
        }
    });
    Ok(ports)
}

fn listen(host: u8, port: u16) -> io::Result<TcpListener> {
    sink::listen((Ipv4Addr::new(127, 0, 0, host), port).into())
}

fn serve(listeners: Vec<TcpListener>, manner: Manner) {
    std::thread::spawn(move || {
        if let Err(error) = sink::serve(listeners, manner, Instant::now() + LIMIT) {
            eprintln!("ringgate-bench: a server failed: {error}");
        }
    });
}
