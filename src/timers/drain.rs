//! What a drain does to a connection, and how a worker ends connections before their limits.

use std::collections::HashSet;

use super::{Conn, Fired, Timers, Watch};

/// What a drain does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrain {
    /// Lets it continue: a request or a relay.
    Wait,
    /// Ends it a second after the drain began: a connection that has sent nothing yet, and whose
    /// first bytes may be in flight.
    Grace,
    /// Ends it at once, or after a while if another process has taken over: a connection of
    /// HTTP/1.1 between two requests. One may be in flight, and its client would not know whether
    /// it was served.
    Idle,
    /// Ends it at once: a connection of HTTP/2. Its client learns which requests are served, also
    /// of those that are in flight.
    Now,
}

impl Watch {
    /// Sets what a drain does to the connection. It begins with [`OnDrain::Wait`].
    pub fn on_drain(&self, what: OnDrain) {
        self.conn(|conn| conn.on_drain = what);
    }

    /// Makes the connection one of a group, which [`Timers::end_idle`] ends together.
    pub fn join_group(&self, group: u32) {
        self.conn(|conn| conn.group = group);
    }
}

impl Timers {
    /// Ends connections with [`OnDrain::Now`], and those with [`OnDrain::Grace`] and
    /// [`OnDrain::Idle`] if their time is over.
    pub fn drain(&self, grace_is_over: bool, idle_is_over: bool) {
        self.end(|conn| match conn.on_drain {
            OnDrain::Wait => false,
            OnDrain::Grace => grace_is_over,
            OnDrain::Idle => idle_is_over,
            OnDrain::Now => true,
        });
    }

    /// Ends the connections of these groups that a drain would end within a second. Does nothing
    /// without groups. It looks at each connection once.
    pub fn end_idle(&self, groups: &HashSet<u32>) {
        if !groups.is_empty() {
            self.end(|conn| conn.on_drain != OnDrain::Wait && groups.contains(&conn.group));
        }
    }

    /// Ends all connections.
    pub fn end_all(&self) {
        self.all_ended.set(true);
        self.end(|_| true);
    }

    /// Returns true after [`Timers::end_all`] was called. For waits that have no stream.
    pub fn all_ended(&self) -> bool {
        self.all_ended.get()
    }

    fn end(&self, which: impl Fn(&Conn) -> bool) {
        let state = &mut *self.state.borrow_mut();
        let keys = state.conns.iter().filter_map(|(key, conn)| which(conn).then_some(key));
        for key in keys.collect::<Vec<_>>() {
            state.fire(key, Fired::Drained);
        }
    }
}
