//! Reads certificates and the keys of tickets again when their files change, and makes new ticket
//! keys where no file has them. Workers get what is new; a bad file changes nothing.
//!
//! Files are looked at every two seconds. Notifications of the kernel would have to follow symbolic
//! links that are swapped, directories that are replaced, and network file systems that have none.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::config::{self, Config, HostName, TlsAction};
use crate::error::chain;
use crate::front::Origin;
use crate::proto::tls::{Identity, ROTATION, TicketKeys};
use crate::worker::Command;

/// The time between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(2);
/// The time between two warnings about the same certificate.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The task that follows the files of the configuration of the moment.
pub(super) struct Certificates {
    config: watch::Sender<Arc<Config>>,
    /// The keys of tickets at present, which the task changes, too.
    keys: Arc<watch::Sender<Arc<TicketKeys>>>,
    newer: Newer,
    task: AbortHandle,
}

/// The certificates that were read since the configuration was. Nothing waits for a change of them.
#[derive(Clone, Default)]
pub(super) struct Newer(Arc<watch::Sender<HashMap<PathBuf, Identity>>>);

impl Newer {
    /// What is in use in place of a certificate of the configuration, by the file of the
    /// certificate.
    pub(super) fn of(&self, certificate: &Path) -> Option<Identity> {
        self.0.borrow().get(certificate).cloned()
    }

    fn add(&self, command: &Command) {
        if let Command::Certificate { origin: Origin::Files { certificate, .. }, identity } =
            command
        {
            self.0.send_modify(|all| {
                all.insert(certificate.to_path_buf(), identity.clone());
            });
        }
    }
}

impl Certificates {
    /// Starts the task, which ends when this is dropped. `keys` are the first keys of tickets.
    pub(super) fn start(
        config: &Arc<Config>,
        keys: &Arc<TicketKeys>,
        workers: Vec<Sender<Command>>,
    ) -> Certificates {
        let (config_sender, config) = watch::channel(Arc::clone(config));
        let keys = Arc::new(watch::Sender::new(Arc::clone(keys)));
        let newer = Newer::default();
        let following = follow(config, Arc::clone(&keys), workers, newer.clone());
        let task = tokio::spawn(following).abort_handle();
        Certificates { config: config_sender, keys, newer, task }
    }

    /// Ends the task. The workers keep what they have.
    pub(super) fn stop(&self) {
        self.task.abort();
    }

    /// The certificates that are newer than the configuration.
    pub(super) fn newer(&self) -> Newer {
        self.newer.clone()
    }

    /// The keys of tickets at present.
    pub(super) fn keys(&self) -> Arc<TicketKeys> {
        Arc::clone(&self.keys.borrow())
    }

    /// Follows another configuration, which the workers must get before any other command. Returns
    /// the keys of tickets that they get with it.
    pub(super) fn commit(&self, config: &Arc<Config>) -> Arc<TicketKeys> {
        let were_in_file = self.config.borrow().tls.ticket_keys.is_some();
        match &config.tls.ticket_keys {
            Some(file) => drop(self.keys.send_replace(Arc::clone(&file.keys))),
            // Other processes may have those of the file, so they are not used any more.
            None if were_in_file => {
                self.keys.send_modify(|keys| *keys = Arc::new(keys.rotated()));
            }
            None => {}
        }
        self.config.send_replace(Arc::clone(config));
        // The configuration has read them all.
        self.newer.0.send_replace(HashMap::new());
        self.keys()
    }
}

