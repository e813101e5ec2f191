//! The directory that a site is served from.
//!
//! A site is often replaced by pointing a symbolic link to another directory. So the path of the
//! root is opened again at most once a second, and files are always opened below the directory
//! that it led to then. If it leads nowhere for a moment, the old directory stays in use.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sys::{Directory, Errno, Lookup, probe_open_below};

/// How long the directory is used before its path is opened again.
const FRESH: Duration = Duration::from_secs(1);

/// Checks at the start that files below this root can be opened.
///
/// # Errors
/// The kernel cannot open files below a directory, or the root is not a directory that can be
/// opened. May wait for a disk.
pub fn probe(root: &Path) -> Result<(), Error> {
    let open = || Directory::open(root, Lookup::Blocking).map(drop);
    probe_open_below().and_then(|()| open()).map_err(|error| {
        let advice = match error {
            Errno::NOSYS => "serving files needs openat2(2): Linux 5.6 or later",
            Errno::PERM => "a filter of system calls may refuse openat2(2): allow it",
            Errno::ACCESS => "the user needs search permission (x) on each directory of the path",
            Errno::NOENT => "make the directory, or correct `root`",
            Errno::NOTDIR => "`root` must be a directory",
            _ => "",
        };
        Error::start(
            format!("cannot open the root {}", root.display()),
            std::io::Error::from(error),
            advice,
        )
    })
}

/// The root of one site on one worker.
pub(super) struct Root {
    path: Arc<Path>,
    state: RefCell<State>,
}

struct State {
    /// `None` if it was never opened.
    base: Option<Base>,
    /// When the path was opened last; `None` if it never was.
    checked: Option<Instant>,
    /// The last attempt has failed, and a warning was logged.
    is_lost: bool,
}

/// The directory that a root led to.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) directory: Arc<Directory>,
    /// Changes with the directory.
    pub(super) version: u64,
}

/// What a root leads to.
pub(super) enum Current {
    /// This directory.
    Known(Base),
    /// No directory so far.
    Missing,
    /// It must be opened by a thread that may wait.
    Unknown,
}

impl Root {
    pub(super) fn new(path: &Path) -> Root {
        Root {
            path: path.into(),
            state: RefCell::new(State { base: None, checked: None, is_lost: false }),
        }
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The directory. Opens it again if that is due and needs no wait.
    pub(super) fn current(&self, now: Instant) -> Current {
        let is_due = {
            let checked = self.state.borrow().checked;
            checked.is_none_or(|checked| now.saturating_duration_since(checked) >= FRESH)
        };
        if is_due {
            let is_local =
                self.state.borrow().base.as_ref().is_some_and(|base| base.directory.is_local());
            if !is_local {
                return Current::Unknown;
            }
            match Directory::open(&self.path, Lookup::Cached) {
                Err(Errno::AGAIN) => return Current::Unknown,
                opened => self.install(opened, now),
            };
        }
        self.state.borrow().base.clone().map_or(Current::Missing, Current::Known)
    }

    /// Takes the directory that the path leads to now. Returns the version that is in use then.
    pub(super) fn install(&self, opened: Result<Directory, Errno>, now: Instant) -> u64 {
        let state = &mut *self.state.borrow_mut();
        state.checked = Some(now);
        let version = state.base.as_ref().map_or(0, |base| base.version);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) => {
                // Once for each worker, and not for each request.
                if !std::mem::replace(&mut state.is_lost, true) {
                    tracing::warn!(
                        root = %self.path.display(),
                        %error,
                        "the root of a site cannot be opened: its files are a 404, or those of the \
                         directory that it led to before"
                    );
                }
                return version;
            }
        };
        if std::mem::take(&mut state.is_lost) {
            tracing::info!(root = %self.path.display(), "the root of a site can be opened again");
        }
        let is_same = state.base.as_ref().is_some_and(|base| base.directory.is_same(&directory));
        if is_same {
            return version;
        }
        state.base = Some(Base { directory: Arc::new(directory), version: version + 1 });
        version + 1
    }

    /// The directory as it was opened last.
    pub(super) fn last(&self) -> Option<Base> {
        self.state.borrow().base.clone()
    }
}
