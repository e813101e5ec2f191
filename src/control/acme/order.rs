//! One certificate, and what happens next to it: when it is ordered, and what of that outlasts a
//! reload. An authority limits how often it is asked for the same names, and its limits do not
//! begin anew when ringgate reads its configuration again.

use std::time::{Duration, SystemTime};

use super::failure::Failure;
use super::names::Names;
use super::schedule::{Retry, fraction, pause, renewal};
use crate::proto::tls::Identity;

/// A certificate is not ordered again within a tenth of its lifetime, or within this if it is less:
/// a wrong clock, or an odd suggestion of the authority, must not use up the authority's limits.
const MAX_REST: Duration = Duration::from_secs(24 * 3600);
/// When the authority is asked for the first time for a better time, from the start or the issue of
/// a certificate on: orders go first. A random part of it is added.
const FIRST_CHECK: Duration = Duration::from_secs(120);

/// One certificate, and what happens next to it.
pub(super) struct Order {
    pub(super) names: Names,
    pub(super) identity: Option<Identity>,
    /// When a certificate is ordered.
    pub(super) due: SystemTime,
    /// It is not ordered again before this time, if that was done by this process.
    pub(super) earliest: Option<SystemTime>,
    /// When the authority is asked for a better time.
    pub(super) check: Option<SystemTime>,
    /// Failed attempts since the last success.
    pub(super) failures: u32,
}

impl Order {
    /// An order that is due now.
    pub(super) fn new(names: &Names, now: SystemTime) -> Order {
        let names = names.clone();
        Order { names, identity: None, due: now, earliest: None, check: None, failures: 0 }
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> SystemTime {
        self.check.map_or(self.due, |check| check.min(self.due))
    }

    /// Takes a certificate into use and schedules its renewal.
    pub(super) fn accept(&mut self, identity: Identity, now: SystemTime) {
        self.due = due(&identity, fraction());
        self.identity = Some(identity);
        self.failures = 0;
        self.check = (self.due > now).then(|| now + FIRST_CHECK.mul_f64(1.0 + fraction()));
    }

    /// Delays the next order after a success.
    pub(super) fn rest(&mut self, now: SystemTime) {
        let lifetime = self
            .identity
            .as_ref()
            .and_then(|identity| identity.not_after().duration_since(identity.not_before()).ok());
        self.earliest = Some(now + (lifetime.unwrap_or_default() / 10).min(MAX_REST));
        self.set_due(self.due);
    }

    /// Schedules everything anew after the clock was set back, because times that were reckoned
    /// from the old one may be years ahead. An attempt that has failed is repeated now: it may have
    /// failed because of the clock.
    pub(super) fn reschedule(&mut self, now: SystemTime) {
        let due = match &self.identity {
            Some(identity) if self.failures == 0 => due(identity, fraction()),
            _ => now,
        };
        self.check = self.check.map(|_| now);
        self.earliest = self.earliest.map(|earliest| earliest.min(now + MAX_REST));
        self.set_due(due);
    }

    pub(super) fn set_due(&mut self, due: SystemTime) {
        self.due = self.earliest.map_or(due, |earliest| due.max(earliest));
    }

    /// Counts an attempt that has failed. Returns the pause before the next one.
    pub(super) fn fail(&mut self, retry: Retry, now: SystemTime) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let retry_in = pause(self.failures, retry, fraction());
        self.due = now + retry_in;
        // A suggestion of the authority must not shorten the pause.
        self.check = None;
        retry_in
    }

    /// Goes on where the order of the same certificate was by another configuration.
    pub(super) fn go_on(&mut self, before: Order, now: SystemTime) {
        let is_newer = not_before(self.identity.as_ref()) > not_before(before.identity.as_ref());
        if is_newer && self.due > now {
            // Another process has stored it.
            self.earliest = before.earliest;
            self.set_due(self.due);
            return;
        }
        let Order { names, identity, .. } = self;
        let stored = identity.take().filter(|_| is_newer);
        let (names, identity) = (names.clone(), stored.or(before.identity));
        *self = Order { names, identity, ..before };
    }

    /// Returns true if the authority must not be asked for these names now, whatever is configured.
    pub(super) fn must_wait(&self, now: SystemTime) -> bool {
        let is_in_pause = self.failures > 0 && self.due > now;
        is_in_pause || self.earliest.is_some_and(|earliest| earliest > now)
    }

    /// Reports a failed attempt, once.
    pub(super) fn report(&self, failure: &Failure, retry_in: Duration, now: SystemTime) {
        let not_after = self.identity.as_ref().map(Identity::not_after);
        let state = match not_after {
            None => "none",
            Some(end) if end <= now => "expired",
            Some(_) => "valid",
        };
        tracing::warn!(
            names = %self.names,
            error = %failure,
            failures = self.failures,
            retry_in_s = retry_in.as_secs(),
            certificate = state,
            "cannot get a certificate by ACME; the attempt will be repeated"
        );
    }
}

/// From when on a certificate is valid.
fn not_before(identity: Option<&Identity>) -> Option<SystemTime> {
    identity.map(Identity::not_before)
}

/// When a certificate is due for renewal.
pub(super) fn due(identity: &Identity, fraction: f64) -> SystemTime {
    renewal(identity.not_before(), identity.not_after(), fraction)
}
