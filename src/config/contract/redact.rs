//! Hides what a configuration keeps secret. Keys, tokens and certificates are in files, of which a
//! configuration has the paths alone. What is left is fields that are set, such as an
//! `Authorization` for a cluster, and credentials in URLs.

use toml::{Table, Value};

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "(redacted)";

/// Parts of the names of fields whose values are secret.
const SECRET: [&str; 10] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
    "jwt",
];

/// Hides the secrets in the values of a table, and of all tables in it.
pub(super) fn redact(table: &mut Table) {
    for (name, value) in table.iter_mut() {
        if name == "request_fields" || name == "response_fields" {
            fields(value);
        } else {
            inner(value);
        }
    }
}

fn inner(value: &mut Value) {
    match value {
        Value::Table(table) => redact(table),
        Value::Array(items) => items.iter_mut().for_each(inner),
        Value::String(text) => {
            if let Some(plain) = without_credentials(text) {
                *text = plain;
            }
        }
        _ => {}
    }
}

/// Hides the values of fields that are set and have the name of a secret.
fn fields(rules: &mut Value) {
    let set = rules.as_table_mut().and_then(|rules| rules.get_mut("set"));
    for (name, value) in set.and_then(Value::as_table_mut).into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        if SECRET.iter().any(|part| name.contains(part)) {
            *value = Value::String(REDACTED.to_owned());
        }
    }
}

/// A URL without the user and the password in it; `None` if it has none.
fn without_credentials(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (_, host) = authority.rsplit_once('@')?;
    let rest = &rest[authority.len()..];
    Some(format!("{scheme}://{REDACTED}@{host}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let text = r#"
            directory = "https://user:hunter2@ca.test/dir?a@b"
            plain = "https://ca.test/@b"
            token_file = "/etc/token"
            [[listener]]
            response_fields = { set = { "Set-Cookie" = "id=hunter2", "X-Env" = "prod" } }
            [[listener.host.route]]
            request_fields = { set = { authorization = "Basic hunter2", "X-Api-Key" = "hunter2" } }
        "#;
        let mut table: Table = text.parse().unwrap();
        redact(&mut table);
        let shown = table.to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches(REDACTED).count(), 4, "{shown}");
        for plain in ["@ca.test/dir?a@b", "https://ca.test/@b", "/etc/token", "prod"] {
            assert!(shown.contains(plain), "{plain}: {shown}");
        }
    }
}
