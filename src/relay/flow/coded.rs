//! The part of a flow that changes its bytes on the way.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::coding::Coding;
use super::super::pool::Pool;
use super::{Broken, Flow};
use crate::proto::websocket::Replies;
use crate::sys::Stream;
use crate::timers::Watch;

/// Time between the client's answer that it has read everything and the close frame. v2ray's own
/// server waits as long after its upstream has ended.
const GRACE: Duration = Duration::from_secs(2);
/// The longest wait for that answer. Without one the flow goes on as if it had come.
const ANSWER: Duration = Duration::from_secs(60);

impl Flow {
    /// Makes a flow that changes its bytes on the way.
    pub fn coded(pool: &Rc<Pool>, coding: Coding) -> Flow {
        let mut flow = Flow::new(pool, Vec::new());
        flow.coding = Some(Box::new(coding));
        flow
    }

    /// Returns true when this flow changes its bytes.
    pub fn is_coded(&self) -> bool {
        self.coding.is_some()
    }

    /// Returns true when the source broke the protocol that this flow decodes. The flow has ended
    /// at that point.
    pub fn is_broken(&self) -> bool {
        self.coding.as_ref().is_some_and(|coding| coding.is_broken())
    }

    /// Takes bytes that were read from the source elsewhere. They are changed in place.
    pub fn receive(&mut self, bytes: &mut [u8]) {
        debug_assert!(self.coding.as_ref().is_none_or(|coding| coding.room() == 0));
        let range = self.apply(bytes, bytes.len());
        self.push(&bytes[range]);
    }

    /// Bytes to leave free in the buffer before those that are read.
    pub(super) fn room(&self) -> usize {
        self.coding.as_ref().map_or(0, |coding| coding.room())
    }

    /// Returns true when a control frame is to be written, whatever the source sends.
    pub(super) fn is_due(&self) -> bool {
        self.coding.as_ref().is_some_and(|coding| coding.is_due())
    }

    /// Codes the bytes that were read into the buffer. Returns the range that is to be written.
    pub(super) fn apply(&mut self, buffer: &mut [u8], read: usize) -> Range<usize> {
        let Some(coding) = &mut self.coding else { return 0..read };
        let range = coding.apply(buffer, read);
        self.ended |= coding.is_over();
        range
    }

    /// Appends the control frames that are due, so that they precede the next read. Returns true
    /// when there were any.
    pub(super) fn push_due(&mut self) -> bool {
        let Some(coding) = self.coding.as_mut().filter(|coding| coding.is_due()) else {
            return false;
        };
        let mut due = Vec::new();
        coding.take_due(&mut due);
        self.ended |= coding.is_over();
        self.push(&due);
        true
    }

    /// Marks the source as ended.
    pub(super) fn end(&mut self) {
        if let Some(coding) = &mut self.coding {
            coding.end();
            self.push_due();
        }
        self.ended = true;
    }

    /// Stops the decoder: the source is not read any more.
    pub(in crate::relay) fn abandon(&mut self) {
        if let Some(coding) = &mut self.coding {
            coding.abandon();
        }
    }

    /// Returns true when a close frame is still to be sent to the destination.
    pub(super) fn has_last_word(&self) -> bool {
        self.coding.as_ref().is_some_and(|coding| coding.last_word().is_some())
    }

    /// Sends the close frame, after the client has read everything before it and has had [`GRACE`]
    /// to process it. A v2ray client drops what it has not passed on yet when the close arrives.
    /// Returns early when the client closes first.
    pub(super) async fn say_last_word(&mut self, to: &Stream, watch: &Watch) -> Result<(), Broken> {
        let answered = |replies: &Replies| replies.are_answered();
        self.replying_until(to, watch, monoio::time::sleep(ANSWER), answered).await?;
        self.replying_until(to, watch, monoio::time::sleep(GRACE), |_| false).await?;
        if let Some(replies) = self.coding.as_ref().and_then(|coding| coding.last_word()) {
            replies.borrow_mut().end();
        }
        self.push_due();
        self.flush(to, watch).await
    }

    /// Sends control frames as they become due, until `time` is over, `enough` holds, or no close
    /// frame is left to be sent.
    async fn replying_until(
        &mut self,
        to: &Stream,
        watch: &Watch,
        time: impl Future<Output = ()>,
        enough: impl Fn(&Replies) -> bool,
    ) -> Result<(), Broken> {
        let mut time = pin!(time);
        while self.has_last_word() {
            let done = poll_fn(|cx| {
                if let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
                    return Poll::Ready(Err(fired));
                }
                let Some(replies) = self.coding.as_ref().and_then(|coding| coding.last_word())
                else {
                    return Poll::Ready(Ok(true));
                };
                match &*replies.borrow() {
                    replies if replies.are_due() => Poll::Ready(Ok(false)),
                    replies if enough(replies) => Poll::Ready(Ok(true)),
                    _ => time.as_mut().poll(cx).map(|()| Ok(true)),
                }
            })
            .await?;
            if done {
                break;
            }
            self.push_due();
            self.flush(to, watch).await?;
        }
        Ok(())
    }
}
