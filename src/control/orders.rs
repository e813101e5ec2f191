//! Connects ACME with the workers: which certificates are ordered, and what becomes of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

pub(super) use super::acme::Settings;
use super::acme::{Acme, ChallengeKind, Challenges, Change, Clock, Event, Names};
use crate::config::{Challenge, Config, HostName, TlsAction, TlsRule};
use crate::error::Error;
use crate::front::{self, Origin};
use crate::proto::tls::{Identity, Server};
use crate::worker::Command;

/// How long workers may take to answer new challenges. They read commands once a tick.
const PUBLISH: Duration = Duration::from_secs(5);
/// The time between two looks whether they do.
const PUBLISH_CHECK: Duration = Duration::from_millis(20);

/// The certificates that come by ACME: a task that orders and renews them.
pub(super) struct Orders {
    settings: Option<Settings>,
    /// The certificates of what is ordered, as far as there are any.
    issued: Arc<Issued>,
    /// `None` if nothing was ordered yet. It waits while nothing is.
    task: Option<Task>,
}

/// Certificates with their origins.
pub(super) struct Issued(watch::Sender<Vec<(Origin, Identity)>>);

/// A task that orders from one directory. Dropping it ends what it does.
struct Task {
    /// Those that it was started with.
    settings: Settings,
    changes: mpsc::UnboundedSender<Change>,
    workers: Vec<Sender<Command>>,
    handle: AbortHandle,
}

/// What a configuration orders, with its storage open.
pub(super) struct Opened {
    settings: Option<Settings>,
    /// `None` if nothing is ordered, or if it is what is ordered at present.
    acme: Option<Acme>,
}

impl Orders {
    /// Opens the storage of `[acme]`, unless it orders the same as `before`. Blocks while files are
    /// read.
    ///
    /// # Errors
    /// The storage cannot be used, or names cannot share a certificate.
    pub(super) fn open(config: &Config, before: Option<&Settings>) -> Result<Opened, Error> {
        let settings = settings(config)?;
        let acme = match &settings {
            Some(settings) if Some(settings) != before => Some(Acme::open(settings.clone())?),
            _ => None,
        };
        Ok(Opened { settings, acme })
    }

    /// Begins with nothing.
    pub(super) fn none() -> Orders {
        Orders { settings: None, issued: Arc::default(), task: None }
    }

    /// The certificates that have come by ACME.
    pub(super) fn issued(&self) -> Arc<Issued> {
        Arc::clone(&self.issued)
    }

    /// What is ordered at present.
    pub(super) fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Orders by another configuration from now on. Orders of names that stay go on, unless the
    /// directory or the storage is another one. Returns the certificates that there are.
    pub(super) fn commit(
        &mut self,
        opened: Opened,
        workers: Vec<Sender<Command>>,
    ) -> Vec<(Origin, Identity)> {
        let Opened { settings, acme } = opened;
        if self.settings != settings {
            self.settings = settings;
            let has_other_place = |task: &mut Task| {
                acme.as_ref().is_some_and(|acme| !acme.settings().have_place_of(&task.settings))
            };
            if self.task.take_if(has_other_place).is_some() {
                // What the task has sent and was not received is of the other place.
                self.issued = Arc::default();
            }
            self.issued.change(acme.as_ref());
            match (&self.task, acme) {
                // Fails only if the task has panicked.
                (Some(task), acme) => drop(task.changes.send(to_change(acme))),
                (None, Some(acme)) => {
                    self.task = Some(Task::start(acme, Arc::clone(&self.issued), workers));
                }
                (None, None) => {}
            }
        }
        self.issued.0.borrow().clone()
    }
}

fn to_change(acme: Option<Acme>) -> Change {
    acme.map_or(Change::Nothing, |acme| Change::To(Box::new(acme)))
}

