//! The keys of the file: one declaration for each table.
//!
//! A declaration has the type, default, range, meaning, example and advice of each key. Reading
//! (`read`), the JSON Schema, the reference and the effective configuration (`contract`) are made
//! from it. The documentation comments are texts for operators: `ringgate config reference` prints
//! them. `check` turns what is read here into the valid configuration.
//!
//! Keywords that begin with `x-` are explained in `contract`.

mod access_log;
mod acme;
mod admin;
mod cluster;
mod cluster_tls;
mod fields;
mod host;
mod listener;
mod log;
mod patterns;
mod redirect;
mod respond;
mod rewrite;
mod route;
mod server;
mod tls;
mod tls_rule;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use self::access_log::AccessLog;
pub(super) use self::acme::Acme;
pub use self::acme::Challenge;
pub(super) use self::admin::Admin;
pub use self::cluster::DnsFamily;
pub(super) use self::cluster::{Cluster, DiscoveryWord};
pub(super) use self::cluster_tls::ClusterTls;
pub(super) use self::fields::{FRAMING, FieldRules, OF_CONNECTION};
pub(super) use self::host::Host;
pub(super) use self::listener::{Listener, ProtocolWord};
pub(super) use self::log::{Log, LogFormat};
pub(super) use self::redirect::Redirect;
pub use self::redirect::Scheme;
pub(super) use self::respond::Respond;
pub(super) use self::rewrite::Rewrite;
pub use self::route::Coding;
pub(super) use self::route::{HandshakeWord, Route, TunnelWord};
pub use self::server::Driver;
pub(super) use self::server::Server;
pub(super) use self::tls::{Tls, TlsVersion};
pub(super) use self::tls_rule::TlsRule;
use super::types::{Field, Named, Tables};

/// The configuration of ringgate: TOML, read at the start and at each reload.
///
/// Durations are strings of a whole number and a unit: `ms`, `s`, `m`, `h` or `d`; the longest is
/// `"365d"`. Sizes are strings with `B`, `KiB`, `MiB` or `GiB`. `0` never means "off".
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "ringgate configuration")]
pub(super) struct File {
    /// Workers and shutdown.
    #[schemars(extend("default" = {}))]
    pub(super) server: Server,
    /// Diagnostics: messages of ringgate itself, on stderr.
    #[schemars(extend("default" = {}))]
    pub(super) log: Log,
    /// Where records of connections, requests and tunnels go, and how they look.
    #[schemars(extend("default" = {}))]
    pub(super) access_log: AccessLog,
    /// What all rules share that end TLS.
    #[schemars(extend("default" = {}))]
    pub(super) tls: Tls,
    /// Certificates by ACME.
    pub(super) acme: Field<Acme>,
    /// The admin endpoint. There is none without this table.
    pub(super) admin: Field<Admin>,
    /// What ringgate listens on, and what it does with the bytes. At least one.
    #[schemars(extend("minItems" = 1))]
    pub(super) listener: Tables<Listener>,
    /// Servers that connections go to, by name. Listeners, routes and rules refer to the name.
    pub(super) cluster: Named<Cluster>,
}
