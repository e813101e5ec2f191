//! The limit of open files (getrlimit(2), RLIMIT_NOFILE).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and returns what holds now. A relayed
/// connection needs two descriptors, and the usual soft limit of 1024 is there for select(2), which
/// nothing here uses.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which the start-up line then shows.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    file_limit()
}

/// The soft limit of open files; `u64::MAX` where there is none.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
