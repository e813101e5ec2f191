//! When a certificate is renewed, and when a failed attempt is repeated. Both are spread at random,
//! so that many machines that were started together do not ask at the same moment.

use std::time::{Duration, SystemTime};

use rustix::rand::{GetRandomFlags, getrandom};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The longest pause before its jitter, which adds a quarter at most: 12 hours in all.
const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600 * 4 / 5);
/// The least pause after an error about a limit of the authority that names no time.
const RATE_LIMITED: Duration = HOUR;
/// The longest pause that an authority can ask for. A week is the period of common limits.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// After so many failures in a row, also those that may pass in seconds count as lasting.
const MAX_SOON: u32 = 5;

/// When an attempt that has failed may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// In seconds: the authority has refused the nonces of a request (RFC 8555 section 6.5).
    Soon,
    /// In seconds, with a new account: the authority does not know the account.
    NewAccount,
    /// In a while.
    Later,
    /// The authority limits what the account may ask for.
    RateLimited,
    /// After the time that the authority has named.
    After(Duration),
}

/// Returns when a certificate is due for renewal: shortly before two thirds of its lifetime have
/// passed. `fraction` is a random number from 0 to 1.
pub(super) fn renewal(not_before: SystemTime, not_after: SystemTime, fraction: f64) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    not_before + (lifetime - lifetime / 3 - lifetime.mul_f64(fraction / 20.0))
}

/// Returns a random moment of the window that an authority suggests (RFC 9773 section 4.2).
pub(super) fn within(start: SystemTime, end: SystemTime, fraction: f64) -> SystemTime {
    start + end.duration_since(start).unwrap_or_default().mul_f64(fraction)
}

/// Returns the pause after a failed attempt. `failures` counts those in a row, this one included.
/// `fraction` is a random number from 0 to 1.
pub(super) fn pause(failures: u32, retry: Retry, fraction: f64) -> Duration {
    if matches!(retry, Retry::Soon | Retry::NewAccount) && failures <= MAX_SOON {
        return Duration::from_secs(2).mul_f64(1.0 + fraction);
    }
    let doubled = MINUTE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let least = match retry {
        Retry::RateLimited => RATE_LIMITED,
        Retry::After(time) => time.min(MAX_RETRY_AFTER),
        Retry::Soon | Retry::NewAccount | Retry::Later => Duration::ZERO,
    };
    let jitter = 1.0 + fraction / 4.0;
    // What the authority asks for is no less with jitter, and not much more.
    let asked = least + MINUTE.min(least).mul_f64(fraction);
    doubled.min(MAX_PAUSE).mul_f64(jitter).max(asked)
}

/// Returns a random number from 0 to 1.
pub(super) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // The call fails only on kernels without it; jitter is no secret, and its lack no harm.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_of_90_days_is_renewed_after_about_60() {
        let days = |days: u32| UNIX_EPOCH + days * DAY;
        assert_eq!(renewal(days(10), days(100), 0.0), days(70));
        assert_eq!(renewal(days(10), days(100), 1.0), days(70) - 108 * HOUR);
        // A malformed validity is due at once.
        assert_eq!(renewal(days(10), days(5), 0.5), days(10));
    }

    #[test]
    fn a_moment_lies_in_its_window() {
        let (start, end) = (UNIX_EPOCH + DAY, UNIX_EPOCH + 3 * DAY);
        assert_eq!(within(start, end, 0.0), start);
        assert_eq!(within(start, end, 0.5), start + DAY);
        assert_eq!(within(start, end, 1.0), end);
        assert_eq!(within(end, start, 1.0), end);
    }

    #[test]
    fn pauses_double_from_a_minute_to_half_a_day() {
        let least = |failures| pause(failures, Retry::Later, 0.0);
        assert_eq!([1, 2, 3, 4].map(least), [1, 2, 4, 8].map(|minutes| minutes * MINUTE));
        for failures in [11, 12, 17, 100, u32::MAX] {
            assert_eq!(pause(failures, Retry::Later, 1.0), 12 * HOUR);
            assert!(least(failures) >= 9 * HOUR);
        }
        assert_eq!(pause(1, Retry::Later, 1.0), MINUTE + MINUTE / 4);
    }

    #[test]
    fn refused_nonces_delay_by_seconds_at_first() {
        for retry in [Retry::Soon, Retry::NewAccount] {
            assert_eq!(pause(5, retry, 1.0), Duration::from_secs(4));
            assert_eq!(pause(6, retry, 0.0), 32 * MINUTE);
        }
    }

    #[test]
    fn what_the_authority_asks_for_is_kept() {
        assert_eq!(pause(1, Retry::RateLimited, 0.0), HOUR);
        assert_eq!(pause(10, Retry::RateLimited, 0.0), 512 * MINUTE);
        assert_eq!(pause(1, Retry::After(10 * HOUR), 0.0), 10 * HOUR);
        assert_eq!(pause(1, Retry::After(10 * HOUR), 1.0), 10 * HOUR + MINUTE);
        assert_eq!(pause(4, Retry::After(MINUTE), 0.0), 8 * MINUTE);
        assert_eq!(pause(1, Retry::After(Duration::MAX), 0.0), 7 * DAY);
    }

    #[test]
    fn random_numbers_differ_and_lie_between_0_and_1() {
        let numbers: Vec<f64> = (0..100).map(|_| fraction()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(numbers.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
