//! The state of each name of a cluster, and the changes to log: one line for a change of state, not
//! one for each look-up.

use std::collections::BTreeMap;

use super::lookup::{Absence, Family};

/// The outcome of a look-up in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Found,
    Empty(Absence),
    Failed(String),
}

/// The state of a name, over both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Resolved,
    NoSuchName,
    NoAddress,
    /// One family has addresses, and the look-up of the other one fails.
    Partial,
    /// The look-up fails in at least one family, and there are no addresses.
    Failing,
}

/// Names that have changed to the same state, for the same reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) state: State,
    /// Comma-separated.
    pub(super) names: String,
    /// The errors of failed look-ups. Empty if none failed.
    pub(super) error: String,
}

/// The names of one cluster.
pub(super) struct Names {
    names: BTreeMap<String, Name>,
}

struct Name {
    families: Vec<Family>,
    outcomes: BTreeMap<Family, Outcome>,
    /// `Resolved` at first: a name that is resolved from the start is not logged.
    logged: State,
}

impl Names {
    /// Makes names without outcomes. Each comes with the families that it is looked up in.
    pub(super) fn new(names: impl IntoIterator<Item = (String, Vec<Family>)>) -> Names {
        let name = |(name, families)| {
            (name, Name { families, outcomes: BTreeMap::new(), logged: State::Resolved })
        };
        Names { names: names.into_iter().map(name).collect() }
    }

    /// Stores an outcome. Returns true when the name's state differs from the logged one.
    pub(super) fn learn(&mut self, name: &str, family: Family, outcome: Outcome) -> bool {
        let Some(name) = self.names.get_mut(name) else { return false };
        name.outcomes.insert(family, outcome);
        name.state().is_some_and(|state| state != name.logged)
    }

    /// The names without a first answer. They have no addresses, and no outcome yet in some family.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let unanswered = self.names.iter().filter(|(_, name)| !name.is_answered());
        unanswered.map(|(name, _)| name.clone()).collect()
    }

    /// The changes since the last call. Marks them as logged.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut changes = BTreeMap::<(State, String), Change>::new();
        for (text, name) in &mut self.names {
            let Some(state) = name.state().filter(|state| *state != name.logged) else { continue };
            name.logged = state;
            let error = name.error();
            let new = || Change { state, names: text.clone(), error: error.clone() };
            changes
                .entry((state, error.clone()))
                .and_modify(|change| change.names = format!("{}, {text}", change.names))
                .or_insert_with(new);
        }
        changes.into_values().collect()
    }
}

impl Name {
    fn is_answered(&self) -> bool {
        self.state().is_some() || self.has_addresses()
    }

    fn has_addresses(&self) -> bool {
        self.outcomes.values().any(|outcome| *outcome == Outcome::Found)
    }

    /// `None` until there is an outcome in each family.
    fn state(&self) -> Option<State> {
        if self.outcomes.len() < self.families.len() {
            return None;
        }
        let any = |wanted: fn(&Outcome) -> bool| self.outcomes.values().any(wanted);
        Some(if any(|outcome| matches!(outcome, Outcome::Failed(_))) {
            if self.has_addresses() { State::Partial } else { State::Failing }
        } else if self.has_addresses() {
            State::Resolved
        } else if any(|outcome| *outcome == Outcome::Empty(Absence::NoAddress)) {
            State::NoAddress
        } else {
            State::NoSuchName
        })
    }

    /// Formats errors: `IPv4 and IPv6: no answer`, or `IPv6: no answer`.
    fn error(&self) -> String {
        let mut by_error = BTreeMap::<&str, Vec<String>>::new();
        for (family, outcome) in &self.outcomes {
            if let Outcome::Failed(error) = outcome {
                by_error.entry(error).or_default().push(family.to_string());
            }
        }
        let one =
            |(error, families): (&str, Vec<String>)| format!("{}: {error}", families.join(" and "));
        by_error.into_iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests;
