//! TLS by the name it asks for: where connections go, what goes on untouched, and what is cut.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Echo, HttpClient, Named, Ringgate, SHORT, SOON, Socks, TlsSite, Upstream, Web, bytes,
    client_hello, connect, expect_closed, expect_silence, in_record, inside_namespace,
    obfs_tls_server, require, run, send_slowly, ss_server,
};

/// A tls listener `edge` with these rules, and clusters of one endpoint each.
fn edge(listener: &str, rules: &[(&str, &str)], clusters: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n{listener}\n"
    );
    for (what, cluster) in rules {
        text.push_str(&format!("[[listener.tls]]\n{what}\ncluster = \"{cluster}\"\n"));
    }
    for (name, address) in clusters {
        text.push_str(&format!("[cluster.{name}]\nendpoints = [\"{address}\"]\n"));
    }
    text
}

/// Who answers a connection that begins with these bytes.
#[track_caller]
fn answer(gate: &Ringgate, hello: &[u8]) -> String {
    let mut client = gate.connect("edge");
    client.write_all(hello).unwrap();
    let mut name = String::new();
    // A reset is no name either.
    let _ = client.read_to_string(&mut name);
    name
}

#[test]
fn the_best_name_wins_as_with_hosts() {
    let servers = ["exact", "suffix", "prefix", "other"].map(|name| (name, Named::start(name)));
    let clusters = servers.each_ref().map(|(name, server)| (*name, server.address()));
    let rules = [
        ("", "other"),
        ("names = [\"cdn.*\"]", "prefix"),
        ("names = [\"*.example.test\"]", "suffix"),
        ("names = [\"cdn.example.test\", \"www.example.test\"]", "exact"),
    ];
    let gate = Ringgate::start(&edge("", &rules, &clusters));
    for (name, expected) in [
        (Some("cdn.example.test"), "exact"),
        (Some("WWW.Example.Test"), "exact"),
        (Some("a.b.example.test"), "suffix"),
        (Some("cdn.example.org"), "prefix"),
        (Some("elsewhere.test"), "other"),
        (Some("no name"), "other"),
        (None, "other"),
    ] {
        assert_eq!(answer(&gate, &client_hello(name, &[], 0)), expected, "{name:?}");
    }
    let records = gate.records(7);
    let first = records.iter().find(|record| record.text("host") == "cdn.example.test").unwrap();
    assert_eq!((first.text("protocol"), first.text("route")), ("tls", "cdn.example.test"));
    assert!(records.iter().any(|record| record.text("route") == "*"), "{records:?}");
}

#[test]
fn a_protocol_can_be_asked_for() {
    let (web, mail) = (Named::start("web"), Named::start("mail"));
    let clusters = [("web", web.address()), ("mail", mail.address())];
    let rules = [("alpn = [\"imap\", \"pop3\"]", "mail"), ("", "web")];
    let gate = Ringgate::start(&edge("", &rules, &clusters));
    for (protocols, expected) in
        [(&["h2", "http/1.1"][..], "web"), (&["h2", "imap"], "mail"), (&[], "web")]
    {
        let hello = client_hello(Some("example.test"), protocols, 0);
        assert_eq!(answer(&gate, &hello), expected, "{protocols:?}");
    }
}

#[test]
fn nobody_for_a_name_is_a_cut_and_a_record() {
    let server = Named::start("server");
    let rules = [("names = [\"a.test\"]", "one")];
    let gate = Ringgate::start(&edge("", &rules, &[("one", server.address())]));
    assert_eq!(answer(&gate, &client_hello(Some("b.test"), &[], 0)), "");
    assert_eq!(answer(&gate, &client_hello(None, &[], 0)), "");
    let ends: Vec<String> = gate.records(2).iter().map(|one| one.end().to_owned()).collect();
    assert_eq!(ends, ["no_route", "no_route"]);
}

