//! Tests of the outbox. The runtime itself uses epoll.

use super::super::testing;
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

/// Runs the test over epoll; skips it if the kernel cannot make the outbox's ring.
fn with_outbox(test: impl AsyncFnOnce(Rc<Outbox>)) {
    let Ok(outbox) = Outbox::new() else { return eprintln!("not tested without a ring") };
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
    runtime.block_on(test(Rc::new(outbox)));
}

fn stream() -> (Rc<Stream>, UnixStream) {
    let (ours, theirs) = testing::stream();
    (Rc::new(ours), theirs)
}

fn forward(outbox: &Rc<Outbox>, bytes: &[u8], to: &Rc<Stream>) -> QueuedSend {
    let (from, mut source) = stream();
    source.write_all(bytes).unwrap();
    let (len, queued) = outbox.forward(&from, to, usize::MAX, Waker::noop()).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    queued
}

fn reads(peer: &mut UnixStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    peer.read_exact(&mut read).unwrap();
    assert!(read == expected);
}

#[test]
fn messages_wait_for_the_flush_and_each_reaches_its_stream() {
    with_outbox(async |outbox| {
        // More messages than the ring and the arena hold: a full outbox flushes by itself.
        let pairs: Vec<_> = (0..=u8::MAX).map(|_| stream()).collect();
        let message = |number: usize| vec![number as u8; 1 + 13 * number];
        let queue = |(number, (to, _)): (usize, &(Rc<Stream>, UnixStream))| {
            forward(&outbox, &message(number), to)
        };
        let _queued: Vec<QueuedSend> = pairs.iter().enumerate().map(queue).collect();
        pairs[255].1.set_nonblocking(true).unwrap();
        assert!((&pairs[255].1).read(&mut [0]).is_err(), "the last one still waits");
        outbox.flush();
        for (number, (_, mut peer)) in pairs.into_iter().enumerate() {
            reads(&mut peer, &message(number));
        }
    });
}

#[test]
fn a_message_whose_result_is_asked_for_is_sent_at_once() {
    with_outbox(async |outbox| {
        let (to, mut peer) = stream();
        for message in [b"one", b"two"] {
            let queued = forward(&outbox, message, &to);
            assert_eq!(queued.finish(), Ok(()));
            reads(&mut peer, message);
        }
        drop(outbox.queue(b"three", &to, Waker::noop()));
        reads(&mut peer, b"three");
    });
}

#[test]
fn what_does_not_fit_comes_back() {
    with_outbox(async |outbox| {
        let (to, mut peer) = stream();
        let mut sent = Vec::new();
        let short = loop {
            let message = vec![sent.len() as u8; 1000];
            sent.extend_from_slice(&message);
            if let Err(short) = forward(&outbox, &message, &to).finish() {
                break short;
            }
        };
        assert_eq!(short.errno, Errno::AGAIN);
        sent.truncate(sent.len() - short.rest.len());
        reads(&mut peer, &sent);
    });
}

#[test]
fn the_rest_of_a_message_is_what_was_not_sent() {
    with_outbox(async |_| {
        let waker = Waker::noop().clone();
        let message = Message { to: stream().0, start: 2, len: 3, waker };
        let short = |rest: &[u8], errno| Some(ShortSend { rest: rest.to_vec(), errno });
        let result_of = |result| message.short_send(result, b"..abc..");
        assert_eq!(result_of(Ok(3)), None);
        assert_eq!(result_of(Ok(2)), short(b"c", Errno::AGAIN));
        assert_eq!(result_of(Err(Errno::AGAIN)), short(b"abc", Errno::AGAIN));
        assert_eq!(result_of(Err(Errno::PIPE)), short(b"abc", Errno::PIPE));
    });
}

#[test]
fn a_failure_wakes_its_task_and_no_other_message_is_lost() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    with_outbox(async |outbox| {
        let (gone, peer) = stream();
        drop(peer);
        let (to, mut peer) = stream();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (from, mut source) = stream();
        source.write_all(b"lost").unwrap();
        let waker = Waker::from(Arc::clone(&count));
        let (_, lost) = outbox.forward(&from, &gone, 4, &waker).unwrap().unwrap();
        let arrives = forward(&outbox, b"arrives", &to);
        outbox.flush();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(lost.has_failed() && !arrives.has_failed());
        let short = ShortSend { rest: b"lost".to_vec(), errno: Errno::PIPE };
        assert_eq!(lost.finish(), Err(short));
        assert_eq!(arrives.finish(), Ok(()));
        reads(&mut peer, b"arrives");
    });
}

#[test]
fn a_result_that_no_task_asks_for_is_discarded() {
    with_outbox(async |outbox| {
        let (gone, peer) = stream();
        drop(peer);
        let lost = forward(&outbox, b"lost", &gone);
        outbox.flush();
        assert!(lost.has_failed());
        drop(lost);
        assert!(outbox.inner.borrow().short.is_empty());
    });
}

#[test]
fn a_refused_ring_is_given_up_and_its_messages_come_back() {
    with_outbox(async |outbox| {
        let (to, mut peer) = stream();
        let first = forward(&outbox, b"first", &to);
        let (other, _other_peer) = stream();
        let second = forward(&outbox, b"second", &other);
        outbox.inner.borrow().ring.refuse_all();
        outbox.flush();
        assert!(!outbox.is_open() && first.has_failed() && second.has_failed());
        let short = ShortSend { rest: b"first".to_vec(), errno: Errno::AGAIN };
        assert_eq!(first.finish(), Err(short));
        peer.set_nonblocking(true).unwrap();
        assert!(peer.read(&mut [0]).is_err());
    });
}

#[test]
fn a_stream_is_not_closed_before_its_message_is_sent() {
    with_outbox(async |outbox| {
        let (to, mut peer) = stream();
        let _queued = forward(&outbox, b"last words", &to);
        drop(to);
        outbox.flush();
        let mut read = String::new();
        peer.read_to_string(&mut read).unwrap();
        assert_eq!(read, "last words");
    });
}

#[test]
fn the_end_of_a_source_queues_nothing() {
    with_outbox(async |outbox| {
        let ((from, source), (to, _peer)) = (stream(), stream());
        let forwarded = || outbox.forward(&from, &to, 1, Waker::noop());
        assert_eq!(forwarded().err(), Some(Errno::AGAIN));
        drop(source);
        assert!(matches!(forwarded(), Ok(None)));
    });
}
