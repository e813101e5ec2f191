//! Checks `request_fields` and `response_fields`: names and values that can be sent, and no field
//! that frames a message or belongs to a connection.

use std::collections::HashMap;

use super::super::keys::{self, FRAMING, OF_CONNECTION};
use super::super::report::{Span, quoted};
use super::super::types::{At, Field};
use super::super::{FieldName, FieldRules, FieldValue};
use super::Check;

/// The message whose fields are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
}

impl Check<'_> {
    /// Returns the rules of `request_fields` or `response_fields`. Those that are reported are left
    /// out.
    pub(super) fn field_rules(
        &self,
        field: &Field<Box<keys::FieldRules>>,
        of: Message,
    ) -> FieldRules {
        let Some(at) = &field.value else { return FieldRules::default() };
        let typed = &at.value;
        let key = if of == Message::Request { "request_fields" } else { "response_fields" };
        if !typed.set.is_given() && !typed.remove.is_given() && typed.place.complete {
            let note = "add set = { x-name = \"value\" } or remove = [\"x-name\"]";
            self.report.error(at.span, format!("`{key}` changes no field"), note);
        }
        let mut names = HashMap::new();
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for (name, value) in typed.set.as_ref().into_iter().flat_map(|entries| entries.iter()) {
            let name = self.new_field(name, of, &mut names);
            let value = self.field_value(value);
            set.extend(name.zip(value));
        }
        for name in typed.remove.as_ref().into_iter().flat_map(|names| names.iter()) {
            remove.extend(self.new_field(name, of, &mut names));
        }
        FieldRules::new(set, remove)
    }

    /// The name of a field that is not among `names` yet. Returns `None` if an error was reported.
    fn new_field(
        &self,
        at: &At<String>,
        of: Message,
        names: &mut HashMap<FieldName, Span>,
    ) -> Option<FieldName> {
        let Some(name) = FieldName::new(&at.value) else {
            let what = format!("{} is not the name of a field", quoted(&at.value));
            let note = "a name consists of letters, digits and the characters !#$%&'*+-.^_`|~ \
                        (RFC 9110 section 5.1)";
            self.report.error(at.span, what, note);
            return None;
        };
        if let Some(note) = reserved(name.as_str(), of) {
            let what = format!("the field {} cannot be changed", quoted(&at.value));
            self.report.error(at.span, what, note);
            return None;
        }
        if let Some(first) = names.insert(name.clone(), at.span) {
            let what = format!("the field {} is here already", quoted(&at.value));
            let note = format!(
                "line {} has it, and names are compared without case: remove one of them",
                self.report.line(first)
            );
            self.report.error(at.span, what, note);
            return None;
        }
        Some(name)
    }

    /// Returns `None` if an error was reported.
    pub(super) fn field_value(&self, at: &At<String>) -> Option<FieldValue> {
        let value = FieldValue::new(&at.value);
        if value.is_none() {
            let what = format!("{} cannot be the value of a field", quoted(&at.value));
            let note = if at.value.chars().any(char::is_control) {
                "control characters are not allowed in it: a line feed would start another field"
            } else {
                "remove the spaces at its ends, which are no part of a value"
            };
            self.report.error(at.span, what, note);
        }
        value
    }

    /// The value of a key that is the value of a field, and not empty. Returns `None` if it was
    /// left out, or if an error was reported.
    pub(super) fn some_field_value(&self, key: &str, field: &Field<String>) -> Option<String> {
        let at = field.value.as_ref()?;
        if at.value.is_empty() {
            let note = format!("leave `{key}` out to have no such field");
            self.report.error(at.span, format!("`{key}` is empty"), note);
            return None;
        }
        self.field_value(at).map(|value| value.as_str().to_owned())
    }
}

/// Why a field cannot be changed, by its name in lower case.
fn reserved(name: &str, of: Message) -> Option<&'static str> {
    let note = match (name, of) {
        ("host", Message::Request) => {
            "a request has one Host: write rewrite = { host = \"app.internal\" } in the route"
        }
        ("host", Message::Response) => "a response has no Host: remove it",
        _ if FRAMING.contains(&name) => {
            "it says how the body is framed, and ringgate writes it: remove it"
        }
        _ if OF_CONNECTION.contains(&name) => {
            "it is about one connection, and ringgate writes it for each: remove it"
        }
        _ => return None,
    };
    Some(note)
}
