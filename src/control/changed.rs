//! What differs between two configurations, for the log.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;

/// How many listeners and clusters were added, removed or changed.
pub(super) struct Changed {
    pub(super) listeners: usize,
    pub(super) clusters: usize,
}

impl Changed {
    pub(super) fn between(before: &Config, after: &Config) -> Changed {
        Changed {
            listeners: differing(&before.listeners, &after.listeners, |one| &one.name),
            clusters: differing(&before.clusters, &after.clusters, |one| &one.name),
        }
    }
}

/// Counts the names whose items are not the same object in both.
fn differing<T>(before: &[Arc<T>], after: &[Arc<T>], name: impl Fn(&T) -> &Arc<str>) -> usize {
    let known: HashMap<&str, &Arc<T>> = before.iter().map(|one| (&**name(one), one)).collect();
    let is_same = |one: &&Arc<T>| known.get(&**name(one)).is_some_and(|old| Arc::ptr_eq(old, one));
    let names = |one: &&Arc<T>| known.contains_key(&**name(one));
    let kept = after.iter().filter(names).count();
    // Changed ones, new ones, removed ones.
    after.len() - after.iter().filter(is_same).count() + before.len() - kept
}