#[test]
fn a_hello_may_come_in_pieces_and_records_and_goes_on_as_it_came() {
    let upstream = Upstream::listen();
    let gate = Ringgate::start(&edge("", &[("", "one")], &[("one", upstream.address())]));
    let whole = client_hello(Some("example.test"), &[], 16_000);
    let message = &whole[5..];
    let split =
        [in_record(&message[..3]), in_record(&message[3..9000]), in_record(&message[9000..])];
    for hello in [whole.clone(), split.concat(), client_hello(None, &[], 0)] {
        for cuts in [vec![1, 4, 6, 30], vec![hello.len() - 1], vec![]] {
            let mut client = gate.connect("edge");
            let (mut parts, mut rest) = (Vec::new(), &hello[..]);
            for cut in cuts {
                let (part, behind) = rest.split_at(cut.min(rest.len()));
                parts.push(part);
                rest = behind;
            }
            parts.push(rest);
            parts.push(b"what follows");
            send_slowly(&mut client, &parts);
            let mut behind = upstream.accept();
            let mut received = vec![0; hello.len() + 12];
            behind.read_exact(&mut received).unwrap();
            assert!(received == [&hello[..], b"what follows"].concat());
        }
    }
}

#[test]
fn what_is_no_hello_or_none_in_time_is_cut() {
    let upstream = Upstream::listen();
    let clusters = [("one", upstream.address())];
    let gate = Ringgate::start(&edge("hello_timeout = \"2s\"", &[("", "one")], &clusters));
    let whole = client_hello(Some("example.test"), &[], 100);
    let too_long = client_hello(Some("example.test"), &[], 16_384);
    for (bytes, end) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "bad_request"),
        (&too_long[..], "bad_request"),
        (&whole[..50], "head_timeout"),
        (b"", "head_timeout"),
    ] {
        let start = Instant::now();
        let mut client = gate.connect("edge");
        client.write_all(bytes).unwrap();
        expect_closed(&mut client);
        let passed = start.elapsed();
        assert!(end != "head_timeout" || passed >= Duration::from_millis(1990), "{passed:?}");
        assert!(passed < SOON, "{end} after {passed:?}");
        let got = gate.records_where(1, |record| record.end() == end);
        assert!(!got.is_empty());
    }
    assert!(upstream.try_accept().is_none());
}

#[test]
fn bulk_behind_a_hello_is_spliced() {
    let echo = Echo::start();
    let gate = Ringgate::start(&edge("", &[("", "echo")], &[("echo", echo.address())]));
    let mut client = gate.connect("edge");
    let hello = client_hello(Some("example.test"), &[], 0);
    client.write_all(&hello).unwrap();
    let sent = bytes(3, 20 << 20);
    let mut received = vec![0; hello.len() + sent.len()];
    std::thread::scope(|scope| {
        let mut sending = client.try_clone().unwrap();
        let sent = &sent;
        scope.spawn(move || sending.write_all(sent).unwrap());
        client.read_exact(&mut received).unwrap();
    });
    assert!(received[hello.len()..] == sent[..], "the echo is not what was sent");
    drop(client);
    let record = gate.record();
    assert_eq!(record.text("relay"), "splice");
    assert_eq!(record.number("bytes_up"), (hello.len() + sent.len()) as u64);
}

#[test]
fn a_browser_reaches_the_real_site_by_its_name() {
    let site = TlsSite::start("www.example.test", "the real site");
    let other = Named::start("other");
    let rules = [("names = [\"www.example.test\"]", "site"), ("", "other")];
    let clusters = [("site", site.address()), ("other", other.address())];
    let gate = Ringgate::start(&edge("", &rules, &clusters));
    let port = gate.address("edge").port();
    let mut curl = require("curl");
    curl.args(["-q", "-sS", "--fail", "-m", "10", "--cacert"]).arg(site.certificate());
    curl.args(["--resolve", &format!("www.example.test:{port}:127.0.0.1")]);
    let output = run(curl.arg(format!("https://www.example.test:{port}/")));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "the real site");
}

