//! Formats a record as a line of alternating literals and fields: text, JSON or a template.
//!
//! The built-in formats are straight-line code. Templates are interpreted, which takes up to twice
//! as long for the same line. Field names are those in the configuration's documentation. Nothing
//! here allocates except when the line grows.

use std::fmt;
use std::mem;

use super::combined;
use super::field::{Field, names};
use super::record::Record;
use super::value::Clock;

/// The format of the records of one access log. Every record is exactly one line, whatever bytes
/// the peers sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Layout);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    Text,
    Json,
    Combined,
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
}

impl Format {
    /// Words separated by spaces, in Envoy's default order, with `-` for a missing value.
    pub fn text() -> Format {
        Format(Layout::Text)
    }

    /// One JSON object per line with all fields, and `null` for a missing value. The fields of TLS
    /// are an object in it.
    pub fn json() -> Format {
        Format(Layout::Json)
    }

    /// The format that nginx calls `combined`.
    pub fn combined() -> Format {
        Format(Layout::Combined)
    }

    /// Returns true if a record says what a request tells about its client: `referer` and
    /// `user_agent`. Otherwise these need not be set.
    pub fn names_visitors(&self) -> bool {
        let is_named =
            |piece: &Piece| matches!(piece, Piece::Field(field) if field.is_of_visitor());
        match &self.0 {
            Layout::Text => false,
            Layout::Json | Layout::Combined => true,
            Layout::Template(pieces) => pieces.iter().any(is_named),
        }
    }

    /// A custom line: `%{field}` stands for a value, `%%` for a percent sign. Values are written as
    /// in the text format, without spaces and quotes.
    ///
    /// # Errors
    /// Everything that is wrong with the template; at least one error.
    pub fn template(template: &str) -> Result<Format, Vec<TemplateError>> {
        let control = |(_, char): &(usize, char)| char.is_control() && *char != '\t';
        let mut errors: Vec<TemplateError> = template
            .char_indices()
            .filter(control)
            .map(|(offset, char)| TemplateError::control(offset, char))
            .collect();
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(percent) = rest.find('%') {
            literal.push_str(&rest[..percent]);
            let offset = template.len() - rest.len() + percent;
            let after = &rest[percent + 1..];
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            // A field begins: the literal before it is complete.
            let (name, behind) = match placeholder(after) {
                Ok(parts) => parts,
                Err(why) => {
                    errors.push(TemplateError::new(offset, why));
                    rest = after;
                    continue;
                }
            };
            rest = behind;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(mem::take(&mut literal)));
            }
            match Field::named(name) {
                Some(field) => pieces.push(Piece::Field(field)),
                None => errors.push(TemplateError::unknown(offset, name)),
            }
        }
        if pieces.is_empty() && errors.is_empty() {
            errors.push(TemplateError::no_field());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        // The line feed is part of the last literal, so every record ends with one.
        literal.push_str(rest);
        literal.push('\n');
        pieces.push(Piece::Literal(literal));
        Ok(Format(Layout::Template(pieces)))
    }

    /// Appends `record` to `out` as one line including its line feed. `clock` belongs to the
    /// worker.
    pub fn write(&self, record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
        match &self.0 {
            Layout::Text => write_text(record, clock, out),
            Layout::Json => write_json(record, clock, out),
            Layout::Combined => combined::write(record, clock, out),
            Layout::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
                        Piece::Field(field) => field.value(record).write_text(clock, out),
                    }
                }
            }
        }
    }
}

/// Writes literals and fields in turn. In this unrolled form the compiler knows each field and each
/// literal, which more than halves the time per record.
macro_rules! write_line {
    ($write:ident($record:ident, $clock:ident, $out:ident):
     $($literal:literal $field:ident)* ; $last:literal) => {{
        $(
            $out.extend_from_slice($literal);
            Field::$field.value($record).$write($clock, $out);
        )*
        $out.extend_from_slice($last);
    }};
}

