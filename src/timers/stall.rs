//! Finds resets of connections of which one stream is not read, and clients that have left.
//!
//! A relay does not read a stream while its other stream takes no more bytes, or after its end. No
//! task waits for it then, so no wait would notice a reset. The worker looks for one once a second
//! instead.
//!
//! A client that waits for a response is not read either. It may end its side of the connection and
//! still read the response, but most clients that do have left. As in nginx an end counts as that.
//! Unlike in nginx it counts only after a second without a byte, so that `printf … | nc -N` gets
//! its response.

use super::{Fired, State, Watch};

/// Ticks between two checks of stalled connections.
pub(super) const STALL_CHECK: u32 = 20;

/// The stalls of one connection.
#[derive(Default)]
pub(super) struct Stalls {
    /// The number of [`Stall`]s: reasons why one of the streams is not read.
    count: u16,
    /// Position in `State::stalled` while `count` is not 0.
    position: u32,
    /// The client waits for a response.
    client_waits: bool,
}

/// The mark of a stream that is not read. Dropping it removes the mark.
pub struct Stall<'a> {
    watch: &'a Watch,
}

impl Watch {
    /// Marks one of the streams as not read, as long as the result lives.
    pub fn stall(&self) -> Stall<'_> {
        let state = &mut *self.timers.state.borrow_mut();
        let stalls = &mut state.conns[self.key].stalls;
        stalls.count += 1;
        if stalls.count == 1 {
            stalls.position = state.stalled.len() as u32;
            state.stalled.push(self.key as u32);
        }
        Stall { watch: self }
    }

    /// The same for a client that waits for a response. Its end counts as a reset when no byte has
    /// moved for a second.
    pub fn stall_while_client_waits(&self) -> Stall<'_> {
        let stall = self.stall();
        self.conn(|conn| conn.stalls.client_waits = true);
        stall
    }

    /// Returns true if one of the streams is not read.
    pub fn is_stalled(&self) -> bool {
        self.conn(|conn| conn.stalls.count > 0)
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        let state = &mut *self.watch.timers.state.borrow_mut();
        let stalls = &mut state.conns[self.watch.key].stalls;
        stalls.count -= 1;
        if stalls.count == 0 {
            stalls.client_waits = false;
            let position = stalls.position;
            state.stalled.swap_remove(position as usize);
            // The last key has moved to the free position.
            if let Some(&moved) = state.stalled.get(position as usize) {
                state.conns[moved as usize].stalls.position = position;
            }
        }
    }
}

impl State {
    /// Fires the limit of each stalled connection of which a stream was reset, or whose client has
    /// left.
    pub(super) fn check_stalled(&mut self) {
        for index in (0..self.stalled.len()).rev() {
            let key = self.stalled[index] as usize;
            let conn = &self.conns[key];
            let must_stay = conn.stalls.client_waits && self.conns.idle(key) >= STALL_CHECK;
            // One call finds out about both.
            let is_gone = if must_stay { conn.client.has_ended() } else { conn.client.is_reset() };
            if is_gone {
                let is_reset = conn.client.is_reset();
                self.fire(key, if is_reset { Fired::ClientReset } else { Fired::ClientEnded });
            } else if conn.upstream.as_ref().is_some_and(|upstream| upstream.is_reset()) {
                self.fire(key, Fired::UpstreamReset);
            }
        }
    }
}
