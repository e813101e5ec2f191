//! Bodies on their way to the client. HTTP/2 has a window for each stream and one for the
//! connection. What they do not let through is not given to the `h2` crate, and no more is read
//! from a file or an upstream. A stream reserves a part of the connection's window only while it
//! has bytes to send: what it reserves, no other stream can use.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use h2::{Reason, SendStream};

use super::SEND_BUFFER;
use super::piece::{Piece, Unsent};
use crate::relay::Pool;
use crate::sched::{SMALL, Ticket};
use crate::timers::{Fired, Watch};
use crate::transport::Transport;

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client has reset the stream, or the connection is gone.
    Client,
    /// A limit has fired.
    Fired(Fired),
}

/// How much may be read for a stream.
pub(super) struct Room<'a> {
    /// Bytes that the client takes. They are reserved until they are sent, or until [`release`].
    pub(super) bytes: usize,
    /// While it exists, no other stream of the connection reads in turn.
    _turn: Option<Ticket<'a>>,
}

/// Waits until bytes may be read for a stream. The result is kept until what was read is sent.
///
/// While the worker's budget is spent these are few, and the streams of the connection take turns:
/// one reads when the socket has taken all that was read before. So a client that does not read
/// makes the worker keep little, however many streams it has. A stream whose window is closed
/// takes no turn.
pub(super) async fn room_to_read<'a>(
    stream: &mut SendStream<Piece>,
    pool: &Pool,
    unsent: &'a Unsent,
    watch: &Watch,
) -> Result<Room<'a>, Broken> {
    loop {
        let wanted = if pool.is_spent() { SMALL } else { SEND_BUFFER };
        let bytes = capacity(stream, wanted, watch).await?;
        if !pool.is_spent() {
            return Ok(Room { bytes, _turn: None });
        }
        // What it reserves is of use to others meanwhile.
        release(stream);
        let turn = own_turn(stream, unsent, watch).await?;
        stream.reserve_capacity(SMALL);
        let bytes = stream.capacity().min(SMALL);
        // Otherwise the window has closed meanwhile.
        if bytes > 0 {
            return Ok(Room { bytes, _turn: Some(turn) });
        }
    }
}

/// Waits until it is the turn of a stream that the client has not reset, and the socket has taken
/// all that was read before.
async fn own_turn<'a>(
    stream: &mut SendStream<Piece>,
    unsent: &'a Unsent,
    watch: &Watch,
) -> Result<Ticket<'a>, Broken> {
    let ticket = unsent.waiting.join();
    let mut taken = unsent.taken();
    while !ticket.is_front() || !unsent.is_empty() {
        let mut woken = pin!(ticket.woken());
        poll_fn(|cx| {
            while let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
                // The client takes bytes of the streams whose turn it is.
                let is_alive = matches!(fired, Fired::TimedOut(_)) && unsent.taken() != taken;
                if !is_alive {
                    return Poll::Ready(Err(Broken::Fired(fired)));
                }
                taken = unsent.taken();
                watch.again();
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Client));
            }
            woken.as_mut().poll(cx).map(Ok)
        })
        .await?;
    }
    Ok(ticket)
}

/// Waits until the client takes some bytes. Returns how many, at most `wanted`. They are reserved
/// until they are sent, or until [`release`].
async fn capacity(
    stream: &mut SendStream<Piece>,
    wanted: usize,
    watch: &Watch,
) -> Result<usize, Broken> {
    let wanted = wanted.min(SEND_BUFFER);
    stream.reserve_capacity(wanted);
    poll_fn(|cx| {
        if let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
            return Poll::Ready(Err(Broken::Fired(fired)));
        }
        loop {
            // The crate reports changes alone: what was given before and is not used is not
            // reported again.
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(stream.capacity().min(wanted)));
            }
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Broken::Client)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Lets other streams use what this one has reserved and does not need.
pub(super) fn release(stream: &mut SendStream<Piece>) {
    stream.reserve_capacity(0);
}

/// Waits until an upstream has sent something, for a stream that the client has not reset.
pub(super) async fn readable(
    stream: &mut SendStream<Piece>,
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

/// Sends a whole body if the client takes all of it now. If not, it comes back.
pub(super) fn send_now(stream: &mut SendStream<Piece>, body: Piece) -> Option<Piece> {
    if body.len() > SEND_BUFFER {
        return Some(body);
    }
    stream.reserve_capacity(body.len());
    if stream.capacity() < body.len() {
        return Some(body);
    }
    // An error means that the client does not want it any more.
    let _ = stream.send_data(body, true);
    None
}

/// Sends bytes as the client takes them, and with `is_last` the end of the stream behind them.
pub(super) async fn send_all(
    stream: &mut SendStream<Piece>,
    mut bytes: Piece,
    is_last: bool,
    unsent: &Rc<Unsent>,
    watch: &Watch,
) -> Result<(), Broken> {
    while !bytes.is_empty() {
        let room = capacity(stream, bytes.len(), watch).await?;
        let piece = bytes.split_to(room).sent_by(unsent);
        let end = is_last && bytes.is_empty();
        stream.send_data(piece, end).map_err(|_| Broken::Client)?;
        watch.touch();
    }
    Ok(())
}

/// Ends the stream cleanly.
pub(super) fn finish(stream: &mut SendStream<Piece>) -> Result<(), Broken> {
    stream.send_data(Piece::empty(), true).map_err(|_| Broken::Client)
}

/// Ends the stream so that the client does not take what it has for all.
pub(super) fn cut_off(stream: &mut SendStream<Piece>) {
    stream.send_reset(Reason::INTERNAL_ERROR);
}
