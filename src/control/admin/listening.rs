//! Binds the address of the endpoint, and serves a bounded number of connections on it.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::replies::error;
use super::{Shared, requests};
use crate::control::sockets::{self, OwnPath};
use crate::error::Error;
use crate::sys::{self, Address, SocketOptions};

/// How long an address in use is tried at a start or a reload.
const TRY_FOR: Duration = Duration::from_secs(2);
/// The pause between two tries, and after an accept that has failed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take for the head of a request, and between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// How long a connection may last. A request that runs then is answered, within [`LAST`].
const LIFE: Duration = Duration::from_secs(600);
/// How long the last response may take.
const LAST: Duration = Duration::from_secs(60);
/// Bytes of a request head.
const MAX_HEAD: usize = 16 << 10;
/// Those of the socket that listens.
const OPTIONS: SocketOptions = SocketOptions {
    backlog: 128,
    nodelay: true,
    keepalive: None,
    user_timeout: None,
    fast_open: false,
};
/// Who may connect to a Unix socket: the user and its group.
const MODE: u32 = 0o660;

/// A socket that listens, or will in the place of others.
pub(super) struct Bound {
    /// Also of a Unix path.
    socket: TcpListener,
    /// With the port that the kernel chose for port 0.
    address: Address,
    /// Whether sockets of listeners that leave still have the address.
    is_held: bool,
    /// Removed when this is dropped.
    path: Option<OwnPath>,
}

enum Socket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// Binds, and tries again for two seconds while the address is in use. `is_held` says that sockets
/// of this process have it that are about to be closed: this one then listens in [`serve`].
///
/// # Errors
/// The address is refused.
pub(super) async fn bind(address: &Address, is_held: bool) -> Result<Bound, Error> {
    let begun = Instant::now();
    loop {
        let result = bind_once(address, is_held).await;
        let in_use = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        if !in_use || begun.elapsed() >= TRY_FOR {
            return result.map_err(|error| refused(address, error));
        }
        sleep(PAUSE).await;
    }
}

/// Binds once.
///
/// # Errors
/// The address is refused.
pub(super) async fn try_bind(address: &Address) -> Result<Bound, Error> {
    bind_once(address, false).await.map_err(|error| refused(address, error))
}

fn refused(address: &Address, error: io::Error) -> Error {
    let advice = sockets::advice(address, &error);
    Error::start(format!("cannot listen on {address} (admin)"), error, advice)
}

async fn bind_once(address: &Address, is_held: bool) -> io::Result<Bound> {
    let (socket, path) = match address {
        // With SO_REUSEPORT a reload can bind the sockets of a listener that gets the address, or
        // this one where a listener leaves it. Other processes are found by the probe.
        Address::Ip(_) if is_held => (sys::bind_without_listening(address, &OPTIONS, true)?, None),
        Address::Ip(ip) => {
            sys::probe_tcp(*ip)?;
            (sys::listen(address, &OPTIONS, true)?, None)
        }
        Address::Unix(path) => {
            let (socket, own) = sockets::bind_path(path, &OPTIONS, true).await?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
            (socket, Some(own))
        }
    };
    let bound = match address {
        Address::Ip(_) => Address::Ip(socket.local_addr()?),
        Address::Unix(_) => address.clone(),
    };
    Ok(Bound { socket, address: bound, is_held, path })
}

impl Socket {
    fn of(socket: TcpListener, address: &Address) -> io::Result<Socket> {
        Ok(match address {
            Address::Ip(_) => Socket::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Address::Unix(_) => {
                let socket = std::os::fd::OwnedFd::from(socket).into();
                Socket::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
        })
    }
}

impl Bound {
    /// Where it is bound.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Listens in the place of sockets that had the address. The runtime gets the socket only
    /// then: epoll reports one that does not listen as closed, which is for good.
    fn listen(self) -> io::Result<(Socket, Option<OwnPath>)> {
        if self.is_held {
            sys::listen_anew(&self.socket, &OPTIONS, false)?;
        }
        Ok((Socket::of(self.socket, &self.address)?, self.path))
    }
}

/// Serves until the task is ended. At most `most` connections are served at once; further clients
/// wait in the accept queue. When the sender of `leaves` is dropped, connections get no further
/// request answered: what they may ask depends on the address that they came to.
pub(super) async fn serve(
    bound: Bound,
    shared: Arc<Shared>,
    most: usize,
    leaves: watch::Receiver<()>,
) {
    let address = bound.address().clone();
    let (socket, _path) = match bound.listen() {
        Ok(listening) => listening,
        Err(error) => {
            tracing::error!(%address, %error, "the admin endpoint cannot listen: reload again");
            return;
        }
    };
    tracing::info!(%address, "the admin endpoint listens");
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (shared, leaves) = (Arc::clone(&shared), leaves.clone());
        let accepted = match &socket {
            Socket::Tcp(socket) => socket.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    connection(stream, shared, false, leaves).await;
                    drop(place);
                });
            }),
            Socket::Unix(socket) => socket.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    connection(stream, shared, true, leaves).await;
                    drop(place);
                });
            }),
        };
        if accepted.is_err() {
            // No descriptors, for example. The data plane reports that.
            sleep(PAUSE).await;
        }
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: Arc<Shared>,
    is_unix: bool,
    mut leaves: watch::Receiver<()>,
) {
    let has_left = leaves.clone();
    let answer = service_fn(|request| {
        let (shared, has_left) = (Arc::clone(&shared), has_left.has_changed().is_err());
        async move {
            if has_left {
                const LEFT: &str = "the admin endpoint has left this address";
                return Ok(error(StatusCode::SERVICE_UNAVAILABLE, LEFT));
            }
            Ok::<_, Infallible>(requests::answer(request, &shared, is_unix).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => {}
        // Never a value: an error when the sender is dropped.
        _ = leaves.changed() => {}
    }
    // Also an answer that is on its way, as to the order to leave.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST, connection).await;
}