/// Envoy's default order, then the fields that Envoy does not have. What requests tell about their
/// clients is not among them. New fields must be appended,
/// because scripts count positions.
fn write_text(record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
    write_line!(write_text(record, clock, out):
        b"[" Start b"] \"" Method b" " Path b" " Protocol b"\" " Status b" " End
        b" " BytesUp b" " BytesDown b" " DurationMs b" " ConnectMs
        b" \"" Client b"\" \"" Host b"\" \"" Endpoint
        b"\" " Listener b" " Route b" " Cluster b" " Relay
        b" " Attempts b" " FailedEndpoints b" " Reason; b" ");
    if record.tls.is_none() {
        out.extend_from_slice(b"- - - - - - -");
    } else {
        write_line!(write_text(record, clock, out):
            b"" TlsVersion b" " TlsCipher b" " Sni b" " Alpn
            b" " TlsResumed b" " HandshakeMs b" " TlsError; b"");
    }
    write_line!(write_text(record, clock, out):
        b" " UpstreamStatus b" " FirstByteMs b" " Reused b" " Retries
        b" " RelayReason b" " BodyBytes; b"\n");
}

fn write_json(record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
    write_line!(write_json(record, clock, out):
        b"{\"start\":" Start
        b",\"listener\":" Listener
        b",\"protocol\":" Protocol
        b",\"client\":" Client
        b",\"method\":" Method
        b",\"host\":" Host
        b",\"path\":" Path
        b",\"status\":" Status
        b",\"route\":" Route
        b",\"cluster\":" Cluster
        b",\"endpoint\":" Endpoint
        b",\"duration_ms\":" DurationMs
        b",\"connect_ms\":" ConnectMs
        b",\"bytes_up\":" BytesUp
        b",\"bytes_down\":" BytesDown
        b",\"relay\":" Relay
        b",\"end\":" End
        b",\"attempts\":" Attempts
        b",\"failed_endpoints\":" FailedEndpoints
        b",\"reason\":" Reason
        b",\"upstream_status\":" UpstreamStatus
        b",\"first_byte_ms\":" FirstByteMs
        b",\"reused\":" Reused
        b",\"retries\":" Retries
        b",\"relay_reason\":" RelayReason
        b",\"body_bytes\":" BodyBytes
        b",\"referer\":" Referer
        b",\"user_agent\":" UserAgent; b",\"tls\":");
    if record.tls.is_none() {
        return out.extend_from_slice(b"null}\n");
    }
    write_line!(write_json(record, clock, out):
        b"{\"version\":" TlsVersion
        b",\"cipher\":" TlsCipher
        b",\"sni\":" Sni
        b",\"alpn\":" Alpn
        b",\"resumed\":" TlsResumed
        b",\"handshake_ms\":" HandshakeMs
        b",\"error\":" TlsError; b"}}\n");
}

/// Splits the text after a `%` into the name in braces and the rest.
fn placeholder(after: &str) -> Result<(&str, &str), &'static str> {
    let Some(name) = after.strip_prefix('{') else {
        return Err(
            "a percent sign stands alone; write %% for a percent sign, %{field} for a value",
        );
    };
    // A name contains none of these characters. One of them before the closing brace means that the
    // brace is missing.
    match name.find(['}', '%', '{', '"', ' ', '\t']) {
        Some(end) if name[end..].starts_with('}') => Ok((&name[..end], &name[end + 1..])),
        _ => Err("%{ without its closing brace"),
    }
}

/// An error in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The position in bytes from the start of the template: of the percent sign of a field, or of
    /// the invalid character.
    pub offset: usize,
    message: String,
}

impl TemplateError {
    fn new(offset: usize, message: impl Into<String>) -> TemplateError {
        TemplateError { offset, message: message.into() }
    }

    fn unknown(offset: usize, name: &str) -> TemplateError {
        let typed = name.to_ascii_lowercase();
        let similar = names()
            .map(|known| (strsim::jaro_winkler(&typed, known), known))
            .filter(|(similarity, _)| *similarity > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let advice = match similar {
            Some((_, known)) => format!("did you mean %{{{known}}}? The"),
            None => "the".to_owned(),
        };
        let known = names().collect::<Vec<_>>().join(", ");
        TemplateError::new(
            offset,
            format!("unknown field %{{{name}}}; {advice} fields are {known}"),
        )
    }

    fn control(offset: usize, char: char) -> TemplateError {
        let why = match char {
            '\n' | '\r' => "a record is one line; its line feed is added without being asked for",
            _ => "a template holds no control characters but tabs",
        };
        TemplateError::new(offset, why)
    }

    fn no_field() -> TemplateError {
        let why = "no %{field} in it, so every line would be the same; \
            the built-in formats are \"text\", \"json\" and \"combined\"";
        TemplateError::new(0, why)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests;
