//! How a record becomes a line: literals and fields in turn, whether text, JSON or a template.
//!
//! The built-in formats are straight-line code and templates are interpreted, which takes up to
//! twice as long for the same line. Field names are those of the configuration's documentation.
//! Nothing here allocates but the growing line.

use std::fmt;
use std::mem;

use super::field::{Field, names};
use super::record::Record;
use super::value::Clock;

/// How the records of one access log are written. Every record is exactly one line, whatever peers
/// sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Layout);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    Text,
    Json,
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
}

impl Format {
    /// One line of words split by spaces, in the order Envoy's users know; `-` for what is missing.
    pub fn text() -> Format {
        Format(Layout::Text)
    }

    /// One JSON object a line, always with all fields; `null` for what is missing.
    pub fn json() -> Format {
        Format(Layout::Json)
    }

    /// A line of the operator's own making: `%{field}` for a value, `%%` for a percent sign. Values
    /// are written as in text, without spaces and quotes.
    pub fn template(template: &str) -> Result<Format, TemplateError> {
        if let Some((offset, char)) =
            template.char_indices().find(|(_, char)| char.is_control() && *char != '\t')
        {
            return Err(TemplateError::control(offset, char));
        }
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
            let (name, after) =
                placeholder(after).map_err(|why| TemplateError::new(offset, why))?;
            let field = Field::named(name).ok_or_else(|| TemplateError::unknown(offset, name))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(mem::take(&mut literal)));
            }
            pieces.push(Piece::Field(field));
            rest = after;
        }
        if pieces.is_empty() {
            return Err(TemplateError::no_field());
        }
        // The last literal carries the end of the line, so that no record can go without.
        literal.push_str(rest);
        literal.push('\n');
        pieces.push(Piece::Literal(literal));
        Ok(Format(Layout::Template(pieces)))
    }

    /// Appends `record` to `out` as one line with its line feed. `clock` is the worker's own.
    pub fn write(&self, record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
        match &self.0 {
            Layout::Text => write_text(record, clock, out),
            Layout::Json => write_json(record, clock, out),
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

/// Writes literals and fields in turn. Unrolled like this the compiler sees which field and which
/// literal it is each time, which more than halves the time a record takes.
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

/// Envoy's default order, then what Envoy does not have.
fn write_text(record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
    write_line!(write_text(record, clock, out):
        b"[" Start b"] \"" Method b" " Path b" " Protocol b"\" " Status b" " End
        b" " BytesUp b" " BytesDown b" " DurationMs b" " ConnectMs
        b" \"" Client b"\" \"" Host b"\" \"" Endpoint
        b"\" " Listener b" " Route b" " Cluster b" " Relay; b"\n");
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
        b",\"end\":" End; b"}\n");
}

/// Splits what follows a `%` into the name between braces and the rest.
fn placeholder(after: &str) -> Result<(&str, &str), &'static str> {
    let Some(name) = after.strip_prefix('{') else {
        return Err(
            "a percent sign stands alone; write %% for a percent sign, %{field} for a value",
        );
    };
    // A name holds none of these: whoever forgot the brace meant the name to end there.
    match name.find(['}', '%', '{', '"', ' ', '\t']) {
        Some(end) if name[end..].starts_with('}') => Ok((&name[..end], &name[end + 1..])),
        _ => Err("%{ without its closing brace"),
    }
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Where, in bytes from the start of the template: the percent sign of a field, or the
    /// character itself.
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
            the built-in formats are \"text\" and \"json\"";
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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::record::{End, Relay};
    use super::*;
    use crate::sys::Address;

    fn line(format: &Format, record: &Record) -> String {
        let mut out = b"before\n".to_vec();
        format.write(record, &mut Clock::default(), &mut out);
        let out = String::from_utf8(out).unwrap();
        out.strip_prefix("before\n").unwrap().to_owned()
    }

    fn address(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    fn request<'a>(client: &'a Address, endpoint: &'a Address) -> Record<'a> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            listener: "web",
            protocol: "HTTP/1.1",
            client,
            method: Some("GET"),
            host: Some("live.example.com"),
            path: Some("/stream?id=1"),
            status: Some(101),
            route: Some("/stream"),
            cluster: Some("shadowsocks"),
            endpoint: Some(endpoint),
            duration: Duration::from_micros(61_234_999),
            connect: Some(Duration::from_micros(900)),
            bytes_up: 1024,
            bytes_down: 1_048_576,
            relay: Relay::Splice,
            end: End::Client,
        }
    }

    fn connection(client: &Address) -> Record<'_> {
        Record {
            protocol: "tcp",
            method: None,
            host: None,
            path: None,
            status: None,
            route: None,
            cluster: None,
            endpoint: None,
            connect: None,
            relay: Relay::None,
            end: End::NoEndpoint,
            ..request(client, client)
        }
    }

    #[test]
    fn text_has_every_field_in_the_documented_order() {
        let (client, endpoint) = (address("192.0.2.7:51000"), address("[2001:db8::1]:8388"));
        assert_eq!(
            line(&Format::text(), &request(&client, &endpoint)),
            "[2026-01-02T03:04:05.678Z] \"GET /stream?id=1 HTTP/1.1\" 101 client \
             1024 1048576 61234 0 \"192.0.2.7:51000\" \"live.example.com\" \
             \"[2001:db8::1]:8388\" web /stream shadowsocks splice\n"
        );
        assert_eq!(
            line(&Format::text(), &connection(&client)),
            "[2026-01-02T03:04:05.678Z] \"- - tcp\" - no_endpoint 1024 1048576 61234 - \
             \"192.0.2.7:51000\" \"-\" \"-\" web - - none\n"
        );
    }

    #[test]
    fn json_has_every_field_by_its_documented_name_and_order() {
        let (client, endpoint) = (address("192.0.2.7:51000"), address("[2001:db8::1]:8388"));
        assert_eq!(
            line(&Format::json(), &request(&client, &endpoint)),
            concat!(
                r#"{"start":"2026-01-02T03:04:05.678Z","listener":"web","protocol":"HTTP/1.1","#,
                r#""client":"192.0.2.7:51000","method":"GET","host":"live.example.com","#,
                r#""path":"/stream?id=1","status":101,"route":"/stream","cluster":"shadowsocks","#,
                r#""endpoint":"[2001:db8::1]:8388","duration_ms":61234,"connect_ms":0,"#,
                r#""bytes_up":1024,"bytes_down":1048576,"relay":"splice","end":"client"}"#,
                "\n"
            )
        );
        assert_eq!(
            line(&Format::json(), &connection(&client)),
            concat!(
                r#"{"start":"2026-01-02T03:04:05.678Z","listener":"web","protocol":"tcp","#,
                r#""client":"192.0.2.7:51000","method":null,"host":null,"path":null,"#,
                r#""status":null,"route":null,"cluster":null,"endpoint":null,"duration_ms":61234,"#,
                r#""connect_ms":null,"bytes_up":1024,"bytes_down":1048576,"relay":"none","#,
                r#""end":"no_endpoint"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_template_writes_what_it_says() {
        let client = address("192.0.2.7:51000");
        let template = Format::template("100%% %{end}%{relay}\tfür %{client}").unwrap();
        let written = line(&template, &connection(&client));
        assert_eq!(written, "100% no_endpointnone\tfür 192.0.2.7:51000\n");
    }

    #[test]
    fn every_field_can_stand_in_a_template() {
        let client = address("192.0.2.7:51000");
        let record = request(&client, &client);
        let parsed: serde_json::Value =
            serde_json::from_str(&line(&Format::json(), &record)).unwrap();
        for name in names() {
            let template = Format::template(&format!("%{{{name}}}")).unwrap();
            let value = &parsed[name];
            let expected = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(line(&template, &record), format!("{expected}\n"), "{name}");
        }
    }

    #[test]
    fn a_bad_template_is_refused_with_its_place_and_advice() {
        let check = |template: &str, offset: usize, advice: &str| {
            let error = Format::template(template).unwrap_err();
            assert_eq!(error.offset, offset, "{template}");
            assert!(error.to_string().contains(advice), "{template}: {error}");
        };
        check(
            "ä %{hots}",
            3,
            "unknown field %{hots}; did you mean %{host}? The fields are start, ",
        );
        check("%{Duration}", 0, "did you mean %{duration_ms}?");
        check("%{end} %{xyzzy}", 7, "unknown field %{xyzzy}; the fields are start, listener, ");
        check("%{}", 0, "unknown field %{};");
        check("%{end} %{host", 7, "without its closing brace");
        check("%{host \"%{path}\"", 0, "without its closing brace");
        check("%% %START_TIME%", 3, "write %% for a percent sign");
        check("%{end} 5%", 8, "write %% for a percent sign");
        check("%{end}\n", 6, "a record is one line");
        check("%{end}\u{1b}", 6, "control characters");
        check("josn", 0, "\"text\" and \"json\"");
        check("", 0, "\"text\" and \"json\"");
    }

    #[test]
    fn a_template_can_say_what_text_says() {
        let template = "[%{start}] \"%{method} %{path} %{protocol}\" %{status} %{end} %{bytes_up} \
            %{bytes_down} %{duration_ms} %{connect_ms} \"%{client}\" \"%{host}\" \"%{endpoint}\" \
            %{listener} %{route} %{cluster} %{relay}";
        let template = Format::template(template).unwrap();
        let client = address("192.0.2.7:51000");
        for record in [request(&client, &client), connection(&client)] {
            assert_eq!(line(&template, &record), line(&Format::text(), &record));
        }
    }

    /// Strings a hostile peer would send, and any other.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("\n".to_owned()),
            Just("\r\n[2026-01-02T03:04:05.678Z] \"GET / HTTP/1.1\" 200".to_owned()),
            Just("\" 200 done \"".to_owned()),
            Just("\",\"status\":200,\"".to_owned()),
            Just("\\".to_owned()),
            Just("-".to_owned()),
            Just("\u{2028}\u{85}\u{1b}[2K".to_owned()),
            any::<char>().prop_map(String::from),
            "[ -~]{1,12}",
        ];
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    /// What the escapes of text stand for; none for `-`.
    fn unescape(word: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut parts = word.split("\\x");
        bytes.extend_from_slice(parts.next().unwrap().as_bytes());
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        (word != "-").then(|| String::from_utf8(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn peers_cannot_split_or_forge_a_line(
            words in proptest::array::uniform5(proptest::option::of(hostile())),
            listener in hostile(),
            unix in proptest::option::of("[^\0]{0,20}"),
            status in proptest::option::of(any::<u16>()),
            times in any::<(Duration, Option<Duration>)>(),
            bytes in any::<(u64, u64)>(),
        ) {
            let client = address("192.0.2.7:51000");
            let endpoint = unix.map(|path| Address::Unix(path.into()));
            let [method, host, path, route, cluster] = words.each_ref().map(Option::as_deref);
            let record = Record {
                listener: &listener, method, host, path, route, cluster, status,
                endpoint: endpoint.as_ref(), duration: times.0, connect: times.1,
                bytes_up: bytes.0, bytes_down: bytes.1, ..connection(&client)
            };
            let endpoint = endpoint.as_ref().map(Address::to_string);
            let millis =
                |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);

            let json = line(&Format::json(), &record);
            let text = line(&Format::text(), &record);
            for line in [&json, &text] {
                prop_assert!(line.bytes().rev().skip(1).all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert!(line.ends_with('\n'));
            }

            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(parsed, json!({
                "start": "2026-01-02T03:04:05.678Z", "listener": listener, "protocol": "tcp",
                "client": client.to_string(), "method": method, "host": host, "path": path,
                "status": status, "route": route, "cluster": cluster, "endpoint": endpoint,
                "duration_ms": millis(times.0), "connect_ms": times.1.map(millis),
                "bytes_up": bytes.0, "bytes_down": bytes.1, "relay": "none", "end": "no_endpoint",
            }));

            // Quotes stand where the format puts them and nowhere else, so they can be left out
            // here.
            prop_assert_eq!(text.matches('"').count(), 8);
            let bare = text.trim_end().replace('"', "");
            let words: Vec<Option<String>> = bare.split(' ').map(unescape).collect();
            prop_assert_eq!(words.len(), 17);
            let sent = [(1, method), (2, path), (11, host), (13, Some(&*listener)), (14, route),
                (15, cluster), (12, endpoint.as_deref())];
            for (position, value) in sent {
                // Empty is written as missing.
                let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
                prop_assert_eq!(&words[position], &value);
            }
        }

        #[test]
        fn no_template_panics_and_a_good_one_writes_one_line(template in "[%{}a-z_ \\PC\n]{0,30}") {
            let client = address("192.0.2.7:51000");
            match Format::template(&template) {
                Ok(format) => {
                    let line = line(&format, &connection(&client));
                    prop_assert_eq!(line.matches('\n').count(), 1);
                    prop_assert!(line.ends_with('\n'));
                }
                Err(error) => prop_assert!(template.is_char_boundary(error.offset)),
            }
        }
    }
}
