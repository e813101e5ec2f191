//! TLS that ends here: the handshake, and what follows it. The rule was found by its ClientHello.
//!
//! After the handshake the client's [`Transport`] gives decrypted bytes, so whatever follows is the
//! same as without TLS: the routes of a site, or the relay to a cluster.

mod servers;

use std::rc::Rc;
use std::sync::Arc;

pub use servers::Origin;
pub(super) use servers::Servers;

use super::accepted::Accepted;
use super::linger::linger;
use super::service::Service;
use super::sni::Asked;
use crate::config::TlsEnd;
use crate::handshake::{self, Failure};
use crate::observe::access_log;
use crate::observe::outcome::{End, Outcome};
use crate::proto::tls::Server;
use crate::timers::Watch;
use crate::transport::{TlsStream, Transport};

/// A fatal unrecognized_name alert (RFC 6066 section 3), in plaintext: nothing is agreed on yet.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Makes the handshake, which begins with `bytes`. Returns false if it has failed: then the
/// connection has its record.
pub(super) async fn accept(
    conn: &mut Accepted,
    service: &Service,
    watch: &Watch,
    asked: &Asked,
    end: &Arc<TlsEnd>,
    bytes: Vec<u8>,
) -> bool {
    let Some(client) = shake_hands(conn, service, watch, asked, end, bytes).await else {
        return false;
    };
    conn.client = Transport::Tls(client);
    conn.tls_rule = Some(Arc::clone(end));
    true
}

/// Makes the handshake. `None` if it has failed: then the connection has its record.
async fn shake_hands(
    conn: &Accepted,
    service: &Service,
    watch: &Watch,
    asked: &Asked,
    end: &Arc<TlsEnd>,
    bytes: Vec<u8>,
) -> Option<Rc<TlsStream>> {
    let pool = &conn.context.tls;
    let session = service.servers.of(end).and_then(|server| server.session().ok());
    let Some(session) = session else {
        refuse(conn, asked, End::TlsFailed, Some("no_certificate"));
        send_unrecognized_name(conn, watch).await;
        return None;
    };
    let permit = pool.begin_handshake(conn.client.socket());
    let stream = Rc::new(TlsStream::new(conn.client.socket(), session, Vec::new(), pool));
    let Err(failure) = handshake::make(&stream, &bytes, pool, watch).await else {
        let time = conn.start().instant.elapsed();
        stream.note_handshake(time);
        if let Some(facts) = stream.facts() {
            conn.listener.counters.tls.add(facts.version, facts.is_resumed, time);
        }
        return Some(stream);
    };
    let end = if permit.is_evicted() { End::Evicted } else { end_of(failure) };
    // What follows is no handshake.
    drop((permit, bytes));
    refuse(conn, asked, end, stream.failure().filter(|_| end == End::TlsFailed));
    if end == End::TlsFailed {
        // The alert must arrive, whatever the client goes on sending.
        linger(conn, watch).await;
    } else {
        conn.client.reset_on_close();
        stream.reset_on_close();
    }
    None
}

/// How a connection ends whose handshake has failed.
fn end_of(failure: Failure) -> End {
    match failure {
        Failure::Session => End::TlsFailed,
        Failure::Ended => End::Client,
        Failure::Reset => End::ClientReset,
        Failure::Fired(fired) => fired.end(),
    }
}

/// Makes the handshake of a challenge by tls-alpn-01, which is the answer (RFC 8737 section 3).
pub(super) async fn answer_challenge(
    conn: &Accepted,
    watch: &Watch,
    server: &Server,
    name: &str,
    bytes: Vec<u8>,
) {
    let pool = &conn.context.tls;
    let Ok(session) = server.session() else { return conn.client.reset_on_close() };
    let permit = pool.begin_handshake(conn.client.socket());
    let stream = TlsStream::new(conn.client.socket(), session, Vec::new(), pool);
    let result = handshake::make(&stream, &bytes, pool, watch).await;
    drop(permit);
    let end = result.map_or_else(end_of, |()| End::Done);
    conn.record(conn.start(), &Outcome::new(end), |record| {
        record.protocol = "tls";
        record.host = Some(name);
        record.route = Some("acme");
    });
    stream.close_notify();
    linger(conn, watch).await;
}

/// Counts and records a handshake that has failed.
fn refuse(conn: &Accepted, asked: &Asked, end: End, error: Option<&'static str>) {
    conn.listener.counters.tls.add_failure();
    conn.record(conn.start(), &Outcome::new(end), |record| {
        asked.describe(record);
        let server_name = asked.name.as_deref();
        record.tls = Some(access_log::Tls { server_name, error, ..access_log::Tls::default() });
    });
}

/// Refuses a name that no rule has. Its client must not get the certificate of another one.
pub(super) async fn send_unrecognized_name(conn: &Accepted, watch: &Watch) {
    // It fits the send buffer, which is empty.
    let _ = conn.client.send(&UNRECOGNIZED_NAME);
    linger(conn, watch).await;
}
