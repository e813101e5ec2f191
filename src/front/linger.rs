//! The end of a connection whose client may still be sending.

use std::rc::Rc;
use std::time::Duration;

use super::accepted::Accepted;
use crate::observe::outcome::End;
use crate::sys::Errno;
use crate::timers::{Limit, OnDrain, Watch, ticks};
use crate::transport::Transport;

/// The longest silence of the client before the close.
const SILENCE: Duration = Duration::from_secs(5);
/// The same while the worker drains.
const BRIEF_SILENCE: Duration = Duration::from_secs(1);
/// The longest wait for a client that goes on sending.
const LONGEST: Duration = Duration::from_secs(30);

/// Closes so that the last response arrives (RFC 9112 section 9.6). If the client sends bytes after
/// the close, or has sent bytes that are unread at the close, the kernel answers with a reset. A
/// reset may destroy a response that the client has not read yet. So the writing side ends first,
/// and the client is read until it closes, for a bounded time.
pub(super) async fn linger(conn: &Accepted, watch: &Watch) {
    watch.on_drain(OnDrain::Wait);
    let silence = if conn.context.draining.get() { BRIEF_SILENCE } else { SILENCE };
    watch.renew(Limit::new(silence, End::Done));
    conn.client.close_notify();
    while let Ok(false) = conn.client.flush() {
        if watch.writable(conn.client.socket()).await.is_err() {
            break;
        }
    }
    conn.client.shutdown_write();
    // What comes now is dropped, so it is read from the socket: a TLS session that has failed reads
    // nothing, and bytes that are left in the socket would cause the reset.
    let client = Transport::Plain(Rc::clone(conn.client.socket()));
    let begun = conn.context.timers.now();
    while conn.context.timers.now().wrapping_sub(begun) < ticks(LONGEST) {
        let is_over = watch.readable(&client).await.is_err();
        match client.recv(&mut conn.context.pool.buffer()) {
            Ok(0) => return,
            Ok(_) if is_over => return,
            // The number of bytes has no bound: a client may read the response only after it has
            // sent all of a long body.
            Ok(_) => watch.touch(),
            Err(Errno::AGAIN) if is_over => return,
            Err(Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}
