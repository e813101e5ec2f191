//! Sends the body of a request while the response is awaited and passed on.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::observe::outcome::End;
use crate::relay::{Broken, Flow};
use crate::transport::Transport;
use crate::upstream::Connection as Upstream;

/// How the sending of a request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::front) enum Sent {
    /// All of it was sent.
    Whole,
    /// The upstream takes no more. It may have said why.
    Refused,
    /// The client has failed, or its body is not valid. Nothing more can come of the exchange.
    Broken(End),
    /// The body exceeds `max_body`.
    TooLarge,
}

/// Sends the request. A head that is queued in the outbox was sent unless it is reported.
pub(super) async fn send(up: &mut Flow, client: &Transport, upstream: &Upstream<'_>) -> Sent {
    let to = upstream.transport;
    up.queue_failed(to).await;
    match up.run(client, to, upstream.watch).await {
        Ok(()) if up.is_too_long() => Sent::TooLarge,
        Ok(()) if up.has_protocol_error() => Sent::Broken(End::BadRequest),
        Ok(()) if is_whole(up, to) => Sent::Whole,
        // The client has ended in the middle of its body.
        Ok(()) => Sent::Broken(End::Client),
        Err(broken) => failed(broken, upstream).await,
    }
}

/// How the sending ends when the flow has failed.
pub(in crate::front) async fn failed(broken: Broken, upstream: &Upstream<'_>) -> Sent {
    match broken {
        Broken::From(_) => Sent::Broken(End::ClientReset),
        Broken::To(_) => {
            upstream.note_failed_write();
            Sent::Refused
        }
        // The other future waits with the same limit and gives the result.
        Broken::Fired(_) => pending().await,
    }
}

/// Returns true if the request was sent to its end.
pub(in crate::front) fn is_whole(up: &Flow, to: &Transport) -> bool {
    let has_ended = if up.is_coded() { up.is_complete() } else { up.allowed() == 0 };
    has_ended && !up.has_waiting(to)
}

/// Runs `main` to its end, and `sending` beside it as far as it comes. `sent` is its result once it
/// has one: it is then not polled any more.
///
/// # Errors
/// Nothing more can come of the exchange.
pub(in crate::front) async fn beside<T>(
    main: impl Future<Output = T>,
    mut sending: Pin<&mut impl Future<Output = Sent>>,
    sent: &mut Option<Sent>,
) -> Result<T, Sent> {
    let mut main = std::pin::pin!(main);
    poll_fn(|cx| {
        // The response goes first: a client that has failed may still read it.
        if let Poll::Ready(result) = main.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if sent.is_none()
            && let Poll::Ready(result) = sending.as_mut().poll(cx)
        {
            *sent = Some(result);
            if matches!(result, Sent::Broken(_) | Sent::TooLarge) {
                return Poll::Ready(Err(result));
            }
        }
        Poll::Pending
    })
    .await
}
