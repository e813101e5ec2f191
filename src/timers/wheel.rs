//! A timing wheel: values with a limit each, visited when the limit could have run out.
//!
//! A limit runs from the last activity. Activity only stores the current tick ([`Wheel::touch`])
//! and moves nothing. An entry is visited when its limit could have run out, and scheduled again if
//! it has not. Time is a count of ticks that the caller advances, so this module knows no clock.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Slots of the wheel. A longer limit goes around it more than once.
const SLOTS: u32 = 512;

/// The position of an entry that is in no slot.
const UNSCHEDULED: u32 = u32::MAX;

/// Values with limits, each found by its key.
pub(super) struct Wheel<T> {
    /// Ticks so far. Wraps; comparisons are relative.
    now: u32,
    entries: Slab<Entry<T>>,
    /// Keys of entries, by the slot of their next visit.
    slots: Vec<Vec<u32>>,
}

struct Entry<T> {
    value: T,
    /// Tick of the last activity.
    active: u32,
    /// Ticks from the last activity until the limit runs out.
    limit: u32,
    /// Tick of the next visit.
    visit: u32,
    /// Position in the slot of `visit`: `slots[visit % SLOTS][position]` is this entry's key.
    /// `UNSCHEDULED` if the entry is in no slot.
    position: u32,
}

impl<T> Wheel<T> {
    pub(super) fn new() -> Wheel<T> {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Wheel { now: 0, entries: Slab::new(), slots }
    }

    /// Ticks so far.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Adds a value and schedules it. Its limit of this many ticks starts now. Returns its key.
    pub(super) fn insert(&mut self, value: T, limit: u32) -> usize {
        let entry = Entry { value, active: self.now, limit, visit: 0, position: UNSCHEDULED };
        let key = self.entries.insert(entry);
        self.schedule(key);
        key
    }

    /// Removes a value.
    pub(super) fn remove(&mut self, key: usize) -> T {
        self.unschedule(key);
        self.entries.remove(key).value
    }

    /// All values with their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// Advances time by this many ticks. Calls `visit` for each entry whose limit could have run
    /// out by now; its second argument is true if the limit has run out. Such an entry is not
    /// scheduled any more, and each other one is scheduled again.
    pub(super) fn advance(&mut self, ticks: u32, mut visit: impl FnMut(&mut T, bool)) {
        let past = self.now;
        self.now = past.wrapping_add(ticks);
        for tick in 1..=ticks {
            let slot = past.wrapping_add(tick) % SLOTS;
            for key in std::mem::take(&mut self.slots[slot as usize]) {
                let entry = &mut self.entries[key as usize];
                entry.position = UNSCHEDULED;
                // The limit may have started anew since the entry was put into this slot.
                let is_due = entry.left(self.now) <= 0;
                visit(&mut entry.value, is_due);
                if !is_due {
                    self.schedule(key as usize);
                }
            }
        }
    }

    /// Starts the limit of an entry anew after activity.
    pub(super) fn touch(&mut self, key: usize) {
        self.entries[key].active = self.now;
    }

    /// Ticks since the last activity of an entry.
    pub(super) fn idle(&self, key: usize) -> u32 {
        self.now.wrapping_sub(self.entries[key].active)
    }

    /// The limit of an entry in ticks.
    pub(super) fn limit(&self, key: usize) -> u32 {
        self.entries[key].limit
    }

    /// Starts another limit of an entry now. An entry that is not scheduled stays so.
    pub(super) fn restart(&mut self, key: usize, limit: u32) {
        let entry = &mut self.entries[key];
        (entry.active, entry.limit) = (self.now, limit);
        let is_sooner = (self.now.wrapping_add(limit).wrapping_sub(entry.visit) as i32) < 0;
        // The scheduled visit would be too late for a limit that is shorter.
        if entry.position != UNSCHEDULED && is_sooner {
            self.unschedule(key);
            self.schedule(key);
        }
    }

    /// Puts an entry that is not scheduled into the slot of the tick at which its limit could run
    /// out, or of the farthest tick of the wheel.
    pub(super) fn schedule(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        debug_assert_eq!(entry.position, UNSCHEDULED, "an entry has one position");
        let wait = (entry.left(self.now).max(1) as u32).min(SLOTS - 1);
        entry.visit = self.now.wrapping_add(wait);
        let slot = &mut self.slots[(entry.visit % SLOTS) as usize];
        entry.position = slot.len() as u32;
        slot.push(key as u32);
    }

