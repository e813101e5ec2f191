//! Finds resets of connections of which one stream is not read.
//!
//! A relay does not read a stream while its other stream takes no more bytes, or after its end. No
//! task waits for it then, so no wait would notice a reset. The worker looks for one once a second
//! instead.

use super::{Fired, State, Watch};

/// Ticks between two checks of stalled connections.
pub(super) const STALL_CHECK: u32 = 20;

/// The stalls of one connection.
#[derive(Default)]
pub(super) struct Stalls {
    /// The number of [`Stall`]s: reasons why one of the streams is not read.
    count: u32,
    /// Position in `State::stalled` while `count` is not 0.
    position: u32,
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
    /// Fires the limit of each stalled connection of which a stream was reset.
    pub(super) fn check_stalled(&mut self) {
        for index in (0..self.stalled.len()).rev() {
            let key = self.stalled[index] as usize;
            let conn = &self.conns[key];
            if conn.client.is_reset() {
                self.fire(key, Fired::ClientReset);
            } else if conn.upstream.as_ref().is_some_and(|upstream| upstream.is_reset()) {
                self.fire(key, Fired::UpstreamReset);
            }
        }
    }
}
