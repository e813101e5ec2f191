//! The time of day, by which certificates expire. A test can move it, so that a renewal that is due
//! in months takes no months to test.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

/// The longest sleep without a look at the clock. The timers of the runtime do not count time in
/// which the machine is suspended, and the time of day may be set.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The clock of the system, or one that is ahead of it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead: Option<watch::Receiver<Duration>>,
}

impl Clock {
    /// A clock that is ahead of the system's by a duration that may change.
    pub fn ahead(by: watch::Receiver<Duration>) -> Clock {
        Clock { ahead: Some(by) }
    }

    pub(super) fn now(&self) -> SystemTime {
        let ahead = self.ahead.as_ref().map(|ahead| *ahead.borrow());
        SystemTime::now() + ahead.unwrap_or_default()
    }

    /// Waits until this clock shows a time.
    pub(super) async fn sleep_until(&mut self, time: SystemTime) {
        while let Ok(left) = time.duration_since(self.now())
            && !left.is_zero()
        {
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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn a_clock_that_is_moved_ends_a_sleep_of_months() {
        let (by, ahead) = watch::channel(Duration::ZERO);
        let mut clock = Clock::ahead(ahead);
        let time = clock.now() + 60 * DAY;
        tokio::join!(clock.sleep_until(time), async {
            tokio::task::yield_now().await;
            by.send(30 * DAY).unwrap();
            tokio::task::yield_now().await;
            by.send(60 * DAY).unwrap();
        });
        assert!(clock.now() >= time);
    }
}
