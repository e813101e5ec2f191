//! The sessions of a listener: found by client, and ended in the order of their last use.
//!
//! There are two orders: one of sessions without a datagram from their endpoint, one of the others.
//! Where room is needed, sessions without an answer go first. A datagram from a forged address
//! never gets an answer back to its sender, so a flood of them replaces its own sessions and not
//! those in use.

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

/// Whether the endpoint has sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unanswered = 0,
    Answered = 1,
}

/// The order in which kinds make room.
const KINDS: [Kind; 2] = [Kind::Unanswered, Kind::Answered];

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
    active: u32,
    older: usize,
    newer: usize,
}

/// Ticks of silence after which a session ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) unanswered: u32,
    pub(super) answered: u32,
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

    /// Returns true when there are `max` sessions.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.max
    }

    /// Returns true when there are no sessions.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Finds a session and marks it as used now.
    pub(super) fn touch(&mut self, key: &K, now: u32) -> Option<&Rc<S>> {
        let at = *self.by_key.get(key)?;
        self.use_again(at, self.entries[at].kind, now);
        Some(&self.entries[at].session)
    }

    /// Marks a session as answered and as used now.
    pub(super) fn answered(&mut self, key: &K, now: u32) {
        if let Some(&at) = self.by_key.get(key) {
            self.use_again(at, Kind::Answered, now);
        }
    }

    /// Adds a new session without an answer. The caller has made room for it and has checked that
    /// the key is not in the table.
    pub(super) fn insert(&mut self, key: K, session: Rc<S>, now: u32) {
        debug_assert!(!self.is_full(), "no room was made");
        let kind = Kind::Unanswered;
        let entry = Entry { key, session, kind, active: now, older: NONE, newer: NONE };
        let at = self.entries.insert(entry);
        self.by_key.insert(key, at);
        self.link(at);
    }

    /// Removes the session that is first to make room: the least recently used one without an
    /// answer, or else the least recently used of the others.
    pub(super) fn take_oldest(&mut self) -> Option<Rc<S>> {
        let oldest = KINDS.map(|kind| self.orders[kind as usize].oldest);
        oldest.into_iter().find(|&at| at != NONE).map(|at| self.take(at))
    }

    /// Removes the session of a client.
    pub(super) fn remove(&mut self, key: &K) -> Option<Rc<S>> {
        let at = *self.by_key.get(key)?;
        Some(self.take(at))
    }

    /// Removes one session that has reached the idle limit of its kind.
    pub(super) fn take_idle(&mut self, now: u32, idle: Idle) -> Option<Rc<S>> {
        for (kind, limit) in KINDS.into_iter().zip([idle.unanswered, idle.answered]) {
            let oldest = self.orders[kind as usize].oldest;
            let is_over = |entry: &Entry<K, S>| now.wrapping_sub(entry.active) >= limit;
            if self.entries.get(oldest).is_some_and(is_over) {
                return Some(self.take(oldest));
            }
        }
        None
    }

    fn take(&mut self, at: usize) -> Rc<S> {
        self.unlink(at);
        let entry = self.entries.remove(at);
        self.by_key.remove(&entry.key);
        entry.session
    }

    /// Marks an entry as used now, and makes it the newest of `kind`.
    fn use_again(&mut self, at: usize, kind: Kind, now: u32) {
        self.entries[at].active = now;
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Idle = Idle { unanswered: 4, answered: 6 };

    #[test]
    fn the_one_that_was_silent_for_the_longest_makes_room() {
        let mut table = Table::new(3);
        for name in ['a', 'b', 'c'] {
            assert!(!table.is_full());
            table.insert(name, Rc::new(name), 0);
        }
        assert!(table.is_full());
        assert_eq!(table.touch(&'a', 1), Some(&Rc::new('a')));
        assert_eq!(table.take_oldest().as_deref(), Some(&'b'));
        assert!(table.touch(&'b', 2).is_none());
        table.insert('d', Rc::new('d'), 2);
        assert_eq!(table.take_idle(3, IDLE), None, "c is not silent for long enough");
        assert_eq!(table.take_idle(4, IDLE).as_deref(), Some(&'c'));
        assert_eq!(table.take_idle(4, IDLE), None);
        assert_eq!(table.take_oldest().as_deref(), Some(&'a'));
        assert_eq!(table.take_oldest().as_deref(), Some(&'d'));
        assert_eq!(table.take_oldest(), None);
    }

    #[test]
    fn one_with_an_answer_stays_while_there_are_any_without() {
        let mut table = Table::new(3);
        for (now, name) in ['a', 'b', 'c'].into_iter().enumerate() {
            table.insert(name, Rc::new(name), now as u32);
        }
        table.answered(&'a', 3);
        table.answered(&'c', 3);
        assert_eq!(table.take_oldest().as_deref(), Some(&'b'));
        assert_eq!(table.take_idle(8, IDLE), None, "those with an answer stay for longer");
        assert_eq!(table.take_oldest().as_deref(), Some(&'a'));
        table.insert('d', Rc::new('d'), 4);
        assert_eq!(table.take_idle(8, IDLE).as_deref(), Some(&'d'));
        assert_eq!(table.take_idle(9, IDLE).as_deref(), Some(&'c'));
    }

    /// The expected behaviour: a list by last use that is searched from end to end.
    struct Model {
        /// Key, whether the session is answered, tick of the last use.
        list: Vec<(u8, bool, u32)>,
        max: usize,
    }

    impl Model {
        fn at(&self, key: u8) -> Option<usize> {
            self.list.iter().position(|&(listed, ..)| listed == key)
        }

        fn touch(&mut self, key: u8, answered: bool, now: u32) -> bool {
            let Some(at) = self.at(key) else { return false };
            let (_, before, _) = self.list.remove(at);
            self.list.push((key, before || answered, now));
            true
        }

        fn take_first(&mut self, wanted: impl Fn(bool, u32) -> bool) -> Option<u8> {
            let at =
                self.list.iter().position(|&(_, answered, active)| wanted(answered, active))?;
            Some(self.list.remove(at).0)
        }

        fn take_oldest(&mut self) -> Option<u8> {
            self.take_first(|answered, _| !answered).or_else(|| self.take_first(|_, _| true))
        }

        fn take_idle(&mut self, now: u32) -> Option<u8> {
            self.take_first(|answered, active| !answered && now - active >= IDLE.unanswered)
                .or_else(|| self.take_first(|answered, at| answered && now - at >= IDLE.answered))
        }
    }

    proptest! {
        #[test]
        fn it_is_a_list_by_last_use(
            max in 1usize..6,
            steps in proptest::collection::vec((0u8..8, 0u8..12), 0..120),
        ) {
            let (mut table, mut model) = (Table::new(max), Model { list: Vec::new(), max });
            for (now, (key, what)) in steps.into_iter().enumerate() {
                let now = now as u32;
                prop_assert_eq!(table.is_full(), model.list.len() == model.max);
                match what {
                    0 => {
                        let taken = table.take_oldest();
                        prop_assert_eq!(taken.as_deref().copied(), model.take_oldest());
                    }
                    1 => {
                        let taken = table.take_idle(now, IDLE);
                        prop_assert_eq!(taken.as_deref().copied(), model.take_idle(now));
                    }
                    2 => {
                        let removed = table.remove(&key);
                        let expected = model.at(key).map(|at| model.list.remove(at).0);
                        prop_assert_eq!(removed.as_deref().copied(), expected);
                    }
                    3..6 => {
                        table.answered(&key, now);
                        model.touch(key, true, now);
                    }
                    _ => {
                        let found = table.touch(&key, now).map(|session| **session);
                        prop_assert_eq!(found.is_some(), model.touch(key, false, now));
                        if found.is_some() {
                            prop_assert_eq!(found, Some(key));
                            continue;
                        }
                        if table.is_full() {
                            let taken = table.take_oldest();
                            prop_assert_eq!(taken.as_deref().copied(), model.take_oldest());
                        }
                        table.insert(key, Rc::new(key), now);
                        model.list.push((key, false, now));
                    }
                }
            }
        }
    }
}
