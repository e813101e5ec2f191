//! `rewrite = { … }` of a route.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::patterns::{HOST_AND_PORT, PATH};
use crate::config::contract::rules::{none_of, some_of};
use crate::config::types::{Field, Place};

/// What changes in the target of a request before a cluster gets it. The query stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-inline" = true, "x-rules" = [
    some_of(&["prefix", "path", "host"]),
    json!({ "if": { "required": ["path"] }, "then": none_of(&["prefix"]) }),
]))]
pub(in crate::config) struct Rewrite {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// Replaces the part of the path that the `prefix` of the route matched.
    #[schemars(regex(pattern = PATH), example = "/")]
    pub(in crate::config) prefix: Field<String>,
    /// The path, in place of the whole path.
    #[schemars(regex(pattern = PATH), example = "/index.php")]
    pub(in crate::config) path: Field<String>,
    /// The host that the cluster gets in the Host field, with a port if it needs one. The default
    /// is the Host field of the request.
    #[schemars(regex(pattern = HOST_AND_PORT), example = "app.internal", example = "[::1]:8080")]
    pub(in crate::config) host: Field<String>,
}
