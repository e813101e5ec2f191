//! Values at positions that stay the same, in pages of a fixed size. Unlike a vector it never moves
//! what it has. It grows by a page, without a pause for many values, and without room for as many
//! again.

/// Values in a page.
const PAGE: usize = 64;
/// The end of the list of free places.
const NONE: u32 = u32::MAX;

/// Values by their positions.
pub(super) struct Pages<T> {
    pages: Vec<Box<[Place<T>]>>,
    /// The first free place.
    free: u32,
}

enum Place<T> {
    /// The next free place.
    Free(u32),
    Used(T),
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), free: NONE }
    }
}

impl<T> Pages<T> {
    /// Adds a value. Returns its position.
    pub(super) fn insert(&mut self, value: T) -> usize {
        if self.free == NONE {
            let first = (self.pages.len() * PAGE) as u32;
            let next = |index| if index + 1 == PAGE { NONE } else { first + index as u32 + 1 };
            self.pages.push((0..PAGE).map(|index| Place::Free(next(index))).collect());
            self.free = first;
        }
        let index = self.free as usize;
        let place = &mut self.pages[index / PAGE][index % PAGE];
        if let Place::Free(next) = std::mem::replace(place, Place::Used(value)) {
            self.free = next;
        }
        index
    }

    /// Removes the value at a position. `None` if there is none.
    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let place = self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)?;
        match std::mem::replace(place, Place::Free(self.free)) {
            Place::Used(value) => {
                self.free = index as u32;
                Some(value)
            }
            free @ Place::Free(_) => {
                *place = free;
                None
            }
        }
    }

    /// The value at a position.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        match self.pages.get(index / PAGE)?.get(index % PAGE)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// All values with their positions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.pages.iter().flatten().enumerate().filter_map(|(index, place)| match place {
            Place::Used(value) => Some((index, value)),
            Place::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is added and removed, each value is where it was put. Places are used again.
        #[test]
        fn values_are_where_they_were_put(
            steps in prop::collection::vec(any::<Option<u8>>(), 0..400),
        ) {
            let (mut pages, mut known) = (Pages::default(), Vec::new());
            let mut most = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(pick) if !known.is_empty() => {
                        let (index, value) = known.swap_remove(usize::from(pick) % known.len());
                        prop_assert_eq!(pages.remove(index), Some(value));
                        prop_assert_eq!(pages.get(index), None);
                        prop_assert_eq!(pages.remove(index), None);
                    }
                    _ => known.push((pages.insert(number), number)),
                }
                most = most.max(known.len());
                for &(index, value) in &known {
                    prop_assert_eq!(pages.get(index), Some(&value));
                    prop_assert_eq!(pages.get_mut(index).copied(), Some(value));
                }
                prop_assert_eq!(pages.iter().count(), known.len());
            }
            prop_assert!(pages.pages.len() <= most.div_ceil(PAGE));
            prop_assert_eq!(pages.get(PAGE * pages.pages.len()), None);
        }
    }
}
