//! Connects ACME with the workers: which certificates are ordered, and what becomes of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

pub(super) use super::acme::Settings;
use super::acme::{Acme, ChallengeKind, Challenges, Clock, Event, Names};
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
    issued: watch::Receiver<Vec<(Origin, Identity)>>,
    /// `None` if none is ordered.
    task: Option<AbortHandle>,
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
        Orders { settings: None, issued: watch::channel(Vec::new()).1, task: None }
    }

    /// What is ordered at present.
    pub(super) fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Orders by another configuration from now on. Returns the certificates that there are.
    pub(super) fn commit(
        &mut self,
        opened: Opened,
        workers: Vec<Sender<Command>>,
    ) -> Vec<(Origin, Identity)> {
        let Opened { settings, acme } = opened;
        if self.settings != settings {
            self.settings = settings;
            let stored = acme.iter().flat_map(Acme::certificates);
            let stored = stored.map(|(names, identity)| (origin(names), identity.clone()));
            let (sender, issued) = watch::channel(stored.collect());
            self.issued = issued;
            let task = acme.map(|acme| tokio::spawn(follow(acme, sender, workers)).abort_handle());
            if let Some(before) = std::mem::replace(&mut self.task, task) {
                before.abort();
            }
        }
        self.issued.borrow().clone()
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
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
    issued: watch::Sender<Vec<(Origin, Identity)>>,
    workers: Vec<Sender<Command>>,
) {
    let (sender, mut events) = mpsc::channel(4);
    let run = acme.run(sender);
    let receive = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Issued { names, identity } => {
                    let origin = origin(&names);
                    issued.send_modify(|all| {
                        all.retain(|(other, _)| *other != origin);
                        all.push((origin.clone(), identity.clone()));
                    });
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
