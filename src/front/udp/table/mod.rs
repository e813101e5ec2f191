//! The sessions of a listener: found by client, and ended in the order of their last use.
//!
//! There are two orders: one of sessions without a reply, one of the others. Sessions without a
//! reply are evicted first. Datagrams from forged addresses never have a reply, so a flood of them
//! evicts its own sessions and not those in use.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use slab::Slab;

/// Stands for "no entry".
const NONE: usize = usize::MAX;

/// At most `max` sessions, in two orders by their last use. The cost of every operation is
/// independent of the number of sessions.
pub(super) struct Table<K, S> {
    by_key: HashMap<K, usize>,
    entries: Slab<Entry<K, S>>,
    /// Indexed by [`Kind`].
    orders: [Order; 2],
    max: usize,
}

/// Whether a session has a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NoReply = 0,
    Replied = 1,
}

/// The order in which sessions are evicted.
const EVICTION_ORDER: [Kind; 2] = [Kind::NoReply, Kind::Replied];

/// The ends of a linked list through the entries.
#[derive(Clone, Copy)]
struct Order {
    oldest: usize,
    newest: usize,
}

struct Entry<K, S> {
    key: K,
    session: Rc<S>,
    kind: Kind,
    /// Tick of the last use.
    last_used: u32,
    older: usize,
    newer: usize,
}

/// Ticks of silence after which a session ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleLimits {
    pub(super) no_reply: u32,
    pub(super) replied: u32,
}

impl<K: Copy + Eq + Hash, S> Table<K, S> {
    /// Makes an empty table. `max` is at least 1.
    pub(super) fn new(max: usize) -> Self {
        Table {
            by_key: HashMap::new(),
            entries: Slab::new(),
            orders: [Order { oldest: NONE, newest: NONE }; 2],
            max: max.max(1),
        }
    }

    /// Changes the most sessions. Those beyond it stay until they are removed.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// The keys of some sessions. Looks at all of them.
    pub(super) fn keys_where(&self, is_wanted: impl Fn(&K) -> bool) -> Vec<K> {
        self.entries.iter().map(|(_, entry)| entry.key).filter(is_wanted).collect()
    }

    /// Returns true when there are `max` sessions.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.max
    }

    /// Returns true when there are more than `max` sessions, because that was lowered.
    pub(super) fn is_over(&self) -> bool {
        self.entries.len() > self.max
    }

    /// Returns true when there are no sessions.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Finds a session and marks it as used now.
    pub(super) fn touch(&mut self, key: &K, now: u32) -> Option<&Rc<S>> {
        let at = *self.by_key.get(key)?;
        self.mark_used(at, self.entries[at].kind, now);
        Some(&self.entries[at].session)
    }

    /// Marks a session as used now and as one with a reply.
    pub(super) fn mark_replied(&mut self, key: &K, now: u32) {
        if let Some(&at) = self.by_key.get(key) {
            self.mark_used(at, Kind::Replied, now);
        }
    }

    /// Adds a new session without a reply. The table is not full, and the key is not in it.
    pub(super) fn insert(&mut self, key: K, session: Rc<S>, now: u32) {
        debug_assert!(!self.is_full(), "no session was evicted");
        let kind = Kind::NoReply;
        let entry = Entry { key, session, kind, last_used: now, older: NONE, newer: NONE };
        let at = self.entries.insert(entry);
        self.by_key.insert(key, at);
        self.link(at);
    }

    /// Removes the session that is first to be evicted: the least recently used one without a
    /// reply, or else the least recently used of the others.
    pub(super) fn pop_oldest(&mut self) -> Option<Rc<S>> {
        let oldest = EVICTION_ORDER.map(|kind| self.orders[kind as usize].oldest);
        oldest.into_iter().find(|&at| at != NONE).map(|at| self.remove_at(at))
    }

    /// Removes the session of a client.
    pub(super) fn remove(&mut self, key: &K) -> Option<Rc<S>> {
        let at = *self.by_key.get(key)?;
        Some(self.remove_at(at))
    }

    /// Removes one session that has reached the idle limit of its kind.
    pub(super) fn pop_idle(&mut self, now: u32, limits: IdleLimits) -> Option<Rc<S>> {
        for (kind, limit) in [(Kind::NoReply, limits.no_reply), (Kind::Replied, limits.replied)] {
            let oldest = self.orders[kind as usize].oldest;
            let is_idle = |entry: &Entry<K, S>| now.wrapping_sub(entry.last_used) >= limit;
            if self.entries.get(oldest).is_some_and(is_idle) {
                return Some(self.remove_at(oldest));
            }
        }
        None
    }

    fn remove_at(&mut self, at: usize) -> Rc<S> {
        self.unlink(at);
        let entry = self.entries.remove(at);
        self.by_key.remove(&entry.key);
        entry.session
    }

    /// Marks an entry as used now, and makes it the newest of `kind`.
    fn mark_used(&mut self, at: usize, kind: Kind, now: u32) {
        self.entries[at].last_used = now;
        // The newest of its kind stays where it is.
        if at != self.orders[kind as usize].newest {
            self.unlink(at);
            self.entries[at].kind = kind;
            self.link(at);
        }
    }

    /// Makes an entry that is in no list the newest of its kind.
    fn link(&mut self, at: usize) {
        let order = self.entries[at].kind as usize;
        let before = std::mem::replace(&mut self.orders[order].newest, at);
        (self.entries[at].older, self.entries[at].newer) = (before, NONE);
        match before {
            NONE => self.orders[order].oldest = at,
            before => self.entries[before].newer = at,
        }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { older, newer, kind, .. } = self.entries[at];
        let order = &mut self.orders[kind as usize];
        match older {
            NONE => order.oldest = newer,
            older => self.entries[older].newer = newer,
        }
        match newer {
            NONE => order.newest = older,
            newer => self.entries[newer].older = older,
        }
    }
}

#[cfg(test)]
mod tests;
