//! The control frames of a WebSocket client, which its two flows share. The flow from the client
//! reads its control frames; the flow to the client sends the replies, and a close frame at the
//! end.
//!
//! Before that close frame the flow sends a ping and waits for the pong, which shows that the
//! client has read everything. Then it waits for [`CLOSE_DELAY`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Broken, Flow};
use crate::proto::codec::{Codec, Stack};
use crate::proto::websocket::{ControlFrames, Decoder, Encoder};
use crate::relay::pool::{BUFFER_SIZE, Pool};
use crate::timers::Watch;
use crate::transport::Transport;

/// Time between the pong and the close frame. A v2ray client drops what it has not passed on yet
/// when the close frame arrives. v2ray's own server waits as long after its upstream has ended.
const CLOSE_DELAY: Duration = Duration::from_secs(2);
/// The longest wait for the pong. Without one the flow goes on as if it had come.
const PONG_TIMEOUT: Duration = Duration::from_secs(60);

/// Which of the two flows this is, and the control frames that both share.
pub(super) enum Control {
    FromClient(ControlFrames),
    ToClient(ControlFrames),
}

impl Flow {
    /// Makes the two flows of a WebSocket client: from it and to it.
    pub fn websocket(pool: &Rc<Pool>) -> (Flow, Flow) {
        let frames = ControlFrames::default();
        let decoder = Stack::new(Decoder::new(frames.clone()));
        let from = Control::FromClient(frames.clone());
        let (encoder, to) = (Stack::new(Encoder), Control::ToClient(frames));
        (Flow::with_control(pool, decoder, Some(from)), Flow::with_control(pool, encoder, Some(to)))
    }

    /// Marks the source as ended.
    pub(super) fn mark_ended(&mut self) {
        match self.control() {
            // All payload precedes this ping.
            Some(Control::ToClient(frames)) => {
                frames.schedule_ping();
                self.push_control_frames();
            }
            // No pong will come.
            Some(Control::FromClient(frames)) => frames.mark_client_ended(),
            // The end of a part may be that of a failure.
            None if self.is_part => {}
            None => self.push_last_bytes(),
        }
        self.ended = true;
    }

    /// Marks the source as not read any more, because the destination takes no more bytes.
    pub(in crate::relay) fn mark_unread(&self) {
        if let Some(Control::FromClient(frames)) = self.control() {
            frames.mark_client_unread();
        }
    }

    /// Returns true when a control frame is to be written, whatever the source sends.
    pub(super) fn has_pending_control_frames(&self) -> bool {
        self.frames_to_client().is_some_and(ControlFrames::has_pending)
    }

    /// Appends the pending control frames, so that they precede the next read. Returns true when
    /// there were any.
    pub(super) fn push_control_frames(&mut self) -> bool {
        let Some(frames) = self.frames_to_client().filter(|frames| frames.has_pending()) else {
            return false;
        };
        let mut bytes = Vec::new();
        frames.take_pending(&mut bytes);
        self.ended |= frames.is_close_sent();
        // The first codec makes data frames. Control frames are frames already and are coded by
        // those behind it.
        if let Some(codecs) = self.coded.as_mut().and_then(|coded| coded.codecs.rest()) {
            let headroom = codecs.headroom(BUFFER_SIZE);
            bytes.splice(..0, std::iter::repeat_n(0, headroom));
            let input = headroom..bytes.len();
            let output = codecs.code(&mut bytes, input);
            self.push(&bytes[output]);
        } else {
            self.push(&bytes);
        }
        true
    }

    /// Returns true when a close frame is still to be sent to the destination.
    pub(super) fn needs_close_frame(&self) -> bool {
        self.frames_to_client().is_some_and(ControlFrames::can_close)
    }

    /// Waits for the pong and for [`CLOSE_DELAY`], then sends the close frame. Sends other control
    /// frames meanwhile. Returns early when the client closes first.
    pub(super) async fn send_close_frame(
        &mut self,
        to: &Transport,
        watch: &Watch,
    ) -> Result<(), Broken> {
        let pong_timeout = monoio::time::sleep(PONG_TIMEOUT);
        let settled = ControlFrames::is_ping_settled;
        self.send_control_frames_until(to, watch, pong_timeout, settled).await?;
        let close_delay = monoio::time::sleep(CLOSE_DELAY);
        self.send_control_frames_until(to, watch, close_delay, |_| false).await?;
        if let Some(frames) = self.frames_to_client().filter(|frames| frames.can_close()) {
            frames.schedule_close();
        }
        self.push_control_frames();
        self.flush(to, watch).await
    }

    /// Sends control frames as they become pending, until `time` is over, `is_done` holds, or no
    /// close frame is left to be sent.
    async fn send_control_frames_until(
        &mut self,
        to: &Transport,
        watch: &Watch,
        time: impl Future<Output = ()>,
        is_done: impl Fn(&ControlFrames) -> bool,
    ) -> Result<(), Broken> {
        let mut time = pin!(time);
        while let Some(frames) = self.frames_to_client().filter(|frames| frames.can_close()) {
            let done = poll_fn(|cx| {
                if let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
                    return Poll::Ready(Err(fired));
                }
                if !frames.can_close() {
                    return Poll::Ready(Ok(true));
                }
                if frames.has_pending() {
                    return Poll::Ready(Ok(false));
                }
                if is_done(frames) {
                    return Poll::Ready(Ok(true));
                }
                time.as_mut().poll(cx).map(|()| Ok(true))
            })
            .await?;
            if done {
                break;
            }
            self.push_control_frames();
            self.flush(to, watch).await?;
        }
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.coded.as_ref()?.control.as_ref()
    }

    /// The control frames that this flow sends to its destination.
    fn frames_to_client(&self) -> Option<&ControlFrames> {
        match self.control()? {
            Control::ToClient(frames) => Some(frames),
            Control::FromClient(_) => None,
        }
    }
}
