//! What a client still sends of a body whose request has its response. It is read and dropped
//! within bounds, as in HTTP/1.1.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use h2::RecvStream;

use crate::front::accepted::Accepted;
use crate::front::http::Limits;
use crate::observe::outcome::End;
use crate::timers::{Limit, OnDrain};

/// Bytes that are read. A client that has more to send gets a RST_STREAM.
const MAX_SKIPPED: usize = 256 * 1024;
/// The longest silence of the client. Some clients stop to send when they have the response, and
/// wait for the end of the stream.
const SILENCE: Duration = Duration::from_secs(1);

/// Reads the rest of a body. A stream that is dropped without that is reset right behind its
/// response, with NO_ERROR (RFC 9113 section 8.1). curl 7.88 then fails with an error of the stream
/// and shows no response, because both arrive while it sends.
pub(super) async fn skip(body: &mut RecvStream, conn: &Accepted) {
    let Some(limits) = Limits::of(&conn.listener) else { return };
    let limit = Limit::new(SILENCE, End::Done);
    let watch = conn.watch(limit);
    watch.on_drain(OnDrain::Grace);
    let (begun, mut skipped) = (Instant::now(), 0);
    while skipped < MAX_SKIPPED && begun.elapsed() < limits.head_timeout {
        let piece = poll_fn(|cx| match watch.poll_fired(cx.waker()) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => body.poll_data(cx),
        });
        // The body has ended, the client has reset the stream, or the time is over.
        let Some(Ok(piece)) = piece.await else { return };
        skipped += piece.len();
        watch.touch();
        let _ = body.flow_control().release_capacity(piece.len());
    }
}
