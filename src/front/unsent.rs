//! Responses on their way to a client. Short ones go to the worker's outbox, longer ones to the
//! socket. What does not fit the socket is kept here.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::sched::{MAX_MESSAGE, Outbox, QueuedSend};
use crate::sys::{Errno, Stream};
use crate::timers::{Fired, Watch};

/// Responses that are not in the socket yet.
#[derive(Default)]
pub(super) struct Unsent {
    /// Responses that were given to the outbox. Nothing else waits while this is set.
    queued: Option<QueuedSend>,
    bytes: Vec<u8>,
    sent: usize,
    /// A large body that follows `bytes`.
    pub(super) body: Option<Arc<[u8]>>,
    body_sent: usize,
}

/// The result of sending.
#[derive(PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is sent.
    All,
    /// The socket is full.
    Some,
    /// The client is gone.
    Failed,
}

impl Unsent {
    /// Sends responses and keeps what does not fit. An error is reported by the next send.
    pub(super) fn begin(&mut self, client: &Stream, answers: &[u8]) {
        debug_assert!(self.nothing(), "a turn begins when everything is sent");
        let sent = if answers.is_empty() { 0 } else { client.send(answers).unwrap_or(0) };
        if sent < answers.len() {
            self.bytes = answers[sent..].to_vec();
        }
    }

    /// Queues responses in the outbox, to be sent together with those to other clients. Returns
    /// false, with nothing queued, if there is no outbox, if a large body follows, or if the
    /// responses are empty or longer than [`MAX_MESSAGE`].
    pub(super) fn queue(
        &mut self,
        client: &Rc<Stream>,
        answers: &[u8],
        outbox: Option<&Rc<Outbox>>,
        waker: &Waker,
    ) -> bool {
        debug_assert!(self.nothing(), "a turn begins when everything is sent");
        let Some(outbox) = outbox else { return false };
        let fits = !answers.is_empty() && answers.len() <= MAX_MESSAGE && self.body.is_none();
        if fits {
            self.queued = Some(outbox.queue(answers, client, waker));
        }
        fits
    }

    /// Waits until the client has input, or a queued response could not be sent. The caller awaits
    /// [`Watch::consume_budget`] first.
    pub(super) async fn readable(&self, client: &Stream, watch: &Watch) -> Result<(), Fired> {
        let mut readable = pin!(client.readable());
        poll_fn(|cx| {
            if self.queued.as_ref().is_some_and(QueuedSend::has_failed) {
                return Poll::Ready(Ok(()));
            }
            watch.poll(readable.as_mut(), cx)
        })
        .await
    }

    /// Bytes of responses that wait here, without a large body: all connections share that one.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true when the responses of this turn are in the outbox.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    fn nothing(&self) -> bool {
        self.queued.is_none() && self.bytes.is_empty()
    }

    /// Sends what is left until the socket is full.
    pub(super) fn send(&mut self, client: &Stream) -> Sent {
        if let Some(Err(short)) = self.queued.take().map(QueuedSend::finish) {
            // If it was an error, the send below reports it again.
            self.bytes = short.rest;
        }
        while self.sent < self.bytes.len() {
            match client.send(&self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Sent::Some,
                Err(_) => return Sent::Failed,
            }
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        if let Some(body) = &self.body {
            while self.body_sent < body.len() {
                match client.send(&body[self.body_sent..]) {
                    Ok(sent) => self.body_sent += sent,
                    Err(Errno::AGAIN) => return Sent::Some,
                    Err(_) => return Sent::Failed,
                }
            }
            (self.body, self.body_sent) = (None, 0);
        }
        Sent::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::Yielder;
    use crate::timers::Timers;
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    fn client() -> (Rc<Stream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Rc::new(Stream::from_fd(ours.into()).unwrap()), theirs)
    }

    fn with_outbox(test: impl AsyncFnOnce(Rc<Outbox>)) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            match Outbox::new().map(Outbox::start) {
                Ok(outbox) => test(outbox).await,
                Err(error) => eprintln!("not tested without a ring: {error}"),
            }
        });
    }

    #[test]
    fn queued_answers_that_do_not_fit_go_first_when_there_is_room() {
        with_outbox(async |outbox| {
            let (client, mut peer) = client();
            let (mut unsent, mut answers) = (Unsent::default(), Vec::new());
            let waker = Waker::noop();
            while unsent.send(&client) == Sent::All {
                let answer = vec![answers.len() as u8; 1000];
                assert!(unsent.queue(&client, &answer, Some(&outbox), waker) && unsent.is_queued());
                answers.extend_from_slice(&answer);
            }
            // The client reads now, and gets another response after those.
            let mut read = Vec::new();
            while unsent.send(&client) != Sent::All {
                let error = peer.read_to_end(&mut read).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
            unsent.begin(&client, b"the last one");
            answers.extend_from_slice(b"the last one");
            let _ = peer.read_to_end(&mut read);
            assert!(read == answers, "{} bytes of {}", read.len(), answers.len());
        });
    }

    #[test]
    fn who_waits_for_a_question_hears_that_the_answer_could_not_be_sent() {
        with_outbox(async |outbox| {
            let (client, peer) = client();
            let mut unsent = Unsent::default();
            poll_fn(|cx| {
                assert!(unsent.queue(&client, b"answer", Some(&outbox), cx.waker()));
                Poll::Ready(())
            })
            .await;
            client.shutdown();
            drop(peer);
            outbox.flush();
            let timers = Timers::new(&Yielder::start().unwrap());
            let watch = timers.watch(&client, std::time::Duration::from_secs(3600));
            unsent.readable(&client, &watch).await.unwrap();
            assert!(unsent.send(&client) == Sent::Failed);
        });
    }

    #[test]
    fn a_large_answer_or_one_with_a_body_is_not_queued() {
        with_outbox(async |outbox| {
            let (client, _peer) = client();
            let mut unsent = Unsent::default();
            let mut queues = |answers: &[u8], body: Option<Arc<[u8]>>| {
                unsent.body = body;
                unsent.queue(&client, answers, Some(&outbox), Waker::noop())
            };
            assert!(!queues(&[0; MAX_MESSAGE + 1], None));
            assert!(!queues(b"head", Some(Arc::from(*b"body"))));
            assert!(!queues(b"", None));
            assert!(!unsent.queue(&client, b"head", None, Waker::noop()));
        });
    }
}
