//! What the predecessor has counted, and goes on to count until it ends: it tells the successor.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use super::link::Packets;
use crate::observe::earlier::Earlier;

/// The most names of a packet. With the longest it has some 40 KB.
const NAMES: usize = 20;

/// Tells the successor what this process counts.
pub(in crate::control) struct Reporter {
    packets: Arc<Packets>,
    /// What the successor knows, by name.
    sent: HashMap<String, Earlier>,
}

impl Reporter {
    pub(super) fn new(packets: Arc<Packets>) -> Reporter {
        Reporter { packets, sent: HashMap::new() }
    }

    /// Sends what has changed, as far as there is room. The rest has its turn with the next call.
    pub(in crate::control) fn report(&mut self, counted: Vec<Earlier>) {
        let is_known = |one: &Earlier| self.sent.get(&key(one)) == Some(one);
        let changed: Vec<Earlier> = counted.into_iter().filter(|one| !is_known(one)).collect();
        for some in changed.chunks(NAMES) {
            let Ok(bytes) = serde_json::to_vec(some) else { return };
            if !self.packets.try_send(&bytes) {
                return;
            }
            self.sent.extend(some.iter().map(|one| (key(one), one.clone())));
        }
    }
}

/// Says of what something was counted.
fn key(counted: &Earlier) -> String {
    match counted {
        Earlier::Listener(name, _) => format!("listener {name}"),
        Earlier::Host(listener, name, _) => format!("host {listener} {name}"),
        Earlier::Cluster(name, _) => format!("cluster {name}"),
    }
}

/// What the predecessor reports.
#[derive(Default)]
pub(in crate::control) struct Reports(pub(super) Option<Packets>);

impl Reports {
    /// Waits for the next report. Never returns if there is no predecessor any more. May be dropped
    /// at any time.
    pub(in crate::control) async fn next(&mut self) -> Vec<Earlier> {
        while let Some(packets) = &self.0 {
            match packets.receive().await {
                // A predecessor of another version may count in another way.
                Ok((bytes, _)) => match serde_json::from_slice(&bytes) {
                    Ok(counted) => return counted,
                    Err(error) => tracing::debug!(%error, "a report of the predecessor is skipped"),
                },
                Err(_) => self.0 = None,
            }
        }
        pending().await
    }
}
