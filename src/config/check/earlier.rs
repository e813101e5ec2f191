//! The routes of a host that come before the one that is checked, found by their path.
//!
//! A file may have many thousands of routes, so that comparing each with all before it would take
//! too long.

use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::ops::Bound;

use super::super::{Handshakes, PathMatch, Scheme};
use super::Span;
use crate::proto::http::has_dot_segment;

/// The requests that a route matches. It serves to find later routes that can never match.
#[derive(Clone)]
pub(super) struct Matcher {
    pub(super) path: PathMatch,
    pub(super) kinds: Kinds,
    /// Whether requests are forwarded to a cluster. Then a prefix matches no path with dot
    /// segments.
    pub(super) forwards: bool,
    pub(super) span: Span,
}

/// The kinds of requests that a route matches, among those for its paths.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kinds {
    All,
    /// All but those that a redirect would redirect to themselves.
    AllBut(Passed),
    /// Every upgrade.
    Upgrades,
    /// Upgrades with one of these handshakes.
    Handshakes(Handshakes),
}

/// The requests that a redirect with a scheme passes over: those that have its target already.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) scheme: Scheme,
    /// What else the redirect names.
    pub(super) host: Option<String>,
    pub(super) port: Option<u64>,
    pub(super) path: Option<String>,
    pub(super) strip_query: bool,
}

/// The routes so far. Those that can never match are left out.
#[derive(Default)]
pub(super) struct Earlier {
    routes: Vec<Matcher>,
    /// Positions in `routes` by the whole path.
    exact: HashMap<String, Vec<usize>>,
    /// Positions in `routes` by prefix.
    prefixes: BTreeMap<String, Vec<usize>>,
}

impl Earlier {
    /// Adds a route. Returns the first one that leaves no request for it, if there is one.
    pub(super) fn add(&mut self, matcher: Matcher) -> Option<&Matcher> {
        let text = matcher.path.text();
        let exact = match &matcher.path {
            PathMatch::Exact(path) => self.exact.get(path).map_or(&[][..], Vec::as_slice),
            PathMatch::Prefix(_) => &[],
        };
        let covering = self.with_prefix_of(text).chain(exact.iter().copied());
        let first = covering.filter(|at| self.routes[*at].covers(&matcher)).min();
        if let Some(first) = first {
            return self.routes.get(first);
        }
        let text = text.to_owned();
        let same_path = match &matcher.path {
            PathMatch::Exact(_) => self.exact.entry(text).or_default(),
            PathMatch::Prefix(_) => self.prefixes.entry(text).or_default(),
        };
        same_path.push(self.routes.len());
        self.routes.push(matcher);
        None
    }

    /// Returns true when a route matches every request for this path that is not an upgrade.
    pub(super) fn matches_path(&self, path: &str) -> bool {
        let exact = self.exact.get(path).into_iter().flatten().copied();
        let mut routes = self.with_prefix_of(path).chain(exact).map(|at| &self.routes[at]);
        routes.any(|route| route.kinds == Kinds::All && !route.skips(path))
    }

    /// Returns true when a route matches all requests with this start of the path that are not
    /// upgrades.
    pub(super) fn matches_prefix(&self, start: &str) -> bool {
        let mut routes = self.with_prefix_of(start).map(|at| &self.routes[at]);
        routes.any(|route| route.kinds == Kinds::All && !route.skips(start))
    }

    /// The routes with a prefix that the text starts with, the longest prefixes first.
    fn with_prefix_of<'e>(&'e self, text: &'e str) -> impl Iterator<Item = usize> + 'e {
        let mut end = Bound::Included(text);
        let next = iter::from_fn(move || {
            loop {
                let (prefix, routes) =
                    self.prefixes.range::<str, _>((Bound::Unbounded, end)).next_back()?;
                let shared = shared_start(prefix, text);
                if shared == prefix {
                    end = Bound::Excluded(prefix);
                    return Some(routes);
                }
                // Prefixes of the text sort before everything else that starts with what both
                // share.
                end = Bound::Included(shared);
            }
        });
        next.flatten().copied()
    }
}

/// The longest start of `prefix` that `text` has, too.
fn shared_start<'p>(prefix: &'p str, text: &str) -> &'p str {
    let mut pairs = prefix.char_indices().zip(text.chars());
    let differs = pairs.find(|((_, one), other)| one != other).map(|((at, _), _)| at);
    &prefix[..differs.unwrap_or(prefix.len().min(text.len()))]
}

impl Kinds {
    /// Returns true when no request is left for `later`.
    fn covers(&self, later: &Kinds) -> bool {
        match (self, later) {
            (Kinds::All, _) | (Kinds::Upgrades, Kinds::Upgrades | Kinds::Handshakes(_)) => true,
            // The first takes every request by another scheme.
            (Kinds::AllBut(first), Kinds::AllBut(later)) => {
                first == later || first.scheme == later.scheme && later.is_whole_scheme()
            }
            (Kinds::Handshakes(first), Kinds::Handshakes(later)) => {
                (first.obfs || !later.obfs) && (first.websocket || !later.websocket)
            }
            (Kinds::AllBut(_), _) | (Kinds::Upgrades, _) | (Kinds::Handshakes(_), _) => false,
        }
    }
}

impl Passed {
    /// Returns true when the redirect names the scheme alone, so that it passes over every request
    /// that came by it.
    fn is_whole_scheme(&self) -> bool {
        self.host.is_none() && self.port.is_none() && self.path.is_none() && !self.strip_query
    }
}

impl Matcher {
    /// The name of the route in records.
    pub(super) fn name(&self) -> String {
        match &self.path {
            PathMatch::Exact(path) => path.clone(),
            PathMatch::Prefix(prefix) => format!("{prefix}*"),
        }
    }

    /// Returns true when no request is left for `later`, whose path this route matches.
    fn covers(&self, later: &Matcher) -> bool {
        self.kinds.covers(&later.kinds) && !self.skips(later.path.text())
    }

    /// Returns true if the route does not match a path because of its dot segments.
    fn skips(&self, path: &str) -> bool {
        self.forwards && matches!(self.path, PathMatch::Prefix(_)) && has_dot_segment(path)
    }
}

impl PathMatch {
    fn text(&self) -> &str {
        match self {
            PathMatch::Exact(text) | PathMatch::Prefix(text) => text,
        }
    }
}