impl Task {
    fn start(acme: Acme, issued: Arc<Issued>, workers: Vec<Sender<Command>>) -> Task {
        let settings = acme.settings().clone();
        let (sender, changes) = mpsc::unbounded_channel();
        let handle = tokio::spawn(follow(acme, changes, issued, workers.clone())).abort_handle();
        Task { settings, changes: sender, workers, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
        // Those of an attempt that ends with the task.
        tell(&self.workers, &withdrawal());
    }
}

/// What a configuration orders. `None` if no rule uses ACME.
fn settings(config: &Config) -> Result<Option<Settings>, Error> {
    let Some(acme) = &config.acme else { return Ok(None) };
    let mut orders = Vec::new();
    let mut seen = HashSet::new();
    for rule in config.listeners.iter().flat_map(|listener| listener.tls_rules()) {
        // Rules with the same names share a certificate.
        let is_ordered = matches!(&rule.action, TlsAction::End(end) if end.acme);
        if is_ordered && seen.insert(rule.exact_names()) {
            orders.push(names(rule)?);
        }
    }
    if orders.is_empty() {
        return Ok(None);
    }
    Ok(Some(Settings {
        directory: acme.directory.clone(),
        contacts: acme.contact.clone(),
        storage: acme.storage.clone(),
        challenge: match acme.challenge {
            Challenge::Http01 => ChallengeKind::Http01,
            Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        },
        authorities: acme.ca.as_ref().map(|ca| ca.path.clone()),
        orders,
        clock: Clock::default(),
    }))
}

/// The names of a rule, in its order.
fn names(rule: &TlsRule) -> Result<Names, Error> {
    let names = rule.names.iter().filter_map(|name| match name {
        HostName::Exact(name) => Some(name),
        HostName::Suffix(_) | HostName::Prefix(_) => None,
    });
    Names::new(names).map_err(|error| {
        let what = format!("cannot order a certificate for {}", rule.name);
        Error::start(what, error, "a rule with `acme` has 1 to 100 exact DNS names")
    })
}

/// Orders and renews certificates, and sends workers what they need for it.
async fn follow(
    acme: Acme,
    changes: mpsc::UnboundedReceiver<Change>,
    issued: Arc<Issued>,
    workers: Vec<Sender<Command>>,
) {
    let (sender, mut events) = mpsc::channel(4);
    let run = acme.run(sender, changes);
    let receive = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Issued { names, identity } => {
                    let origin = origin(&names);
                    issued.add(&origin, &identity);
                    tell(&workers, &Command::Certificate { origin, identity });
                }
                Event::Challenges { challenges, published } => {
                    // Without an answer the authority is not asked, and the attempt fails.
                    if publish(&challenges, &workers).await {
                        let _ = published.send(());
                    }
                }
            }
        }
    };
    tokio::join!(run, receive);
}

impl Default for Issued {
    fn default() -> Issued {
        Issued(watch::Sender::new(Vec::new()))
    }
}

impl Issued {
    /// All of them at present.
    pub(super) fn all(&self) -> Vec<(Origin, Identity)> {
        self.0.borrow().clone()
    }

    fn add(&self, origin: &Origin, identity: &Identity) {
        self.0.send_modify(|all| {
            all.retain(|(other, _)| other != origin);
            all.push((origin.clone(), identity.clone()));
        });
    }

    /// Keeps those of what is ordered from now on, and adds the stored ones that are newer: another
    /// process may have stored them.
    fn change(&self, acme: Option<&Acme>) {
        self.0.send_modify(|all| {
            let mut used: HashMap<_, _> = all.drain(..).collect();
            let Some(acme) = acme else { return };
            let mut stored: HashMap<_, _> =
                acme.certificates().map(|(names, identity)| (origin(names), identity)).collect();
            for origin in acme.settings().orders.iter().map(origin) {
                let (used, stored) = (used.remove(&origin), stored.remove(&origin).cloned());
                // The used one goes last, because of equal ones the last is taken.
                let both = [stored, used].into_iter().flatten();
                let newest = both.max_by_key(Identity::not_before);
                all.extend(newest.map(|identity| (origin, identity)));
            }
        });
    }
}

/// Sends challenges to all workers, and waits until each answers them. Returns false if one does
/// not in time.
async fn publish(challenges: &Challenges, workers: &[Sender<Command>]) -> bool {
    let published = Arc::new(AtomicUsize::new(0));
    let challenges = Arc::new(for_workers(challenges));
    tell(workers, &Command::Challenges { challenges, published: Arc::clone(&published) });
    let begun = Instant::now();
    while published.load(Ordering::Acquire) < workers.len() {
        // A worker that has ended does not answer: then the process is ending, too.
        if begun.elapsed() >= PUBLISH {
            return false;
        }
        sleep(PUBLISH_CHECK).await;
    }
    true
}

/// Without challenges the workers answer as ever.
fn withdrawal() -> Command {
    Command::Challenges { challenges: Arc::default(), published: Arc::default() }
}

/// What a worker needs to answer challenges.
fn for_workers(challenges: &Challenges) -> front::Challenges {
    let http = challenges.http.iter();
    let tls = challenges.tls.iter().filter_map(|(name, identity)| {
        // rustls takes every identity that was read.
        Some((name.to_string(), Server::for_challenge(identity).ok()?))
    });
    front::Challenges {
        http: http.map(|(token, body)| (token.to_string(), Arc::from(body.as_bytes()))).collect(),
        tls: tls.collect(),
    }
}

fn origin(names: &Names) -> Origin {
    let mut sorted: Vec<String> = names.iter().map(str::to_owned).collect();
    sorted.sort_unstable();
    Origin::Acme(sorted.into())
}

fn tell(workers: &[Sender<Command>], command: &Command) {
    for worker in workers {
        // A worker that has ended needs nothing.
        let _ = worker.send(command.clone());
    }
}
