//! The limit of open files (getrlimit(2), RLIMIT_NOFILE), and how its descriptors are shared out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of the control plane at the start: the standard streams, its runtime, signals, log
/// files.
const CONTROL: u64 = 32;
/// Descriptors of a worker beside its listening sockets: a ring or epoll, the outbox, the socket
/// pairs of its helpers, the epoll instance for the errors of UDP sockets.
const WORKER: u64 = 9;
/// The part of the limit that is kept for the control plane, at most.
const RESERVE_PART: u64 = 8;
/// What the control plane may open later: log files again, an admin's connections, ...
const RESERVE: u64 = 64;
/// ... and sockets to resolvers, IPv4 and IPv6, for each name, with a second attempt.
const RESERVE_FOR_NAME: u64 = 4;
/// The part of a worker's descriptors that pipes may have. Without a pipe a flow is copied.
const PIPES_PART: u64 = 8;
/// Pipes that one worker may have at most. Clients that do not read may fill them all, with 1 MiB
/// each.
const MAX_PIPES: u64 = 512;
/// The part of what is left that UDP sessions have, where there are connections, too.
const SESSIONS_PART: u64 = 3;
/// The part of the descriptors for connections that accepts in flight may fill.
const ACCEPTS_PART: usize = 16;
/// Accepts in flight on one socket at most.
const MAX_ACCEPTS: usize = 8;
/// UDP sessions that make room keep their descriptors for a moment: so many of them are counted
/// beyond `max_sessions`, for each socket that clients send to.
pub const CLOSING_SESSIONS: usize = 32;
/// "No limit" is this: more than any system has (`fs.nr_open`).
const UNLIMITED: u64 = 1 << 30;

/// What a process needs descriptors for. All of it follows from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Workers, 1 at least.
    pub workers: usize,
    /// Addresses that TCP, HTTP and TLS listeners listen on.
    pub stream_sockets: usize,
    /// Addresses that UDP listeners listen on.
    pub udp_sockets: usize,
    /// The sum of `max_sessions` over all UDP listeners.
    pub max_sessions: usize,
    /// Names that are looked up.
    pub names: usize,
}

impl Needs {
    /// The lowest limit of open files with which each worker serves a connection from each of its
    /// sockets, and a UDP session.
    pub fn least_limit(&self) -> u64 {
        let (streams, udp) = (self.stream_sockets as u64, self.udp_sockets as u64);
        // An accept in flight for each socket, and a connection with its upstream.
        let connections = if streams > 0 { streams + 2 } else { 0 };
        let needed = self.fixed() + self.workers.max(1) as u64 * (connections + udp);
        // Beside the reserve, which is an eighth of a limit as low as this.
        needed * RESERVE_PART / (RESERVE_PART - 1) + 1
    }

    /// Descriptors that are open from the start.
    fn fixed(&self) -> u64 {
        // The runtime has a descriptor of its own for a socket that it accepts from.
        let sockets = 2 * self.stream_sockets as u64 + self.udp_sockets as u64;
        CONTROL + self.workers.max(1) as u64 * (WORKER + sockets)
    }
}

/// How the descriptors are shared out. No share is ever exceeded, so that none starves another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Descriptors kept for the control plane.
    pub reserve: usize,
    /// Pipes of one worker, each of two descriptors.
    pub pipes: usize,
    /// Connections of one worker, each of two descriptors: the client's and the upstream's. More
    /// wait in the accept queue.
    pub connections: usize,
    /// Accepts in flight on each of its sockets. Each may bring a connection that has to wait.
    pub accepts: usize,
    /// Descriptors of one worker's UDP sessions, each of which has one.
    pub sessions: usize,
}

