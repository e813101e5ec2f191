//! Checks `[access_log]` of the file and of single listeners.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::keys;
use super::super::report::{Span, advice, closest, quoted};
use super::super::types::Field;
use super::super::{AccessLog, LogPath};
use super::Check;
use crate::observe::access_log::Format;

impl Check<'_> {
    /// The log of each listener; `None` for one that writes no records. Listeners without settings
    /// of their own share the common log.
    pub(super) fn access_logs(
        &self,
        common: &keys::AccessLog,
        listeners: &[keys::Listener],
    ) -> Vec<Option<Arc<AccessLog>>> {
        let common = self.access_log(common).map(Arc::new);
        let of_listener = |listener: &keys::Listener| match listener.access_log.as_ref() {
            Some(typed) => self.access_log(typed).map(Arc::new),
            None => common.clone(),
        };
        listeners.iter().map(of_listener).collect()
    }

    /// Returns `None` if the log is off or was reported.
    fn access_log(&self, typed: &keys::AccessLog) -> Option<AccessLog> {
        let format = self.format(&typed.format);
        self.log_path(&typed.path).map(|path| AccessLog { path, format })
    }

    /// Returns `None` if the log is off or was reported.
    fn log_path(&self, field: &Field<String>) -> Option<LogPath> {
        const WORDS: [&str; 3] = ["stdout", "stderr", "off"];
        let path = field.get();
        let note = match path.as_str() {
            "stdout" => return Some(LogPath::Stdout),
            "stderr" => return Some(LogPath::Stderr),
            "off" => return None,
            file if file.ends_with('/') => String::from("the path is a directory: add a file name"),
            file if file.chars().any(char::is_control) => {
                String::from("control characters are not allowed in a path")
            }
            file if file.starts_with("~/") => {
                String::from("a `~` has no meaning here: write the path in full")
            }
            file if file.contains('/') => return Some(LogPath::File(PathBuf::from(file))),
            // A bare word would become a file in the working directory, which is probably
            // unintended.
            word => match closest(word, WORDS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => String::from(
                    "write `stdout`, `stderr`, `off`, or a path with a slash: ./access.log",
                ),
            },
        };
        let span = field.value.as_ref()?.span;
        self.report.error(span, format!("records cannot go to {}", quoted(&path)), note);
        None
    }

    fn format(&self, field: &Field<String>) -> Format {
        let format = field.get();
        let span = field.value.as_ref().map_or(Span { start: 0, end: 0 }, |at| at.span);
        match format.as_str() {
            "text" => Format::text(),
            "json" => Format::json(),
            "combined" => Format::combined(),
            template if template.contains("%{") => self.template(template, span),
            word => {
                let advice = advice(word, &["text", "json", "combined"]);
                let note = if advice.starts_with("did") {
                    advice
                } else {
                    format!("{advice}, or a template that names fields: \"%{{client}} %{{path}}\"")
                };
                let what = format!("{} is not a record format", quoted(word));
                self.report.error(span, what, note);
                Format::text()
            }
        }
    }

    fn template(&self, template: &str, span: Span) -> Format {
        Format::template(template).unwrap_or_else(|errors| {
            for error in errors {
                let place = self.report.within(span, template, error.offset);
                self.report.error(place, "this template is not valid", error.to_string());
            }
            Format::text()
        })
    }
}
