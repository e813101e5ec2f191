//! A connection that is busy while something else goes wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, park_timeout};
use std::time::Duration;

use crate::support::{SHORT, bytes, wait_for};

/// What a round sends in each direction: a message, a few segments, and enough to be spliced.
const SIZES: [usize; 3] = [100, 20_000, 400_000];

/// A longer pause, which a test asks for.
#[derive(Default)]
struct Pauses {
    is_wanted: AtomicBool,
    has_begun: AtomicBool,
}

/// No bytes go back and forth as long as this lives.
pub(super) struct Rest<'a>(&'a Pauses);

/// Bytes go back and forth between both ends of a relayed connection and are compared, until this
/// is dropped or [`Traffic::end`] is called.
pub(super) struct Traffic {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    pauses: Arc<Pauses>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Between a client and an upstream, with this pause between two rounds.
    pub(super) fn between((client, upstream): (TcpStream, TcpStream), pause: Duration) -> Traffic {
        let (is_over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&rounds));
        let pauses = Arc::new(Pauses::default());
        let asked = Arc::clone(&pauses);
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if asked.is_wanted.load(Ordering::Relaxed) {
                    asked.has_begun.store(true, Ordering::Relaxed);
                    park_timeout(pause);
                    continue;
                }
                let round = count.load(Ordering::Relaxed);
                let sent = bytes(round as u64, SIZES[round % SIZES.len()]);
                passes(&sent, &client, &upstream);
                passes(&sent, &upstream, &client);
                count.store(round + 1, Ordering::Relaxed);
                park_timeout(pause);
            }
        });
        Traffic { is_over, rounds, pauses, thread: Some(thread) }
    }

    /// All sizes pass in both directions after this call.
    #[track_caller]
    pub(super) fn moves(&self) {
        let begin = self.rounds.load(Ordering::Relaxed);
        wait_for("the open connection moves bytes", SHORT, || {
            // The round that runs already does not count.
            (self.rounds.load(Ordering::Relaxed) > begin + SIZES.len()).then_some(())
        });
    }

    /// Lets the round that runs end, and begins no other until the guard is dropped.
    #[track_caller]
    pub(super) fn rest(&self) -> Rest<'_> {
        self.pauses.has_begun.store(false, Ordering::Relaxed);
        self.pauses.is_wanted.store(true, Ordering::Relaxed);
        wait_for("the open connection rests", SHORT, || {
            self.pauses.has_begun.load(Ordering::Relaxed).then_some(())
        });
        Rest(&self.pauses)
    }

    /// Ends it; fails the test if a byte was lost or changed.
    #[track_caller]
    pub(super) fn end(mut self) {
        self.moves();
        self.is_over.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        assert!(matches!(result, Some(Ok(()))), "the open connection has failed");
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Relaxed);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn passes(sent: &[u8], mut from: &TcpStream, mut to: &TcpStream) {
    let mut received = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(sent).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == sent, "other bytes than were sent");
}
