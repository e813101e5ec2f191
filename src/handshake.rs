//! Makes the handshake of a TLS stream, within the limit of a watch.
//!
//! The steps of a handshake are long work: a signature and a key exchange. Each takes a turn, so
//! that a flood of handshakes leaves time to the other tasks of the worker.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Instant;

use crate::proto::tls::State;
use crate::sched::Turn;
use crate::sys::Errno;
use crate::timers::{Fired, Watch};
use crate::transport::{TlsPool, TlsStream};

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The session has failed: [`TlsStream::failure`] is the reason. The peer gets an alert.
    Session,
    /// The peer has ended the connection.
    Ended,
    /// The peer has reset the connection.
    Reset,
    /// A limit has fired.
    Fired(Fired),
}

impl From<Fired> for Failure {
    fn from(fired: Fired) -> Failure {
        Failure::Fired(fired)
    }
}

/// Makes the handshake. `first` is what was read from the socket before. When it is done, data of
/// the peer may have arrived, too: the next read of the stream returns it.
///
/// # Errors
/// There is no session. Bytes for the peer may wait in the stream: an alert.
pub async fn make(
    tls: &TlsStream,
    first: &[u8],
    pool: &TlsPool,
    watch: &Watch,
) -> Result<(), Failure> {
    if !first.is_empty() {
        pool.handshake_turns.turn(|turn| spend(turn, || tls.receive(first))).await;
    }
    loop {
        // What the peer waits for goes first. It is short, but the socket may be full of records
        // that a reset peer does not take.
        while !tls.flush().map_err(|_| Failure::Reset)? {
            watch.writable(tls.socket()).await?;
        }
        match tls.state() {
            State::Handshake => {}
            State::Open | State::PeerClosed => return Ok(()),
            State::Failed(_) => return Err(Failure::Session),
        }
        watch.consume_budget().await;
        let fired = {
            let mut readable = pin!(tls.socket().readable());
            poll_fn(|cx| watch.poll(readable.as_mut(), cx)).await.err()
        };
        let step = pool.handshake_turns.turn(|turn| spend(turn, || tls.advance()));
        match step.await {
            Ok(()) | Err(Errno::AGAIN) => {}
            Err(Errno::CONNABORTED) => return Err(Failure::Ended),
            Err(_) => return Err(Failure::Reset),
        }
        // By now the bytes that arrived as the limit fired are processed.
        if let Some(fired) = fired
            && tls.state() == State::Handshake
        {
            return Err(Failure::Fired(fired));
        }
    }
}

/// Makes a step and counts its time: a key may be of any kind, and so a step of any length.
fn spend<T>(turn: &mut Turn<'_>, step: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = step();
    turn.spend(usize::try_from(begun.elapsed().as_micros()).unwrap_or(usize::MAX).max(1));
    result
}
