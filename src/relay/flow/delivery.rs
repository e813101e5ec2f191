//! The end of a flow whose source is TLS that was cut off: what was read before is delivered, and
//! then the destination gets a reset.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{Broken, Flow};
use crate::sys::Errno;
use crate::timers::{Fired, Watch};
use crate::transport::Transport;

/// The time between two looks whether a peer has acknowledged everything. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Flow {
    /// If the source is TLS that was cut off, waits until the destination has acknowledged what was
    /// read before: the reset that follows would destroy it. Returns the result of the run.
    pub(in crate::relay) async fn deliver_if_truncated(
        &mut self,
        result: Result<(), Broken>,
        to: &Transport,
        watch: &Watch,
    ) -> Result<(), Broken> {
        if result == Err(Broken::From(Errno::CONNABORTED)) {
            // Boxed: few flows end so, but each would have room for this future.
            match Box::pin(self.deliver(to, watch)).await {
                // The destination does not take it in time: there is nothing more to wait for.
                Ok(()) | Err(Broken::Fired(Fired::TimedOut(_))) => {}
                Err(broken) => return Err(broken),
            }
        }
        result
    }

    async fn deliver(&mut self, to: &Transport, watch: &Watch) -> Result<(), Broken> {
        self.flush(to, watch).await?;
        // No event tells that the last byte is acknowledged.
        let mut wait = FIRST_PAUSE;
        while to.socket().unacknowledged() > 0 {
            let mut pause = pin!(monoio::time::sleep(wait));
            wait = (2 * wait).min(LONGEST_PAUSE);
            poll_fn(|cx| match watch.poll_fired(cx.waker()) {
                Poll::Ready(fired) => Poll::Ready(Err(fired)),
                Poll::Pending => pause.as_mut().poll(cx).map(Ok),
            })
            .await?;
        }
        Ok(())
    }
}
