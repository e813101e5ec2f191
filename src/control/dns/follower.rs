//! Looks up one name in one family again and again, and reports what has changed.
//!
//! | result of a look-up | the name's addresses |
//! | --- | --- |
//! | addresses | these |
//! | no answer, SERVFAIL, REFUSED, … | the last good ones, without limit |
//! | NXDOMAIN, or an answer without addresses | the last good ones for 30 s more, then none |

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::ages::Ages;
use super::error::LookupError;
use super::files::Files;
use super::lookup::{Family, Found, look_up};
use super::names::Outcome;
use crate::error::chain;

/// How long the last addresses of a name are kept after answers without addresses.
const EMPTY_HOLD: Duration = Duration::from_secs(30);

/// A name and one of its families.
pub(super) type Key = (String, Family);

/// The result of a follower: the addresses to use from now on, and the outcome of the look-up.
pub(super) struct Update {
    pub(super) key: Key,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) outcome: Outcome,
}

/// Looks up one name in one family, again and again.
pub(super) struct Follower {
    key: Key,
    refresh: Duration,
    /// The last good answer.
    addresses: Vec<IpAddr>,
    /// Since when all look-ups have found that there are no addresses.
    empty_since: Option<Instant>,
}

impl Follower {
    /// `known` is the last good answer, if there was one.
    pub(super) fn new(key: Key, refresh: Duration, known: Vec<IpAddr>) -> Follower {
        Follower { key, refresh, addresses: known, empty_since: None }
    }

    /// Runs until the receiver of the updates is dropped.
    pub(super) async fn run(mut self, files: Files, updates: UnboundedSender<Update>, ages: Ages) {
        let mut last_sent = None;
        loop {
            let result = look_up(&files, &self.key.0, self.key.1).await;
            ages.note(&self.key, result.is_ok());
            let (outcome, wait) = self.process(result);
            let current = (outcome, self.addresses.clone());
            // Only changes are sent.
            if last_sent.as_ref() != Some(&current) {
                last_sent = Some(current.clone());
                let (outcome, addresses) = current;
                let update = Update { key: self.key.clone(), addresses, outcome };
                if updates.send(update).is_err() {
                    return;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Processes one result. Returns its outcome, and the time until the next look-up.
    fn process(&mut self, result: Result<Found, LookupError>) -> (Outcome, Duration) {
        match result {
            Ok(Found::Addresses(addresses, ttl)) => {
                self.empty_since = None;
                self.addresses = addresses;
                let ttl = ttl.filter(|ttl| !ttl.is_zero());
                (Outcome::Found, ttl.unwrap_or(self.refresh))
            }
            Ok(Found::Empty(absence)) => {
                let since = *self.empty_since.get_or_insert_with(Instant::now);
                let left = EMPTY_HOLD.saturating_sub(since.elapsed());
                if left.is_zero() {
                    self.addresses = Vec::new();
                }
                let is_held = !self.addresses.is_empty();
                let wait = if is_held { left.min(self.refresh) } else { self.refresh };
                (Outcome::Empty(absence), wait)
            }
            Err(error) => {
                // A failure does not confirm the earlier answer without addresses.
                self.empty_since = None;
                (Outcome::Failed(chain(&error)), self.refresh)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Absence;
    use super::*;

    fn follower() -> Follower {
        Follower::new(("node.test".into(), Family::V4), Duration::from_secs(5), Vec::new())
    }

    fn one() -> Vec<IpAddr> {
        vec![[127, 0, 0, 1].into()]
    }

    #[test]
    fn the_time_to_live_rules_unless_it_is_unknown_or_0() {
        let seconds = |ttl| follower().process(Ok(Found::Addresses(one(), ttl))).1.as_secs();
        assert_eq!(seconds(Some(Duration::from_secs(300))), 300);
        assert_eq!(seconds(Some(Duration::ZERO)), 5);
        assert_eq!(seconds(None), 5);
    }

    #[test]
    fn a_failure_keeps_the_addresses_and_an_empty_answer_holds_them() {
        let mut follower = follower();
        follower.process(Ok(Found::Addresses(one(), None)));
        follower.process(Err(LookupError::NoServer));
        assert_eq!(follower.addresses, one());
        follower.process(Ok(Found::Empty(Absence::NoSuchName)));
        assert_eq!(follower.addresses, one());
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.process(Ok(Found::Empty(Absence::NoSuchName)));
        assert!(follower.addresses.is_empty());
    }

    #[test]
    fn a_failure_in_between_starts_the_hold_anew() {
        let mut follower = follower();
        follower.process(Ok(Found::Addresses(one(), None)));
        follower.empty_since = Instant::now().checked_sub(EMPTY_HOLD);
        follower.process(Err(LookupError::NoServer));
        follower.process(Ok(Found::Empty(Absence::NoSuchName)));
        assert_eq!(follower.addresses, one());
    }
}
