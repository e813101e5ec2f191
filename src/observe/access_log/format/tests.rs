//! The three formats, on records with values from peers.

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::json;

use super::super::record::Tls;
use super::*;
use crate::observe::outcome::{Copied, End, Relay};
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
        attempts: Some(1),
        failed_endpoints: &[],
        reason: None,
        duration: Duration::from_micros(61_234_999),
        connect: Some(Duration::from_micros(900)),
        bytes_up: 1024,
        bytes_down: 1_048_576,
        relay: Relay::Splice,
        end: End::Client,
        upstream_status: Some(101),
        first_byte: Some(Duration::from_micros(2100)),
        is_reused: Some(false),
        retries: Some(0),
        copied: Some(Copied::FewBytes),
        body_bytes: 1_048_000,
        referer: Some(b"https://www.example.com/?a=b"),
        user_agent: Some(b"curl/8.0 (\"x\")"),
        tls: None,
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
        attempts: None,
        reason: Some("bad_host"),
        connect: None,
        relay: Relay::None,
        end: End::NoEndpoint,
        upstream_status: None,
        first_byte: None,
        is_reused: None,
        retries: None,
        copied: None,
        body_bytes: 0,
        referer: None,
        user_agent: None,
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
         \"[2001:db8::1]:8388\" web /stream shadowsocks splice 1 \
         - - - - - - - - - 101 2 false 0 few_bytes 1048000\n"
    );
    assert_eq!(
        line(&Format::text(), &connection(&client)),
        "[2026-01-02T03:04:05.678Z] \"- - tcp\" - no_endpoint 1024 1048576 61234 - \
         \"192.0.2.7:51000\" \"-\" \"-\" web - - none - - bad_host - - - - - - - - - - - - 0\n"
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
            r#""bytes_up":1024,"bytes_down":1048576,"relay":"splice","end":"client","#,
            r#""attempts":1,"failed_endpoints":[],"reason":null,"upstream_status":101,"#,
            r#""first_byte_ms":2,"reused":false,"retries":0,"relay_reason":"few_bytes","#,
            r#""body_bytes":1048000,"referer":"https://www.example.com/?a=b","#,
            r#""user_agent":"curl/8.0 (\"x\")","tls":null}"#,
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
            r#""end":"no_endpoint","attempts":null,"failed_endpoints":[],"reason":"bad_host","#,
            r#""upstream_status":null,"first_byte_ms":null,"reused":null,"retries":null,"#,
            r#""relay_reason":null,"body_bytes":0,"referer":null,"user_agent":null,"tls":null}"#,
            "\n"
        )
    );
}

/// A record of a session that has failed.
fn over_tls<'a>(client: &'a Address) -> Record<'a> {
    let tls = Tls {
        version: Some("1.3"),
        cipher: Some("TLS13_AES_128_GCM_SHA256"),
        server_name: Some("live.example.com"),
        protocol: Some("http/1.1"),
        is_resumed: Some(false),
        handshake: Some(Duration::from_micros(2900)),
        error: Some("truncated"),
    };
    Record { tls: Some(tls), end: End::TlsFailed, ..request(client, client) }
}

#[test]
fn the_fields_of_tls_are_together() {
    let client = address("192.0.2.7:51000");
    let text = line(&Format::text(), &over_tls(&client));
    let expected = " - - 1.3 TLS13_AES_128_GCM_SHA256 live.example.com http/1.1 false 2 truncated \
         101 2 false 0 few_bytes 1048000\n";
    assert!(text.ends_with(expected), "{text}");
    let json = line(&Format::json(), &over_tls(&client));
    let expected = concat!(
        r#","tls":{"version":"1.3","cipher":"TLS13_AES_128_GCM_SHA256","#,
        r#""sni":"live.example.com","alpn":"http/1.1","resumed":false,"handshake_ms":2,"#,
        r#""error":"truncated"}}"#,
        "\n"
    );
    assert!(json.ends_with(expected), "{json}");
    let nothing = Record { tls: Some(Tls::default()), ..request(&client, &client) };
    assert!(line(&Format::text(), &nothing).contains(" - - - - - - - - - 101 "));
    let json: serde_json::Value = serde_json::from_str(&line(&Format::json(), &nothing)).unwrap();
    assert_eq!(json["tls"]["resumed"], json!(null));
}

