//! Certificates by ACME (RFC 8555), ordered and renewed while ringgate runs.
//!
//! [`Acme::open`] reads what earlier runs have stored, so that a start needs no network. Then
//! [`Acme::run`] orders what is missing and renews what is due, one order after the other. It knows
//! neither listeners nor workers: it sends [`Event`]s to the rest of the control plane. A failure
//! keeps the certificate that is there, and the pauses between attempts grow. A [`Change`] of what
//! is ordered shortens none of them.
//!
//! External account binding (RFC 8555 section 7.3.4) is not supported.

mod account;
mod attempt;
mod challenges;
mod clock;
mod failure;
mod https;
mod names;
mod nonce;
mod order;
mod schedule;
mod storage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use instant_acme::CertificateIdentifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc;

pub use self::challenges::{ChallengeKind, Challenges, Event};
pub use self::clock::Clock;
pub use self::names::{Names, NamesError};

use self::clock::SetBack;
use self::failure::Failure;
use self::https::Https;
use self::order::{Order, due};
use self::schedule::{Retry, fraction, within};
use self::storage::Storage;
use super::dns::HostLookup;
use crate::error::Error;
use crate::proto::tls::Identity;

/// How long one attempt may take: an authority that goes on processing must not hold up the orders
/// behind it.
const ATTEMPT: Duration = Duration::from_secs(600);
const NOT_DONE: &str = "the attempt was not done within 10 minutes";
/// The pause while another process has locked the storage.
const LOCKED: Duration = Duration::from_secs(15);
/// Limits of the pause between two looks at the window that the authority suggests for a renewal.
const CHECK: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
/// The pause after such a look has failed.
const CHECK_FAILED: Duration = Duration::from_secs(6 * 3600);

/// What is ordered, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of the ACME directory.
    pub directory: String,
    /// Where the authority may reach the operator, as URLs (`mailto:…`).
    pub contacts: Vec<String>,
    /// The folder for the account and the certificates.
    pub storage: PathBuf,
    /// How names are proven.
    pub challenge: ChallengeKind,
    /// A PEM file of certificates that the directory's servers are checked with. `None`: those that
    /// the system trusts.
    pub authorities: Option<PathBuf>,
    /// The certificates, by their names.
    pub orders: Vec<Names>,
    /// By which clock certificates expire.
    pub clock: Clock,
}

/// Settings are equal if they order the same. A process has one clock.
impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        let Settings { directory, contacts, storage, challenge, authorities, orders, clock: _ } =
            self;
        *directory == other.directory
            && *contacts == other.contacts
            && *storage == other.storage
            && *challenge == other.challenge
            && *authorities == other.authorities
            && *orders == other.orders
    }
}

impl Settings {
    /// Returns true if both order from the same directory and use the same storage, and so the same
    /// account.
    pub fn have_place_of(&self, other: &Settings) -> bool {
        self.directory == other.directory && self.storage == other.storage
    }
}

/// The certificates of one ACME directory.
pub struct Acme {
    settings: Settings,
    storage: Storage,
    hosts: HostLookup,
    orders: Vec<Order>,
    /// Orders that are not wanted any more, as long as they would have to wait. They have no
    /// certificate.
    former: Vec<Order>,
}

/// Another configuration of a running [`Acme`].
pub enum Change {
    /// These certificates are ordered, from the same directory with the same storage.
    To(Box<Acme>),
    /// None is ordered.
    Nothing,
}

/// What has become of an attempt.
enum Attempt {
    /// It is done.
    Done(Result<Identity, Failure>),
    /// Its certificate is not wanted any more.
    GivenUp,
}

impl Acme {
    /// Opens the storage and reads the certificates that are there. Blocks for as long as that
    /// takes; uses no network.
    ///
    /// # Errors
    /// The storage cannot be used, or a thread cannot be started.
    pub fn open(settings: Settings) -> Result<Acme, Error> {
        let storage = Storage::open(&settings.storage, &settings.directory)?;
        let hosts = HostLookup::start()?;
        let now = settings.clock.now();
        let order = |names: &Names| {
            let identity = stored(&storage, names).unwrap_or_else(|error| {
                let file = storage.certificate_file(names);
                tracing::warn!(
                    file = %file.display(), %names, %error,
                    "a stored certificate cannot be used"
                );
                None
            });
            let mut order = Order::new(names, now);
            if let Some(identity) = identity {
                order.accept(identity, now);
            }
            order
        };
        let orders = settings.orders.iter().map(order).collect();
        Ok(Acme { storage, hosts, orders, settings, former: Vec::new() })
    }

    /// What is ordered.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The certificates that are there, also those that have expired.
    pub fn certificates(&self) -> impl Iterator<Item = (&Names, &Identity)> {
        self.orders.iter().filter_map(|order| Some((&order.names, order.identity.as_ref()?)))
    }

