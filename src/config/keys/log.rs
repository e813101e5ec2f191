//! `[log]`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::Field;

/// Diagnostics: messages of ringgate itself, on stderr.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Log {
    /// The least important messages to write. The environment variable `RINGGATE_LOG` overrides it.
    #[schemars(extend("default" = "info"))]
    pub(in crate::config) level: Field<LogLevel>,
    /// The form of a message.
    #[schemars(extend("default" = "text"))]
    pub(in crate::config) format: Field<LogFormat>,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum LogLevel {
    /// Failures that need the operator.
    Error,
    /// Problems that ringgate works around.
    Warn,
    /// Starts, stops and changes, such as new addresses of a name.
    Info,
    /// Details for finding a fault.
    Debug,
    /// All details.
    Trace,
    /// No messages.
    Off,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum LogFormat {
    /// One line of text for each message.
    Text,
    /// One JSON object in a line for each message.
    Json,
}

impl LogLevel {
    /// The word in the file.
    pub(in crate::config) fn word(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
            LogLevel::Off => "off",
        }
    }
}
