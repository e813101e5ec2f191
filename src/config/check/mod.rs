//! Turns the file as typed into a valid [`Config`]: resolves references, fills in defaults and
//! refuses contradictions.
//!
//! Every function here takes values as typed and returns valid ones, or nothing after it has
//! reported the errors. It never stops at the first error. For a value that `read` has already
//! reported the default is used, so that one mistake causes one error.

mod access_log;
mod acme;
mod admin;
mod certificates;
mod cluster;
mod cluster_tls;
mod earlier;
mod fields;
mod files;
mod http;
mod listener;
mod proxy;
mod redirect;
mod respond;
mod route;
mod tls;
mod udp;
mod whole;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::keys::{self, File, LogFormat};
use super::report::Warnings;
use super::report::{Report, Span, closest, quoted};
use super::types::{self, At, Field};
use super::{Cluster, Config, Log, Machine, Server, Workers};
use crate::proto::tls::Version;

/// Turns the file into the configuration. Returns `None` if errors were reported.
pub(super) fn config(
    report: &Report<'_>,
    base: &Path,
    machine: &Machine,
    file: File,
) -> Option<Config> {
    let File { server, log, access_log, tls, acme, admin, listener: listeners, cluster } = file;
    let clusters_complete = cluster.complete;
    let (names, clusters): (Vec<At<String>>, Vec<keys::Cluster>) =
        cluster.tables.into_iter().unzip();
    let with_paths: Vec<&str> = names
        .iter()
        .zip(&clusters)
        .filter_map(|(name, cluster)| has_paths(cluster).then_some(name.value.as_str()))
        .collect();
    let with_tls: Vec<&str> = names
        .iter()
        .zip(&clusters)
        .filter_map(|(name, cluster)| cluster.tls.is_given().then_some(name.value.as_str()))
        .collect();
    let positions = whole::Positions::new(&listeners, &names, &clusters, acme::place(&acme));
    let check = Check {
        report,
        base,
        clusters: &names,
        clusters_complete,
        with_paths: &with_paths,
        with_tls: &with_tls,
        has_acme: acme.is_given(),
        min_version: tls.min_version.get().into(),
    };

    if listeners.is_empty() && report.is_empty() {
        let what = "the configuration has no listener";
        let note = "add [[listener]] with name, listen and protocol";
        report.error((0..0).into(), what, note);
    }
    let tls = check.tls_shared(&tls);
    let acme = check.acme(&acme);
    let admin_place = admin::place(&admin);
    let admin = check.admin(&admin);
    let access_logs = check.access_logs(&access_log, &listeners);
    let listeners = check.listeners(&listeners, access_logs);
    let clusters: Vec<Option<Cluster>> =
        names.iter().zip(clusters).map(|(name, cluster)| check.cluster(name, &cluster)).collect();

    let config = Config {
        server: check.server(&server),
        log: Log {
            level: log.level.get().word().to_owned(),
            json: log.format.get() == LogFormat::Json,
        },
        tls: tls?,
        acme: acme?,
        admin: admin?,
        listeners: listeners?.into_iter().map(Arc::new).collect(),
        clusters: clusters.into_iter().map(|one| one.map(Arc::new)).collect::<Option<_>>()?,
        warnings: Warnings::default(),
        text: None,
    };
    // These checks need a configuration without errors.
    if report.is_empty() {
        if let Some(admin) = &config.admin {
            admin::overlaps(report, admin, admin_place, &config.listeners);
        }
        whole::whole(report, &config, &positions, machine);
    }
    Some(config)
}

/// The data that the checks of all parts need.
struct Check<'a> {
    report: &'a Report<'a>,
    /// The directory where relative paths start.
    base: &'a Path,
    /// The names of all clusters, sorted.
    clusters: &'a [At<String>],
    /// Whether these are all clusters: none is under a key that was reported.
    clusters_complete: bool,
    /// The names of the clusters that have endpoints that are paths.
    with_paths: &'a [&'a str],
    /// The names of the clusters whose endpoints use TLS.
    with_tls: &'a [&'a str],
    /// Whether the file has `[acme]`.
    has_acme: bool,
    /// The oldest version of TLS for rules that name none.
    min_version: Version,
}