impl Shares {
    /// Shares out `file_limit` descriptors: what is open from the start and the reserve come first,
    /// the rest belongs to the workers in equal parts. An eighth of a part is for pipes. Of what is
    /// left a third is for UDP sessions and the rest for connections, where there are listeners of
    /// both kinds; sessions get no more than `max_sessions` needs.
    pub fn of(file_limit: u64, needs: &Needs) -> Shares {
        let limit = file_limit.min(UNLIMITED);
        let workers = needs.workers.max(1) as u64;
        let fixed = needs.fixed();
        let reserve = RESERVE + RESERVE_FOR_NAME * needs.names as u64;
        let reserve = reserve.min(limit / RESERVE_PART);
        let part = limit.saturating_sub(fixed + reserve) / workers;

        let has_streams = needs.stream_sockets > 0;
        let pipes = if has_streams { (part / PIPES_PART / 2).min(MAX_PIPES) } else { 0 };
        let rest = part - 2 * pipes;
        let closing = (CLOSING_SESSIONS * needs.udp_sockets) as u64;
        let wanted = (needs.max_sessions as u64).div_ceil(workers) + closing;
        let sessions = match (has_streams, needs.udp_sockets > 0) {
            (true, true) => (rest / SESSIONS_PART).min(wanted),
            (_, false) => 0,
            (false, true) => rest.min(wanted),
        };
        let streams = if has_streams { (rest - sessions) as usize } else { 0 };
        let accepts = streams / ACCEPTS_PART / needs.stream_sockets.max(1);
        let accepts = accepts.clamp(1, MAX_ACCEPTS);
        let waiting = accepts * needs.stream_sockets;
        Shares {
            reserve: reserve as usize,
            pipes: pipes as usize,
            // With a limit that is this low at least something works.
            connections: (streams.saturating_sub(waiting) / 2).max(needs.stream_sockets.min(1)),
            accepts,
            sessions: (sessions as usize).max(needs.udp_sockets.min(1)),
        }
    }
}

/// Raises the soft limit of open files to the hard one and returns what holds now. A relayed
/// connection needs two descriptors, and the usual soft limit of 1024 is there for select(2), which
/// nothing here uses.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which the start-up line then shows.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    file_limit()
}

/// The hard limit of open files, to which [`raise_file_limit`] goes; `u64::MAX` where there is
/// none.
pub fn hard_file_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The soft limit of open files; `u64::MAX` where there is none.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: Needs =
        Needs { workers: 2, stream_sockets: 1, udp_sockets: 1, max_sessions: 65_536, names: 1 };

    /// The most descriptors that all of this can be.
    fn most(needs: &Needs, shares: &Shares) -> u64 {
        let waiting = shares.accepts * needs.stream_sockets;
        let streams = 2 * shares.connections + waiting;
        let worker = WORKER as usize + 2 * needs.stream_sockets + needs.udp_sockets;
        let worker = worker + 2 * shares.pipes + streams + shares.sessions;
        CONTROL + (shares.reserve + needs.workers * worker) as u64
    }

    #[test]
    fn few_descriptors_are_enough_for_both_protocols() {
        let shares = Shares::of(512, &BOTH);
        assert_eq!(shares.reserve, 64);
        assert!(shares.connections >= 50, "{shares:?}");
        assert!(shares.sessions >= 50, "{shares:?}");
    }

    #[test]
    fn a_protocol_without_listeners_has_no_share() {
        let tcp = Shares::of(1024, &Needs { udp_sockets: 0, ..BOTH });
        assert_eq!(tcp.sessions, 0);
        assert!(tcp.connections > Shares::of(1024, &BOTH).connections);
        let udp = Shares::of(1024, &Needs { stream_sockets: 0, ..BOTH });
        assert_eq!(udp.pipes, 0);
        assert!(udp.sessions > 2 * Shares::of(1024, &BOTH).sessions, "{udp:?}");
    }

    #[test]
    fn sessions_get_no_more_than_they_may_be() {
        let shares = Shares::of(1 << 20, &Needs { max_sessions: 1000, ..BOTH });
        assert_eq!(shares.sessions, 500 + CLOSING_SESSIONS);
        assert!(Shares::of(u64::MAX, &BOTH).connections > 1_000_000);
    }

    proptest! {
        #[test]
        fn all_shares_together_are_within_the_limit(
            limit in 0u64..100_000,
            workers in 1usize..65,
            stream_sockets in 0usize..60,
            udp_sockets in 0usize..60,
            max_sessions in 1usize..100_000,
            names in 0usize..100,
        ) {
            let needs = Needs { workers, stream_sockets, udp_sockets, max_sessions, names };
            let shares = Shares::of(limit, &needs);
            prop_assert!(stream_sockets == 0 || shares.connections > 0 && shares.accepts > 0);
            prop_assert!(udp_sockets == 0 || shares.sessions > 0);
            // With less than about twice what has to work at all, one of each kind is allowed,
            // whatever the limit.
            let connections = stream_sockets / 2 + 4;
            let least = Shares { reserve: 0, pipes: 0, connections, accepts: 1, sessions: 1 };
            if limit >= most(&needs, &least) * 8 / 7 {
                prop_assert!(most(&needs, &shares) <= limit, "{:?}", shares);
            }
        }
    }
}
