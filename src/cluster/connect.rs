//! Connecting: each attempt has a time limit, and a failed one is followed by the next endpoint.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Cluster, InUse, Reason, Tried};
use crate::observe::outcome::{End, Outcome};
use crate::sys::{Address, Connect, ConnectError, SocketOptions, Stream, UnixConnect};
use crate::timers::{Fired, Limit, TICK, Timers};
use crate::transport::{TlsPool, Transport};

/// The first pause before the retry of a connect to a Unix socket with a full accept queue. Pauses
/// double up to one tick, so that a thousand waiting connections cost 20,000 calls a second.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// An upstream connection and its endpoint. A relay uses it once, and it is closed with its client.
/// After a request it may be kept for the next one: see [`Cluster::keep`].
pub struct Lease {
    /// The connection.
    pub upstream: Transport,
    /// The endpoint that it is connected to.
    pub endpoint: InUse,
    /// How long connecting took, failed attempts included.
    pub connect: Duration,
    /// The attempts it took.
    pub tried: Tried,
    /// Whether it had a request before.
    pub is_reused: bool,
    /// The options that it was opened with. Those of the listener may be others by now.
    pub(super) options: SocketOptions,
}

/// Why there is no connection. With several attempts it is why the last one failed.
#[derive(Clone, Debug)]
pub enum ConnectFailure {
    /// The cluster has no endpoint.
    NoEndpoint,
    /// The endpoint did not answer within `connect_timeout`.
    TimedOut(Tried),
    /// The endpoint refused, or cannot be reached.
    Failed(Tried),
    /// This process has no descriptor or port left.
    Local(Tried),
    /// The TLS handshake with the endpoint failed.
    Tls(Tried),
    /// The worker is ending.
    Drained(Tried),
}

impl ConnectFailure {
    /// The outcome of a connection that has no upstream.
    pub fn outcome(self) -> Outcome {
        let mut outcome = Outcome { attempts: Some(0), ..Outcome::new(self.end()) };
        if let Some(tried) = self.tried() {
            outcome.endpoint = tried.last.clone();
            tried.note(&mut outcome);
        }
        outcome
    }

    /// How the outcome of the connection ends.
    pub fn end(&self) -> End {
        match self {
            ConnectFailure::NoEndpoint => End::NoEndpoint,
            ConnectFailure::TimedOut(_) => End::ConnectTimeout,
            ConnectFailure::Failed(_) => End::ConnectFailed,
            ConnectFailure::Local(_) => End::Local,
            ConnectFailure::Tls(_) => End::UpstreamTlsFailed,
            ConnectFailure::Drained(_) => End::Drain,
        }
    }

    fn tried(self) -> Option<Tried> {
        match self {
            ConnectFailure::NoEndpoint => None,
            ConnectFailure::TimedOut(tried)
            | ConnectFailure::Failed(tried)
            | ConnectFailure::Local(tried)
            | ConnectFailure::Tls(tried)
            | ConnectFailure::Drained(tried) => Some(tried),
        }
    }
}

impl Cluster {
    /// Connects to the next endpoint of the round robin, and to further ones if that fails.
    /// `options` are those of the listener. With `may_reuse` an idle connection to an endpoint
    /// takes the place of a new one.
    ///
    /// # Errors
    /// All attempts failed.
    pub async fn connect(
        &self,
        timers: &Rc<Timers>,
        options: &SocketOptions,
        tls_pool: &Rc<TlsPool>,
        may_reuse: bool,
    ) -> Result<Lease, ConnectFailure> {
        let began = Instant::now();
        let (mut candidates, mut last) = (self.candidates(), None);
        // The loop is bounded: each pass uses up an attempt, or one of the unreachable endpoints.
        while let Some(endpoint) = candidates.next() {
            if may_reuse && let Some(upstream) = endpoint.idle.take(options) {
                let tried = candidates.connected();
                let (endpoint, connect) = (InUse::new(endpoint), Duration::ZERO);
                let (is_reused, options) = (true, *options);
                return Ok(Lease { upstream, endpoint, connect, tried, is_reused, options });
            }
            let attempting = endpoint.counters.endpoint.attempt();
            match self.attempt(&endpoint.address, timers, tls_pool).await {
                Ok(upstream) => {
                    // A Unix socket has none of these options (unix(7)).
                    if matches!(*endpoint.address, Address::Ip(_)) {
                        options.set_on_upstream(upstream.socket());
                    }
                    let tried = candidates.connected();
                    let connect = began.elapsed();
                    endpoint.counters.cluster.add_connect(connect);
                    // Before the attempt is over, so that no moment is without a use.
                    let in_use = InUse::new(Rc::clone(&endpoint));
                    drop(attempting);
                    let (endpoint, is_reused, options) = (in_use, false, *options);
                    return Ok(Lease { upstream, endpoint, connect, tried, is_reused, options });
                }
                Err(Attempt::Drained) => {
                    return Err(ConnectFailure::Drained(candidates.cut_off()));
                }
                Err(Attempt::Failed(reason)) => {
                    candidates.failed(&endpoint, reason);
                    last = Some(reason);
                }
            }
        }
        let tried = candidates.given_up();
        Err(match last {
            None => ConnectFailure::NoEndpoint,
            Some(Reason::TimedOut | Reason::BacklogFull) => ConnectFailure::TimedOut(tried),
            Some(Reason::Tls(_)) => ConnectFailure::Tls(tried),
            Some(Reason::System(ConnectError::Local(_))) => ConnectFailure::Local(tried),
            Some(Reason::System(_)) => ConnectFailure::Failed(tried),
        })
    }
}