#[test]
fn combined_is_what_nginx_writes() {
    let (client, endpoint) = (address("[2001:db8::7]:51000"), address("192.0.2.1:80"));
    let combined = Format::combined();
    let record = request(&client, &endpoint);
    assert_eq!(
        line(&combined, &record),
        "2001:db8::7 - - [02/Jan/2026:03:05:06 +0000] \"GET /stream?id=1 HTTP/1.1\" 101 1048000 \
         \"https://www.example.com/?a=b\" \"curl/8.0 (\\x22x\\x22)\"\n"
    );
    // As nginx has it: spaces stay, an empty value differs from none, no status is 000, or 499 if
    // the client has left.
    let odd_record = Record {
        protocol: "HTTP/2",
        path: Some("/\\é\"\x7f "),
        status: None,
        end: End::Idle,
        referer: Some(b""),
        user_agent: Some(b"\xff \t-"),
        ..request(&client, &endpoint)
    };
    let end = "\"GET /\\x5C\\xC3\\xA9\\x22\\x7F  HTTP/2.0\" 000 1048000 \"\" \"\\xFF \\x09-\"\n";
    let odd = line(&combined, &odd_record);
    assert!(odd.ends_with(end), "{odd}");
    let left = Record { end: End::ClientReset, ..odd_record };
    assert!(line(&combined, &left).contains("HTTP/2.0\" 499 1048000"));
    let unix = Address::Unix("/run/x".into());
    let nothing = line(&combined, &connection(&unix));
    let expected = "unix: - - [02/Jan/2026:03:05:06 +0000] \"-\" 000 0 \"-\" \"-\"\n";
    assert_eq!(nothing, expected);
}

#[test]
fn formats_say_whether_they_name_visitors() {
    let template = |text| Format::template(text).unwrap();
    for format in [Format::json(), Format::combined(), template("%{path} %{user_agent}")] {
        assert!(format.names_visitors(), "{format:?}");
    }
    for format in [Format::text(), template("%{path} %{host} referer")] {
        assert!(!format.names_visitors(), "{format:?}");
    }
}

