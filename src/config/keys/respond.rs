//! `respond = { … }` of a route.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::patterns::CONTENT_TYPE;
use crate::config::contract::rules::{has, none_of};
use crate::config::types::Field;

/// A response that is held in memory, at most 1 MiB.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-inline" = true, "x-rules" = [
    json!({ "if": { "required": ["body"] }, "then": none_of(&["file"]) }),
    json!({ "if": has("status", [204, 205, 304]), "then": none_of(&["body", "file"]) }),
]))]
pub(in crate::config) struct Respond {
    /// The status. With 204, 205 and 304 there is no body.
    #[schemars(range(min = 200, max = 599), example = 404, extend(
        "default" = 200, "x-advice" = "a 1xx response is not a final one"
    ))]
    pub(in crate::config) status: Field<u64>,
    /// The value of the Content-Type field.
    #[schemars(
        regex(pattern = CONTENT_TYPE),
        example = "text/html; charset=utf-8",
        extend("default" = "text/plain; charset=utf-8")
    )]
    pub(in crate::config) content_type: Field<String>,
    /// The body. `body` and `file` exclude each other; without both the body is empty.
    #[schemars(length(max = 1_048_576), example = "<h1>It works</h1>")]
    pub(in crate::config) body: Field<String>,
    /// A file with the body. It is read once, together with the configuration. A relative path
    /// starts at the directory of the configuration.
    #[schemars(example = "pages/index.html")]
    pub(in crate::config) file: Field<String>,
}
