//! Connects ACME with the workers: which certificates are ordered, and what becomes of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::acme::{Acme, ChallengeKind, Challenges, Clock, Event, Names, Settings};
use crate::config::{Challenge, Config, HostName, TlsAction, TlsRule};
use crate::error::Error;
use crate::front::{self, Origin};
use crate::proto::tls::{Identity, Server};
use crate::worker::Command;

/// How long workers may take to answer new challenges. They read commands once a tick.
const PUBLISH: Duration = Duration::from_secs(5);
/// The time between two looks whether they do.
const PUBLISH_CHECK: Duration = Duration::from_millis(20);

/// Opens the storage of `[acme]`. `None` if no rule uses it. Blocks while files are read.
///
/// # Errors
/// The storage cannot be used, or names cannot share a certificate.
pub(super) fn open(config: &Config) -> Result<Option<Acme>, Error> {
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
    Acme::open(Settings {
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
    })
    .map(Some)
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

/// Sends workers the certificates that are stored. They find the commands when they start.
pub(super) fn send_stored(acme: &Acme, workers: &[Sender<Command>]) {
    for (names, identity) in acme.certificates() {
        tell(workers, &certificate(names, identity.clone()));
    }
}

/// Orders and renews certificates, and sends workers what they need for it.
pub(super) async fn follow(acme: Acme, workers: Vec<Sender<Command>>) {
    let (sender, mut events) = mpsc::channel(4);
    let run = acme.run(sender);
    let receive = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Issued { names, identity } => tell(&workers, &certificate(&names, identity)),
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

fn certificate(names: &Names, identity: Identity) -> Command {
    let mut sorted: Vec<String> = names.iter().map(str::to_owned).collect();
    sorted.sort_unstable();
    Command::Certificate { origin: Origin::Acme(sorted.into()), identity }
}

fn tell(workers: &[Sender<Command>], command: &Command) {
    for worker in workers {
        // A worker that has ended needs nothing.
        let _ = worker.send(command.clone());
    }
}
