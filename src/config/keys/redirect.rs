//! `redirect = { … }` of a route.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::patterns::{HOST, PATH};
use crate::config::contract::rules::{none_of, some_of};
use crate::config::types::{Field, Place};

/// A redirect. What is not named stays as in the request. The query stays unless `strip_query` is
/// true.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-inline" = true, "x-rules" = [
    some_of(&["scheme", "host", "port", "path", "prefix"]),
    json!({ "if": { "required": ["path"] }, "then": none_of(&["prefix"]) }),
]))]
pub(in crate::config) struct Redirect {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// The scheme of the target. A redirect that names the scheme passes over requests that it
    /// would redirect to themselves: they go on to the next route, so one set of routes serves
    /// both schemes.
    pub(in crate::config) scheme: Field<Scheme>,
    /// The host of the target, without port.
    #[schemars(regex(pattern = HOST), example = "www.example.com")]
    pub(in crate::config) host: Field<String>,
    /// The port of the target. Left out: the port of the request if neither scheme nor host
    /// changes, and the default of the scheme otherwise.
    #[schemars(range(min = 1, max = 65535), example = 8443, extend(
        "x-advice" = "leave the key out for the default port of the scheme"
    ))]
    pub(in crate::config) port: Field<u64>,
    /// The path of the target, in place of the whole path.
    #[schemars(regex(pattern = PATH), example = "/login")]
    pub(in crate::config) path: Field<String>,
    /// Replaces the part of the path that the `prefix` of the route matched.
    #[schemars(regex(pattern = PATH), example = "/handbook/")]
    pub(in crate::config) prefix: Field<String>,
    /// Whether the query is left out.
    #[schemars(extend("default" = false))]
    pub(in crate::config) strip_query: Field<bool>,
    /// The status: 301 and 308 are permanent, 302, 303 and 307 temporary; 307 and 308 keep the
    /// method.
    #[schemars(example = 308, extend(
        "default" = 301, "enum" = [301, 302, 303, 307, 308]
    ))]
    pub(in crate::config) status: Field<u64>,
}

/// The scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Default port 80.
    Http,
    /// Default port 443.
    Https,
}
