//! The limit of open files (getrlimit(2), RLIMIT_NOFILE), and how its descriptors are divided.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Errno;

/// Descriptors that the control plane opens at the start: the standard streams, its runtime,
/// signals, log files.
const CONTROL_DESCRIPTORS: u64 = 32;
/// Descriptors of a worker besides its listening sockets: a ring or an epoll instance, the outbox,
/// the socket pairs of its helper tasks and of what reads files, the epoll instance for the errors
/// of UDP sockets.
const WORKER_DESCRIPTORS: u64 = 11;
/// At most 1/`RESERVE_PART` of the limit is reserved for the control plane.
const RESERVE_PART: u64 = 8;
/// Descriptors that the control plane may open later, for example for log files that are reopened
/// or for a resolver. [`RESERVE_FOR_NAME`] and [`MAX_ADMIN`] are added to them.
const RESERVE: u64 = 64;
/// Descriptors for each name: sockets to resolvers over IPv4 and IPv6, with a second attempt.
const RESERVE_FOR_NAME: u64 = 4;
/// The most connections of clients of the admin endpoint. They are added to the reserve, of which
/// they get a half at most.
const MAX_ADMIN: u64 = 64;
/// Pipes get 1/`PIPES_PART` of a worker's descriptors. A flow without a pipe is copied.
const PIPES_PART: u64 = 8;
/// The most pipes of one worker. Clients that do not read may fill all of them, with 1 MiB each.
const MAX_PIPES: u64 = 512;
/// Idle connections to endpoints get at most 1/`IDLE_PART` of a worker's descriptors.
const IDLE_PART: u64 = 8;
/// UDP sessions get 1/`SESSIONS_PART` of the remaining descriptors if there are connections, too.
const SESSIONS_PART: u64 = 3;
/// Accepts in flight may fill 1/`ACCEPTS_PART` of the descriptors for connections.
const ACCEPTS_PART: usize = 16;
/// The most accepts in flight on one socket.
const MAX_ACCEPTS: usize = 8;
/// An evicted UDP session keeps its descriptor for a moment. This many such sessions are counted in
/// addition to `max_sessions`, for each socket that clients send to.
pub const CLOSING_SESSIONS: usize = 32;
/// Stands for "no limit": more than the limit of any system (`fs.nr_open`).
const UNLIMITED: u64 = 1 << 30;

/// What a process needs descriptors for. All of it follows from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Number of addresses that TCP, HTTP and TLS listeners listen on.
    pub stream_sockets: usize,
    /// Number of addresses that UDP listeners listen on.
    pub udp_sockets: usize,
    /// Number of sockets, of all workers together, that workers have beyond one for each address.
    pub surplus_sockets: usize,
    /// The sum of `max_sessions` over all UDP listeners.
    pub max_sessions: usize,
    /// The idle connections to endpoints that each worker would keep.
    pub idle: usize,
    /// Number of names that are looked up.
    pub names: usize,
    /// Number of directories whose files are served.
    pub roots: usize,
    /// Whether there is an admin endpoint.
    pub has_admin: bool,
}

impl Needs {
    /// The lowest limit of open files with which each worker can serve a connection from each of
    /// its sockets, and a UDP session.
    pub fn least_limit(&self) -> u64 {
        let (streams, udp) = (self.stream_sockets as u64, self.udp_sockets as u64);
        // One accept in flight for each socket, and one connection with its upstream.
        let connections = if streams > 0 { streams + 2 } else { 0 };
        let needed = self.fixed() + self.workers.max(1) as u64 * (connections + udp);
        // The reserve is added: it is an eighth of a limit that is as low as this.
        needed * RESERVE_PART / (RESERVE_PART - 1) + 1
    }

    /// Descriptors that are open from the start.
    fn fixed(&self) -> u64 {
        // The control plane has one descriptor for each socket, and the worker's runtime another.
        let sockets = 2 * (self.stream_sockets + self.udp_sockets) as u64;
        // A directory is opened anew before the one before it is closed.
        let files = 2 * self.roots as u64;
        let surplus = 2 * self.surplus_sockets as u64;
        CONTROL_DESCRIPTORS
            + surplus
            + self.workers.max(1) as u64 * (WORKER_DESCRIPTORS + sockets + files)
    }
}

