//! The time of day, by which certificates expire. A test can move it, so that a renewal that is due
//! in months takes no months to test.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

/// The longest sleep without a look at the clock. The timers of the runtime do not count time in
/// which the machine is suspended, and the time of day may be set.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// If the time of day is set back by more than this, what waits for a time must not go on waiting.
/// Less only delays it.
const SET_BACK: Duration = Duration::from_secs(3600);

/// The clock of the system, or one that is ahead of it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead: Option<watch::Receiver<Duration>>,
    /// The time that it showed last in a sleep, and when that was.
    seen: Option<(SystemTime, Instant)>,
}

impl Clock {
    /// A clock that is ahead of the system's by a duration that may change.
    pub fn ahead(by: watch::Receiver<Duration>) -> Clock {
        Clock { ahead: Some(by), seen: None }
    }

    pub(super) fn now(&self) -> SystemTime {
        let ahead = self.ahead.as_ref().map(|ahead| *ahead.borrow());
        SystemTime::now() + ahead.unwrap_or_default()
    }

    /// Waits until this clock shows a time. Returns early, with an error, if it was set back since
    /// it was last asked to wait: the time may be years away.
    pub(super) async fn sleep_until(&mut self, time: SystemTime) -> Result<(), SetBack> {
        loop {
            let now = self.now();
            if let Some((seen, at)) = self.seen.replace((now, Instant::now()))
                && (seen + at.elapsed()).duration_since(now).is_ok_and(|back| back > SET_BACK)
            {
                return Err(SetBack);
            }
            let left = time.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                return Ok(());
            }
            let sleep = tokio::time::sleep(left.min(CHECK_INTERVAL));
            match &mut self.ahead {
                None => sleep.await,
                Some(ahead) => tokio::select! {
                    () = sleep => {}
                    // An error means that the clock moves no more.
                    Ok(()) = ahead.changed() => {}
                },
            }
        }
    }
}

/// The clock was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetBack;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn a_clock_that_is_moved_ends_a_sleep_of_months() {
        let (by, ahead) = watch::channel(Duration::ZERO);
        let mut clock = Clock::ahead(ahead);
        let time = clock.now() + 60 * DAY;
        let (slept, ()) = tokio::join!(clock.sleep_until(time), async {
            tokio::task::yield_now().await;
            by.send(30 * DAY).unwrap();
            tokio::task::yield_now().await;
            by.send(60 * DAY).unwrap();
        });
        assert_eq!(slept, Ok(()));
        assert!(clock.now() >= time);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_ends_a_sleep_once() {
        let (by, ahead) = watch::channel(30 * DAY);
        let mut clock = Clock::ahead(ahead);
        let time = clock.now() + DAY;
        let (slept, ()) = tokio::join!(clock.sleep_until(time), async {
            tokio::task::yield_now().await;
            by.send(20 * DAY).unwrap();
        });
        assert_eq!(slept, Err(SetBack));
        // Also where that was not during a sleep.
        by.send(10 * DAY).unwrap();
        assert_eq!(clock.sleep_until(clock.now()).await, Err(SetBack));
        assert_eq!(clock.sleep_until(clock.now()).await, Ok(()));
    }
}
