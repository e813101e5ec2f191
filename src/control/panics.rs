//! What a panic does. One in the task of a connection, a stream of HTTP/2 or a UDP session has
//! ended that task ([`spawn_isolated`](sched::spawn_isolated)): it is logged and counted. Any other
//! one ends the process: the listening sockets of a worker that has died would still get their
//! share of the clients.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::field::display;

use super::logging::ENDING;
use crate::observe::diagnostics::Diagnostics;
use crate::sched;

/// What an operator can do about the end of the process.
const ADVICE: &str = "this is an error of ringgate: report it with this line. Let the service \
                      manager start it again (Restart=on-failure in a systemd unit)";

/// Panics that were caught.
static CAUGHT: LazyLock<Caught> = LazyLock::new(|| Caught {
    begun: Instant::now(),
    count: AtomicU64::new(0),
    logged: AtomicU64::new(0),
    last_second: AtomicU64::new(0),
});

struct Caught {
    begun: Instant,
    count: AtomicU64,
    /// Those that a line has counted.
    logged: AtomicU64,
    /// The second after `begun` in which the last line was logged, counted from 1.
    last_second: AtomicU64,
}

impl Caught {
    /// Counts a panic. Returns how many there were so far if there was no line in this second.
    fn note(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let second = self.begun.elapsed().as_secs() + 1;
        let is_first = self.last_second.swap(second, Ordering::Relaxed) != second;
        is_first.then(|| {
            self.logged.store(count, Ordering::Relaxed);
            count
        })
    }

    /// How many there were so far, if no line has counted the last of them.
    fn rest(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Relaxed);
        (self.logged.swap(count, Ordering::Relaxed) != count).then_some(count)
    }
}

/// Makes panics be reported as diagnostics. The standard hook writes to stderr itself, so a worker
/// could wait for stderr and not end.
pub(super) fn install_hook(diagnostics: Diagnostics) {
    LazyLock::force(&CAUGHT);
    std::panic::set_hook(Box::new(move |panic| {
        if sched::begin_panic() {
            if let Some(panics) = CAUGHT.note() {
                report(&diagnostics, panic, Some(panics));
            }
            return;
        }
        report(&diagnostics, panic, None);
        diagnostics.flush();
        std::process::abort();
    }));
}

/// Logs how many panics were caught since the last line about one. Called once a second.
pub(super) fn report_rest() {
    if let Some(panics) = CAUGHT.rest() {
        tracing::error!(panics, "more connections were ended by panics");
    }
}

/// Reports a panic. `caught` is how many were caught so far, if this one is.
fn report(diagnostics: &Diagnostics, panic: &PanicHookInfo<'_>, caught: Option<u64>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message =
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let current = std::thread::current();
    let thread = current.name().unwrap_or_default();
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(display);
    // False if the panic happened while an event was being made.
    let can_log = tracing::enabled!(target: ENDING, tracing::Level::ERROR);
    if !can_log {
        let text = format!("{thread} panicked at {location}: {message}\n");
        let _ = (&**diagnostics.queue()).write_all(text.as_bytes());
    } else if let Some(panics) = caught {
        tracing::error!(
            %thread, %location, panic = %message, panics, backtrace,
            "a panic has ended a connection"
        );
    } else {
        tracing::error!(
            target: ENDING,
            %thread, %location, panic = %message, advice = ADVICE, backtrace,
            "panicked: the process ends"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_counted_and_logged_once_a_second() {
        let caught = Caught {
            begun: Instant::now(),
            count: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            last_second: AtomicU64::new(0),
        };
        let lines: Vec<u64> = (0..1000).filter_map(|_| caught.note()).collect();
        // More than one where the test takes more than a second.
        assert_eq!(lines[0], 1);
        assert!(lines.len() as u64 <= caught.begun.elapsed().as_secs() + 1, "{lines:?}");
        let is_logged = lines.last() == Some(&1000);
        assert_eq!((caught.rest(), caught.rest()), ((!is_logged).then_some(1000), None));
    }
}
