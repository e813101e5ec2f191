//! Which host and route a request goes to, and what redirects make of it.

use crate::support::{HttpClient, Response, Ringgate, Setup};

/// A listener whose hosts each answer with their own word.
fn hosts(hosts: &[(&str, &str)]) -> Ringgate {
    let mut config = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
    config += "protocol = \"http\"\n";
    for (names, word) in hosts {
        config += "[[listener.host]]\n";
        if !names.is_empty() {
            config += &format!("names = [{names}]\n");
        }
        config += "[[listener.host.route]]\nprefix = \"/\"\n";
        config += &format!("respond = {{ status = 200, body = \"{word}\" }}\n");
    }
    Setup { config, ..Setup::default() }.start()
}

fn answer_to(gate: &Ringgate, host: &str, target: &str) -> Response {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response()
}

#[test]
fn the_most_precise_host_name_wins() {
    let gate = hosts(&[
        ("", "default"),
        ("\"example.*\"", "prefix"),
        ("\"example.co.*\"", "longer prefix"),
        ("\"*.example.test\"", "suffix"),
        ("\"*.deep.example.test\"", "longer suffix"),
        ("\"live.example.test\", \"other.example.test\"", "exact"),
    ]);
    let cases = [
        ("live.example.test", "exact"),
        ("other.example.test", "exact"),
        ("LIVE.example.TEST", "exact"),
        ("live.example.test:8080", "exact"),
        ("any.example.test", "suffix"),
        ("a.b.example.test", "suffix"),
        ("a.deep.example.test", "longer suffix"),
        ("A.DEEP.example.test:80", "longer suffix"),
        ("deep.example.test", "suffix"),
        ("example.test", "prefix"),
        ("example.org", "prefix"),
        ("example.co.uk", "longer prefix"),
        ("notexample.org", "default"),
        ("notexample.test", "default"),
        ("unknown.test", "default"),
        ("127.0.0.1:80", "default"),
        ("[::1]:80", "default"),
    ];
    for (host, word) in cases {
        let response = answer_to(&gate, host, "/");
        assert_eq!(String::from_utf8_lossy(&response.body), word, "for {host}");
    }
}

#[test]
fn without_a_default_host_other_names_are_404() {
    let gate = hosts(&[("\"live.example.test\"", "exact")]);
    assert_eq!(answer_to(&gate, "live.example.test", "/").status, 200);
    assert_eq!(answer_to(&gate, "unknown.test", "/").status, 404);
}

#[test]
fn the_first_matching_route_wins_and_redirects_as_told() {
    let gate = Ringgate::start(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
          [[listener.host]]
            [[listener.host.route]]
            path = "/exact"
            redirect = { path = "/elsewhere", status = 302 }
            [[listener.host.route]]
            prefix = "/old/"
            redirect = { prefix = "/new/", status = 308, strip_query = true }
            [[listener.host.route]]
            prefix = "/port"
            redirect = { scheme = "https", port = 8443, status = 307 }
            [[listener.host.route]]
            prefix = "/host"
            redirect = { host = "www.example.test" }
            [[listener.host.route]]
            path = "/gone"
            respond = { status = 410, body = "gone" }
        "#,
    );
    let cases = [
        ("/exact?q=1", 302, Some("http://a.test:8080/elsewhere?q=1")),
        ("/old/a/b?q=1", 308, Some("http://a.test:8080/new/a/b")),
        ("/port/a?q=1", 307, Some("https://a.test:8443/port/a?q=1")),
        ("/host/a", 301, Some("http://www.example.test/host/a")),
        ("/gone", 410, None),
        ("/exact/more", 404, None),
        ("/old", 404, None),
        ("/", 404, None),
    ];
    for (target, status, location) in cases {
        let response = answer_to(&gate, "a.test:8080", target);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.field("location"), location, "{target}");
    }
    let records = gate.records(cases.len());
    let record = records.iter().find(|record| record.text("path") == "/old/a/b?q=1").unwrap();
    assert_eq!(record.text("route"), "/old/*");
    assert_eq!(record.text("method"), "GET");
    assert_eq!(record.text("host"), "a.test");
    assert_eq!(record.number("status"), 308);
    assert_eq!(record.end(), "done");
    assert_eq!(record.text("relay"), "none");
}
