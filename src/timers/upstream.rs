//! The upstream's stream of a watched connection, and its TCP keepalive.
//!
//! Keepalive takes three system calls, and most connections end long before the first probe. So it
//! is set at the first visit of the wheel, after 26 s at most, and a connection that ends earlier
//! pays nothing. The client's stream inherits its keepalive from the listening socket.

use std::rc::Rc;

use super::{Conn, Watch};
use crate::sys::{Keepalive, Stream};

impl Watch {
    /// Sets the upstream's stream of the connection, which is watched from now on, too.
    pub fn set_upstream(&self, upstream: Option<&Rc<Stream>>) {
        let upstream = upstream.cloned();
        // A stream that the new one replaces must not be dropped while the state is borrowed.
        let replaced = self.conn(|conn| std::mem::replace(&mut conn.upstream, upstream));
        drop(replaced);
    }

    /// Sets TCP keepalive for the upstream's stream at the first visit of the wheel.
    pub fn set_tcp_keepalive(&self, keepalive: Option<Keepalive>) {
        self.conn(|conn| conn.keepalive = keepalive);
    }
}

impl Conn {
    /// Sets the TCP keepalive that is still to be set.
    pub(super) fn keep_alive(&mut self) {
        if let Some(upstream) = &self.upstream
            && let Some(keepalive) = self.keepalive.take()
        {
            upstream.set_keepalive(keepalive);
        }
    }
}
