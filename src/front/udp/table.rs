//! The sessions of a listener: found by client, ended from the one that was silent for the longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use slab::Slab;

/// No entry.
const NONE: usize = usize::MAX;

/// At most so many sessions, in the order in which they were last used.
pub(super) struct Table<K, S> {
    by_key: HashMap<K, usize>,
    entries: Slab<Entry<K, S>>,
    oldest: usize,
    newest: usize,
    max: usize,
}

struct Entry<K, S> {
    key: K,
    session: Rc<S>,
    /// Tick of the last use.
    active: u32,
    older: usize,
    newer: usize,
}

impl<K: Copy + Eq + Hash, S> Table<K, S> {
    /// `max` is 1 at least.
    pub(super) fn new(max: usize) -> Self {
        Table {
            by_key: HashMap::new(),
            entries: Slab::new(),
            oldest: NONE,
            newest: NONE,
            max: max.max(1),
        }
    }

    /// Finds a session, and notes that it is used.
    pub(super) fn touch(&mut self, key: &K, now: u32) -> Option<&Rc<S>> {
        let at = *self.by_key.get(key)?;
        self.entries[at].active = now;
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
        Some(&self.entries[at].session)
    }

    /// Adds a session that is not there yet; gives the oldest back where there were as many as
    /// there may be.
    pub(super) fn insert(&mut self, key: K, session: Rc<S>, now: u32) -> Option<Rc<S>> {
        let evicted = if self.entries.len() >= self.max { self.take_oldest() } else { None };
        let at = self.entries.insert(Entry { key, session, active: now, older: NONE, newer: NONE });
        self.by_key.insert(key, at);
        self.link(at);
        evicted
    }

    /// Takes out the session that was silent for the longest.
    pub(super) fn take_oldest(&mut self) -> Option<Rc<S>> {
        let oldest = self.oldest;
        (oldest != NONE).then(|| self.take(oldest))
    }

    /// Takes out the session of a client.
    pub(super) fn remove(&mut self, key: &K) -> Option<Rc<S>> {
        let at = *self.by_key.get(key)?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> Rc<S> {
        self.unlink(at);
        let entry = self.entries.remove(at);
        self.by_key.remove(&entry.key);
        entry.session
    }

    /// Takes out one that was silent for so many ticks.
    pub(super) fn take_idle(&mut self, now: u32, limit: u32) -> Option<Rc<S>> {
        let oldest = self.entries.get(self.oldest)?;
        if now.wrapping_sub(oldest.active) < limit {
            return None;
        }
        self.take_oldest()
    }

    /// Makes an entry that is in no order the newest.
    fn link(&mut self, at: usize) {
        let before = std::mem::replace(&mut self.newest, at);
        (self.entries[at].older, self.entries[at].newer) = (before, NONE);
        match before {
            NONE => self.oldest = at,
            before => self.entries[before].newer = at,
        }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { older, newer, .. } = self.entries[at];
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_one_that_was_silent_for_the_longest_makes_room() {
        let mut table = Table::new(3);
        for name in ['a', 'b', 'c'] {
            assert_eq!(table.insert(name, Rc::new(name), 0), None);
        }
        assert_eq!(table.touch(&'a', 1), Some(&Rc::new('a')));
        assert_eq!(table.insert('d', Rc::new('d'), 2).as_deref(), Some(&'b'));
        assert!(table.touch(&'b', 2).is_none());
        assert_eq!(table.take_idle(9, 10), None, "c is not silent for long enough");
        assert_eq!(table.take_idle(10, 10).as_deref(), Some(&'c'));
        assert_eq!(table.take_idle(10, 10), None);
        assert_eq!(table.take_oldest().as_deref(), Some(&'a'));
        assert_eq!(table.take_oldest().as_deref(), Some(&'d'));
        assert_eq!(table.take_oldest(), None);
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn it_is_a_list_by_last_use(
            max in 1usize..5,
            steps in proptest::collection::vec((0u8..8, 0u8..10), 0..80),
        ) {
            let (mut table, mut list) = (Table::new(max), Vec::new());
            for (now, (key, what)) in steps.into_iter().enumerate() {
                let now = now as u32;
                let at = list.iter().position(|&(listed, _)| listed == key);
                if what == 0 {
                    let expected = if list.is_empty() { None } else { Some(list.remove(0).0) };
                    prop_assert_eq!(table.take_oldest().as_deref().copied(), expected);
                    continue;
                }
                if what == 2 {
                    let expected = at.map(|at| list.remove(at).0);
                    prop_assert_eq!(table.remove(&key).as_deref().copied(), expected);
                    continue;
                }
                if what == 1 {
                    let idle = list.first().is_some_and(|&(_, active)| now - active >= 6);
                    let expected = idle.then(|| list.remove(0).0);
                    prop_assert_eq!(table.take_idle(now, 6).as_deref().copied(), expected);
                    continue;
                }
                let found = table.touch(&key, now).is_some();
                prop_assert_eq!(found, at.is_some());
                if let Some(at) = at {
                    list.remove(at);
                } else {
                    let expected = (list.len() == max).then(|| list.remove(0).0);
                    let evicted = table.insert(key, Rc::new(key), now);
                    prop_assert_eq!(evicted.as_deref().copied(), expected);
                }
                list.push((key, now));
            }
        }
    }
}
