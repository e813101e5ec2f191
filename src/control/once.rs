//! Work that has a thread of its own, which ends with it. The allocator keeps blocks for a thread
//! until it ends (the tcache of glibc). After work with a large configuration they are scattered
//! over all of its memory, so that little could go back to the kernel while the thread exists.

use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot::{self, Receiver};

use crate::error::Error;

/// Runs `work` on a new thread. The receiver gets the result, and fails after a panic. Work whose
/// receiver was dropped goes on.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(JoinHandle<()>, Receiver<T>), Error> {
    let (done, result) = oneshot::channel();
    let thread = Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(done.send(work())))
        .map_err(|error| Error::start("cannot start a thread", error, ""))?;
    Ok((thread, result))
}
