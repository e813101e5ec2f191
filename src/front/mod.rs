//! What a worker does with an accepted connection: one file for each kind of traffic, each read top
//! to bottom.
//!
//! | file | traffic |
//! | --- | --- |
//! | `tcp` | L4: a cluster's connection and the relay |
//! | `http` | the site: requests read, routed and answered; upgrades handed over |
//! | `tunnel` | an upgrade that a cluster answers: handshake, then the same relay |

mod context;
mod http;
mod tcp;
mod tunnel;
mod unsent;

pub use context::{Accepted, Context, Gate};

use crate::config::Protocol;

/// Serves one accepted connection to its end and records what became of it.
pub async fn serve(conn: Accepted) {
    match conn.listener().protocol {
        Protocol::Tcp(_) => tcp::serve(conn).await,
        Protocol::Http(_) => http::serve(conn).await,
    }
}