/// How the descriptors are divided. No share is ever exceeded, so none can starve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Descriptors kept for the control plane.
    pub reserve: usize,
    /// Those of them for connections of clients of the admin endpoint.
    pub admin: usize,
    /// Pipes of one worker; each has two descriptors.
    pub pipes: usize,
    /// Connections of one worker; each has two descriptors, for the client and the upstream.
    /// Further connections wait in the accept queue.
    pub connections: usize,
    /// Accepts in flight on each socket of a worker. Each may return a connection that has to wait.
    pub accepts: usize,
    /// Idle connections to endpoints that one worker may keep; each has one descriptor.
    pub idle: usize,
    /// Descriptors for the UDP sessions of one worker; each session has one.
    pub sessions: usize,
}

impl Shares {
    /// Divides `file_limit` descriptors. What is open from the start and the reserve are subtracted
    /// first; the workers get equal parts of the rest. An eighth of a part is for pipes, and up to
    /// an eighth for idle connections to endpoints. If there are both stream and UDP listeners, a
    /// third of the remainder is for UDP sessions and the rest for connections. Sessions get no
    /// more than `max_sessions` needs.
    pub fn of(file_limit: u64, needs: &Needs) -> Shares {
        let limit = file_limit.min(UNLIMITED);
        let workers = needs.workers.max(1) as u64;
        let fixed = needs.fixed();
        let admin = if needs.has_admin { MAX_ADMIN } else { 0 };
        let reserve = RESERVE + RESERVE_FOR_NAME * needs.names as u64 + admin;
        let reserve = reserve.min(limit / RESERVE_PART);
        let part = limit.saturating_sub(fixed + reserve) / workers;

        let has_streams = needs.stream_sockets > 0;
        let pipes = if has_streams { (part / PIPES_PART / 2).min(MAX_PIPES) } else { 0 };
        let idle = if has_streams { (part / IDLE_PART).min(needs.idle as u64) } else { 0 };
        let rest = part - 2 * pipes - idle;
        let closing = (CLOSING_SESSIONS * needs.udp_sockets) as u64;
        let wanted = (needs.max_sessions as u64).div_ceil(workers) + closing;
        let sessions = if needs.udp_sockets == 0 {
            0
        } else if has_streams {
            (rest / SESSIONS_PART).min(wanted)
        } else {
            rest.min(wanted)
        };
        let streams = if has_streams { (rest - sessions) as usize } else { 0 };
        let accepts = streams / ACCEPTS_PART / needs.stream_sockets.max(1);
        let accepts = accepts.clamp(1, MAX_ACCEPTS);
        let waiting = accepts * needs.stream_sockets;
        Shares {
            reserve: reserve as usize,
            // At least one, however low the limit is: it may show why.
            admin: admin.min((reserve / 2).max(1)) as usize,
            pipes: pipes as usize,
            // At least one connection and one session are allowed, however low the limit is.
            connections: (streams.saturating_sub(waiting) / 2).max(needs.stream_sockets.min(1)),
            accepts,
            idle: idle as usize,
            sessions: (sessions as usize).max(needs.udp_sockets.min(1)),
        }
    }
}

/// Raises the soft limit of open files to the hard limit, and returns the soft limit that then
/// applies. A relayed connection needs two descriptors. The usual soft limit of 1024 exists for
/// select(2), which nothing here uses.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If this is refused, the old limit stays. The start-up line shows it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    file_limit()
}

/// The hard limit of open files, to which [`raise_file_limit`] raises the soft one; `u64::MAX` if
/// there is none.
pub fn hard_file_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The soft limit of open files; `u64::MAX` if there is none.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Checks that so many more descriptors can be opened, by opening and closing them.
///
/// # Errors
/// EMFILE, ENFILE or ENOMEM: there are fewer.
pub fn check_descriptors(count: usize) -> Result<(), Errno> {
    let opened: Result<Vec<OwnedFd>, Errno> =
        (0..count).map(|_| eventfd(0, EventfdFlags::CLOEXEC)).collect();
    opened.map(drop)
}

#[cfg(test)]
mod tests;
