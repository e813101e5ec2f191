//! The table against a list that is searched from end to end.

use super::*;
use proptest::prelude::*;

const LIMITS: IdleLimits = IdleLimits { no_reply: 4, replied: 6 };

#[test]
fn the_least_recently_used_session_is_evicted_first() {
    let mut table = Table::new(3);
    for name in ['a', 'b', 'c'] {
        assert!(!table.is_full());
        table.insert(name, Rc::new(name), 0);
    }
    assert!(table.is_full());
    assert_eq!(table.touch(&'a', 1), Some(&Rc::new('a')));
    assert_eq!(table.pop_oldest().as_deref(), Some(&'b'));
    assert!(table.touch(&'b', 2).is_none());
    table.insert('d', Rc::new('d'), 2);
    assert_eq!(table.pop_idle(3, LIMITS), None, "c is not silent for long enough");
    assert_eq!(table.pop_idle(4, LIMITS).as_deref(), Some(&'c'));
    assert_eq!(table.pop_idle(4, LIMITS), None);
    assert_eq!(table.pop_oldest().as_deref(), Some(&'a'));
    assert_eq!(table.pop_oldest().as_deref(), Some(&'d'));
    assert_eq!(table.pop_oldest(), None);
}

#[test]
fn sessions_without_a_reply_are_evicted_before_the_others() {
    let mut table = Table::new(3);
    for (now, name) in ['a', 'b', 'c'].into_iter().enumerate() {
        table.insert(name, Rc::new(name), now as u32);
    }
    table.mark_replied(&'a', 3);
    table.mark_replied(&'c', 3);
    assert_eq!(table.pop_oldest().as_deref(), Some(&'b'));
    assert_eq!(table.pop_idle(8, LIMITS), None, "those with a reply stay for longer");
    assert_eq!(table.pop_oldest().as_deref(), Some(&'a'));
    table.insert('d', Rc::new('d'), 4);
    assert_eq!(table.pop_idle(8, LIMITS).as_deref(), Some(&'d'));
    assert_eq!(table.pop_idle(9, LIMITS).as_deref(), Some(&'c'));
}

/// The expected behaviour: a list by last use that is searched from end to end.
struct Model {
    /// Key, whether the session has a reply, tick of the last use.
    list: Vec<(u8, bool, u32)>,
    max: usize,
}

impl Model {
    fn at(&self, key: u8) -> Option<usize> {
        self.list.iter().position(|&(listed, ..)| listed == key)
    }

    fn touch(&mut self, key: u8, has_reply: bool, now: u32) -> bool {
        let Some(at) = self.at(key) else { return false };
        let (_, before, _) = self.list.remove(at);
        self.list.push((key, before || has_reply, now));
        true
    }

    fn pop_first(&mut self, wanted: impl Fn(bool, u32) -> bool) -> Option<u8> {
        let at = self.list.iter().position(|&(_, has_reply, active)| wanted(has_reply, active))?;
        Some(self.list.remove(at).0)
    }

    fn pop_oldest(&mut self) -> Option<u8> {
        self.pop_first(|has_reply, _| !has_reply).or_else(|| self.pop_first(|_, _| true))
    }

    fn pop_idle(&mut self, now: u32) -> Option<u8> {
        self.pop_first(|has_reply, active| !has_reply && now - active >= LIMITS.no_reply)
            .or_else(|| self.pop_first(|has_reply, at| has_reply && now - at >= LIMITS.replied))
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
                    let popped = table.pop_oldest();
                    prop_assert_eq!(popped.as_deref().copied(), model.pop_oldest());
                }
                1 => {
                    let popped = table.pop_idle(now, LIMITS);
                    prop_assert_eq!(popped.as_deref().copied(), model.pop_idle(now));
                }
                2 => {
                    let removed = table.remove(&key);
                    let expected = model.at(key).map(|at| model.list.remove(at).0);
                    prop_assert_eq!(removed.as_deref().copied(), expected);
                }
                3..6 => {
                    table.mark_replied(&key, now);
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
                        let popped = table.pop_oldest();
                        prop_assert_eq!(popped.as_deref().copied(), model.pop_oldest());
                    }
                    table.insert(key, Rc::new(key), now);
                    model.list.push((key, false, now));
                }
            }
        }
    }
}
