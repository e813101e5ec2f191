//! What one worker knows of its open connections: what each is, and what it reaches.
//!
//! A connection has a row from its accept to its end. A row costs no allocation of its own, because
//! places are used again, and it is small: most connections are idle tunnels. Facts that can be
//! found out when they are asked for are not in it.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::pages::Pages;
use crate::sys::{Address, Stream};

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// What all connections of a listener on one worker have in common.
#[derive(Debug)]
pub struct Source {
    /// The name of the listener.
    pub listener: Arc<str>,
    /// What the worker counts of it.
    pub counters: Arc<Counters>,
}

/// What a client speaks, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Any bytes, or nothing so far.
    Tcp,
    /// TLS that is passed on, and a handshake.
    Tls,
    /// HTTP/1.1 or 1.0, also within TLS.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is done for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It waits for its next request, or is answered here.
    Own,
    /// A request goes to a cluster.
    Request,
    /// L4: every byte is relayed.
    Relay,
    /// TLS is passed on by its name.
    Sni,
    /// TLS ends here, and its bytes are relayed.
    Tls,
    /// simple-obfs ends here.
    Obfs,
    /// WebSocket ends here.
    WebSocket,
    /// An upgrade whose handshake the cluster has answered.
    Forward,
}

/// The position of a row, plus 1. It stays the same as long as the connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKey(NonZeroU32);

/// Where a connection leads: a cluster and its endpoint. The outer count of the name belongs to the
/// worker, so that taking it needs no locked instruction.
pub type Reached = (Rc<Arc<str>>, Rc<Address>);

/// One open connection.
pub struct Row {
    /// Counts the connections of the worker.
    pub number: u64,
    /// When it was accepted, in tenths of a second since the start of the worker.
    pub begun: u32,
    /// Its listener.
    pub source: Rc<Source>,
    /// Its socket. It is closed later than the row ends.
    pub client: Rc<Stream>,
    /// `None` if it leads nowhere at present.
    pub reached: Option<Reached>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What is done for it.
    pub activity: Activity,
    /// It is to be closed as soon as it has a watch.
    pub must_close: bool,
}

/// The open connections of one worker.
pub struct Live {
    epoch: Instant,
    begun: Cell<u64>,
    rows: RefCell<Pages<Row>>,
}

impl Live {
    /// Begins without connections.
    pub fn start() -> Live {
        Live { epoch: Instant::now(), begun: Cell::new(0), rows: RefCell::default() }
    }

    /// Adds a connection that was accepted at `begun`.
    pub fn begin(&self, source: &Rc<Source>, client: &Rc<Stream>, begun: Instant) -> RowKey {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let row = Row {
            number,
            begun: (begun.saturating_duration_since(self.epoch).as_millis() / 100) as u32,
            source: Rc::clone(source),
            client: Rc::clone(client),
            reached: None,
            protocol: Protocol::Tcp,
            activity: Activity::Own,
            must_close: false,
        };
        RowKey::at(self.rows.borrow_mut().insert(row))
    }

    /// Removes a connection that has ended.
    pub fn end(&self, key: RowKey) {
        let row = self.rows.borrow_mut().remove(key.index());
        // Dropped where nothing is borrowed: it may hold the last reference to an endpoint.
        drop(row);
    }

    /// Counts bytes that a connection has moved for its listener.
    pub fn count(&self, key: RowKey, direction: Direction, bytes: u64) {
        if let Some(row) = self.rows.borrow().get(key.index()) {
            row.source.counters.count_bytes(direction, bytes);
        }
    }

    /// Notes what is done for a connection, and where it leads.
    pub fn reach(&self, key: RowKey, activity: Activity, reached: Option<Reached>) {
        let before = self.change(key, |row| {
            row.activity = activity;
            std::mem::replace(&mut row.reached, reached)
        });
        drop(before);
    }

    /// Changes a row. Returns what `change` does; `None` if the connection has ended.
    pub fn change<T>(&self, key: RowKey, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        self.rows.borrow_mut().get_mut(key.index()).map(change)
    }

    /// Calls `each` for every open connection.
    pub fn for_each(&self, mut each: impl FnMut(RowKey, &Row)) {
        let rows = self.rows.borrow();
        rows.iter().for_each(|(index, row)| each(RowKey::at(index), row));
    }

    /// The connection with this number.
    pub fn find(&self, number: u64) -> Option<RowKey> {
        let rows = self.rows.borrow();
        let found = rows.iter().find(|(_, row)| row.number == number);
        found.map(|(index, _)| RowKey::at(index))
    }

    /// How long ago a connection was accepted; right to a tenth of a second.
    pub fn age(&self, row: &Row) -> Duration {
        let begun = Duration::from_millis(u64::from(row.begun) * 100);
        self.epoch.elapsed().saturating_sub(begun)
    }
}

impl RowKey {
    fn at(index: usize) -> RowKey {
        // Each row has a descriptor, and those have 31 bits.
        RowKey(NonZeroU32::MIN.saturating_add(index as u32))
    }

    /// The position as an index: less than 2³¹, and low ones are used first.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Protocol {
    /// The word of the admin endpoint, which is that of records.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

impl Activity {
    /// The word of the admin endpoint. `None` if there is nothing to say.
    pub fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Activity::Own => return None,
            Activity::Request => "request",
            Activity::Relay => "relay",
            Activity::Sni => "sni",
            Activity::Tls => "tls",
            Activity::Obfs => "obfs",
            Activity::WebSocket => "websocket",
            Activity::Forward => "forward",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn stream() -> (Rc<Stream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket can wait");
        let stream = Stream::from_fd(OwnedFd::from(ours)).expect("the runtime takes a socket");
        (Rc::new(stream), theirs)
    }

    fn with_rows(test: impl FnOnce(Live, Rc<Source>, Rc<Stream>)) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .build()
            .expect("a runtime over epoll");
        runtime.block_on(async {
            let source = Source { listener: "web".into(), counters: Arc::default() };
            let (stream, _peer) = stream();
            test(Live::start(), Rc::new(source), stream);
        });
    }

    #[test]
    fn a_place_is_used_again_and_a_number_is_not() {
        with_rows(|live, source, stream| {
            let first = live.begin(&source, &stream, Instant::now());
            live.end(first);
            let second = live.begin(&source, &stream, Instant::now());
            assert_eq!(first, second);
            assert_eq!((live.find(1), live.find(2)), (None, Some(second)));
        });
    }

    #[test]
    fn bytes_of_a_connection_that_has_ended_are_not_counted() {
        with_rows(|live, source, stream| {
            let key = live.begin(&source, &stream, Instant::now());
            live.count(key, Direction::Up, 3);
            live.end(key);
            live.count(key, Direction::Down, 5);
            assert_eq!(source.counters.bytes(), (3, 0));
        });
    }

    #[test]
    fn a_row_takes_no_more_memory_than_it_has_to() {
        assert_eq!(size_of::<Row>(), 48);
    }
}