async fn follow(
    mut config: watch::Receiver<Arc<Config>>,
    keys: Arc<watch::Sender<Arc<TicketKeys>>>,
    workers: Vec<Sender<Command>>,
    newer: Newer,
) {
    let present = Arc::clone(&config.borrow_and_update());
    let mut tickets = Tickets::of(&present, None);
    let mut pairs = pairs(&present, Vec::new());
    drop(present);
    let mut warned = Instant::now();
    loop {
        tokio::select! {
            // Without rules that end TLS there is nothing to look at.
            () = sleep(INTERVAL), if !pairs.is_empty() => {}
            changed = config.changed() => {
                if changed.is_err() {
                    return;
                }
                let present = Arc::clone(&config.borrow_and_update());
                tickets = Tickets::of(&present, Some(tickets));
                pairs = self::pairs(&present, pairs);
                continue;
            }
        }
        // Without an await in between: a reload finds the new keys with the workers, or makes them
        // itself.
        if !config.has_changed().unwrap_or(true) && tickets.must_rotate() {
            keys.send_modify(|keys| *keys = Arc::new(keys.rotated()));
            tell(&workers, &Command::TicketKeys(Arc::clone(&keys.borrow())));
        }
        // The disk may be slow or gone: reading it must not hold up the control plane.
        let known = Arc::clone(&keys.borrow());
        let looked = tokio::task::spawn_blocking(move || {
            let commands: Vec<Command> = pairs.iter_mut().filter_map(Pair::look).collect();
            let new_keys = tickets.look(&known);
            (pairs, tickets, commands, new_keys)
        });
        let Ok((looked_pairs, looked_tickets, commands, new_keys)) = looked.await else { return };
        (pairs, tickets) = (looked_pairs, looked_tickets);
        // The workers have got what a newer configuration has read.
        if config.has_changed().is_ok_and(|has_changed| has_changed) {
            continue;
        }
        for command in &commands {
            tell(&workers, command);
            newer.add(command);
        }
        if let Some(new_keys) = new_keys.map(Arc::new) {
            keys.send_replace(Arc::clone(&new_keys));
            tell(&workers, &Command::TicketKeys(new_keys));
        }
        if warned.elapsed() >= WARN_INTERVAL {
            warned = Instant::now();
            pairs.iter().for_each(Pair::warn);
        }
    }
}

fn tell(workers: &[Sender<Command>], command: &Command) {
    for worker in workers {
        // A worker that has ended needs nothing.
        let _ = worker.send(command.clone());
    }
}

/// The pairs of files of all rules, each once. What was read of those `before` is not read again,
/// unless the configuration has found something else there.
fn pairs(config: &Config, before: Vec<Pair>) -> Vec<Pair> {
    let key = |pair: Pair| ((pair.certificate.clone(), pair.key.clone()), pair);
    let mut known: HashMap<_, _> = before.into_iter().map(key).collect();
    let mut pairs = HashMap::new();
    for listener in &config.listeners {
        for rule in listener.tls_rules() {
            let TlsAction::End(end) = &rule.action else { continue };
            for files in &end.certificates {
                let key = (files.certificate.clone(), files.key.clone());
                let known = known.remove(&key).filter(|pair| pair.identity == files.identity);
                let pair = pairs.entry(key).or_insert_with(|| Pair {
                    versions: known.and_then(|pair| pair.versions),
                    ..Pair::new(files)
                });
                pair.names.extend_from_slice(&rule.names);
            }
        }
    }
    pairs.into_values().collect()
}

