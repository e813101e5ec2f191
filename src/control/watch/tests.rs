//! Workers that tick, that wait for the processor, and that spin.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn running(ticks: u32, used: Duration) -> Life {
    Life::Running { ticks, used }
}

/// Makes one check a second of two workers. The second one does not tick, and uses the
/// processor for `busy` milliseconds of each second.
fn checks(count: u32, busy: u64, passed: Duration) -> Finding {
    let mut seen = [LastTick::default(); 2];
    let mut finding = Finding::Ticking;
    for at in 1..=count {
        let used = Duration::from_millis(busy) * at;
        let lives = [running(at, SECOND * at), running(0, used)];
        finding = compare(&mut seen, lives.into_iter(), passed, false);
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
        let life = [running(at / 2, SECOND * at)].into_iter();
        assert_eq!(compare(&mut seen, life, SECOND, false), Finding::Ticking);
    }
    for _ in 0..100 {
        let ended = [Life::Ended].into_iter();
        assert_eq!(compare(&mut seen, ended, SECOND, true), Finding::Ticking);
    }
}

#[test]
fn a_worker_that_has_ended_too_early_and_one_that_is_gone_have_failed() {
    let check = |life, may_end| {
        let lives = [running(1, SECOND), life].into_iter();
        compare(&mut [LastTick::default(); 2], lives, SECOND, may_end)
    };
    assert_eq!(check(Life::Ended, false), Finding::Ended(1));
    assert_eq!(check(Life::Gone, false), Finding::Gone(1));
    assert_eq!(check(Life::Gone, true), Finding::Gone(1));
}
