//! Connecting: a limit for each attempt, the next endpoint when one fails.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Cluster;
use crate::sys::{Address, Connect, Errno, Stream};
use crate::timers::{Fired, Timers};

/// An upstream connection and where it leads. It is used once and closed with its client.
pub struct Lease {
    /// The connection.
    pub stream: Rc<Stream>,
    /// The endpoint it leads to.
    pub endpoint: Rc<Address>,
    /// How long connecting took, failed attempts included.
    pub connect: Duration,
}

/// Why there is no connection. With several attempts: why the last one failed.
#[derive(Clone, Debug)]
pub enum ConnectFailure {
    /// The cluster has no endpoint.
    NoEndpoint,
    /// The endpoint did not answer within `connect_timeout`.
    TimedOut(Rc<Address>),
    /// The endpoint refused, or cannot be reached.
    Failed(Rc<Address>),
    /// This process has no descriptor or port left.
    Local(Rc<Address>),
    /// The worker is ending.
    Drained,
}

impl Cluster {
    /// Connects to the endpoint whose turn it is, or to the next where that fails; `nodelay` sets
    /// TCP_NODELAY.
    ///
    /// # Errors
    /// All attempts failed.
    pub async fn connect(
        &self,
        timers: &Rc<Timers>,
        nodelay: bool,
    ) -> Result<Lease, ConnectFailure> {
        let began = Instant::now();
        let mut failure = ConnectFailure::NoEndpoint;
        for endpoint in self.candidates() {
            match attempt(&endpoint, timers, self.connect_timeout).await {
                Ok(stream) => {
                    if nodelay {
                        stream.set_nodelay();
                    }
                    return Ok(Lease { stream, endpoint, connect: began.elapsed() });
                }
                Err(Attempt::Drained) => return Err(ConnectFailure::Drained),
                Err(Attempt::TimedOut) => failure = ConnectFailure::TimedOut(endpoint),
                Err(Attempt::Failed(errno)) if is_local(errno) => {
                    failure = ConnectFailure::Local(endpoint);
                }
                Err(Attempt::Failed(_)) => failure = ConnectFailure::Failed(endpoint),
            }
        }
        Err(failure)
    }
}

/// How one attempt failed.
enum Attempt {
    TimedOut,
    Drained,
    Failed(Errno),
}

async fn attempt(
    endpoint: &Address,
    timers: &Rc<Timers>,
    limit: Duration,
) -> Result<Rc<Stream>, Attempt> {
    let stream = match Stream::connect(endpoint) {
        Ok(Connect::Done(stream)) => return Ok(Rc::new(stream)),
        Ok(Connect::Pending(stream)) => Rc::new(stream),
        Err(error) => {
            return Err(Attempt::Failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
    };
    let watch = timers.watch(&stream, limit);
    match watch.writable(&stream).await {
        Err(Fired::TimedOut) => Err(Attempt::TimedOut),
        Err(Fired::Drained) => Err(Attempt::Drained),
        // A reset shows as the connect's result.
        Ok(()) | Err(Fired::ClientReset | Fired::UpstreamReset) => {
            stream.connect_result().map_err(Attempt::Failed)?;
            Ok(Rc::clone(&stream))
        }
    }
}

fn is_local(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL
    )
}
