//! A client of HTTP/2: the `h2` crate on a runtime of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;

use super::{Authority, SHORT, VERSIONS, tls_settings};

/// The settings of clients that speak HTTP/2 alone.
pub(crate) fn http2_settings(authority: &Authority) -> Arc<ClientConfig> {
    let mut settings = tls_settings(authority, VERSIONS[1]);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(settings)
}

/// Connects, and runs the test with the connection.
#[track_caller]
pub(crate) fn with_http2<T>(
    edge: SocketAddr,
    settings: &Arc<ClientConfig>,
    name: &str,
    test: impl AsyncFnOnce(SendRequest<Bytes>) -> T,
) -> T {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let test = async {
        let socket = TcpStream::connect(edge).await.unwrap();
        let tls = TlsConnector::from(Arc::clone(settings)).connect(name, socket).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        test(client.ready().await.unwrap()).await
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SHORT, test).await }).expect("no end")
}
