//! Sends notifications to the service manager, one after the other, from a task of its own. A
//! manager that does not read them stops this task and nothing else.

use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::sleep;

use super::store::{Change, Store, Stored};
use super::wanted::{Notice, Wanted};
use crate::sys::{Errno, send_with_descriptor};

/// The pause when too many descriptors of this user are on their way (ETOOMANYREFS, unix(7)).
const PAUSE: Duration = Duration::from_millis(10);
/// When a manager that could not be reached is tried again, unless there is something new before.
const RETRY: Duration = Duration::from_secs(10);

/// The task's state: what the manager has been sent.
pub(super) struct Notifier {
    address: SocketAddr,
    store: Store,
    /// What is left of the last change of the store.
    change: Change,
    /// The version that it leads to; `None` if it must be made anew.
    planned: Option<u64>,
    knows_inherited: bool,
    beats: u64,
    /// The last question.
    asked: u64,
    /// The answer to it, which is the end of a pipe.
    answer: Option<pipe::Receiver>,
    progress: watch::Sender<Progress>,
    /// Nothing is sent until there is something new, or [`RETRY`] is over.
    pauses: bool,
    has_failed: bool,
    has_said_beyond: bool,
}

/// How far the manager is.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// The number of the last notification that was sent.
    pub(super) notice: u64,
    /// The last question that was answered, or that has no answer.
    pub(super) answered: u64,
}

impl Progress {
    /// Whether the manager has got this notification and this question.
    pub(super) fn is_at(&self, notice: u64, asked: u64) -> bool {
        self.notice >= notice && self.answered >= asked
    }
}

/// One datagram.
enum Step {
    Remove(String),
    Add(Arc<Stored>),
    Notice(Notice),
    Beat(u64),
    /// The manager closes the descriptor of this when it has handled everything before.
    Ask(u64),
}

/// The address of the manager's socket.
///
/// # Errors
/// It is no Unix socket.
pub(super) fn address_of(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it is no Unix socket")),
    }
}

impl Notifier {
    /// `progress` gets how far the manager is.
    pub(super) fn new(
        address: SocketAddr,
        store: Store,
        progress: watch::Sender<Progress>,
    ) -> Notifier {
        Notifier {
            address,
            store,
            change: Change::default(),
            planned: None,
            knows_inherited: false,
            beats: 0,
            asked: 0,
            answer: None,
            progress,
            pauses: false,
            has_failed: false,
            has_said_beyond: false,
        }
    }

