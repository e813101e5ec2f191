//! A histogram of durations in fixed memory: 64 steps per power of two, so at most 1.6 % off.

use std::time::Duration;

const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for every `u64` of nanoseconds.
const SLOTS: usize = (64 - STEP_BITS as usize + 1) * STEPS;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; SLOTS], total: 0 }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The duration that the given share (0 to 1) of the records does not exceed, in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(slot) as f64 / 1e3;
            }
        }
        0.0
    }
}

fn slot(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS as u64 {
        return nanoseconds as usize;
    }
    let shift = 63 - nanoseconds.leading_zeros() - STEP_BITS;
    let step = (nanoseconds >> shift) as usize - STEPS;
    (shift as usize + 1) * STEPS + step
}

/// The largest value that lands in the slot.
fn upper_bound(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let shift = (slot / STEPS - 1) as u32;
    let first = ((STEPS + slot % STEPS) as u64) << shift;
    first + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_slot_and_close_to_its_bound() {
        let values = (0..64).flat_map(|bit| [0u64, 1, 5].map(|more| (1u64 << bit) + more));
        for value in values.chain([0, u64::MAX]) {
            let slot = slot(value);
            let bound = upper_bound(slot);
            assert!(slot < SLOTS && value <= bound, "{value} is over the bound {bound}");
            assert!(bound - value <= value / 64 + 1, "{value} is far from its bound {bound}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_even_steps_are_where_they_belong() {
        let mut histogram = Histogram::new();
        for microseconds in 1..=1000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        assert!((histogram.quantile_us(0.5) - 500.0).abs() < 10.0);
        assert!((histogram.quantile_us(0.99) - 990.0).abs() < 17.0);
        assert!(histogram.quantile_us(1.0) >= 1000.0);
    }
}
