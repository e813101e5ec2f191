//! The predecessor's side of a take-over.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command as Program, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::link::{Offer, Packets};
use super::reports::Reporter;
use super::{ABORT, ACCEPTING, GO, HELLO, LISTENING, READY, RESIGNED, VARIABLE, VERSION};
use crate::control::dns::Known;
use crate::control::manager::{Manager, OWN_VARIABLES};
use crate::control::roster::Steered;
use crate::control::sockets::{HandedOver, Sockets};
use crate::proto::tls::TicketKeys;
use crate::sys::{self, Peer};
use crate::worker::Command;

/// The most names of a packet. With each at its longest it has 50 KB.
const NAMES_OF_A_PACKET: usize = 10;
/// How long the successor may take until it is ready. It resolves names meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the workers of this process may take to stop, which they do within a tick.
const PAUSED_WITHIN: Duration = Duration::from_secs(5);
/// How long the successor may take from then on until it accepts. Clients wait.
const ACCEPTING_WITHIN: Duration = Duration::from_secs(5);
/// How long a successor that has got SIGKILL may take to end, which it does at once.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// How long the kernel may take to cancel what a process has had in its rings, after its end. On a
/// machine that is not busy it takes some milliseconds.
const RINGS_GONE: Duration = Duration::from_secs(1);
/// The pause between two checks whether the workers have stopped, or the successor has ended.
const CHECK: Duration = Duration::from_millis(1);

/// Why a take-over has failed. Nothing has changed then.
#[derive(Debug)]
pub(in crate::control) enum Failure {
    /// The program, with this name, cannot be started.
    Start(OsString, io::Error),
    /// The successor has ended before this.
    Ended(&'static str),
    /// The program has ended with this status, and has not become a successor.
    NoSuccessor(ExitStatus),
    /// The successor was not ready in time.
    NotReady,
    /// The successor did not accept in time.
    NotAccepting,
    /// The successor has sent something else.
    Unexpected,
    /// The sockets cannot be sent.
    Send(io::Error),
    /// The workers of this process did not stop in time.
    Workers,
    /// This process was asked to end.
    GivenUp,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Start(program, error) => {
                write!(f, "the program {} cannot be started: {error}", program.display())
            }
            Failure::Ended(before) => {
                write!(f, "the successor has ended before {before}; its own diagnostics say why")
            }
            Failure::NoSuccessor(status) => {
                write!(f, "the program has ended before its first packet ({status})")
            }
            Failure::NotReady => f.write_str("the successor was not ready in time"),
            Failure::NotAccepting => f.write_str("the successor did not accept in time"),
            Failure::Unexpected => f.write_str("the successor has sent an unknown packet"),
            Failure::Send(error) => write!(f, "the sockets cannot be sent: {error}"),
            Failure::Workers => f.write_str("the workers of this process did not stop in time"),
            Failure::GivenUp => f.write_str("this process ends"),
        }
    }
}

/// The process that has taken over.
pub(in crate::control) struct Taken {
    pub(in crate::control) successor: u32,
    /// Tells it what this process counts. `None` if it is of a version that does not listen.
    pub(in crate::control) reporter: Option<Reporter>,
}

/// A take-over in progress. Dropping it kills the successor, and the workers go on.
pub(in crate::control) struct Attempt {
    task: JoinHandle<Result<Taken, Failure>>,
    /// Dropped to give up.
    give_up: Option<oneshot::Sender<()>>,
}

impl Attempt {
    /// Starts the program of this process again with the same arguments, and gives it the sockets.
    /// Must be called on the runtime.
    pub(in crate::control) fn start(
        sockets: &Sockets,
        known: Knowledge,
        ticket_keys: Option<&TicketKeys>,
        workers: Vec<Sender<Command>>,
        manager: Manager,
    ) -> Attempt {
        let first = Offer {
            version: VERSION,
            more: true,
            reports: true,
            foreign_paths: sockets.foreign_paths(),
            ticket_keys: ticket_keys.map(TicketKeys::to_text).unwrap_or_default(),
            ..Offer::default()
        };
        let (give_up, given_up) = oneshot::channel();
        let handed = Handed { sockets: sockets.to_hand_over(), known };
        let task = tokio::spawn(take_over(handed, first, workers, manager, given_up));
        Attempt { task, give_up: Some(give_up) }
    }

    /// Waits for the end of the take-over, and returns the process that has taken over. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// The take-over has failed. The successor is gone, and the workers go on.
    pub(in crate::control) async fn result(&mut self) -> Result<Taken, Failure> {
        // An error of the task is a panic, after which its guard has killed the successor.
        (&mut self.task).await.unwrap_or(Err(Failure::Unexpected))
    }