#[test]
fn failed_endpoints_are_a_list_of_16_at_most() {
    let client = address("192.0.2.7:51000");
    let failed: Vec<_> =
        (1..=17).map(|port| Rc::new(address(&format!("10.0.0.1:{port}")))).collect();
    let template = Format::template("%{failed_endpoints}").unwrap();
    let both = |count: usize| {
        let record = Record { failed_endpoints: &failed[..count], ..connection(&client) };
        let json: serde_json::Value =
            serde_json::from_str(&line(&Format::json(), &record)).unwrap();
        (line(&template, &record), json["failed_endpoints"].clone())
    };
    assert_eq!(both(0), ("-\n".to_owned(), json!([])));
    let two = "10.0.0.1:1,10.0.0.1:2\n".to_owned();
    assert_eq!(both(2), (two, json!(["10.0.0.1:1", "10.0.0.1:2"])));
    assert!(both(16).0.ends_with(",10.0.0.1:16\n"));
    assert!(both(17).0.ends_with(",10.0.0.1:16,...\n"));
    assert_eq!(both(17).1.as_array().map(Vec::len), Some(17));
    assert_eq!(both(17).1[16], "...");
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
    let user_agent = Some(&b"curl"[..]);
    let record = Record { reason: Some("bad_host"), user_agent, ..over_tls(&client) };
    let parsed: serde_json::Value = serde_json::from_str(&line(&Format::json(), &record)).unwrap();
    for name in names() {
        let template = Format::template(&format!("%{{{name}}}")).unwrap();
        // Those of TLS are in an object of their own, without the prefix.
        let value = parsed
            .get(name)
            .or_else(|| parsed["tls"].get(name.strip_prefix("tls_").unwrap_or(name)))
            .unwrap_or_else(|| panic!("no {name} in JSON"));
        let expected = match value {
            serde_json::Value::Array(list) if list.is_empty() => "-".to_owned(),
            value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        assert_eq!(line(&template, &record), format!("{expected}\n"), "{name}");
    }
}

#[test]
fn a_bad_template_is_refused_with_its_place_and_advice() {
    let check = |template: &str, offset: usize, advice: &str| {
        let error = Format::template(template).unwrap_err().remove(0);
        assert_eq!(error.offset, offset, "{template}");
        assert!(error.to_string().contains(advice), "{template}: {error}");
    };
    check("ä %{hots}", 3, "unknown field %{hots}; did you mean %{host}? The fields are start, ");
    check("%{Duration}", 0, "did you mean %{duration_ms}?");
    check("%{end} %{xyzzy}", 7, "unknown field %{xyzzy}; the fields are start, listener, ");
    check("%{}", 0, "unknown field %{};");
    check("%{end} %{host", 7, "without its closing brace");
    check("%{host \"%{path}\"", 0, "without its closing brace");
    check("%% %START_TIME%", 3, "write %% for a percent sign");
    check("%{end} 5%", 8, "write %% for a percent sign");
    check("%{end}\n", 6, "a record is one line");
    check("%{end}\u{1b}", 6, "control characters");
    check("josn", 0, "\"text\", \"json\" and \"combined\"");
    check("", 0, "\"text\", \"json\" and \"combined\"");
}

#[test]
fn every_fault_of_a_template_is_found() {
    let errors = Format::template("%{strat} 5% %{client} %{pth} %{end").unwrap_err();
    let offsets: Vec<usize> = errors.iter().map(|error| error.offset).collect();
    assert_eq!(offsets, [0, 10, 22, 29], "{errors:?}");
}

#[test]
fn a_template_can_say_what_text_says() {
    let template = "[%{start}] \"%{method} %{path} %{protocol}\" %{status} %{end} %{bytes_up} \
        %{bytes_down} %{duration_ms} %{connect_ms} \"%{client}\" \"%{host}\" \"%{endpoint}\" \
        %{listener} %{route} %{cluster} %{relay} %{attempts} %{failed_endpoints} \
        %{reason} %{tls_version} %{tls_cipher} %{sni} %{alpn} %{tls_resumed} %{handshake_ms} \
        %{tls_error} %{upstream_status} %{first_byte_ms} %{reused} %{retries} %{relay_reason} \
        %{body_bytes}";
    let template = Format::template(template).unwrap();
    let client = address("192.0.2.7:51000");
    for record in [request(&client, &client), connection(&client), over_tls(&client)] {
        assert_eq!(line(&template, &record), line(&Format::text(), &record));
    }
}

/// Strings that a hostile peer could send, and arbitrary ones.
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

/// Reverses the escapes of the text format. Returns `None` for `-`.
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
        words in proptest::array::uniform7(proptest::option::of(hostile())),
        visitor in proptest::option::of(hostile()),
        listener in hostile(),
        unix in proptest::option::of("[^\0]{0,20}"),
        status in proptest::option::of(any::<u16>()),
        times in any::<(Duration, Option<Duration>)>(),
        bytes in any::<(u64, u64)>(),
    ) {
        let client = address("192.0.2.7:51000");
        let endpoint = unix.map(|path| Address::Unix(path.into()));
        let failed: Vec<_> = endpoint.iter().cloned().map(Rc::new).collect();
        let failed_texts: Vec<_> = failed.iter().map(|address| address.to_string()).collect();
        let [method, host, path, route, cluster, server_name, protocol] =
            words.each_ref().map(Option::as_deref);
        let tls = Tls { server_name, protocol, ..Tls::default() };
        let record = Record {
            listener: &listener, method, host, path, route, cluster, status,
            endpoint: endpoint.as_ref(), failed_endpoints: &failed,
            duration: times.0, connect: times.1,
            bytes_up: bytes.0, bytes_down: bytes.1, tls: Some(tls),
            referer: visitor.as_deref().map(str::as_bytes),
            user_agent: visitor.as_deref().map(str::as_bytes),
            ..connection(&client)
        };
        let endpoint = endpoint.as_ref().map(Address::to_string);
        let millis =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);

        let json = line(&Format::json(), &record);
        let text = line(&Format::text(), &record);
        let combined = line(&Format::combined(), &record);
        for line in [&json, &text, &combined] {
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
            "attempts": null, "failed_endpoints": failed_texts, "reason": "bad_host",
            "upstream_status": null, "first_byte_ms": null, "reused": null, "retries": null,
            "relay_reason": null, "body_bytes": 0, "referer": visitor, "user_agent": visitor,
            "tls": {
                "version": null, "cipher": null, "sni": server_name, "alpn": protocol,
                "resumed": null, "handshake_ms": null, "error": null,
            },
        }));

        // Quotes occur only where the format puts them, so they can be removed here.
        prop_assert_eq!(text.matches('"').count(), 8);
        let bare = text.trim_end().replace('"', "");
        let words: Vec<Option<String>> = bare.split(' ').map(unescape).collect();
        prop_assert_eq!(words.len(), 33);
        prop_assert_eq!(combined.matches('"').count(), 6);
        let sent = [(1, method), (2, path), (11, host), (13, Some(&*listener)), (14, route),
            (15, cluster), (12, endpoint.as_deref()), (18, endpoint.as_deref()),
            (22, server_name), (23, protocol)];
        for (position, value) in sent {
            // An empty value is written as missing.
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
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(template.is_char_boundary(error.offset));
                }
            }
        }
    }
}
