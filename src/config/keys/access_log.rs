//! `[access_log]`, at the top or in a listener.

use schemars::JsonSchema;
use serde::Deserialize;

use super::patterns::{RECORD_FORMAT, RECORDS};
use crate::config::contract::When;
use crate::config::types::Field;

/// Where records of connections, requests and tunnels go, and how they look. In a listener, the
/// table replaces the one at the top as a whole.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AccessLog {
    /// `"stdout"`, `"stderr"`, `"off"`, or the path of a file with at least one slash. A file is
    /// created if it does not exist, appended to, and opened again on SIGUSR1. A relative path
    /// starts at the working directory.
    #[schemars(
        regex(pattern = RECORDS),
        example = "/var/log/ringgate/access.log", example = &"stderr", example = &"off",
        extend("default" = "stdout")
    )]
    pub(in crate::config) path: Field<String>,
    /// `"text"` (the default order of Envoy), `"json"`, `"combined"` (that of nginx), or a template
    /// that names fields as `%{field}`. The fields are listed in the guide for operations.
    #[schemars(
        regex(pattern = RECORD_FORMAT),
        example = &"json", example = &"combined", example = "%{client} %{path} %{status}",
        extend(
            "default" = "text",
            "x-when" = [When::is_not("path", &["off"], "remove one of them")]
        )
    )]
    pub(in crate::config) format: Field<String>,
}
