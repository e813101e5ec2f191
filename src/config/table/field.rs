//! A value with its position, and a key with the value that was read from it.

use crate::config::report::Span;

/// A value and its position.
#[derive(Clone, Debug)]
pub(in crate::config) struct At<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) span: Span,
}

/// A key of a table: left out, given and valid, or given and already reported.
#[derive(Clone, Debug)]
pub(in crate::config) struct Field<T> {
    /// The position of the key. `None` if it was left out.
    pub(in crate::config) key: Option<Span>,
    /// `None` if the key was left out or reported.
    pub(in crate::config) value: Option<At<T>>,
}

impl<T> Default for Field<T> {
    /// A key that was left out.
    fn default() -> Self {
        Field { key: None, value: None }
    }
}

impl<T> Field<T> {
    pub(in crate::config) fn is_given(&self) -> bool {
        self.key.is_some()
    }

    pub(in crate::config) fn or(self, default: T) -> T {
        self.value.map_or(default, |at| at.value)
    }

    pub(in crate::config) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        let value = self.value.map(|at| At { value: change(at.value), span: at.span });
        Field { key: self.key, value }
    }

    pub(in crate::config) fn as_ref(&self) -> Option<&T> {
        self.value.as_ref().map(|at| &at.value)
    }
}
