//! UDP: each client's datagrams go to one endpoint, from a socket of their own. What the endpoint
//! sends back are replies; they go to the client, from the local address that the client sends to.
//!
//! A session is a client and the local address that it sends to. It ends after the idle timeout
//! without a datagram. A session without a reply ends after [`NO_REPLY_TIMEOUT`] at most. The
//! kernel chooses the worker by the client's address (SO_REUSEPORT), and the choice does not
//! change.
//!
//! A listener has a quota of the worker's descriptors for UDP ([`Shares::sessions`]). When the
//! quota is used up, or there are `max_sessions` sessions, a new session evicts the least recently
//! used one. Sessions without a reply are evicted first. The socket of an ended session is closed
//! only when its task has run, so a part of the quota is reserved for such sockets.
//!
//! | file | what it does |
//! | --- | --- |
//! | `listener` | the listeners of a worker, and what a reload changes of them |
//! | `receive` | receives what clients send |
//! | `open` | opens a session with the next endpoint |
//! | `session` | forwards datagrams to the endpoint, and replies to the client |
//! | `end` | ends sessions, drains the worker, and writes records |
//! | `table` | finds sessions by client, and in the order of their last use |
//! | `quota` | divides the descriptors among listeners, and counts those in use |
//! | `join` | joins datagrams that one call can send |
//!
//! [`Shares::sessions`]: crate::sys::Shares::sessions

mod end;
mod join;
mod listener;
mod open;
mod quota;
mod receive;
mod session;
mod table;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::listener::Listener;
use super::moment::Moment;
use crate::cluster::{Cluster, InUse, Tried};
use crate::sched::StopFlag;
use crate::sys::{Address, Batch, Connected, UdpSocket};
pub use listener::{Datagrams, UdpListeners};
pub use quota::udp_session_limit;
use quota::{SocketPermit, SocketQuota};
use table::{IdleLimits, Table};

/// A session without a reply ends after this time of silence, or after the idle timeout if that is
/// shorter. Services that reply do so within seconds; datagrams from forged addresses never have a
/// reply.
const NO_REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A listener on one worker.
pub struct Udp {
    context: Rc<Context>,
    /// What new sessions do. A reload replaces it.
    current: RefCell<Current>,
    idle_limits: Cell<IdleLimits>,
    /// A socket keeps its place. The task that receives from a socket holds it, too. All are empty
    /// while the worker drains.
    sockets: RefCell<Vec<Option<Rc<ClientSocket>>>>,
    /// The places of removed sockets whose sessions have ended: for new sockets.
    free_places: RefCell<Vec<usize>>,
    /// Whether the worker has begun to receive for it.
    has_begun: Cell<bool>,
    sessions: RefCell<Table<Key, Session>>,
    /// Counts the sockets to endpoints, including those of sessions that have ended.
    quota: RefCell<SocketQuota>,
    /// Set when a session ends, until the receiving task yields: the session's task can then close
    /// its socket.
    has_closing_sockets: Cell<bool>,
    buffers: Rc<Buffers>,
    /// What the sockets to endpoints share.
    connected: Rc<Connected>,
}

/// The listener of new sessions, and where they lead.
#[derive(Clone)]
struct Current {
    listener: Rc<Listener>,
    cluster: Rc<Cluster>,
}

/// A socket that clients send to. It is never shut down, because another process may have it, too.
struct ClientSocket {
    socket: Rc<UdpSocket>,
    /// The same socket as the control plane knows it.
    shared: Arc<StdSocket>,
    /// Set when the task that receives from it must end.
    stopped: StopFlag,
    /// Whether there is such a task.
    has_task: Cell<bool>,
}

/// Scratch buffers for all listeners of a worker.
struct Buffers {
    batch: RefCell<Batch>,
    joined: RefCell<Vec<u8>>,
}

/// What identifies a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    /// Position in [`Udp::sockets`].
    socket: usize,
    /// The address that the client sends to. `None` if the kernel does not report it, or if it
    /// cannot be a source address.
    local: Option<IpAddr>,
}

struct Session {
    key: Key,
    /// The listener that it began with, and its cluster.
    current: Current,
    client: Address,
    upstream: Upstream,
    tried: RefCell<Tried>,
    start: Moment,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    has_reply: Cell<bool>,
    is_ended: Cell<bool>,
}

/// A socket that is connected to an endpoint.
struct Upstream {
    socket: UdpSocket,
    address: SocketAddr,
    endpoint: InUse,
    _permit: SocketPermit,
}
