//! The end of a connection whose client may still be sending.

use super::context::Accepted;
use crate::sys::Errno;
use crate::timers::{Expiry, Watch};

/// Closes so that the last answer arrives: bytes that the client still sends would make the kernel
/// answer with a reset, and that may destroy what the client has not read yet. Bounded in time and
/// bytes.
pub(super) async fn linger(conn: &Accepted, watch: &Watch) {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
    const MAX_BYTES: usize = 1024 * 1024;

    conn.client.shutdown_write();
    watch.restart(LIMIT, Expiry::Read);
    let mut total = 0;
    while total < MAX_BYTES {
        conn.client.readable().await;
        match conn.client.recv(&mut conn.context.pool.buffer()) {
            Ok(0) => return,
            Ok(read) => total += read,
            Err(Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}
