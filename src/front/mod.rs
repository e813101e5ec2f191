//! What a worker does with an accepted connection: one file for each kind of traffic, each read top
//! to bottom.
//!
//! | file | traffic |
//! | --- | --- |
//! | `tcp` | L4: a cluster's connection and the relay |
//! | `http` | the site: requests read, routed and answered; upgrades handed over |
//! | `answer` | the answers of the site |
//! | `tunnel` | an upgrade: the handshake, then the same relay |
//! | `udp` | datagrams: a socket of its own for each client |
//! | `sni` | TLS by the name it asks for, without decrypting, and simple-obfs that looks like it |

mod answer;
mod context;
mod http;
mod linger;
mod shortage;
mod sni;
mod tcp;
mod tunnel;
mod udp;
mod unsent;

pub use context::{Accepted, Context, Gate, Load, Place};
pub use shortage::{Line, Report, Shortage};
pub use udp::{Udp, start_udp, udp_session_limit};

use crate::config::Protocol;

/// Serves one accepted connection to its end, and records what became of it. Each kind of traffic
/// has tasks of its own size: what rests between two requests is not to be as large as a relay.
pub fn spawn(conn: Accepted) {
    match conn.listener().protocol {
        Protocol::Tcp(_) => drop(monoio::spawn(tcp::serve(conn))),
        Protocol::Http(_) => drop(monoio::spawn(http::serve(conn))),
        Protocol::Tls(_) => drop(monoio::spawn(sni::serve(conn))),
        // It has no connections.
        Protocol::Udp(_) => {}
    }
}

#[cfg(test)]
mod tests;