/// Lists the first names and the number of the others.
fn first_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let more = names.len().saturating_sub(MOST);
    let list = names.take(MOST).map(quoted).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

fn has_paths(cluster: &keys::Cluster) -> bool {
    let endpoints = cluster.endpoints.value.as_ref();
    endpoints.is_some_and(|at| at.value.iter().any(|text| text.value.starts_with("unix:")))
}

impl Check<'_> {
    fn server(&self, typed: &keys::Server) -> Server {
        Server {
            workers: self.workers(&typed.workers),
            driver: typed.driver.get(),
            drain_delay: typed.drain_delay.get().0,
            drain_timeout: typed.drain_timeout.get().0,
        }
    }

    fn workers(&self, field: &Field<types::Workers>) -> Workers {
        let ids = match field.get() {
            types::Workers::Auto => return Workers::Auto,
            types::Workers::Count(count) => return Workers::Count(count as usize),
            types::Workers::Cpus(ids) => ids,
        };
        let mut seen = HashSet::new();
        for id in &ids {
            if !seen.insert(id.value) {
                let note = "two workers on one CPU share its time; list each CPU once";
                self.report.error(id.span, "this CPU is in the list already", note);
            }
        }
        Workers::Cpus(ids.into_iter().map(|id| id.value.0).collect())
    }

    /// The name of the cluster that a route or listener refers to. Returns `None` if the key was
    /// left out, or if an error was reported: for the name itself, or for the key above the
    /// cluster.
    fn cluster_name(&self, field: &Field<String>) -> Option<Arc<str>> {
        let At { value: name, span } = field.value.as_ref()?;
        let found = self.clusters.binary_search_by(|cluster| cluster.value.as_str().cmp(name));
        let exists = found.is_ok();
        if !exists && self.clusters_complete {
            let names = || self.clusters.iter().map(|cluster| cluster.value.as_str());
            let guess = if self.report.shows_more() { closest(name, names()) } else { None };
            let note = match guess {
                Some(meant) => format!("did you mean {}?", quoted(meant)),
                None if self.clusters.is_empty() => {
                    String::from("add [cluster.NAME] with its endpoints")
                }
                None => format!("the clusters of this file are {}", first_names(names())),
            };
            self.report.error(*span, format!("there is no cluster {}", quoted(name)), note);
        }
        exists.then(|| Arc::from(name.as_str()))
    }

    /// Checks a name of a listener or cluster. Names occur in records and messages, so they must
    /// not contain spaces or characters that need escapes.
    fn name(&self, what: &str, name: &At<String>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(plain) {
            let what = format!("{} cannot be the name of a {what}", quoted(&name.value));
            let note = "a name consists of 1 to 64 letters, digits, `-`, `_` and dots";
            self.report.error(name.span, what, note);
        }
    }

    /// Reports a path that cannot occur in a request, or a target that is not a path.
    fn url_path(&self, key: &str, path: &At<String>) {
        let text = path.value.as_str();
        let odd = text.char_indices().find(|(_, c)| !c.is_ascii_graphic() || "?#".contains(*c));
        let note = if !text.starts_with('/') {
            "a path starts with `/`"
        } else {
            match odd {
                None => return,
                Some((_, '?')) => "a path has no query: remove the `?` and the rest",
                Some((_, '#')) => "a client never sends a fragment: remove the `#` and the rest",
                Some((_, c)) if c.is_control() => "control characters are not allowed in a path",
                Some(_) => "paths are compared as sent: write this percent-encoded, a space as %20",
            }
        };
        let span = match odd {
            Some((offset, _)) if text.starts_with('/') => {
                self.report.within(path.span, text, offset)
            }
            _ => path.span,
        };
        self.report.error(span, format!("`{key}` is not a path: {}", quoted(text)), note);
    }
}
