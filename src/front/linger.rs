//! The end of a connection whose client may still be sending.

use std::time::Duration;

use super::context::Accepted;
use crate::sys::Errno;
use crate::timers::{OnDrain, Watch, ticks};

/// The client is waited for so long when it sends nothing more, ...
const SILENCE: Duration = Duration::from_secs(5);
/// ... and so long when the worker drains.
const BRIEF_SILENCE: Duration = Duration::from_secs(1);
/// And so long in all.
const LIMIT: Duration = Duration::from_secs(30);
/// What is read at most.
const MAX_BYTES: usize = 1024 * 1024;

/// Closes so that the last response arrives (RFC 9112 section 9.6): bytes that the client still
/// sends, or that are not read when the socket is closed, make the kernel answer with a reset, and
/// that may destroy what the client has not read yet. So the writing side ends first, and the
/// client is read until it closes, within bounds.
pub(super) async fn linger(conn: &Accepted, watch: &Watch) {
    conn.client.shutdown_write();
    watch.on_drain(OnDrain::Wait);
    watch.renew(if conn.context.draining.get() { BRIEF_SILENCE } else { SILENCE });
    let begun = conn.context.timers.now();
    let mut total = 0;
    while total < MAX_BYTES && conn.context.timers.now().wrapping_sub(begun) < ticks(LIMIT) {
        let is_over = watch.readable(&conn.client).await.is_err();
        match conn.client.recv(&mut conn.context.pool.buffer()) {
            Ok(0) => return,
            Ok(_) if is_over => return,
            Ok(read) => {
                total += read;
                watch.touch();
            }
            Err(Errno::AGAIN) if is_over => return,
            Err(Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}
