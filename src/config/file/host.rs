//! `[[listener.host]]`, its routes and what they do, as typed.

use std::time::Duration;

use crate::config::Scheme;
use crate::config::report::Span;
use crate::config::table::{At, Field, Table};

/// `[[listener.host]]`
pub(in crate::config) struct Host {
    pub(in crate::config) span: Span,
    pub(in crate::config) names: Field<Vec<At<String>>>,
    pub(in crate::config) routes: Vec<Route>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(in crate::config) complete: bool,
}

/// `[[listener.host.route]]`
pub(in crate::config) struct Route {
    pub(in crate::config) span: Span,
    pub(in crate::config) path: Field<String>,
    pub(in crate::config) prefix: Field<String>,
    pub(in crate::config) upgrade: Field<()>,
    pub(in crate::config) cluster: Field<String>,
    pub(in crate::config) tunnel: Field<TunnelWord>,
    pub(in crate::config) accept: Field<Vec<At<String>>>,
    pub(in crate::config) early_data: Field<bool>,
    pub(in crate::config) idle_timeout: Field<Duration>,
    pub(in crate::config) redirect: Field<Redirect>,
    pub(in crate::config) respond: Field<Respond>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(in crate::config) complete: bool,
}

/// `route.tunnel`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum TunnelWord {
    Forward,
    Terminate,
}

const TUNNELS: [(&str, TunnelWord); 2] =
    [("forward", TunnelWord::Forward), ("terminate", TunnelWord::Terminate)];

/// `redirect = { … }`
pub(in crate::config) struct Redirect {
    pub(in crate::config) scheme: Field<Scheme>,
    pub(in crate::config) host: Field<String>,
    pub(in crate::config) port: Field<u64>,
    pub(in crate::config) path: Field<String>,
    pub(in crate::config) prefix: Field<String>,
    pub(in crate::config) strip_query: Field<bool>,
    pub(in crate::config) status: Field<u64>,
    /// Whether all its keys are known. If so, a missing key was not misspelt.
    pub(in crate::config) complete: bool,
}

/// `respond = { … }`
pub(in crate::config) struct Respond {
    pub(in crate::config) status: Field<u64>,
    pub(in crate::config) content_type: Field<String>,
    pub(in crate::config) body: Field<String>,
    pub(in crate::config) file: Field<String>,
}

impl Host {
    pub(super) fn read(mut table: Table<'_>) -> Host {
        let routes = table.tables("route", "[[listener.host.route]]");
        let mut host = Host {
            span: table.span,
            names: table.strings("names", false),
            routes: routes.into_iter().map(Route::read).collect(),
            complete: true,
        };
        host.complete = table.report_unknown_keys(&[]);
        host
    }
}

impl Route {
    pub(super) fn read(mut table: Table<'_>) -> Route {
        let redirect = table.table("redirect", "redirect = { … }");
        let respond = table.table("respond", "respond = { … }");
        let mut route = Route {
            span: table.span,
            path: table.string("path"),
            prefix: table.string("prefix"),
            upgrade: table.word("upgrade", &[("websocket", ())], &[]),
            cluster: table.string("cluster"),
            tunnel: table.word("tunnel", &TUNNELS, &[]),
            accept: table.strings("accept", false),
            early_data: table.boolean("early_data"),
            idle_timeout: table.duration("idle_timeout"),
            redirect: redirect.map(Redirect::read),
            respond: respond.map(Respond::read),
            complete: true,
        };
        route.complete =
            table.report_unknown_keys(&["regex", "method", "headers", "query", "clusters"]);
        route
    }
}

impl Redirect {
    pub(super) fn read(mut table: Table<'_>) -> Redirect {
        let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
        let mut redirect = Redirect {
            scheme: table.word("scheme", &schemes, &[]),
            host: table.string("host"),
            port: table.integer(
                "port",
                1..=65535,
                "leave the key out for the default port of the \
                                                    scheme",
            ),
            path: table.string("path"),
            prefix: table.string("prefix"),
            strip_query: table.boolean("strip_query"),
            status: table.integer("status", 0..=u64::MAX, "the default is 301"),
            complete: true,
        };
        redirect.complete = table.report_unknown_keys(&[]);
        redirect
    }
}

impl Respond {
    pub(super) fn read(mut table: Table<'_>) -> Respond {
        let respond = Respond {
            status: table.integer("status", 200..=599, "a 1xx response is not a final one"),
            content_type: table.string("content_type"),
            body: table.string("body"),
            file: table.string("file"),
        };
        table.report_unknown_keys(&[]);
        respond
    }
}
