//! `[[listener]]` and `[[listener.tls]]` as typed.

use std::time::Duration;

use super::{AccessLog, Host};
use crate::config::foreign;
use crate::config::report::Span;
use crate::config::table::{At, Field, Table};

/// `listener.protocol`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum ProtocolWord {
    Tcp,
    Http,
    Tls,
    Udp,
}

/// `[[listener]]`
pub(in crate::config) struct Listener {
    pub(in crate::config) span: Span,
    pub(in crate::config) name: Field<String>,
    pub(in crate::config) listen: Field<Vec<At<String>>>,
    pub(in crate::config) protocol: Field<ProtocolWord>,
    pub(in crate::config) access_log: Option<AccessLog>,
    pub(in crate::config) backlog: Field<u64>,
    pub(in crate::config) nodelay: Field<bool>,
    pub(in crate::config) keepalive: Field<Option<Duration>>,
    pub(in crate::config) fast_open: Field<bool>,
    pub(in crate::config) max_connections: Field<u64>,
    pub(in crate::config) idle_timeout: Field<Duration>,
    pub(in crate::config) half_closed_timeout: Field<Duration>,
    /// For `protocol = "udp"` only.
    pub(in crate::config) max_sessions: Field<u64>,
    /// For `protocol = "tcp"` and `"udp"`.
    pub(in crate::config) cluster: Field<String>,
    /// For `protocol = "http"` only.
    pub(in crate::config) http: Http,
    /// For `protocol = "tls"` and `"http"`.
    pub(in crate::config) hello_timeout: Field<Duration>,
    pub(in crate::config) tls: Vec<TlsRule>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(in crate::config) complete: bool,
}

/// The keys of a listener that are valid for HTTP only.
pub(in crate::config) struct Http {
    pub(in crate::config) head_timeout: Field<Duration>,
    pub(in crate::config) keepalive_timeout: Field<Duration>,
    pub(in crate::config) max_head: Field<u64>,
    pub(in crate::config) max_headers: Field<u64>,
    pub(in crate::config) hosts: Vec<Host>,
}

/// `[[listener.tls]]`
pub(in crate::config) struct TlsRule {
    pub(in crate::config) span: Span,
    pub(in crate::config) names: Field<Vec<At<String>>>,
    pub(in crate::config) alpn: Field<Vec<At<String>>>,
    pub(in crate::config) cluster: Field<String>,
    pub(in crate::config) simple_obfs: Field<bool>,
}

impl Listener {
    pub(super) fn read(mut table: Table<'_>) -> Listener {
        let protocols = [
            ("tcp", ProtocolWord::Tcp),
            ("http", ProtocolWord::Http),
            ("tls", ProtocolWord::Tls),
            ("udp", ProtocolWord::Udp),
        ];
        let name = table.string("name");
        let listen = table.strings("listen", true);
        let protocol = table.word_with("protocol", &protocols, &[], foreign::protocol);
        let tls = table.tables("tls", "[[listener.tls]]");
        let mut listener = Listener {
            span: table.span,
            name: table.required(
                "name",
                name,
                "the name identifies the listener in records and \
                                                messages",
            ),
            listen: table.required(
                "listen",
                listen,
                "write the address to listen on: listen = \"0.0.0.0:80\", or a list of addresses",
            ),
            protocol: table.required(
                "protocol",
                protocol,
                "\"tcp\" relays every byte to a cluster, \"http\" serves a site, \"tls\" routes \
                 by server name, \"udp\" relays datagrams",
            ),
            access_log: AccessLog::read(&mut table, "[listener.access_log]"),
            backlog: table.integer(
                "backlog",
                1..=65535,
                "the value is the length of the accept \
                                                          queue",
            ),
            nodelay: table.boolean("nodelay"),
            keepalive: table.duration_or_off("keepalive"),
            fast_open: table.boolean("fast_open"),
            max_connections: table.integer(
                "max_connections",
                1..=u64::MAX,
                "leave the key out for no limit",
            ),
            idle_timeout: table.duration("idle_timeout"),
            half_closed_timeout: table.duration("half_closed_timeout"),
            max_sessions: table.integer("max_sessions", 1..=1_000_000, "the default is 65536"),
            cluster: table.string("cluster"),
            http: Http::read(&mut table),
            hello_timeout: table.duration("hello_timeout"),
            tls: tls.into_iter().map(TlsRule::read).collect(),
            complete: true,
        };
        listener.complete = table.report_unknown_keys(&[
            "proxy_protocol",
            "allow",
            "deny",
            "max_connections_per_ip",
        ]);
        listener
    }
}

impl TlsRule {
    pub(super) fn read(mut table: Table<'_>) -> TlsRule {
        let cluster = table.string("cluster");
        let rule = TlsRule {
            span: table.span,
            names: table.strings("names", false),
            alpn: table.strings("alpn", false),
            cluster: table.required(
                "cluster",
                cluster,
                "name the [cluster.NAME] that these connections go to",
            ),
            simple_obfs: table.boolean("simple_obfs"),
        };
        table.report_unknown_keys(&[]);
        rule
    }
}

impl Http {
    pub(super) fn read(table: &mut Table<'_>) -> Http {
        let hosts = table.tables("host", "[[listener.host]]");
        Http {
            head_timeout: table.duration("head_timeout"),
            keepalive_timeout: table.duration("keepalive_timeout"),
            max_head: table.size("max_head", 1 << 10..=64 << 10),
            max_headers: table.integer("max_headers", 1..=256, "the default is 100"),
            hosts: hosts.into_iter().map(Host::read).collect(),
        }
    }
}