    /// Takes an entry out of its slot. Does nothing if it is not scheduled.
    pub(super) fn unschedule(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        let (position, slot) = (entry.position, (entry.visit % SLOTS) as usize);
        if position == UNSCHEDULED {
            return;
        }
        entry.position = UNSCHEDULED;
        self.slots[slot].swap_remove(position as usize);
        // The last key of the slot has moved to the free position.
        if let Some(&moved) = self.slots[slot].get(position as usize) {
            self.entries[moved as usize].position = position;
        }
    }
}

impl<T> Entry<T> {
    /// Ticks until the limit runs out; not positive if it has.
    fn left(&self, now: u32) -> i32 {
        self.active.wrapping_add(self.limit).wrapping_sub(now) as i32
    }
}

impl<T> Index<usize> for Wheel<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        &self.entries[key].value
    }
}

impl<T> IndexMut<usize> for Wheel<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        &mut self.entries[key].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advances tick by tick. Returns each name whose limit has run out, with its tick.
    fn due(wheel: &mut Wheel<char>, ticks: u32) -> Vec<(char, u32)> {
        let mut due = Vec::new();
        for _ in 0..ticks {
            let now = wheel.now() + 1;
            wheel.advance(1, |name, is_due| {
                if is_due {
                    due.push((*name, now));
                }
            });
        }
        due
    }

    #[test]
    fn limits_run_out_at_their_ticks_also_those_that_go_around_the_wheel() {
        let mut wheel = Wheel::new();
        for (name, limit) in [('d', 2 * SLOTS + 7), ('b', SLOTS - 1), ('a', 3), ('c', SLOTS)] {
            wheel.insert(name, limit);
        }
        let expected = [('a', 3), ('b', SLOTS - 1), ('c', SLOTS), ('d', 2 * SLOTS + 7)];
        assert_eq!(due(&mut wheel, 3 * SLOTS), expected);
    }

    #[test]
    fn several_ticks_at_once_visit_all_slots_between() {
        let mut wheel = Wheel::new();
        for limit in 1..=4 {
            wheel.insert(limit, limit);
        }
        let mut due = Vec::new();
        wheel.advance(3, |limit, is_due| {
            assert!(is_due);
            due.push(*limit);
        });
        assert_eq!((due, wheel.now()), (vec![1, 2, 3], 3));
    }

    #[test]
    fn activity_puts_a_limit_off_and_costs_one_visit() {
        let mut wheel = Wheel::new();
        let key = wheel.insert('a', 10);
        for _ in 0..9 {
            wheel.advance(1, |_, _| panic!("nothing is due before"));
            wheel.touch(key);
        }
        let mut visits = Vec::new();
        for _ in 0..9 {
            wheel.advance(1, |_, is_due| visits.push(is_due));
        }
        assert_eq!(visits, [false], "the visit finds that the limit has started anew");
        assert_eq!(due(&mut wheel, 1), [('a', 19)]);
    }

    #[test]
    fn a_shorter_limit_moves_the_visit_forward() {
        let mut wheel = Wheel::new();
        let key = wheel.insert('a', 300);
        wheel.restart(key, 4);
        assert_eq!((wheel.limit(key), due(&mut wheel, 400)), (4, vec![('a', 4)]));
    }

    #[test]
    fn an_entry_that_is_not_scheduled_is_not_visited() {
        let mut wheel = Wheel::new();
        let key = wheel.insert('a', 2);
        wheel.unschedule(key);
        wheel.unschedule(key);
        wheel.restart(key, 1);
        assert_eq!(due(&mut wheel, SLOTS), []);
        wheel.restart(key, 2);
        wheel.schedule(key);
        assert_eq!(due(&mut wheel, SLOTS), [('a', SLOTS + 2)]);
        assert_eq!(wheel.remove(key), 'a');
    }

    #[test]
    fn removed_entries_leave_the_others_in_their_positions() {
        let mut wheel = Wheel::new();
        let keys: Vec<_> = ('a'..='h').map(|name| wheel.insert(name, 5)).collect();
        for position in [0, 7, 3, 1] {
            wheel.remove(keys[position]);
        }
        let mut names: Vec<_> = due(&mut wheel, 5).into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ['c', 'e', 'f', 'g']);
    }

    #[test]
    fn time_may_wrap() {
        let mut wheel = Wheel::new();
        wheel.now = u32::MAX - 1;
        wheel.insert('a', 4);
        let mut fired_at = None;
        for _ in 0..6 {
            let now = wheel.now().wrapping_add(1);
            wheel.advance(1, |_, is_due| fired_at = is_due.then_some(now));
        }
        assert_eq!(fired_at, Some(2));
    }
}
