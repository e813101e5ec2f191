//! When the names of a cluster were answered last, for the admin endpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::follower::Key;

/// The last look-ups of all names of a cluster. Nothing waits for a change of them.
#[derive(Clone)]
pub(in crate::control) struct Ages(Arc<watch::Sender<HashMap<Key, LookUp>>>);

/// The look-ups of one name in one family.
#[derive(Clone, Copy, Default)]
struct LookUp {
    /// `None` if there was no answer yet.
    answered: Option<SystemTime>,
    failures: u64,
    is_failing: bool,
}

/// What is shown of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct Age {
    /// When the name was answered whose last answer is the oldest. `None` until there is one.
    pub(in crate::control) oldest: Option<SystemTime>,
    /// Look-ups that have failed, since the names of the cluster have changed.
    pub(in crate::control) failures: u64,
    /// Names whose last look-up in a family has failed.
    pub(in crate::control) failing: usize,
}

impl Ages {
    /// Begins without answers.
    pub(super) fn new() -> Ages {
        Ages(Arc::new(watch::Sender::new(HashMap::new())))
    }

    /// Notes a look-up.
    pub(super) fn note(&self, key: &Key, is_answered: bool) {
        self.0.send_modify(|all| {
            let look_up = all.entry(key.clone()).or_default();
            look_up.is_failing = !is_answered;
            if is_answered {
                look_up.answered = Some(SystemTime::now());
            } else {
                look_up.failures += 1;
            }
        });
    }

    /// What is shown.
    pub(in crate::control) fn age(&self) -> Age {
        let all = self.0.borrow();
        Age {
            oldest: all.values().filter_map(|one| one.answered).min(),
            failures: all.values().map(|one| one.failures).sum(),
            failing: all.values().filter(|one| one.is_failing).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Family;
    use super::*;

    #[test]
    fn a_failure_changes_no_age() {
        let ages = Ages::new();
        assert!(ages.age().oldest.is_none());
        let key = ("a.test".to_owned(), Family::V4);
        ages.note(&key, true);
        let first = ages.age().oldest;
        ages.note(&key, false);
        let age = ages.age();
        assert_eq!((age.oldest, age.failures, age.failing), (first, 1, 1));
        ages.note(&key, true);
        assert_eq!((ages.age().failures, ages.age().failing), (1, 0));
    }
}
