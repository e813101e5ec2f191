//! What happens to the client's bytes until the upstream has responded: some are sent, the others
//! are held.
//!
//! The client may end or reset its connection meanwhile. Then it cannot use a tunnel any more, and
//! the wait for the response is over.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::relay::{Broken, Flow};
use crate::sched::SMALL;
use crate::sys::Errno;
use crate::timers::Watch;
use crate::transport::Transport;
use crate::upstream::Connection;

/// Bytes of the client that are held until the 101. More of them wait in the socket.
const MAX_HELD: usize = 64 * 1024;
/// Interval of the checks whether a client that is not read has left.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How the client left before the upstream responded.
pub(super) enum ClientLeft {
    Reset,
    Ended,
}

/// Runs both futures until there is a response, or a failure in its place, or the client has left.
pub(super) async fn unless_client_leaves<T>(
    response: impl Future<Output = T>,
    client: impl Future<Output = ClientLeft>,
) -> Result<T, ClientLeft> {
    let (mut response, mut client) = (pin!(response), pin!(client));
    poll_fn(|cx| {
        // The response goes first: a client that has left may still read it.
        if let Poll::Ready(response) = response.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        client.as_mut().poll(cx).map(Err)
    })
    .await
}

/// Sends what `up` may send. Then reads the client's further bytes into `held`. Returns when the
/// client leaves.
pub(super) async fn send_then_hold(
    client: &Transport,
    upstream: &Connection<'_>,
    up: &mut Flow,
    held: &mut Vec<u8>,
) -> ClientLeft {
    // 1. Send what the upstream may get before its response.
    let watch = upstream.watch;
    match up.run(client, upstream.transport, watch).await {
        Err(Broken::From(_)) => return ClientLeft::Reset,
        // The upstream takes no more bytes, but it may have responded before.
        Err(Broken::To(_)) => {
            upstream.note_failed_write();
            return not_reading(watch).await;
        }
        // The wait for the response fails with the same limit and gives the result.
        Err(Broken::Fired(_)) => return pending().await,
        // The client has ended its side. The upstream gets the end, too, and may still respond.
        Ok(()) if up.ended() => {
            upstream.transport.shutdown_write();
            return not_reading(watch).await;
        }
        Ok(()) => {}
    }

    // 2. Hold what the upstream may get after its response. Bytes beyond the limits wait in the
    // socket.
    let pool = upstream.pool;
    let mut charge = pool.charge();
    charge.set(held.len());
    while held.len() < MAX_HELD && charge.try_set(held.len() + SMALL) {
        if watch.readable(client).await.is_err() {
            return pending().await;
        }
        let mut buffer = pool.buffer();
        let size = (MAX_HELD - held.len()).min(pool.read_size());
        match client.recv(&mut buffer[..size]) {
            // A client that ends before the 101 cannot use the tunnel. nginx and Envoy give up
            // here, too.
            Ok(0) => return ClientLeft::Ended,
            Ok(read) => {
                // `reserve_exact`, because the capacity must be what is counted.
                held.reserve_exact(read);
                held.extend_from_slice(&buffer[..read]);
                charge.set(held.len());
            }
            Err(Errno::AGAIN) => {}
            Err(_) => return ClientLeft::Reset,
        }
    }

    // 3. The client is not read any more, so its end must be polled for.
    let _stall = watch.stall();
    while !client.socket().has_ended() {
        monoio::time::sleep(CHECK_INTERVAL).await;
    }
    if client.socket().is_reset() { ClientLeft::Reset } else { ClientLeft::Ended }
}

/// Waits for ever. The watch looks for a reset of the client meanwhile, and the wait for the
/// response then fails.
async fn not_reading(watch: &Watch) -> ClientLeft {
    let _stall = watch.stall();
    pending().await
}