    /// Orders and renews, until the receiver of the events is dropped. The future may be dropped at
    /// any time.
    pub async fn run(
        mut self,
        events: mpsc::Sender<Event>,
        mut changes: mpsc::UnboundedReceiver<Change>,
    ) {
        let mut clock = self.settings.clock.clone();
        loop {
            let next = (0..self.orders.len()).min_by_key(|at| self.orders[*at].next());
            let wait = async {
                match next {
                    Some(at) => clock.sleep_until(self.orders[at].next()).await.map(|()| at),
                    None => std::future::pending().await,
                }
            };
            let at = tokio::select! {
                waited = wait => match waited {
                    Ok(at) => at,
                    Err(SetBack) => {
                        let now = clock.now();
                        let all = self.orders.iter_mut().chain(&mut self.former);
                        all.for_each(|order| order.reschedule(now));
                        continue;
                    }
                },
                Some(change) = changes.recv() => {
                    self.change(change);
                    continue;
                }
                () = events.closed() => return,
            };
            if self.orders[at].due <= clock.now() {
                self.attempt(at, &events, &mut changes).await;
            } else {
                self.check(at, &mut changes).await;
            }
        }
    }

    /// Orders by another configuration. Orders of names that stay go on where they are.
    fn change(&mut self, change: Change) {
        let now = self.settings.clock.now();
        let (orders, former) = (&mut self.orders, &mut self.former);
        let known = orders.drain(..).chain(former.drain(..));
        let mut known: HashMap<String, Order> =
            known.map(|order| (order.names.file_name(), order)).collect();
        if let Change::To(next) = change {
            let Acme { settings, orders, .. } = *next;
            let clock = self.settings.clock.clone();
            self.settings = Settings { clock, ..settings };
            self.orders = orders;
            for order in &mut self.orders {
                if let Some(before) = known.remove(&order.names.file_name()) {
                    order.go_on(before, now);
                }
            }
        }
        let waiting = known.into_values().filter(|order| order.must_wait(now));
        self.former = waiting.map(|order| Order { identity: None, ..order }).collect();
    }

    /// Returns true if a certificate is ordered that is stored in this file.
    fn has(&self, file_name: &str) -> bool {
        self.orders.iter().any(|order| order.names.file_name() == file_name)
    }

    /// Orders one certificate and schedules the next attempt. A change waits for the end of the
    /// attempt, unless it does not have the certificate.
    async fn attempt(
        &mut self,
        at: usize,
        events: &mpsc::Sender<Event>,
        changes: &mut mpsc::UnboundedReceiver<Change>,
    ) {
        let mut change = None;
        let attempt = match self.storage.lock() {
            Ok(Some(_lock)) => {
                let attempt = self.issue_while_wanted(at, events, changes, &mut change).await;
                // Without challenges the workers answer as ever. Nothing waits for this.
                let _ = attempt::publish(events, Challenges::default()).await;
                attempt
            }
            Ok(None) => {
                tracing::debug!("another process orders certificates with the same storage");
                self.orders[at].due = self.settings.clock.now() + LOCKED;
                return;
            }
            Err(error) => {
                Attempt::Done(Err(Failure::new(format!("cannot lock the storage: {error}"))))
            }
        };
        let (now, order) = (self.settings.clock.now(), &mut self.orders[at]);
        match attempt {
            Attempt::Done(Ok(identity)) => {
                order.accept(identity.clone(), now);
                order.rest(now);
                let names = order.names.clone();
                let _ = events.send(Event::Issued { names, identity }).await;
            }
            Attempt::Done(Err(failure)) => {
                let retry_in = order.fail(failure.retry, now);
                order.report(&failure, retry_in, now);
                if failure.retry == Retry::NewAccount
                    && let Err(error) = self.storage.set_account_aside()
                {
                    tracing::warn!(%error, "cannot set aside an ACME account that is not known");
                }
            }
            // The authority may count it as one that has failed.
            Attempt::GivenUp => drop(order.fail(Retry::Later, now)),
        }
        if let Some(change) = change {
            self.change(change);
        }
    }

    /// Gets a certificate, unless a change does not have it. `last` is set to the last change.
    async fn issue_while_wanted(
        &self,
        at: usize,
        events: &mpsc::Sender<Event>,
        changes: &mut mpsc::UnboundedReceiver<Change>,
        last: &mut Option<Change>,
    ) -> Attempt {
        let file_name = self.orders[at].names.file_name();
        let mut issue = pin!(tokio::time::timeout(ATTEMPT, self.issue(at, events)));
        loop {
            let change = tokio::select! {
                result = &mut issue => {
                    let result = result.unwrap_or_else(|_| Err(Failure::new(NOT_DONE)));
                    return Attempt::Done(result);
                }
                Some(change) = changes.recv() => change,
            };
            let is_wanted = matches!(&change, Change::To(acme) if acme.has(&file_name));
            *last = Some(change);
            if !is_wanted {
                return Attempt::GivenUp;
            }
        }
    }

