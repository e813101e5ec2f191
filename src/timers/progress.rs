//! What a watched connection has moved so far. It is reported while bytes move, so that the
//! counters of its listener are true also for a tunnel that lasts for days.

use super::{Fired, Watch};
use crate::observe::live::{Direction, RowKey};

/// What is counted of one request, tunnel or relay.
#[derive(Default)]
pub(super) struct Progress {
    /// The connection that it belongs to. `None` if nothing is counted, as while connecting.
    pub(super) row: Option<RowKey>,
    /// Bytes that are counted, by their [`Direction`].
    pub(super) counted: [u64; 2],
}

impl Watch {
    /// Makes this a watch of an open connection of a client: what moves counts for that one, and it
    /// ends with it. Several watches may belong to one: streams of HTTP/2 have their own.
    pub fn belongs_to(&self, row: RowKey) {
        self.conn(|conn| conn.progress.row = Some(row));
        if self.timers.live.change(row, |row| row.must_close) == Some(true) {
            self.timers.state.borrow_mut().fire(self.key, Fired::Closed);
        }
    }

    /// Counts the bytes that have moved since the last call. `total` are those of the present
    /// request, tunnel or relay so far. Less than before counts as nothing: bytes in the outbox may
    /// come back.
    pub fn moved(&self, direction: Direction, total: u64) {
        let (row, more) = self.conn(|conn| {
            let counted = &mut conn.progress.counted[direction as usize];
            let more = total.saturating_sub(*counted);
            *counted += more;
            (conn.progress.row, more)
        });
        if let Some(row) = row
            && more > 0
        {
            self.timers.live.count(row, direction, more);
        }
    }

    /// Ends what is counted together. Returns the bytes of it that are counted, by their
    /// [`Direction`], for [`Outcome::counted`](crate::observe::outcome::Outcome::counted).
    pub fn take_counted(&self) -> [u64; 2] {
        self.conn(|conn| {
            let counted = std::mem::take(&mut conn.progress.counted);
            if conn.progress.row.is_some() { counted } else { [0; 2] }
        })
    }
}
