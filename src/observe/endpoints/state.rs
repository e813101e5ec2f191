//! What attempts at an endpoint have shown, and when: workers try the same endpoints at different
//! times, and the latest attempt of all of them is what is known.

use std::sync::OnceLock;
use std::time::Instant;

/// What the last attempt at an endpoint has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// There was no attempt.
    #[default]
    Untried,
    /// It failed.
    Failing,
    /// This machine has no route to it. That is no failure of the endpoint: names have IPv6
    /// addresses also for machines without IPv6.
    Unreachable,
    /// It was connected to, or has answered.
    Up,
}

impl State {
    /// The word in `/clusters`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Untried => "untried",
            State::Up => "up",
            State::Failing => "failing",
            State::Unreachable => "unreachable",
        }
    }
}

/// What the last attempt of a worker has shown, and when. The later one is larger; of two in the
/// same millisecond the one with the larger [`State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown(pub(super) u64);

impl Shown {
    const STATES: [State; 4] = [State::Untried, State::Failing, State::Unreachable, State::Up];

    /// A state at a time in milliseconds.
    pub(super) fn new(state: State, at: u64) -> Shown {
        Shown(at << 2 | state as u64)
    }

    pub(super) fn state(self) -> State {
        Shown::STATES[(self.0 & 3) as usize]
    }

    pub(super) fn is_failing(self) -> bool {
        self.state() == State::Failing
    }
}

/// Milliseconds since the first call.
pub(super) fn now() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
