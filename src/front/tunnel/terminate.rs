//! A tunnel whose handshake is answered here: the cluster gets payload and nothing else.
//!
//! The answer goes out at once, while the upstream is still being connected: a WebSocket client
//! sends nothing before it, and its first payload is on its way meanwhile. simple-obfs is raw bytes
//! from there on, and so the relay of L4; the frames of a WebSocket are taken off and put on in a
//! copy.

use super::Upgrade;
use crate::front::context::{Accepted, describe_failure};
use crate::front::linger::linger;
use crate::observe::access_log::End;
use crate::proto::http::answer;
use crate::proto::websocket::{Handshake, accept_value, early_data};
use crate::relay::{Coding, Flow};
use crate::sys::Errno;
use crate::timers::{OnDrain, Watch};

/// How a handshake is answered.
pub(super) struct Switch {
    /// `Sec-WebSocket-Accept`
    accept: String,
    /// `Sec-WebSocket-Protocol`, which has payload in it and is sent back. Subprotocols are not:
    /// none is agreed on, and then the answer has no such field (RFC 6455 section 4.2.2).
    early_data: Option<String>,
    /// What follows comes in frames.
    framed: bool,
}

impl Switch {
    pub(super) fn new(handshake: &Handshake<'_>) -> Switch {
        match *handshake {
            // Its clients do not look at the value; a prober might.
            Handshake::Obfs { key } => {
                Switch { accept: accept_value(key), early_data: None, framed: false }
            }
            Handshake::WebSocket { key, early_data } => Switch {
                accept: accept_value(key),
                early_data: early_data.map(str::to_owned),
                framed: true,
            },
        }
    }

    fn head(&self, date: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        answer::begin(&mut out, 101, date);
        out.extend_from_slice(b"upgrade: websocket\r\nconnection: Upgrade\r\n");
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

/// Answers, connects, relays, records.
pub(super) async fn serve(
    conn: &Accepted,
    watch: &Watch,
    mut upgrade: Upgrade<'_>,
    switch: Switch,
) {
    let (pool, timeouts) = (&conn.context.pool, upgrade.tunnel.timeouts);

    // 1. The answer. The relay sends what does not fit.
    let head = switch.head(&conn.context.date());
    watch.on_drain(OnDrain::Wait);
    let sent = match conn.client.send(&head) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => 0,
        // The call takes the error from the socket: the relay would read a clean end.
        Err(_) => {
            conn.client.reset_on_close();
            return conn.record(upgrade.start, |record| {
                upgrade.describe(conn, record);
                record.end = End::ClientReset;
            });
        }
    };

    // 2. An upstream.
    let lease = match Box::pin(conn.connect(upgrade.tunnel.cluster)).await {
        Ok(lease) => lease,
        Err(failure) => {
            conn.reset_for(&failure);
            return conn.record(upgrade.start, |record| {
                upgrade.describe(conn, record);
                describe_failure(&failure, record);
                record.status = Some(101);
            });
        }
    };

    // 3. Payload, from the client's first byte behind the head on.
    let (mut up, mut down) = if switch.framed {
        let (from, to) = Coding::websocket();
        (Flow::coded(pool, from), Flow::coded(pool, to))
    } else {
        (Flow::new(pool, Vec::new()), Flow::new(pool, Vec::new()))
    };
    if let Some(payload) = switch.early_data.as_deref().and_then(early_data) {
        up.push(&payload);
    }
    let mut behind = upgrade.take_bytes();
    up.receive(&mut behind[upgrade.head..]);
    down.push(&head[sent..]);
    drop((behind, head));
    let end = conn.relay(watch, &lease, &mut up, &mut down, timeouts).await;
    upgrade.record(conn, &lease, &up, &down, Some(101), end);

    // 4. A close is the last thing that the client reads, whatever it sent behind its own.
    if switch.framed && matches!(end, End::Client | End::Upstream | End::BadRequest) {
        drop((lease, up, down));
        linger(conn, watch).await;
    }
}
