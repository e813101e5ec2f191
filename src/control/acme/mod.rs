//! Certificates by ACME (RFC 8555), ordered and renewed while ringgate runs.
//!
//! [`Acme::open`] reads what earlier runs have stored, so that a start needs no network. Then
//! [`Acme::run`] orders what is missing and renews what is due, one order after the other. It knows
//! neither listeners nor workers: it sends [`Event`]s to the rest of the control plane. A failure
//! keeps the certificate that is there, and the pauses between attempts grow.
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
mod schedule;
mod storage;

use std::path::PathBuf;
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
use self::schedule::{Retry, fraction, pause, renewal, within};
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
/// A certificate is not ordered again within a tenth of its lifetime, or within this if it is less:
/// a wrong clock, or an odd suggestion of the authority, must not use up the authority's limits.
const MAX_REST: Duration = Duration::from_secs(24 * 3600);
/// When the authority is asked for the first time for a better time, from the start or the issue of
/// a certificate on: orders go first. A random part of it is added.
const FIRST_CHECK: Duration = Duration::from_secs(120);
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

/// The certificates of one ACME directory.
pub struct Acme {
    settings: Settings,
    storage: Storage,
    hosts: HostLookup,
    orders: Vec<Order>,
}

/// One certificate, and what happens next to it.
struct Order {
    names: Names,
    identity: Option<Identity>,
    /// When a certificate is ordered.
    due: SystemTime,
    /// It is not ordered again before this time, if that was done by this process.
    earliest: Option<SystemTime>,
    /// When the authority is asked for a better time.
    check: Option<SystemTime>,
    /// Failed attempts since the last success.
    failures: u32,
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
        Ok(Acme { storage, hosts, orders, settings })
    }

    /// The certificates that are there, also those that have expired.
    pub fn certificates(&self) -> impl Iterator<Item = (&Names, &Identity)> {
        self.orders.iter().filter_map(|order| Some((&order.names, order.identity.as_ref()?)))
    }

    /// Orders and renews, until the receiver of the events is dropped. The future may be dropped at
    /// any time.
    pub async fn run(mut self, events: mpsc::Sender<Event>) {
        let mut clock = self.settings.clock.clone();
        while let Some(next) = (0..self.orders.len()).min_by_key(|at| self.orders[*at].next()) {
            tokio::select! {
                slept = clock.sleep_until(self.orders[next].next()) => {
                    if slept == Err(SetBack) {
                        let now = clock.now();
                        self.orders.iter_mut().for_each(|order| order.reschedule(now));
                        continue;
                    }
                }
                () = events.closed() => return,
            }
            if self.orders[next].due <= clock.now() {
                self.attempt(next, &events).await;
            } else {
                self.check(next).await;
            }
        }
    }

    /// Orders one certificate and schedules the next attempt.
    async fn attempt(&mut self, at: usize, events: &mpsc::Sender<Event>) {
        let result = match self.storage.lock() {
            Ok(Some(_lock)) => {
                let issue = tokio::time::timeout(ATTEMPT, self.issue(at, events));
                let result = issue.await.unwrap_or_else(|_| Err(Failure::new(NOT_DONE)));
                // Without challenges the workers answer as ever. Nothing waits for this.
                let _ = attempt::publish(events, Challenges::default()).await;
                result
            }
            Ok(None) => {
                tracing::debug!("another process orders certificates with the same storage");
                self.orders[at].due = self.settings.clock.now() + LOCKED;
                return;
            }
            Err(error) => Err(Failure::new(format!("cannot lock the storage: {error}"))),
        };
        let (now, order) = (self.settings.clock.now(), &mut self.orders[at]);
        match result {
            Ok(identity) => {
                order.accept(identity.clone(), now);
                order.rest(now);
                let names = order.names.clone();
                let _ = events.send(Event::Issued { names, identity }).await;
            }
            Err(failure) => {
                order.failures = order.failures.saturating_add(1);
                let retry_in = pause(order.failures, failure.retry, fraction());
                order.due = now + retry_in;
                // A suggestion of the authority must not shorten the pause.
                order.check = None;
                order.report(&failure, retry_in, now);
                if failure.retry == Retry::NewAccount
                    && let Err(error) = self.storage.set_account_aside()
                {
                    tracing::warn!(%error, "cannot set aside an ACME account that is not known");
                }
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
    async fn check(&mut self, at: usize) {
        let window = tokio::time::timeout(ATTEMPT, self.window(at)).await;
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

impl Order {
    /// An order that is due now.
    fn new(names: &Names, now: SystemTime) -> Order {
        let names = names.clone();
        Order { names, identity: None, due: now, earliest: None, check: None, failures: 0 }
    }

    /// When something is to be done.
    fn next(&self) -> SystemTime {
        self.check.map_or(self.due, |check| check.min(self.due))
    }

    /// Takes a certificate into use and schedules its renewal.
    fn accept(&mut self, identity: Identity, now: SystemTime) {
        self.due = due(&identity, fraction());
        self.identity = Some(identity);
        self.failures = 0;
        self.check = (self.due > now).then(|| now + FIRST_CHECK.mul_f64(1.0 + fraction()));
    }

    /// Delays the next order after a success.
    fn rest(&mut self, now: SystemTime) {
        let lifetime = self
            .identity
            .as_ref()
            .and_then(|identity| identity.not_after().duration_since(identity.not_before()).ok());
        self.earliest = Some(now + (lifetime.unwrap_or_default() / 10).min(MAX_REST));
        self.set_due(self.due);
    }

    /// Schedules everything anew after the clock was set back, because times that were reckoned
    /// from the old one may be years ahead. An attempt that has failed is repeated now: it may have
    /// failed because of the clock.
    fn reschedule(&mut self, now: SystemTime) {
        let due = match &self.identity {
            Some(identity) if self.failures == 0 => due(identity, fraction()),
            _ => now,
        };
        self.check = self.check.map(|_| now);
        self.earliest = self.earliest.map(|earliest| earliest.min(now + MAX_REST));
        self.set_due(due);
    }

    fn set_due(&mut self, due: SystemTime) {
        self.due = self.earliest.map_or(due, |earliest| due.max(earliest));
    }

    /// Reports a failed attempt, once.
    fn report(&self, failure: &Failure, retry_in: Duration, now: SystemTime) {
        let not_after = self.identity.as_ref().map(Identity::not_after);
        let state = match not_after {
            None => "none",
            Some(end) if end <= now => "expired",
            Some(_) => "valid",
        };
        tracing::warn!(
            names = %self.names,
            error = %failure,
            failures = self.failures,
            retry_in_s = retry_in.as_secs(),
            certificate = state,
            "cannot get a certificate by ACME; the attempt will be repeated"
        );
    }
}

/// When a certificate is due for renewal.
fn due(identity: &Identity, fraction: f64) -> SystemTime {
    renewal(identity.not_before(), identity.not_after(), fraction)
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
