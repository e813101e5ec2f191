//! Workers that tick, that wait for the processor, and that spin.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Makes one check a second of two workers. The second one does not tick, and uses the
/// processor for `busy` milliseconds of each second.
fn checks(count: u32, busy: u64, passed: Duration) -> Finding {
    let mut seen = [LastTick::default(); 2];
    let mut finding = Finding::Ticking;
    for at in 1..=count {
        let used = Duration::from_millis(busy) * at;
        let pulses = [Some((at, SECOND * at)), Some((0, used))];
        finding = compare(&mut seen, pulses.into_iter(), passed);
    }
    finding
}

#[test]
fn a_worker_without_ticks_is_suspected_and_a_busy_one_given_up() {
    assert_eq!(checks(2, 1000, SECOND), Finding::Ticking);
    assert_eq!(checks(3, 1000, SECOND), Finding::Suspected(1));
    assert_eq!(checks(9, 1000, SECOND), Finding::Suspected(1));
    assert_eq!(checks(10, 1000, SECOND), Finding::Spinning(1));
    assert_eq!(checks(30, 100, SECOND), Finding::Spinning(1));
}

#[test]
fn one_that_does_not_get_the_processor_is_not_given_up() {
    assert_eq!(checks(600, 4, SECOND), Finding::Suspected(1));
}

#[test]
fn the_time_of_a_stopped_process_does_not_count() {
    assert_eq!(checks(100, 1000, Duration::from_secs(60)), Finding::Ticking);
}

#[test]
fn one_tick_is_enough_and_one_that_has_ended_needs_none() {
    let mut seen = [LastTick::default()];
    for at in 0..100 {
        let pulse = Some((at / 2, SECOND * at));
        assert_eq!(compare(&mut seen, [pulse].into_iter(), SECOND), Finding::Ticking);
    }
    for _ in 0..100 {
        assert_eq!(compare(&mut seen, [None].into_iter(), SECOND), Finding::Ticking);
    }
}
