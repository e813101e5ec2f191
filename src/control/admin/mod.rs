//! The admin endpoint: shows what the process does, and takes commands, over HTTP/1.1.
//!
//! It runs on the control plane. What it shows it reads from what the workers count, and from a
//! [`View`] that each reload replaces. Commands go to the main loop one after the other
//! ([`Order`]), as signals do. Nothing here touches a connection of the data plane.
//!
//! | file | what it does |
//! | --- | --- |
//! | `certificates` | the certificates that are in use |
//! | `client` | asks the endpoint of another process, for the command line |
//! | `clusters` | clusters and their endpoints, as JSON and for Prometheus |
//! | `exposition` | the text format of Prometheus |
//! | `connections` | what is open, and the end of one connection |
//! | `guard` | decides whether a request may be answered at all |
//! | `listening` | binds the address, and accepts a bounded number of connections |
//! | `metrics` | the numbers, for Prometheus |
//! | `page` | the page for browsers |
//! | `replies` | forms of responses |
//! | `requests` | what each path is |
//! | `stats` | the numbers as JSON |
//! | `steering` | which endpoints of a cluster a client wants to change |
//! | `view` | what there is to show |

mod certificates;
mod client;
mod clusters;
mod connections;
mod exposition;
mod guard;
mod listening;
mod metrics;
mod page;
mod replies;
mod requests;
mod stats;
mod steering;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub use self::client::{Endpoint, Reply};
use self::connections::Questions;
use self::listening::Bound;
pub(super) use self::requests::{Order, ReplyTo, Undone, What};
pub(super) use self::view::{Facts, Parts, Phase, View};
use crate::config;
use crate::error::{Error, chain};
use crate::sys::Address;

/// Orders that wait for the main loop. Clients whose orders do not fit wait.
const QUEUE: usize = 16;
/// The time between two tries to bind an address that a predecessor still has.
const RETRY: Duration = Duration::from_millis(200);
/// A predecessor leaves within this time. An address that is refused for longer is a fault.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin endpoint of the process, or the place of one: a reload may bring it.
pub(super) struct Admin {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    /// `None` if the configuration has no `[admin]`.
    running: Option<Running>,
}

/// What all connections of admin clients share.
struct Shared {
    view: watch::Sender<Arc<View>>,
    orders: mpsc::Sender<Order>,
    /// Admits configurations that clients send.
    configurations: Arc<Semaphore>,
    /// Admits requests for the configuration in use.
    shown: Arc<Semaphore>,
    questions: Questions,
}

/// An endpoint that accepts, or tries to bind its address.
struct Running {
    /// As the configuration has it.
    address: Address,
    /// With the port that the kernel chose for port 0.
    bound: Address,
    task: JoinHandle<()>,
    /// Dropped with the endpoint, which ends its connections.
    _stays: watch::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The endpoint of a configuration that is not in use yet.
pub(super) struct Prepared {
    address: Option<Address>,
    /// `None` if the address stays, or if there is no endpoint.
    bound: Option<Bound>,
}

impl Prepared {
    /// Binds the address of a configuration, if it differs from the `present` one. `is_freed` says
    /// of an address whether sockets of this process have it that are closed before the commit.
    ///
    /// # Errors
    /// The address is refused.
    pub(super) async fn of(
        config: Option<&config::Admin>,
        present: Option<&Address>,
        is_freed: impl Fn(&Address) -> bool,
    ) -> Result<Prepared, Error> {
        let address = config.map(|config| &config.address);
        let bound = match address {
            Some(address) if present != Some(address) => {
                Some(listening::bind(address, is_freed(address)).await?)
            }
            _ => None,
        };
        Ok(Prepared { address: address.cloned(), bound })
    }
}

impl Admin {
    /// Makes a place for an endpoint that shows `view`. It serves from [`Admin::commit`] on.
    pub(super) fn new(view: View) -> Admin {
        let (sender, orders) = mpsc::channel(QUEUE);
        let view = watch::Sender::new(Arc::new(view));
        let [configurations, shown] = [(); 2].map(|()| Arc::new(Semaphore::new(1)));
        let questions = Questions::new();
        let shared = Arc::new(Shared { view, orders: sender, configurations, shown, questions });
        Admin { shared, orders, running: None }
    }

    /// The address of the endpoint, if there is one.
    pub(super) fn address(&self) -> Option<&Address> {
        self.running.as_ref().map(|running| &running.address)
    }

    /// The address that it leaves when this configuration is in use.
    pub(super) fn leaving(&self, config: Option<&config::Admin>) -> Option<&Address> {
        let leaves = |running: &&Running| config.is_none_or(|next| next.address != running.address);
        self.running.as_ref().filter(leaves).map(|running| &running.bound)
    }

    /// Closes the endpoint if its address changes, because a listener may get the old one.
    /// Connections of clients end when what they have asked for is answered.
    pub(super) async fn free(&mut self, prepared: &Prepared) {
        let leaves = |running: &mut Running| prepared.address.as_ref() != Some(&running.address);
        if let Some(mut running) = self.running.take_if(leaves) {
            running.task.abort();
            // The socket is closed when the task has ended. An error says that it was aborted.
            let _ = (&mut running.task).await;
        }
    }

    /// Serves by what was prepared, at most `most` clients at once.
    pub(super) fn commit(&mut self, prepared: Prepared, most: usize) {
        match prepared {
            Prepared { address: Some(address), bound: Some(socket) } => {
                let bound = socket.address().clone();
                let (stays, leaves) = watch::channel(());
                let shared = Arc::clone(&self.shared);
                let task = tokio::spawn(listening::serve(socket, shared, most, leaves));
                self.running = Some(Running { address, bound, task, _stays: stays });
            }
            Prepared { address: None, .. } => self.running = None,
            Prepared { .. } => {}
        }
    }

    /// Serves as soon as the predecessor of this process has left the address.
    pub(super) fn follow_predecessor(&mut self, config: Option<&config::Admin>, most: usize) {
        let Some(address) = config.map(|config| config.address.clone()) else { return };
        let (own, shared) = (address.clone(), Arc::clone(&self.shared));
        let (stays, leaves) = watch::channel(());
        let task = tokio::spawn(async move {
            let begun = tokio::time::Instant::now();
            let mut is_reported = false;
            let bound = loop {
                match listening::try_bind(&own).await {
                    Ok(bound) => break bound,
                    Err(error) => {
                        if begun.elapsed() >= PATIENCE && !is_reported {
                            is_reported = true;
                            let (error, advice) = (chain(&error), error.advice());
                            tracing::error!(error, advice, "there is no admin endpoint yet");
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            };
            listening::serve(bound, shared, most, leaves).await;
        });
        self.running = Some(Running { bound: address.clone(), address, task, _stays: stays });
    }

    /// Closes the endpoint, so that another process can have its address.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// Shows something else from now on.
    pub(super) fn show(&self, view: View) {
        self.shared.view.send_replace(Arc::new(view));
    }

    /// Shows that the process is about to end, and takes no orders any more.
    pub(super) fn ends(&mut self, phase: Phase) {
        self.orders.close();
        // Those that wait already are refused, too.
        while self.orders.try_recv().is_ok() {}
        self.shared.view.send_modify(|view| {
            *view = Arc::new(View { phase, ..View::clone(view) });
        });
    }

    /// Waits for the next order of a client. May be dropped at any time.
    pub(super) async fn next_order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // The channel is closed when the process is about to end.
            None => std::future::pending().await,
        }
    }
}
