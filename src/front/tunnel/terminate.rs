//! A tunnel that terminates here: the cluster gets the payload and nothing else.
//!
//! The 101 is sent at once, while the upstream is still being connected. A WebSocket client sends
//! nothing before the 101, so its first payload is on its way meanwhile. After the 101 simple-obfs
//! is raw bytes, which are relayed as on L4. WebSocket frames are decoded and encoded by a flow
//! that copies.

use super::Upgrade;
use crate::front::accepted::{Accepted, relayed};
use crate::front::linger::linger;
use crate::observe::live::Activity;
use crate::observe::outcome::{End, Outcome};
use crate::proto::websocket::{Handshake, accept_value, early_data};
use crate::relay::Flow;
use crate::sys::Errno;
use crate::timers::{OnDrain, Watch};

/// The response to a handshake.
pub(super) struct HandshakeResponse {
    /// The value of `Sec-WebSocket-Accept`.
    accept: String,
    /// The request's `Sec-WebSocket-Protocol`, if it carries early data: it is sent back.
    /// Subprotocols are not sent back: none is agreed on, and then the response has no such field
    /// (RFC 6455 section 4.2.2).
    early_data: Option<String>,
    /// The client sends WebSocket frames after the handshake.
    framed: bool,
}

impl HandshakeResponse {
    pub(super) fn new(handshake: &Handshake<'_>) -> HandshakeResponse {
        match *handshake {
            // simple-obfs clients do not check the value, but a probe may.
            Handshake::Obfs { key } => {
                HandshakeResponse { accept: accept_value(key), early_data: None, framed: false }
            }
            Handshake::WebSocket { key, early_data } => HandshakeResponse {
                accept: accept_value(key),
                early_data: early_data.map(str::to_owned),
                framed: true,
            },
        }
    }

    /// Returns the head of the 101.
    fn head(&self, date: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        // The names stay in lower case: only clients of tunnels see this head.
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\ndate: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\nupgrade: websocket\r\nconnection: Upgrade\r\n");
        out.extend_from_slice(b"sec-websocket-accept: ");
        out.extend_from_slice(self.accept.as_bytes());
        if let Some(early_data) = &self.early_data {
            out.extend_from_slice(b"\r\nsec-websocket-protocol: ");
            out.extend_from_slice(early_data.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
        out
    }
}

/// Responds, connects, relays and writes the record.
pub(super) async fn serve(
    conn: &Accepted,
    watch: &Watch,
    mut upgrade: Upgrade,
    response: HandshakeResponse,
) {
    let (pool, timeouts) = (&conn.context.pool, upgrade.timeouts);

    // 1. Send the 101. The relay sends what does not fit.
    let head = response.head(&conn.context.date());
    watch.on_drain(OnDrain::Wait);
    let sent = match conn.client.send(&head) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => 0,
        // The failed send has consumed the socket's error: a relay would read a clean end.
        Err(_) => {
            conn.client.reset_on_close();
            return upgrade.record(conn, Outcome::new(End::ClientReset));
        }
    };

    // 2. Connect.
    let lease = match Box::pin(conn.connect(upgrade.live.cluster())).await {
        Ok(lease) => lease,
        Err(failure) => {
            conn.reset_for(&failure);
            return upgrade.record(conn, Outcome { status: Some(101), ..failure.outcome() });
        }
    };

    let activity = if response.framed { Activity::WebSocket } else { Activity::Obfs };
    conn.reaches(activity, upgrade.live.cluster(), &lease);

    // 3. Relay the payload, which begins with the client's first byte after the head.
    let (mut up, mut down) = if response.framed {
        Flow::websocket(pool)
    } else {
        (Flow::new(pool, Vec::new()), Flow::new(pool, Vec::new()))
    };
    // Early data comes before the bytes after the head, and is not framed.
    if let Some(payload) = response.early_data.as_deref().and_then(early_data) {
        up.push(&payload);
    }
    let mut request = upgrade.take_bytes();
    up.receive(&mut request[upgrade.head..]);
    down.push(&head[sent..]);
    // The flows have their own copies. An idle tunnel must hold no buffer.
    drop((request, head));
    let end = conn.relay(watch, &lease, &mut up, &mut down, timeouts).await;
    let outcome = relayed(conn, watch, lease, (&up, &down), end);
    upgrade.record(conn, Outcome { status: Some(101), ..outcome });

    // 4. Linger: the client must be able to read the close frame, whatever it sends after its own.
    if response.framed && matches!(end, End::Client | End::Upstream | End::BadRequest) {
        drop((up, down));
        linger(conn, watch).await;
    }
}