#[test]
fn a_first_byte_tells_tls_from_the_site_on_one_port() {
    let (secure, shadowsocks) = (Named::start("secure"), Named::start("shadowsocks"));
    let config = format!(
        r#"
        [[listener]]
        name = "edge"
        listen = "127.0.0.1:0"
        protocol = "http"
        keepalive_timeout = "1s"
        hello_timeout = "5s"
          [[listener.host]]
            [[listener.host.route]]
            path = "/stream"
            upgrade = "websocket"
            tunnel = "terminate"
            cluster = "shadowsocks"
            [[listener.host.route]]
            prefix = "/"
            respond = {{ body = "plain" }}
          [[listener.tls]]
          names = ["example.test"]
          cluster = "secure"
        [cluster.secure]
        endpoints = ["{}"]
        [cluster.shadowsocks]
        endpoints = ["{}"]
        "#,
        secure.address(),
        shadowsocks.address()
    );
    let gate = Ringgate::start(&config);
    let mut client = HttpClient::connect(gate.address("edge"));
    client.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n");
    assert_eq!(client.response().body, b"plain");
    // Not the first byte of the connection: it is a request, and a bad one.
    client.send(client_hello(Some("example.test"), &[], 0));
    assert_eq!(client.response().status, 400);

    let hello = client_hello(Some("example.test"), &[], 3000);
    assert_eq!(answer(&gate, &hello), "secure");
    assert_eq!(answer(&gate, &client_hello(Some("other.test"), &[], 0)), "");
    // It has the time of a hello, not that of a request.
    let mut client = connect(gate.address("edge"));
    client.write_all(&hello[..1]).unwrap();
    expect_silence(&mut client, Duration::from_millis(1500));
    client.write_all(&hello[1..]).unwrap();
    let mut name = [0; 6];
    client.read_exact(&mut name).unwrap();
    assert_eq!(&name, b"secure");
}

#[test]
fn tls_behind_a_site_goes_on_while_it_drains() {
    let echo = Echo::start();
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\nroute = [{{ prefix = \"/\", respond = {{ body = \"x\" }} }}]\n\
         [[listener.tls]]\ncluster = \"echo\"\n[cluster.echo]\nendpoints = [\"{}\"]\n",
        echo.address()
    );
    let mut gate = Ringgate::start(&config);
    let mut client = gate.connect("edge");
    let hello = client_hello(Some("example.test"), &[], 0);
    let mut echoed = vec![0; hello.len()];
    client.write_all(&hello).unwrap();
    client.read_exact(&mut echoed).unwrap();
    assert!(echoed == hello);
    gate.signal(Signal::TERM);
    expect_silence(&mut client, Duration::from_millis(200));
    client.write_all(b"still there").unwrap();
    client.read_exact(&mut echoed[..11]).unwrap();
    assert_eq!(&echoed[..11], b"still there");
    drop(client);
    assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
    assert_eq!(gate.record().end(), "client");
}

#[test]
fn a_real_hello_for_the_name_of_a_disguise_goes_to_the_site() {
    let (site, server) = (Named::start("site"), ss_server(None));
    let rules = [("names = [\"cdn.test\"]\nsimple_obfs = true", "shadowsocks"), ("", "site")];
    let clusters = [("shadowsocks", server.address()), ("site", site.address())];
    let gate = Ringgate::start(&edge("", &rules, &clusters));
    assert_eq!(answer(&gate, &client_hello(Some("cdn.test"), &["h2"], 0)), "site");
}

#[test]
fn a_stock_obfs_server_is_reached_by_name() {
    if !inside_namespace("tls::a_stock_obfs_server_is_reached_by_name") {
        return;
    }
    let shadowsocks = ss_server(None);
    let server = obfs_tls_server(shadowsocks.address());
    let rules = [("names = [\"cdn.test\"]", "obfs")];
    let gate = Ringgate::start(&edge("", &rules, &[("obfs", server.address())]));
    let options = "obfs=tls;obfs-host=cdn.test";
    let web = Web::start();
    let socks = Socks::start(gate.address("edge"), Some(("obfs-local", options)));
    socks.downloads(&web, 20 << 20);
    socks.uploads(&web, 300 * 1024);
    assert!(gate.records(2).iter().all(|record| record.text("host") == "cdn.test"));
}
