//! What a worker does with an accepted connection: one module for each kind of traffic.
//!
//! | file | what it does |
//! | --- | --- |
//! | `generation` | the listeners and clusters of one configuration on one worker |
//! | `admission` | limits of connections, and what is short |
//! | `accepted` | an accepted connection |
//! | `challenges` | how a certificate authority checks a name (ACME) |
//! | `detect` | tells HTTP from TLS by the first byte |
//! | `tcp` | L4: a connection to a cluster and the relay |
//! | `sni` | TLS: finds the rule by the ClientHello, and passes bytes on without decrypting |
//! | `tls` | TLS that ends here |
//! | `http` | a site: reads and routes requests, sends responses, hands upgrades over |
//! | `response` | the responses that ringgate makes itself, and their bytes |
//! | `tunnel` | an upgrade: the handshake, then the relay |
//! | `udp` | datagrams: one upstream socket for each client |

mod accepted;
mod admission;
mod challenges;
mod context;
mod detect;
mod generation;
mod http;
mod http2;
mod linger;
mod listener;
mod moment;
mod response;
mod service;
mod sni;
mod tcp;
mod tls;
mod tunnel;
mod udp;
mod visitor;

pub use accepted::Accepted;
pub use admission::{Admission, Load, Permit, Report, Shortage};
pub use challenges::Challenges;
pub use context::Context;
pub use generation::{Generation, Layout, Own, Resources, Shared};
pub use listener::{LAST_REQUESTS, Listener};
pub use service::Service;
pub use tls::Origin;
pub use udp::{Datagrams, Udp, UdpListeners, udp_session_limit};

use std::rc::Rc;

use crate::config::Protocol;
use crate::sched::spawn_isolated;

/// Serves one accepted connection to its end and writes its record. Each kind of traffic is
/// spawned as a future of its own, because a task is as large as its largest future. A connection
/// whose listener was removed a while ago is reset. A panic ends the connection alone.
pub fn spawn(conn: Accepted) {
    let Some(service) = conn.listener.service() else { return conn.end_unserved("tcp") };
    match &service.config.protocol {
        Protocol::Tcp(tcp) => {
            let (cluster, timeouts) = (Rc::clone(service.cluster(&tcp.cluster)), tcp.timeouts);
            spawn_isolated(tcp::serve(conn, cluster, timeouts));
        }
        Protocol::Http(http) if http.tls.is_some() => spawn_isolated(detect::serve(conn)),
        Protocol::Http(_) => spawn_isolated(http::serve(conn)),
        Protocol::Tls(_) => spawn_isolated(sni::serve(conn)),
        // UDP has no connections.
        Protocol::Udp(_) => {}
    }
}

#[cfg(test)]
mod tests;
