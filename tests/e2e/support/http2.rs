//! A client of HTTP/2: the `h2` crate on a thread of its own.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use super::{Authority, SHORT, TlsClient, VERSIONS, tls_settings};

/// The settings of clients that speak HTTP/2 alone.
pub(crate) fn http2_settings(authority: &Authority) -> Arc<ClientConfig> {
    let mut settings = tls_settings(authority, VERSIONS[1]);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(settings)
}

impl TlsClient {
    /// Reads a frame (RFC 9113 section 4.1). Returns its type and its payload.
    #[track_caller]
    pub(crate) fn http2_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 9];
        self.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.read_exact(&mut payload).unwrap();
        (head[3], payload)
    }
}

/// Connects with these limits. A thread reads and writes for the connection, so a test may block.
#[track_caller]
pub(crate) fn connect_http2(
    edge: SocketAddr,
    settings: &Arc<ClientConfig>,
    name: &str,
    limits: &h2::client::Builder,
) -> SendRequest<Bytes> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (settings, limits) = (Arc::clone(settings), limits.clone());
    let (connected, client) = mpsc::channel();
    let serve = async move {
        let socket = TcpStream::connect(edge).await.unwrap();
        let tls = TlsConnector::from(settings).connect(name, socket).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = limits.handshake(tls).await.unwrap();
        connected.send(client).unwrap();
        // It ends with the last handle. Tests see errors in their streams.
        let _ = connection.await;
    };
    thread::spawn(move || runtime().block_on(serve));
    client.recv_timeout(SHORT).expect("a connection")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test that waits.
#[track_caller]
pub(crate) fn waiting<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(SHORT, test).await }).expect("no end")
}

/// Connects, and runs the test with the connection.
#[track_caller]
pub(crate) fn with_http2<T>(
    edge: SocketAddr,
    settings: &Arc<ClientConfig>,
    name: &str,
    test: impl AsyncFnOnce(SendRequest<Bytes>) -> T,
) -> T {
    let client = connect_http2(edge, settings, name, &h2::client::Builder::new());
    waiting(async { test(client.ready().await.unwrap()).await })
}
