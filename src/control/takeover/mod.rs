//! Take-over: a running process starts its program again and gives the new process its sockets. The
//! first is called the predecessor, the second the successor.
//!
//! Both have the same sockets, and with them one O_NONBLOCK flag and one accept queue, so they
//! never accept at the same time:
//!
//! 1. The predecessor starts its program. What is started forks and ends, so that the successor is
//!    a child of the service manager and not of the predecessor: systemd waits for the end of its
//!    own children only. The successor sends `hello`, with which the kernel gives its id.
//! 2. The predecessor sends all sockets, and what it knows of names.
//! 3. The successor makes everything that can be refused, its workers, too, and sends `ready`.
//! 4. The predecessor stops to accept and to receive, and sends `go`. Clients wait in the accept
//!    queues.
//! 5. The successor's workers accept, and it sends `accepting`.
//! 6. The predecessor makes the successor the main process of the service, sends `resigned` and
//!    drains. To its end it tells the successor what it counts, so that the counters of the service
//!    go on.
//! 7. The successor changes what cannot be changed back: it takes Unix paths over, removes those
//!    that no listener has, and binds UDP sockets and listens with TCP sockets beside the
//!    inherited ones.
//!
//! If the successor ends or is late, the predecessor sends `abort`, kills it and goes on as before.
//! It may be unable to kill a process of another user. What the successor does when it receives
//! something else than it waits for:
//!
//! | it waits for | `abort` | the end of the packets | nothing |
//! | --- | --- | --- | --- |
//! | the sockets | it ends | it ends | it ends after 10 s |
//! | `go` | it ends | it accepts, because the predecessor has died | it waits |
//! | `resigned` | it ends, and leaves the paths | step 7 | step 7 after 10 s |
//!
//! An end of the packets without `abort` means that the predecessor serves no longer: it has handed
//! over or has died. If it has left packets unread, the kernel reports ECONNRESET once, before
//! what it has sent (unix_release_sock of Linux). So this error says nothing, and is skipped.

mod link;
mod predecessor;
mod reports;
mod successor;

use std::future::pending;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, kill_process};

pub(super) use predecessor::{Attempt, Knowledge, Taken};
pub(super) use reports::{Reporter, Reports};
pub(super) use successor::{Link, Offered};

use super::manager::Manager;
use super::reading::Source;
use super::serving::Serving;
use crate::sys;

/// The environment variable with the number of the successor's socket.
const VARIABLE: &str = "RINGGATE_TAKEOVER";
/// The version of the packets. A successor of another version refuses to start.
const VERSION: u32 = 3;

/// The successor is there.
const HELLO: &[u8] = b"hello";
const READY: &[u8] = b"ready";
const GO: &[u8] = b"go";
/// The predecessor goes on, so the successor must not accept.
const ABORT: &[u8] = b"abort";
const ACCEPTING: &[u8] = b"accepting";
/// As `accepting`, from a successor that listens to what the predecessor counts. Sent only to one
/// that has offered it; one that has not closes the packets in place of `resigned`.
const LISTENING: &[u8] = b"accepting and listening";
const RESIGNED: &[u8] = b"resigned";

/// The connection of a successor to its predecessor. It stays open to the end of the process,
/// unless this takes over: the predecessor kills a successor that closes it, which could have
/// something left to say then.
#[derive(Debug)]
pub struct Predecessor(ManuallyDrop<OwnedFd>);

impl Predecessor {
    /// The process that has started this one for a take-over; `None` if there is none. If there is
    /// one, the process forks, and its child returns. Must be called while it has one thread.
    pub fn of_this_process() -> Option<Predecessor> {
        let packets = sys::inherited_packet_socket(VARIABLE)?;
        sys::leave_parent();
        // An error means that the predecessor has ended, which the first receive says, too.
        let _ = sys::send_packet(&packets, HELLO, &[]);
        Some(Predecessor(ManuallyDrop::new(packets)))
    }
}

/// The take-over of this process, if one is in progress.
#[derive(Default)]
pub(super) struct TakeOver {
    attempt: Option<Attempt>,
    /// A reload was asked for meanwhile. The successor may have read its configuration before.
    must_reload: bool,
}

/// How a take-over has ended.
pub(super) enum Outcome {
    /// This process serves in place of this one.
    Succeeded(Taken),
    /// This process goes on.
    Failed {
        /// Whether it must reload now.
        must_reload: bool,
    },
}

impl TakeOver {
    /// Starts a take-over, or logs why there is none.
    ///
    /// # Errors
    /// The same reason.
    pub(super) fn start(&mut self, serving: &Serving) -> Result<(), &'static str> {
        let reason = if std::process::id() == 1 {
            "this is process 1, and its container ends with it: restart the container"
        } else if matches!(serving.source, Source::Stdin) {
            "the configuration came from standard input, which can be read only once"
        } else if self.is_in_progress() {
            "one is in progress"
        } else {
            tracing::info!("starting the successor of this process");
            self.attempt = Some(serving.attempt());
            return Ok(());
        };
        tracing::warn!(reason, "no take-over");
        Err(reason)
    }

    pub(super) fn is_in_progress(&self) -> bool {
        self.attempt.is_some()
    }

    /// Makes the process that serves after the take-over in progress reload then.
    pub(super) fn reload_later(&mut self) {
        tracing::info!("a take-over is in progress: SIGHUP has its effect after it");
        self.must_reload = true;
    }

    /// Waits until the take-over in progress has ended; logs why if it has failed. May be dropped
    /// at any time.
    pub(super) async fn ends(&mut self) -> Outcome {
        let Some(attempt) = &mut self.attempt else { return pending().await };
        let result = attempt.result().await;
        self.attempt = None;
        let must_reload = std::mem::take(&mut self.must_reload);
        match result {
            Ok(taken) => {
                if must_reload {
                    send(taken.successor, Signal::HUP);
                }
                Outcome::Succeeded(taken)
            }
            Err(reason) => {
                tracing::warn!(%reason, "the take-over has failed: this process goes on");
                Outcome::Failed { must_reload }
            }
        }
    }

    /// Gives up what is in progress. Returns the process that has taken over, if that has happened
    /// already.
    pub(super) async fn give_up(self) -> Option<Taken> {
        let attempt = self.attempt?;
        tracing::info!("the take-over in progress is given up, because this process is to end");
        let taken = attempt.give_up().await?;
        if self.must_reload {
            send(taken.successor, Signal::HUP);
        }
        Some(taken)
    }
}

/// The process that has taken over, if there is one, until a signal was passed on to it.
pub(super) struct Heir(pub(super) Option<u32>);

impl Heir {
    /// Passes a signal that asks for the end on, once, while this process is still the main one for
    /// the manager: then the service is to end. Returns false if the signal is for this process.
    pub(super) fn takes(&mut self, signal: &str, manager: &Manager) -> bool {
        let heir = self.0.take_if(|_| !manager.knows_main_process());
        heir.inspect(|&successor| pass_on(signal, successor)).is_some()
    }
}

/// Passes a signal that asks for the end on to the process that has taken over.
pub(super) fn pass_on(signal: &str, successor: u32) {
    tracing::info!(%signal, successor, "the successor serves already: the signal is passed on");
    send(successor, Signal::TERM);
}

/// Sends a signal to the process that has taken over.
fn send(successor: u32, signal: Signal) {
    let pid = i32::try_from(successor).ok().and_then(Pid::from_raw);
    // An error means that it has ended.
    let _ = pid.map(|pid| kill_process(pid, signal));
}
