//! Servers for the tests of the loads: the sink, plain or behind TLS, a site, and an
//! address without a server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};

use super::dial::{Target, head_end};
use super::poller::Poller;
use super::source::Send;
use super::tls::Certificate;
use crate::sink::{self, Manner, Opening};
use crate::{certificate, ports};

pub(crate) fn target(connect: SocketAddr, path: Option<&str>) -> Target {
    let path = path.map(str::to_string);
    Target {
        connect,
        path,
        framed: false,
        host: "a.test".into(),
        tls: None,
        pids: Vec::new(),
        cpu: None,
        json: false,
    }
}

/// A sink that serves until the tests are over.
pub(crate) fn sink(upgrade: bool) -> Target {
    let listener = sink::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target(listener.local_addr().unwrap(), upgrade.then_some("/stream"));
    let discard = sink::discard(!upgrade);
    let send = if upgrade { Send::File } else { Send::Copy };
    let opening = if upgrade { Opening::Upgrade } else { Opening::Command };
    serve(listener, Manner { opening, discard, send, nice: None, discarded: None });
    target
}

/// The backend of a site.
pub(crate) fn backend() -> Target {
    let listener = sink::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target(listener.local_addr().unwrap(), None);
    let (opening, discard) = (Opening::Requests, sink::discard(false));
    serve(listener, Manner { opening, discard, send: Send::Copy, nice: None, discarded: None });
    target
}

fn serve(listener: TcpListener, manner: Manner) {
    let deadline = Instant::now() + Duration::from_secs(60);
    thread::spawn(move || sink::serve(vec![listener], manner, deadline));
}

/// What a proxy with TLS can do; all but the first lack something that the loads insist on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    Right,
    OtherSuite,
    OtherGroup,
    OtherVersion,
    /// A certificate with a P-384 key.
    OtherKey,
    /// It sends no tickets.
    NoTickets,
    /// It sends one ticket only.
    OneTicket,
}

/// A proxy that ends TLS in front of a sink.
pub(crate) fn tls(offer: Offer) -> Target {
    let (made, config) = server(offer);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = sink(false).connect;
    let certificate = Some(Certificate::from_der(made));
    let target = Target { tls: certificate, ..target(listener.local_addr().unwrap(), None) };
    let config = Arc::new(config);
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            // What goes wrong is seen by the client.
            thread::spawn(move || relay(session, client, TcpStream::connect(connect)?));
        }
    });
    target
}

/// The certificate, DER, and a configuration that shows it.
fn server(offer: Offer) -> (Vec<u8>, ServerConfig) {
    let algorithm = match offer {
        Offer::OtherKey => &rcgen::PKCS_ECDSA_P384_SHA384,
        _ => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    let made = certificate::make(algorithm).unwrap();
    let mut provider = aws_lc_rs::default_provider();
    let wanted = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    match offer {
        Offer::OtherSuite => provider.cipher_suites.retain(|suite| *suite != wanted),
        Offer::OtherGroup => provider.kx_groups = vec![aws_lc_rs::kx_group::SECP256R1],
        _ => {}
    }
    let version = if offer == Offer::OtherVersion { &TLS12 } else { &TLS13 };
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.certificate.der().clone()],
            PrivatePkcs8KeyDer::from(made.key.serialize_der()).into(),
        )
        .unwrap();
    config.send_tls13_tickets = match offer {
        Offer::NoTickets => 0,
        Offer::OneTicket => 1,
        _ => 2,
    };
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    (made.certificate.der().to_vec(), config)
}

/// Moves bytes between a session and a server until both ways have ended.
fn relay(mut session: ServerConnection, client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut client, mut server) = (&client, &server);
    let mut poller = Poller::new()?;
    poller.add(client, 0, EventFlags::IN)?;
    poller.add(server, 1, EventFlags::IN)?;
    let (mut open, mut ready, mut buffer) = (2, Vec::new(), vec![0; 64 * 1024]);
    while open > 0 {
        poller.wait_for(Duration::from_secs(60), &mut ready)?;
        for &(key, _) in &ready {
            let ended = if key == 0 {
                let ended = session.read_tls(&mut client)? == 0;
                let state = session.process_new_packets();
                session.write_tls(&mut client)?; // an alert, if that was an error
                let state = state.map_err(io::Error::other)?;
                let plaintext = &mut buffer[..state.plaintext_bytes_to_read()];
                session.reader().read_exact(plaintext)?;
                server.write_all(plaintext)?;
                ended || state.peer_has_closed()
            } else {
                let length = server.read(&mut buffer)?;
                session.writer().write_all(&buffer[..length])?;
                length == 0
            };
            if ended {
                open -= 1;
                let from = if key == 0 { client } else { server };
                poller.remove(from)?;
                if key == 0 {
                    server.shutdown(Shutdown::Write)?;
                } else {
                    session.send_close_notify();
                }
            }
            while session.wants_write() {
                session.write_tls(&mut client)?;
            }
            if ended && key == 1 {
                client.shutdown(Shutdown::Write)?;
            }
        }
    }
    Ok(())
}

/// An address without a server: connects are refused.
pub(crate) fn unused_address() -> Target {
    target(([127, 0, 0, 1], ports::lend().unwrap()).into(), None)
}

/// A server that gives every request the same answer.
pub(crate) fn http(answer: &'static str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(listener.local_addr().unwrap(), None);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || answer_all(stream, answer));
        }
    });
    target
}

/// Requests come one at a time, and what is no request at all is answered, too.
fn answer_all(mut stream: TcpStream, answer: &str) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let request = &buffer[..length];
        let close = request.windows(5).any(|word| word == b"close") || head_end(request).is_none();
        if stream.write_all(answer.as_bytes()).is_err() || close {
            return;
        }
    }
}