/// What tells that a file has changed. A replaced file has another inode, a written one another
/// time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// `None` if the file cannot be found.
fn version(path: &Path) -> Option<Version> {
    let file = std::fs::metadata(path).ok()?;
    Some(Version {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

/// A certificate and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    /// The names of the rules that have it.
    names: Vec<HostName>,
    /// The files that were read last; `None` before the first look.
    versions: Option<[Option<Version>; 2]>,
    identity: Identity,
}

impl Pair {
    fn new(files: &config::Certificate) -> Pair {
        Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            names: Vec::new(),
            versions: None,
            identity: files.identity.clone(),
        }
    }

    /// Reads the files if they have changed. Returns the command that makes the workers use them.
    fn look(&mut self) -> Option<Command> {
        // The versions are taken before the files are read. So a change while they are read is
        // found by the next look.
        let versions = [version(&self.certificate), version(&self.key)];
        if self.versions == Some(versions) {
            return None;
        }
        // The start has warned already.
        if self.versions.replace(versions).is_some() {
            warn_if_open(&self.key);
        }
        let identity = match config::read_identity(&self.certificate, &self.key) {
            Ok(identity) if identity == self.identity => return None,
            Ok(identity) => identity,
            Err(faults) => {
                for fault in faults {
                    tracing::warn!(
                        error = %chain(&fault),
                        advice = fault.advice,
                        "a certificate has changed and cannot be used: the one before stays in use"
                    );
                }
                return None;
            }
        };
        tracing::info!(
            certificate = %self.certificate.display(),
            not_after = %httpdate::fmt_http_date(identity.not_after()),
            "a certificate was read again and is in use"
        );
        self.identity = identity.clone();
        self.warn();
        let (certificate, key) = (self.certificate.clone().into(), self.key.clone().into());
        Some(Command::Certificate { origin: Origin::Files { certificate, key }, identity })
    }

    fn warn(&self) {
        for oddity in config::oddities(&self.identity, SystemTime::now()) {
            tracing::warn!(
                certificate = %self.certificate.display(),
                problem = oddity.what,
                advice = oddity.advice,
                "clients refuse this certificate, or will soon"
            );
        }
        for name in config::uncovered(&self.names, &self.identity) {
            tracing::warn!(
                certificate = %self.certificate.display(),
                name,
                "a certificate is not for a name of its rule: clients that ask for it refuse it"
            );
        }
    }
}

/// Warns of a secret that other users can read.
fn warn_if_open(path: &Path) {
    if config::is_open(path) {
        tracing::warn!(
            file = %path.display(),
            advice = config::CLOSE_FILE,
            "every user of this machine can read this file"
        );
    }
}

/// Where the keys of tickets come from.
enum Tickets {
    /// They are made here, the last ones at this moment.
    Made(Instant),
    /// They are in a file, of which this version was read.
    File(PathBuf, Option<Option<Version>>),
}

impl Tickets {
    /// Those of a configuration. `before` are those of the one before.
    fn of(config: &Config, before: Option<Tickets>) -> Tickets {
        match (&config.tls.ticket_keys, before) {
            (None, Some(Tickets::Made(made))) => Tickets::Made(made),
            (None, _) => Tickets::Made(Instant::now()),
            (Some(file), _) => Tickets::File(file.path.clone(), None),
        }
    }

    /// Returns true if it is time for another key. The next time begins now.
    fn must_rotate(&mut self) -> bool {
        let Tickets::Made(made) = self else { return false };
        let is_due = made.elapsed() >= ROTATION;
        if is_due {
            *made = Instant::now();
        }
        is_due
    }

    /// Reads the file if it has changed. Returns its keys if they are not those that are `known`.
    fn look(&mut self, known: &TicketKeys) -> Option<TicketKeys> {
        let Tickets::File(path, read) = self else { return None };
        let version = version(path);
        if *read == Some(version) {
            return None;
        }
        if read.replace(version).is_some() {
            warn_if_open(path);
        }
        match config::read_ticket_keys(path) {
            Ok(keys) if keys == *known => None,
            Ok(keys) => {
                tracing::info!(file = %path.display(), "the keys of tickets were read again");
                Some(keys)
            }
            Err(fault) => {
                tracing::warn!(
                    error = %chain(&fault),
                    advice = fault.advice,
                    "the keys of tickets have changed and cannot be used: those before stay"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_reload_reads_no_pair_again_that_it_has_found_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let issue = || {
            let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
            fs::write(dir.path().join("pem"), made.cert.pem()).unwrap();
            fs::write(dir.path().join("key"), made.signing_key.serialize_pem()).unwrap();
        };
        let read = || {
            let text = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n\
                        protocol = \"http\"\n[[listener.tls]]\nnames = [\"a.test\"]\n\
                        certificate = \"pem\"\nkey = \"key\"\n[[listener.host]]\n\
                        route = [{ prefix = \"/\", respond = { body = \"\" } }]\n";
            config::parse("test", text, dir.path()).unwrap_or_else(|errors| panic!("{errors}"))
        };
        issue();
        let mut looked = pairs(&read(), Vec::new());
        assert!(looked.len() == 1 && looked[0].versions.is_none());
        assert!(looked[0].look().is_none());
        let mut same = pairs(&read(), looked);
        assert!(same[0].versions.is_some());
        assert!(same[0].look().is_none());
        issue();
        let other = pairs(&read(), same);
        assert!(other[0].versions.is_none());
    }
}
