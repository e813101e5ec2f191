//! `[access_log]` as typed, at the top or in a listener.

use crate::config::table::{Field, Table};

/// `[access_log]`
pub(in crate::config) struct AccessLog {
    pub(in crate::config) path: Field<String>,
    pub(in crate::config) format: Field<String>,
}

impl AccessLog {
    pub(super) fn read(parent: &mut Table<'_>, place: &str) -> Option<AccessLog> {
        let mut table = parent.table("access_log", place).value?.value;
        let log = AccessLog { path: table.string("path"), format: table.string("format") };
        table.report_unknown_keys(&[]);
        Some(log)
    }
}
