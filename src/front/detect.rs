//! Listeners that take HTTP and TLS on the same port: the first byte decides.

use std::time::Duration;

use super::accepted::Accepted;
use super::http::Limits;
use super::{http, http2, sni};
use crate::observe::outcome::End;
use crate::proto::client_hello::HANDSHAKE;
use crate::sys::Errno;
use crate::timers::{Fired, Limit, OnDrain, Watch};
use crate::transport::TlsStream;

/// The most bytes that are read before it is known what they are.
const READ: usize = 16 * 1024;

/// Reads the first bytes, and serves what they begin. The bytes are carried along.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(mut conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Some(limits) = Limits::of(&conn.listener) else { return };
        let limit = Limit::new(limits.head_timeout, End::HeadTimeout);
        let watch = conn.watch(limit);
        watch.on_drain(OnDrain::Grace);
        watch.join_group(conn.listener.group());
        // Boxed, because the connection lives much longer.
        let Some((mut first, mut fired)) = Box::pin(first_bytes(&conn, &watch)).await else {
            return;
        };
        let is_tls = first[0] == HANDSHAKE;
        if is_tls && !conn.listener.has_service() {
            return conn.end_unserved("tls");
        }
        // A reload may have removed the rules. Then the bytes are an invalid request.
        if let Some(hello_timeout) = hello_timeout(&conn).filter(|_| is_tls) {
            watch.renew(Limit::new(hello_timeout, End::HeadTimeout));
            let first = std::mem::take(&mut first);
            if !Box::pin(sni::serve_begun(&mut conn, &watch, first)).await {
                return;
            }
            if conn.client.tls().is_some_and(speaks_http2) {
                // A connection of HTTP/2 has a watch of its own.
                drop(watch);
                return Box::pin(http2::serve(conn)).await;
            }
            // The first head has its own limit, as on a new connection.
            fired = None;
            watch.renew(limit);
            watch.on_drain(OnDrain::Grace);
        }
        http::run(&mut http::Connection::new(&conn, &watch, first), fired).await;
    }
}

/// The limit of a ClientHello. `None` if the listener has no rules for TLS.
fn hello_timeout(conn: &Accepted) -> Option<Duration> {
    conn.listener.present().as_ref()?.tls().map(|tls| tls.hello_timeout)
}

/// Returns true if the handshake has agreed on HTTP/2.
fn speaks_http2(tls: &TlsStream) -> bool {
    tls.facts().is_some_and(|facts| facts.protocol.as_deref() == Some(http2::ALPN))
}

/// Waits for the first bytes. Returns them, and why the watch has ended the wait if they arrived at
/// that moment. `None` if the client has left, or has sent nothing in time: then there is nothing
/// to record.
async fn first_bytes(conn: &Accepted, watch: &Watch) -> Option<(Vec<u8>, Option<Fired>)> {
    loop {
        let fired = watch.readable(&conn.client).await.err();
        let pool = &conn.context.pool;
        let mut buffer = pool.buffer();
        let size = READ.min(pool.read_size());
        match conn.client.recv(&mut buffer[..size]) {
            Ok(0) => return None,
            Ok(read) => return Some((buffer[..read].to_vec(), fired)),
            // A wake-up without bytes.
            Err(Errno::AGAIN) if fired.is_none() => {}
            Err(_) => return None,
        }
    }
}
