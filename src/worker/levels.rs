//! What a worker has open at present. It writes this once a tick, and the control plane may read it
//! at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Places for connections that are taken: by connections, and by streams of HTTP/2 that need a
    /// descriptor of their own.
    pub places: u64,
    /// The most of them: the worker's share of the descriptors.
    pub max_places: u64,
    /// Pipes for splices, spare ones included.
    pub pipes: u64,
    /// The most pipes.
    pub max_pipes: u64,
    /// Bytes in user space that are kept for connections: unsent data, heads, responses.
    pub kept_bytes: u64,
    /// Connections to endpoints that wait for a request.
    pub idle_upstreams: u64,
    /// Listeners that the configuration does not have any more, and connections still use.
    pub removed_listeners: u64,
}

/// The numbers of the last tick.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Levels([AtomicU64; 7]);

impl Levels {
    /// Replaces the numbers.
    pub(super) fn set(&self, level: Level) {
        let numbers = [
            level.places,
            level.max_places,
            level.pipes,
            level.max_pipes,
            level.kept_bytes,
            level.idle_upstreams,
            level.removed_listeners,
        ];
        for (own, number) in self.0.iter().zip(numbers) {
            own.store(number, Ordering::Relaxed);
        }
    }

    /// The numbers.
    pub fn level(&self) -> Level {
        let [places, max_places, pipes, max_pipes, kept_bytes, idle_upstreams, removed_listeners] =
            self.0.each_ref().map(|number| number.load(Ordering::Relaxed));
        Level {
            places,
            max_places,
            pipes,
            max_pipes,
            kept_bytes,
            idle_upstreams,
            removed_listeners,
        }
    }
}