    /// Kills the successor, and lets the workers go on; unless it has taken over already: then
    /// returns it.
    pub(in crate::control) async fn give_up(mut self) -> Option<Taken> {
        // The task is not aborted: it may have its result already. Dropping the sender asks it.
        drop(self.give_up.take());
        self.result().await.ok()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a process knows beside its configuration.
pub(in crate::control) struct Knowledge {
    /// The last answers about names.
    pub(in crate::control) names: Vec<Known>,
    /// What operators have changed of clusters, in parts.
    pub(in crate::control) steered: Vec<(String, Steered)>,
}

/// What a successor gets.
struct Handed {
    sockets: Vec<HandedOver>,
    known: Knowledge,
}

async fn take_over(
    handed: Handed,
    first: Offer,
    workers: Vec<Sender<Command>>,
    manager: Manager,
    given_up: oneshot::Receiver<()>,
) -> Result<Taken, Failure> {
    let mut successor = Successor::start(workers)?;
    let result = tokio::select! {
        biased;
        accepts = hand_over(&mut successor, handed, first, &manager) => accepts,
        _ = given_up => Err(Failure::GivenUp),
    };
    let listens = match result {
        Ok(listens) => listens,
        Err(failure) => {
            successor.abandon().await;
            return Err(failure);
        }
    };
    // It accepts, so that it must not be killed any more. The manager listens to the main process
    // of the service alone, so the successor tells it nothing before the packets have ended.
    manager.main_pid(successor.id());
    manager.flush().await;
    let packets = Arc::clone(&successor.packets);
    let id = successor.keep();
    // The end of the packets says the same to a successor that does not listen.
    let reporter = listens.then(|| {
        packets.try_send(RESIGNED);
        Reporter::new(packets)
    });
    Ok(Taken { successor: id, reporter })
}

/// Gives a successor all sockets, and waits until it accepts. Returns true if it listens to what
/// this process counts from then on.
async fn hand_over(
    successor: &mut Successor,
    handed: Handed,
    first: Offer,
    manager: &Manager,
) -> Result<bool, Failure> {
    // 1. All sockets, and what is known.
    let ready = async {
        successor.introduced().await?;
        offer(&successor.packets, handed, first, manager).await?;
        expect(&successor.packets, &[READY], "it was ready").await
    };
    timeout(READY_WITHIN, ready).await.map_err(|_| Failure::NotReady)??;
    // 2. Stop, so that only one of the two accepts.
    timeout(PAUSED_WITHIN, successor.pause_workers()).await.map_err(|_| Failure::Workers)?;
    // 3. Its turn.
    let accepting = async {
        // An error means that it has ended, which the next receive says, too.
        let _ = successor.packets.send(GO, &[]).await;
        expect(&successor.packets, &[ACCEPTING, LISTENING], "it accepted").await
    };
    let said = timeout(ACCEPTING_WITHIN, accepting).await.map_err(|_| Failure::NotAccepting)??;
    Ok(said == LISTENING)
}

/// Sends all sockets, and what the first packet has beside them.
async fn offer(
    packets: &Packets,
    handed: Handed,
    mut offer: Offer,
    manager: &Manager,
) -> Result<(), Failure> {
    let Handed { sockets, known: Knowledge { mut names, steered } } = handed;
    for part in steered {
        let steered = vec![part];
        let offer = Offer { version: VERSION, more: true, steered, ..Offer::default() };
        send(packets, &offer, &[]).await?;
    }
    while !names.is_empty() {
        let rest = names.split_off(names.len().min(NAMES_OF_A_PACKET));
        let names = std::mem::replace(&mut names, rest);
        let offer = Offer { version: VERSION, more: true, names, ..Offer::default() };
        send(packets, &offer, &[]).await?;
    }
    let mut rest = &sockets[..];
    loop {
        let (now, later) = rest.split_at(rest.len().min(sys::MAX_DESCRIPTORS));
        rest = later;
        offer.more = !rest.is_empty();
        offer.chosen = now.iter().filter_map(|handed| handed.chosen.clone()).collect();
        offer.chosen.dedup();
        offer.bound_by_manager = manager.bound_by_manager(now);
        let descriptors: Vec<BorrowedFd<'_>> = now.iter().map(HandedOver::as_fd).collect();
        send(packets, &offer, &descriptors).await?;
        if rest.is_empty() {
            return Ok(());
        }
        offer = Offer { version: VERSION, ..Offer::default() };
    }
}

async fn send(
    packets: &Packets,
    offer: &Offer,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    let bytes = serde_json::to_vec(offer).map_err(|error| Failure::Send(error.into()))?;
    packets.send(&bytes, descriptors).await.map_err(|error| match error.kind() {
        // A reset means that it has left packets unread.
        BrokenPipe | ConnectionReset => Failure::Ended("it had the sockets"),
        _ => Failure::Send(error),
    })
}

/// Waits for one of these packets, and returns it. `before` is what it says.
async fn expect(
    packets: &Packets,
    wanted: &[&[u8]],
    before: &'static str,
) -> Result<Vec<u8>, Failure> {
    match packets.receive().await {
        Ok((bytes, _)) if wanted.contains(&&*bytes) => Ok(bytes),
        Ok(_) => Err(Failure::Unexpected),
        Err(_) => Err(Failure::Ended(before)),
    }
}

/// The process of the successor. Dropping it kills the process, and the workers of this one go on.
struct Successor {
    /// What was started: the program, or a wrapper of it. As a rule it has ended when the successor
    /// says `hello`. `None` once the successor has taken over.
    started: Option<Child>,
    /// The successor. `None` until it says `hello`, and if its id is not known.
    process: Option<Peer>,
    packets: Arc<Packets>,
    workers: Vec<Sender<Command>>,
    has_paused: bool,
}

impl Successor {
    fn start(workers: Vec<Sender<Command>>) -> Result<Successor, Failure> {
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_default();
        let arguments = arguments.collect();
        Successor::run(&program, arguments, workers).map_err(|error| Failure::Start(program, error))
    }

    fn run(
        program: &OsStr,
        arguments: Vec<OsString>,
        workers: Vec<Sender<Command>>,
    ) -> io::Result<Successor> {
        let (ours, theirs) = sys::packet_pair()?;
        sys::name_sender(&ours, true)?;
        let mut command = Program::new(program);
        command.args(arguments).env(VARIABLE, sys::number_of(&theirs).to_string());
        // Where /proc is not mounted this process still has them.
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        sys::inherits_only(&mut command, &theirs);
        let packets = Arc::new(Packets::new(ours)?);
        let started = Some(command.spawn()?);
        // From here on only the child has its end: when it ends, the packets do.
        drop(theirs);
        Ok(Successor { started, process: None, packets, workers, has_paused: false })
    }

    /// Waits until the successor says that it is there.
    async fn introduced(&mut self) -> Result<(), Failure> {
        match self.packets.receive_first().await {
            Ok((bytes, process)) if bytes == HELLO => {
                self.process = process;
                Ok(())
            }
            Ok(_) => Err(Failure::Unexpected),
            Err(_) => Err(self.never_there().await),
        }
    }

    /// Why there is no successor. The program has closed the packets, as a rule by its end.
    async fn never_there(&mut self) -> Failure {
        let began = Instant::now();
        while let (Some(started), true) = (&mut self.started, began.elapsed() < KILLED_WITHIN) {
            match started.try_wait() {
                Ok(Some(status)) => return Failure::NoSuccessor(status),
                Ok(None) => sleep(CHECK).await,
                Err(_) => break,
            }
        }
        Failure::Ended("its first packet")
    }

    /// Makes the workers of this process stop to accept and to receive.
    async fn pause_workers(&mut self) {
        self.has_paused = true;
        let paused = Arc::new(AtomicUsize::new(0));
        tell(&self.workers, &Command::Pause(Arc::clone(&paused)));
        while paused.load(Ordering::Acquire) < self.workers.len() {
            sleep(CHECK).await;
        }
    }

    /// The id of its process.
    fn id(&self) -> u32 {
        let started = self.started.as_ref().map_or(0, Child::id);
        self.process.as_ref().map_or(started, Peer::id)
    }

    /// Lets the process go on, and returns its id.
    fn keep(mut self) -> u32 {
        let id = self.id();
        self.started.take().into_iter().for_each(reap);
        id
    }

    /// Kills the process, and lets the workers of this one go on.
    async fn abandon(self) {
        let (workers, has_paused) = (self.workers.clone(), self.has_paused);
        drop(self);
        if has_paused {
            // An accept of the successor that is not cancelled yet can be the only one that the
            // kernel wakes for a connection, which waits then. Another accept finds it.
            sleep(RINGS_GONE).await;
            tell(&workers, &Command::Pause(Arc::default()));
            tell(&workers, &Command::Resume);
        }
    }
}

fn tell(workers: &[Sender<Command>], command: &Command) {
    for worker in workers {
        // An error means that the worker has ended.
        let _ = worker.send(command.clone());
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let Some(mut started) = self.started.take() else { return };
        // A successor that cannot be killed, because it is of another user, ends by this packet,
        // and so does one that has not said `hello` yet.
        self.packets.try_send(ABORT);
        // A wrapper may still run.
        let _ = started.kill();
        let deadline = Instant::now() + KILLED_WITHIN;
        if let Some(process) = &self.process {
            process.kill(&self.packets);
            // So that it accepts nothing any more when the workers do.
            process.wait(&self.packets, KILLED_WITHIN);
        }
        while matches!(started.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::park_timeout(CHECK);
        }
        reap(started);
        if self.has_paused {
            tell(&self.workers, &Command::Resume);
        }
    }
}

/// Waits for the end of a process, in a thread of its own unless it has ended, because this one may
/// drain for days.
fn reap(mut child: Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let wait = move || drop(child.wait());
    // Without a thread the process becomes a zombie when it ends, until this one does.
    drop(thread::Builder::new().name("successor".to_owned()).spawn(wait));
}
