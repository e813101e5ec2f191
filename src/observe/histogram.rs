//! How long something took, counted in buckets. One worker writes a histogram and any thread reads
//! it, as with the counts of [`super::counters`].

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::Count;

/// The upper bounds of the buckets in microseconds. Longer times are in a last bucket without one.
pub const BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// The number of buckets.
const BUCKETS: usize = BOUNDS.len() + 1;

/// Times in buckets. Recording one costs a search over the bounds, and two loads and stores.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    micros: Count,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| Count::default()), micros: Count::default() }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&self, time: Duration) {
        // 585,000 years fit.
        let micros = time.as_micros() as u64;
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1);
        self.micros.add(micros);
    }

    /// Sets what was counted so far.
    pub(super) fn set(&self, times: &Times) {
        self.buckets.iter().zip(times.buckets).for_each(|(own, count)| own.set(count));
        self.micros.set(times.micros);
    }

    /// What was counted so far.
    pub fn times(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].get()),
            micros: self.micros.get(),
        }
    }
}

/// The numbers of one histogram, or the sums of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    buckets: [u64; BUCKETS],
    micros: u64,
}

impl Times {
    /// The number of times.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all times in seconds.
    pub fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// The upper bound of each bucket in seconds, and the number of times in it alone. That of the
    /// last one is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.buckets)
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Times) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
        self.micros += other.micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut times = histogram.times();
        times += histogram.times();
        let filled: Vec<(f64, u64)> = times.buckets().filter(|(_, count)| *count > 0).collect();
        let all = [(0.000_25, 4), (0.000_5, 2), (10.0, 2), (f64::INFINITY, 2)];
        assert_eq!(filled, all);
        assert_eq!((times.count(), times.seconds()), (10, 40.001_004));
        assert!(BOUNDS.is_sorted());
    }
}
