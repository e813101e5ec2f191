//! A point in time of both clocks: records need the wall clock, durations the monotonic one.

use std::time::{Instant, SystemTime};

/// A point in time, on the wall clock and on the monotonic clock.
#[derive(Clone, Copy)]
pub struct Moment {
    /// Wall clock, for records.
    pub wall: SystemTime,
    /// Monotonic clock, for durations.
    pub instant: Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment { wall: SystemTime::now(), instant: Instant::now() }
    }
}