    /// Gets a certificate: the one that another process has stored meanwhile, or a new one.
    async fn issue(&self, at: usize, events: &mpsc::Sender<Event>) -> Result<Identity, Failure> {
        let (settings, order) = (&self.settings, &self.orders[at]);
        if let Ok(Some(found)) = stored(&self.storage, &order.names)
            && order.identity.as_ref() != Some(&found)
            && due(&found, 0.0) > settings.clock.now()
        {
            tracing::info!(names = %order.names, "using the certificate of another process");
            return Ok(found);
        }
        let fail = |error| Failure::new(format!("cannot write to the storage: {error}"));
        self.storage.check().map_err(fail)?;
        let https = Https::new(settings.authorities.as_deref(), self.hosts.clone())?;
        let (directory, contacts) = (&settings.directory, &settings.contacts);
        let account = account::open(&self.storage, &https, directory, contacts).await?;

        // Only a first attempt names the certificate that it replaces (RFC 9773 section 5): an
        // authority may refuse it for that name, for instance because it was replaced already.
        let replaced = if order.failures == 0 { self.identifier(at) } else { None };
        let (names, kind) = (&order.names, settings.challenge);
        let issued = match replaced {
            Some(id) if account.renewal_info(&id).await.is_ok() => {
                attempt::order(&account, names, kind, Some(id), events).await?
            }
            _ => attempt::order(&account, names, kind, None, events).await?,
        };
        let pem = format!("{}{}", issued.key, issued.chain);
        let identity = parse(&pem, names).map_err(|error| {
            Failure::new(format!("the authority has issued what cannot be used: {error}"))
        })?;
        tracing::info!(
            %names,
            not_after = httpdate::fmt_http_date(identity.not_after()),
            "a certificate was issued"
        );
        if let Err(error) = self.storage.store_certificate(names, &pem) {
            tracing::error!(%names, %error, "a new certificate is used but cannot be stored");
        }
        Ok(identity)
    }

    /// Asks the authority when it suggests to renew a certificate (RFC 9773).
    async fn check(&mut self, at: usize, changes: &mut mpsc::UnboundedReceiver<Change>) {
        let window = tokio::select! {
            window = tokio::time::timeout(ATTEMPT, self.window(at)) => window,
            Some(change) = changes.recv() => return self.change(change),
        };
        let (now, order) = (self.settings.clock.now(), &mut self.orders[at]);
        order.check = match window {
            Ok(Ok(Some((start, end, again)))) => {
                // A moment that was chosen in a window that still stands is kept.
                if !(start..=end).contains(&order.due) {
                    order.set_due(within(start, end, fraction()));
                }
                Some(now + again.clamp(CHECK.0, CHECK.1))
            }
            // It has no window to suggest.
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::debug!(names = %order.names, %error, "no suggestion when to renew");
                Some(now + CHECK_FAILED)
            }
            Err(_) => Some(now + CHECK_FAILED),
        };
    }

    /// The window that the authority suggests, and when to ask again. `None` if it suggests none.
    async fn window(
        &self,
        at: usize,
    ) -> Result<Option<(SystemTime, SystemTime, Duration)>, Failure> {
        let Some(id) = self.identifier(at) else { return Ok(None) };
        let settings = &self.settings;
        let https = Https::new(settings.authorities.as_deref(), self.hosts.clone())?;
        let account = account::existing(&self.storage, &https, &settings.contacts).await?;
        let Some(account) = account else { return Ok(None) };
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Ok(Some((window.start.into(), window.end.into(), again)))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the authority calls the stored certificate.
    fn identifier(&self, at: usize) -> Option<CertificateIdentifier<'static>> {
        let pem = self.storage.certificate(&self.orders[at].names).ok()??;
        let certificate = CertificateDer::from_pem_slice(&pem).ok()?;
        CertificateIdentifier::try_from(&certificate).ok()
    }
}

/// The stored certificate of these names.
fn stored(storage: &Storage, names: &Names) -> Result<Option<Identity>, String> {
    let Some(pem) = storage.certificate(names).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let pem = String::from_utf8(pem).map_err(|error| error.to_string())?;
    parse(&pem, names).map(Some)
}

/// Reads a certificate with its key, and checks that it is for all names.
fn parse(pem: &str, names: &Names) -> Result<Identity, String> {
    let identity = Identity::parse(pem.as_bytes(), pem.as_bytes());
    let identity = identity.map_err(|error| error.to_string())?;
    match names.iter().find(|name| !identity.covers(name)) {
        None => Ok(identity),
        Some(name) => Err(format!("it is not for {name}")),
    }
}

#[cfg(test)]
mod tests;
