//! Open connections as they are shown, and the end of one of them. Both look at each connection
//! once, and happen only when they are asked for.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Fired, TICK, Timers};
use crate::observe::live::{Live, Protocol, Row};
use crate::sys::Address;

/// Which connections are shown if not all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Those that have moved the most bytes.
    #[default]
    Bytes,
    /// Those that were accepted last.
    Newest,
    /// Those that were accepted first.
    Oldest,
}

/// An open connection as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// No other connection of the worker has this number.
    pub number: u64,
    /// The name of the listener.
    pub listener: String,
    /// The address of the client. `None` if it is gone.
    pub client: Option<Address>,
    /// What it speaks, in the word of records.
    pub protocol: &'static str,
    /// What is done for it, in one word.
    pub activity: Option<&'static str>,
    /// The name of the cluster, and the endpoint.
    pub reached: Option<(String, Address)>,
    /// How long ago it was accepted.
    pub age: Duration,
    /// Bytes up and down, of the present request, tunnel or relay. Of HTTP/2 those of all present
    /// streams.
    pub bytes: [u64; 2],
    /// How long ago a byte has moved. `None` if it is not known, as of HTTP/2.
    pub idle: Option<Duration>,
}

/// What the watches of one connection know.
#[derive(Clone, Copy, Default)]
struct Watched {
    bytes: [u64; 2],
    /// In ticks. `None` without a watch.
    idle: Option<u32>,
}

impl Timers {
    /// Returns the first `limit` open connections in this order, and how many there are in all.
    pub fn open_connections(&self, limit: usize, order: Order) -> (Vec<Shown>, usize) {
        let watched = self.watched();
        let (mut all, live) = (Vec::new(), &self.live);
        let of = |index: usize| watched.get(index).copied().unwrap_or_default();
        live.for_each(|key, row| {
            let rank: u64 = match order {
                Order::Bytes => of(key.index()).bytes.iter().sum(),
                Order::Newest => row.begun.into(),
                Order::Oldest => (u32::MAX - row.begun).into(),
            };
            all.push((rank, key));
        });
        let total = all.len();
        if limit < total {
            all.select_nth_unstable_by_key(limit, |one| Reverse(one.0));
            all.truncate(limit);
        }
        all.sort_unstable_by_key(|one| Reverse(one.0));
        let shown = all
            .iter()
            .filter_map(|(_, key)| live.change(*key, |row| Shown::of(row, live, of(key.index()))));
        (shown.collect(), total)
    }

    /// Closes the connection with this number. Its client gets a reset, and its records say that it
    /// was closed. Returns false if it has ended.
    pub fn close_connection(&self, number: u64) -> bool {
        let Some(row) = self.live.find(number) else { return false };
        // A connection without a watch gets one when it has connected.
        let client = self.live.change(row, |row| {
            row.must_close = true;
            Rc::clone(&row.client)
        });
        // Whatever its tasks do with the error, the client must not take the end for a clean one.
        client.inspect(|client| client.reset_on_close());
        let state = &mut *self.state.borrow_mut();
        let is_of = |conn: &super::Conn| conn.progress.row == Some(row);
        let keys = state.conns.iter().filter_map(|(key, conn)| is_of(conn).then_some(key));
        for key in keys.collect::<Vec<_>>() {
            state.fire(key, Fired::Closed);
        }
        true
    }

    /// What the watches know, by the positions of the rows.
    fn watched(&self) -> Vec<Watched> {
        let state = self.state.borrow();
        let mut all = Vec::new();
        for (key, conn) in state.conns.iter() {
            let Some(row) = conn.progress.row else { continue };
            if all.len() <= row.index() {
                all.resize(row.index() + 1, Watched::default());
            }
            let one = &mut all[row.index()];
            for (sum, bytes) in one.bytes.iter_mut().zip(conn.progress.counted) {
                *sum += bytes;
            }
            let idle = state.conns.idle(key);
            one.idle = Some(one.idle.map_or(idle, |other| other.min(idle)));
        }
        all
    }
}

impl Shown {
    fn of(row: &Row, live: &Live, watched: Watched) -> Shown {
        let Watched { bytes, idle } = watched;
        // Frames of HTTP/2 do not touch the watch of their connection.
        let idle = idle.filter(|_| row.protocol != Protocol::Http2);
        let reached = row.reached.as_ref();
        Shown {
            number: row.number,
            listener: row.source.listener.to_string(),
            client: row.client.peer().map(mapped),
            protocol: row.protocol.as_str(),
            activity: row.activity.as_str(),
            reached: reached.map(|(cluster, at)| (cluster.to_string(), Address::clone(at))),
            age: live.age(row),
            bytes,
            idle: idle.map(|ticks| TICK * ticks),
        }
    }
}

/// An IPv4 address that the kernel shows as one of IPv6 is shown as it is.
fn mapped(address: Address) -> Address {
    match address {
        Address::Ip(SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => Address::Ip(SocketAddr::new(v4.into(), v6.port())),
            None => address,
        },
        _ => address,
    }
}
