//! `request_fields = { … }` of a route, `response_fields = { … }` of a route or listener.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::patterns::{FIELD_NAME, FIELD_VALUE};
use crate::config::contract::rules::some_of;
use crate::config::types::{Entries, Field, List, Place};

/// Changes of header fields. Names are compared without case. The fields that frame a message or
/// belong to a connection cannot be changed: Content-Length, Transfer-Encoding, TE, Trailer,
/// Connection, Keep-Alive, Proxy-Connection and Upgrade. Nor can Host, which `rewrite` changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "x-inline" = true,
    "x-rules" = [some_of(&["set", "remove"])],
    "x-foreign" = {
        "add": "set",
        "append": "set",
        "delete": "remove",
        "unset": "remove",
    },
))]
pub(in crate::config) struct FieldRules {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// Fields with their values. Each takes the place of all fields that have its name.
    #[schemars(example = json!({ "strict-transport-security": "max-age=31536000" }), extend(
        "propertyNames" = names(),
        "additionalProperties" = json!({ "type": "string", "pattern": FIELD_VALUE }),
        "x-empty" = "leave `set` out to set no field",
        "x-advice" = "write set = { x-env = \"prod\" }: names with their values"
    ))]
    pub(in crate::config) set: Field<Entries<String>>,
    /// The names of fields that are removed.
    #[schemars(example = ["x-powered-by"], extend(
        "items" = names(),
        "x-empty" = "leave `remove` out to remove no field"
    ))]
    pub(in crate::config) remove: Field<List<String>>,
}

/// The names of fields that cannot be changed, in lower case.
pub(in crate::config) const FRAMING: &[&str] =
    &["content-length", "transfer-encoding", "te", "trailer"];
/// The names of fields that are about one connection, in lower case.
pub(in crate::config) const OF_CONNECTION: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "upgrade"];

/// A JSON Schema of the names that may stand here.
fn names() -> Value {
    let any_case = |name: &&str| -> String {
        let each = name.chars().map(|c| match c.is_ascii_alphabetic() {
            true => format!("[{}{c}]", c.to_ascii_uppercase()),
            false => c.to_string(),
        });
        each.collect()
    };
    let all = FRAMING.iter().chain(OF_CONNECTION).chain(&["host"]);
    let refused: Vec<String> = all.map(any_case).collect();
    json!({
        "type": "string",
        "pattern": FIELD_NAME,
        "not": { "pattern": format!("^({})$", refused.join("|")) },
    })
}
