//! Checks `redirect = { … }`: the target must be safe to send and lead somewhere else.
//!
//! A redirect that leads back to its own route makes browsers repeat the request until they give
//! up, and the operator sees no error. Such loops are refused here if the file alone
//! proves them. The file cannot show whether a TLS server in front turns `scheme = "https"` into a
//! loop.

use super::super::report::quoted;
use super::super::types::{At, Field};
use super::super::{HostName, PathMatch, PathRewrite, Redirect, Scheme, address, keys};
use super::Check;
use super::earlier::{Earlier, Passed};
use super::route::matches;

const STATUSES: [u64; 5] = [301, 302, 303, 307, 308];

impl Check<'_> {
    /// `matched` is the path of the route itself, `earlier` are the routes before it, and `hosts`
    /// are the names of its host.
    pub(super) fn redirect(
        &self,
        at: &At<Box<keys::Redirect>>,
        matched: Option<&PathMatch>,
        earlier: &Earlier,
        hosts: &[HostName],
    ) -> Option<Redirect> {
        let typed = &at.value;
        if let Some(status) = typed.status.value.as_ref().filter(|at| !STATUSES.contains(&at.value))
        {
            let what = format!("{} is not the status of a redirect", status.value);
            let note = "301 and 308 are permanent, 302, 303 and 307 temporary; 307 and 308 keep \
                        the method";
            self.report.error(status.span, what, note);
        }
        let host = typed.host.value.as_ref().map(|host| self.redirect_host(host));
        let path = self.path_rewrite(&typed.path, &typed.prefix, "redirect", matched);
        if let Some((what, note)) = own_loop(typed, &path, matched, earlier, hosts) {
            self.report.error(at.span, what, note);
        }
        Some(Redirect {
            status: u16::try_from(typed.status.get()).unwrap_or(u16::MAX),
            scheme: typed.scheme.as_ref().copied(),
            host: match host {
                Some(host) => Some(host?),
                None => None,
            },
            port: typed.port.as_ref().and_then(|port| u16::try_from(*port).ok()),
            path,
            strip_query: typed.strip_query.get(),
        })
    }

    /// Returns `None` if an error was reported.
    fn redirect_host(&self, host: &At<String>) -> Option<String> {
        match address::exact_host(&host.value) {
            Ok(host) => Some(host),
            Err(mut fault) => {
                let port =
                    host.value.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                if let Some(port) = port {
                    fault.note = format!("write the port as a separate key: port = {port}");
                }
                self.report.fault(host.span, fault);
                None
            }
        }
    }

    /// `path` or `prefix` of a `redirect` or a `rewrite`, which `table` says.
    pub(super) fn path_rewrite(
        &self,
        path: &Field<String>,
        prefix: &Field<String>,
        table: &str,
        matched: Option<&PathMatch>,
    ) -> PathRewrite {
        if let (Some(_), Some(prefix)) = (path.key, prefix.key) {
            let what = format!("a {table} has `path` or `prefix`, not both");
            let note = "remove one of them: `path` replaces the whole path, `prefix` its start";
            self.report.error(prefix, what, note);
        }
        if let Some(path) = &path.value {
            self.url_path("path", path);
        }
        if let Some(prefix) = &prefix.value {
            self.url_path("prefix", prefix);
        }
        if matches!(matched, Some(PathMatch::Exact(_)))
            && let Some(span) = prefix.key
        {
            let what = "`prefix` replaces what the route's own `prefix` matched, but the route has \
                        `path`";
            self.report.error(span, what, format!("write `path` in the {table}"));
        }
        match (&path.value, &prefix.value) {
            (Some(path), _) => PathRewrite::Path(path.value.clone()),
            (None, Some(prefix)) => PathRewrite::Prefix(prefix.value.clone()),
            (None, None) => PathRewrite::Keep,
        }
    }
}

/// The error and the advice for a redirect that certainly leads back to its own route.
fn own_loop(
    typed: &keys::Redirect,
    path: &PathRewrite,
    matched: Option<&PathMatch>,
    earlier: &Earlier,
    hosts: &[HostName],
) -> Option<(String, String)> {
    // A new scheme or port leads elsewhere, and an unknown key may be a misspelt one of these.
    if typed.scheme.is_given() || typed.port.is_given() || !typed.place.complete {
        return None;
    }
    if typed.host.is_given() {
        let host = typed.host.as_ref()?;
        let own = HostName::Exact(address::exact_host(host).ok()?);
        let same = hosts.contains(&own) && *path == PathRewrite::Keep;
        let what = format!("requests for {} are redirected to themselves", quoted(host));
        let note = "remove the name from the `names` of this host, or add scheme, port or path";
        return same.then(|| (what, String::from(note)));
    }
    // An invalid `path` or `prefix` was reported, so its target is unknown.
    let rewritten_away = typed.path.is_given() || typed.prefix.is_given();
    let (target, again) = match path {
        PathRewrite::Keep if rewritten_away => return None,
        PathRewrite::Keep => {
            let what = String::from("this redirect leads back to the URL of the request");
            let note = String::from(
                "add a key for what changes: scheme, host, port, path or \
                                     prefix",
            );
            return Some((what, note));
        }
        PathRewrite::Path(target) => {
            let taken = earlier.matches_path(target);
            (target, !taken && matches(matched?, target))
        }
        PathRewrite::Prefix(target) => {
            let taken = earlier.matches_prefix(target);
            (target, !taken && matches(matched?, target))
        }
    };
    let what =
        format!("this redirect leads to {}, which its own route matches again", quoted(target));
    let note = "put a route for the target before this one, or name another host";
    again.then(|| (what, String::from(note)))
}

/// The requests that a redirect passes over, because it would redirect them to themselves.
/// [`crate::route::find`] has the same rule. `None` if there are none: the redirect names no
/// scheme, or no request with its target reaches the route.
pub(super) fn passed_over(
    typed: &keys::Redirect,
    matched: Option<&PathMatch>,
    hosts: &[HostName],
    has_https: bool,
) -> Option<Passed> {
    let scheme = typed.scheme.as_ref().copied()?;
    let host = typed.host.as_ref().map(|host| address::exact_host(host).unwrap_or_default());
    let reaches = |host: &String| hosts.is_empty() || hosts.iter().any(|name| is_for(name, host));
    let path = typed.path.as_ref().or(typed.prefix.as_ref());
    let reaches_path = match (matched, &typed.path.value, &typed.prefix.value) {
        (Some(matched), Some(path), _) => matches(matched, &path.value),
        (Some(PathMatch::Prefix(old)), None, Some(new)) => *old == new.value,
        _ => true,
    };
    let is_reached =
        (scheme == Scheme::Http || has_https) && host.as_ref().is_none_or(reaches) && reaches_path;
    is_reached.then(|| Passed {
        scheme,
        host,
        port: typed.port.as_ref().copied(),
        path: path.cloned(),
        strip_query: typed.strip_query.get(),
    })
}

/// Returns true when a host with this name serves requests for `host`.
fn is_for(name: &HostName, host: &str) -> bool {
    match name {
        HostName::Exact(exact) => exact == host,
        HostName::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        HostName::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix),
    }
}
