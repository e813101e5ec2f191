//! The configuration as typed: the keys, their types and the position of each value.
//!
//! The checks here look at single keys; they also report a missing key that is required. Rules for
//! several keys, references and defaults are in `check`. A key that is not read here is unknown.
//! The lists of later keys only change the error message for these keys.

mod access_log;
mod cluster;
mod host;
mod listener;
mod server;

use toml::de::DeTable;

pub(super) use self::access_log::AccessLog;
pub(super) use self::cluster::{Cluster, DiscoveryWord};
pub(super) use self::host::{Host, Redirect, Respond, Route, TunnelWord};
pub(super) use self::listener::{Listener, ProtocolWord, TlsRule};
pub(super) use self::server::{Log, Server};
use super::report::{Report, Span};
use super::table::{At, Table};

/// The whole file.
pub(super) struct File {
    pub(super) server: Server,
    pub(super) log: Log,
    pub(super) access_log: Option<AccessLog>,
    pub(super) listeners: Vec<Listener>,
    pub(super) clusters: Vec<(At<String>, Cluster)>,
    /// Whether all clusters are known: none is under a key that was reported.
    pub(super) clusters_complete: bool,
}

impl File {
    pub(super) fn read(report: &Report<'_>, keys: &DeTable<'_>) -> File {
        let mut table = Table::new(report, keys, "the file", Span { start: 0, end: 0 });
        let server = table.table("server", "[server]").value;
        let log = table.table("log", "[log]").value;
        let listeners = table.tables("listener", "[[listener]]");
        let clusters = table.named_tables("cluster");
        let file = File {
            server: server.map(|at| Server::read(at.value)).unwrap_or_default(),
            log: log.map(|at| Log::read(at.value)).unwrap_or_default(),
            access_log: AccessLog::read(&mut table, "[access_log]"),
            listeners: listeners.into_iter().map(Listener::read).collect(),
            clusters_complete: clusters.is_complete,
            clusters: clusters
                .tables
                .into_iter()
                .map(|(name, table)| (name, Cluster::read(table)))
                .collect(),
        };
        table.report_unknown_keys(&["admin"]);
        file
    }
}
