//! The certificates that are in use: those of the configuration, or what has taken their place
//! since, and those by ACME.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::view::View;
use crate::config::TlsAction;
use crate::front::Origin;
use crate::proto::tls::Identity;

/// What `/certificates` shows.
#[derive(Serialize)]
pub(super) struct Certificates {
    certificates: Vec<Certificate>,
}

/// One certificate.
#[derive(Serialize)]
pub(super) struct Certificate {
    /// `file` or `acme`.
    source: &'static str,
    /// The path of the file, or the first name of an order by ACME.
    pub(super) file: String,
    pub(super) names: Vec<String>,
    #[serde(serialize_with = "as_seconds")]
    pub(super) not_before: SystemTime,
    #[serde(serialize_with = "as_seconds")]
    pub(super) not_after: SystemTime,
    /// Whole days; negative when it is over.
    days_left: i64,
}

fn as_seconds<S: serde::Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u64(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

impl Certificate {
    fn of(source: &'static str, file: String, identity: &Identity) -> Certificate {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let left = seconds(identity.not_after()) - seconds(SystemTime::now());
        Certificate {
            source,
            file,
            names: identity.names().to_vec(),
            not_before: identity.not_before(),
            not_after: identity.not_after(),
            days_left: left.div_euclid(86_400),
        }
    }
}

/// What `/certificates` shows.
pub(super) fn of(view: &View) -> Certificates {
    Certificates { certificates: all(view) }
}

/// The certificates of all rules: each file once, in the order of their paths, then those by ACME.
pub(super) fn all(view: &View) -> Vec<Certificate> {
    let mut files = BTreeMap::new();
    let rules = view.config.listeners.iter().flat_map(|listener| listener.tls_rules());
    for rule in rules {
        let TlsAction::End(end) = &rule.action else { continue };
        for one in &end.certificates {
            let file = one.certificate.display().to_string();
            files.entry(file.clone()).or_insert_with(|| {
                let newer = view.parts.newer.of(&one.certificate);
                Certificate::of("file", file, newer.as_ref().unwrap_or(&one.identity))
            });
        }
    }
    let issued = view.parts.issued.all();
    let issued = issued.iter().filter_map(|(origin, identity)| match origin {
        Origin::Acme(names) => {
            let first = names.first().cloned().unwrap_or_default();
            Some(Certificate::of("acme", format!("acme:{first}"), identity))
        }
        Origin::Files { .. } => None,
    });
    files.into_values().chain(issued).collect()
}