impl Cluster {
    /// Connects to one endpoint. The limit includes the TLS handshake.
    async fn attempt(
        &self,
        endpoint: &Address,
        timers: &Rc<Timers>,
        tls_pool: &Rc<TlsPool>,
    ) -> Result<Transport, Attempt> {
        let began = Instant::now();
        let stream = attempt(endpoint, timers, self.connect_timeout).await?;
        let Some(tls) = &self.tls else { return Ok(Transport::Plain(stream)) };
        let left = self.connect_timeout.saturating_sub(began.elapsed());
        let watch = timers.watch(&stream, Limit::new(left, End::ConnectTimeout));
        // Boxed: few clusters have TLS, but each connect would have room for this future.
        let tls = Box::pin(tls.connect(&stream, endpoint, tls_pool, &watch)).await?;
        tls.note_handshake(began.elapsed());
        Ok(Transport::Tls(tls))
    }
}

/// How one attempt failed.
pub(super) enum Attempt {
    Drained,
    Failed(Reason),
}

impl<R: Into<Reason>> From<R> for Attempt {
    fn from(reason: R) -> Self {
        Attempt::Failed(reason.into())
    }
}

async fn attempt(
    endpoint: &Address,
    timers: &Rc<Timers>,
    limit: Duration,
) -> Result<Rc<Stream>, Attempt> {
    let stream = match Stream::connect(endpoint)? {
        Connect::Done(stream) => Rc::new(stream),
        Connect::Pending(stream) => completed(stream, timers, limit).await?,
        Connect::BacklogFull(waiting) => admitted(waiting, endpoint, timers, limit).await?,
    };
    if stream.is_own_peer(endpoint) {
        // A reset skips TIME_WAIT, so that a server can bind the port at once.
        stream.reset_on_close();
        return Err(ConnectError::OwnPeer.into());
    }
    Ok(stream)
}

/// Waits for the result of a connect that is in progress.
async fn completed(
    stream: Stream,
    timers: &Rc<Timers>,
    limit: Duration,
) -> Result<Rc<Stream>, Attempt> {
    let stream = Rc::new(stream);
    let watch = timers.watch(&stream, Limit::new(limit, End::ConnectTimeout));
    match watch.writable(&stream).await {
        // The connect may have completed before this task could run.
        Err(Fired::TimedOut(_)) if !stream.can_write() => Err(Attempt::Failed(Reason::TimedOut)),
        Err(Fired::Drained) => Err(Attempt::Drained),
        // `connect_result` also reports a reset.
        _ => {
            stream.connect_result()?;
            Ok(Rc::clone(&stream))
        }
    }
}

/// Waits until a Unix socket's accept queue has room. For TCP the kernel does that by sending the
/// SYN again; for a Unix socket there is no event to wait for, so the connect is retried.
async fn admitted(
    mut waiting: UnixConnect,
    endpoint: &Address,
    timers: &Rc<Timers>,
    limit: Duration,
) -> Result<Rc<Stream>, Attempt> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(Attempt::Failed(Reason::BacklogFull));
        }
        // A runtime timer costs an allocation, which is acceptable on this rare path.
        monoio::time::sleep(pause.min(left)).await;
        if timers.all_ended() {
            return Err(Attempt::Drained);
        }
        pause = (2 * pause).min(TICK);
        match waiting.again(endpoint)? {
            Connect::BacklogFull(full) => waiting = full,
            Connect::Done(stream) | Connect::Pending(stream) => return Ok(Rc::new(stream)),
        }
    }
}
