//! Follows the body of a response to its end and passes it on to the client.

use super::{Connection, Response};
use crate::observe::outcome::End;
use crate::proto::http::{Body, BodyEnd};
use crate::relay::{Broken, Flow};
use crate::sys::Errno;
use crate::timers::Fired;
use crate::transport::Transport;

/// Bytes of a body that are read at a time, and so the most that is kept for a client that does not
/// read.
const READ_SIZE: usize = 16 * 1024;

impl Connection<'_> {
    /// Passes the body of a response on to the client, up to its end and no further. `down` holds
    /// the head that the client gets. Returns [`End::Done`] when the client's socket has taken the
    /// whole body, and otherwise why it has not.
    pub async fn pass_body(&self, response: Response, client: &Transport, down: &mut Flow) -> End {
        let mut body = response.head.body;
        let mut end = push_body(&mut body, response.rest(), down);
        // The flow has its own copy of the bytes, and counts them.
        drop(response);
        loop {
            // Everything is written before more is read, so a slow client slows the upstream down.
            match down.flush(client, self.watch).await {
                Ok(()) => down.report(self.watch),
                Err(Broken::Fired(fired)) => return fired.end(),
                Err(Broken::From(_) | Broken::To(_)) => return End::ClientReset,
            }
            if let Some(end) = end {
                return end;
            }
            if let Err(fired) = self.body_readable().await {
                return fired.end();
            }
            end = self.read_body(&mut body, down);
        }
    }

    /// Waits for more of the body.
    async fn body_readable(&self) -> Result<(), Fired> {
        // The client is not read meanwhile, so the watch must look for a reset of it.
        let _stall = self.watch.stall();
        match self.watch.readable(self.transport).await {
            // The limit fired before the task could read what has arrived.
            Err(Fired::TimedOut(_)) if self.transport.has_input() => {
                self.watch.again();
                Ok(())
            }
            result => result,
        }
    }

    /// Reads once and gives the bytes of the body to the flow. Returns why the body is over, if it
    /// is.
    fn read_body(&self, body: &mut Body, down: &mut Flow) -> Option<End> {
        let mut buffer = self.pool.buffer();
        match self.transport.recv(&mut buffer[..self.pool.read_size().min(READ_SIZE)]) {
            Ok(0) if self.write_failed.get() => Some(End::UpstreamReset),
            Ok(0) if *body == Body::UntilClose => Some(End::Done),
            Ok(0) => Some(End::Upstream),
            Ok(read) => {
                self.watch.touch();
                push_body(body, &buffer[..read], down)
            }
            Err(Errno::AGAIN) => None,
            Err(_) => Some(End::UpstreamReset),
        }
    }
}

/// Gives the flow those of the bytes that belong to the body. Returns why the body is over, if it
/// is. Of a malformed piece nothing is passed on.
fn push_body(body: &mut Body, bytes: &[u8], down: &mut Flow) -> Option<End> {
    match body.follow(bytes) {
        BodyEnd::NotYet => {
            down.push(bytes);
            None
        }
        BodyEnd::At(end) => {
            down.push(&bytes[..end]);
            Some(End::Done)
        }
        BodyEnd::Malformed => Some(End::BadResponse),
    }
}