    /// Brings the manager to what it is to know, until the last sender is dropped.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        loop {
            let step = self.next(&wanted.borrow_and_update());
            // A step that waits is given up when there is something new: it may hold a socket that
            // is to be closed.
            let has_changed = match step {
                Some(step) => tokio::select! {
                    biased;
                    sent = send(&self.address, &step) => {
                        match sent {
                            Ok(answer) => self.note(step, answer),
                            Err(error) => self.pause(&error, wanted.borrow().asked),
                        }
                        continue;
                    }
                    changed = wanted.changed() => {
                        self.planned = None;
                        changed
                    }
                },
                None => tokio::select! {
                    changed = wanted.changed() => changed,
                    () = end_of(self.answer.as_ref()) => {
                        self.answer = None;
                        self.progress.send_modify(|progress| progress.answered = self.asked);
                        continue;
                    }
                    () = sleep(RETRY), if self.pauses => Ok(()),
                },
            };
            if has_changed.is_err() {
                return;
            }
            self.pauses = false;
        }
    }

    /// What to send next. READY=1 comes behind the sockets that the process has then.
    fn next(&mut self, wanted: &Wanted) -> Option<Step> {
        if self.pauses {
            return None;
        }
        if self.planned != Some(wanted.store_version) {
            self.plan(wanted);
        }
        if let Some(name) = self.change.remove.pop() {
            return Some(Step::Remove(name));
        }
        if let Some(stored) = self.change.add.pop() {
            return Some(Step::Add(stored));
        }
        if let Some(notice) = wanted.notice_after(self.progress.borrow().notice) {
            return Some(Step::Notice(notice.clone()));
        }
        if self.beats != wanted.beats && !wanted.has_resigned {
            return Some(Step::Beat(wanted.beats));
        }
        (self.asked != wanted.asked).then_some(Step::Ask(wanted.asked))
    }

    /// Plans how the store is to change. It stays once another process is the main one.
    fn plan(&mut self, wanted: &Wanted) {
        self.planned = Some(wanted.store_version);
        self.change = Change::default();
        if wanted.store_version == 0 || wanted.has_resigned {
            return;
        }
        if !self.knows_inherited {
            self.knows_inherited = true;
            self.store.learn(&wanted.bound_by_manager, &wanted.inherited);
        }
        self.change = self.store.change_to(&wanted.store);
        if self.change.beyond > 0 && !self.has_said_beyond {
            self.has_said_beyond = true;
            tracing::warn!(
                sockets = self.change.beyond,
                "the service manager stores no more sockets: the others are closed if the process \
                 is killed. Raise FileDescriptorStoreMax= of its unit"
            );
        }
    }

    /// Notes what was sent. `answer` is that to a question.
    fn note(&mut self, step: Step, answer: Option<pipe::Receiver>) {
        if std::mem::take(&mut self.has_failed) {
            tracing::info!("the service manager can be notified again");
        }
        match step {
            Step::Remove(name) => self.store.is_removed(&name),
            Step::Add(stored) => self.store.is_added(stored.name.clone()),
            Step::Notice(notice) => {
                self.progress.send_modify(|progress| progress.notice = notice.number);
            }
            Step::Beat(beats) => self.beats = beats,
            Step::Ask(question) => {
                self.asked = question;
                self.answer = answer;
            }
        }
    }

    /// Notes that the manager cannot be reached. So it does not answer, and what it stores is
    /// unknown. What could not be sent is sent later.
    fn pause(&mut self, error: &io::Error, asked: u64) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(%error, "cannot notify the service manager");
        }
        self.pauses = true;
        self.store.is_uncertain();
        self.planned = None;
        self.asked = asked;
        self.answer = None;
        self.progress.send_modify(|progress| progress.answered = asked);
    }
}

/// Sends a datagram. Waits while the manager has too many that it has not read; may be dropped
/// then. Returns the end of a pipe whose other end comes with a question.
async fn send(address: &SocketAddr, step: &Step) -> io::Result<Option<pipe::Receiver>> {
    let text = match step {
        Step::Remove(name) => format!("FDSTOREREMOVE=1\nFDNAME={name}"),
        Step::Add(stored) => {
            // Without FDPOLL=0 a socket that reports an error would be removed.
            let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", stored.name);
            return send_datagram(address, &text, Some(stored.socket.as_fd())).await.map(|()| None);
        }
        Step::Notice(notice) => notice.text.clone(),
        Step::Beat(_) => "WATCHDOG=1".to_owned(),
        Step::Ask(_) => {
            let (theirs, ours) = pipe::pipe()?;
            send_datagram(address, "BARRIER=1", Some(theirs.as_fd())).await?;
            return Ok(Some(ours));
        }
    };
    send_datagram(address, &text, None).await.map(|()| None)
}

async fn send_datagram(
    address: &SocketAddr,
    text: &str,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // A new socket for each: the manager may have a new one under the same address.
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(address)?;
    socket.set_nonblocking(true)?;
    let socket = UnixDatagram::from_std(socket)?;
    let send = || send_with_descriptor(&socket, text.as_bytes(), descriptor);
    loop {
        match socket.async_io(Interest::WRITABLE, || Ok(send()?)).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) => {
                sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Waits until a pipe has no other end. Never returns if there is no pipe.
async fn end_of(pipe: Option<&pipe::Receiver>) {
    let Some(pipe) = pipe else { return pending().await };
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let path = address_of(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        let name = address_of(OsStr::new("@notify")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"notify"[..]));
        assert!(address_of(OsStr::new("vsock:2:1")).is_err());
        assert!(address_of(OsStr::new("notify")).is_err());
    }
}
