//! Bodies on their way to the client. HTTP/2 has a window for each stream: no more is read from a
//! file or an upstream than the client takes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::timers::{Fired, Watch};
use crate::transport::Transport;

/// The most bytes that are asked for, and so the largest piece of a body.
const PIECE: usize = 64 * 1024;

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client has reset the stream, or the connection is gone.
    Client,
    /// A limit has fired.
    Fired(Fired),
}

/// Waits until the client takes some bytes. Returns how many.
pub(super) async fn capacity(
    stream: &mut SendStream<Bytes>,
    watch: &Watch,
) -> Result<usize, Broken> {
    stream.reserve_capacity(PIECE);
    poll_fn(|cx| {
        if let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
            return Poll::Ready(Err(Broken::Fired(fired)));
        }
        // The crate reports changes alone: what was given before and is not used is not reported
        // again.
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(stream.capacity().min(PIECE)));
        }
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(0))) => again(cx),
            Poll::Ready(Some(Ok(capacity))) => Poll::Ready(Ok(capacity.min(PIECE))),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Err(Broken::Client)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn again<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Waits until an upstream has sent something, for a stream that the client has not reset.
pub(super) async fn readable(
    stream: &mut SendStream<Bytes>,
    from: &Transport,
    watch: &Watch,
) -> Result<(), Broken> {
    let mut readable = pin!(watch.readable(from));
    poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Broken::Client));
        }
        readable.as_mut().poll(cx).map_err(Broken::Fired)
    })
    .await
}

/// Sends bytes as the client takes them, and with `is_last` the end of the stream behind them.
pub(super) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    is_last: bool,
    watch: &Watch,
) -> Result<(), Broken> {
    while !bytes.is_empty() {
        let piece = capacity(stream, watch).await?.min(bytes.len());
        let piece = bytes.split_to(piece);
        let end = is_last && bytes.is_empty();
        stream.send_data(piece, end).map_err(|_| Broken::Client)?;
        watch.touch();
    }
    Ok(())
}

/// Ends the stream cleanly.
pub(super) fn finish(stream: &mut SendStream<Bytes>) -> Result<(), Broken> {
    stream.send_data(Bytes::new(), true).map_err(|_| Broken::Client)
}

/// Ends the stream so that the client does not take what it has for all.
pub(super) fn cut_off(stream: &mut SendStream<Bytes>) {
    stream.send_reset(Reason::INTERNAL_ERROR);
}
