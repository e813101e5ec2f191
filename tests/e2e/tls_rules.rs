//! Which rule a TLS client gets: certificate, protocol, versions, and what the client must show.

use std::sync::Arc;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;

use crate::support::{
    Authority, HttpClient, Kind, Named, Pair, Record, Ringgate, Socks, TlsClient, TlsSite,
    VERSIONS, Web, alert_of, curl, curl_trusting, inside_namespace, openssl_client, require, run,
    ss_server, tls_settings, tls_settings_with,
};

/// A listener `web` that answers every request with "page", with these rules.
fn site(rules: &[String]) -> String {
    format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
         respond = {{ body = \"page\" }}\n{}",
        rules.concat()
    )
}

/// What `openssl s_client` says about a handshake, whether it succeeds or not.
#[track_caller]
fn openssl(gate: &Ringgate, authority: &Authority, name: &str, arguments: &[&str]) -> String {
    let output = run(&mut openssl_client(gate.address("web"), authority, name, arguments));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_name_that_no_rule_has_gets_an_alert_and_no_certificate() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&["site.test"]);
    let gate = Ringgate::start(&site(&[pair.rule(&["site.test"], "")]));
    for (number, arguments) in
        [&["-tls1_2"][..], &["-tls1_3"], &["-noservername"]].iter().enumerate()
    {
        let mut command = openssl_client(gate.address("web"), &authority, "unknown.test", &[]);
        if arguments[0] == "-noservername" {
            // It does not go with a name.
            command = require("openssl");
            command.args(["s_client", "-connect", &gate.address("web").to_string()]);
        }
        let output = run(command.args(*arguments));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // RFC 6066 section 3.
        assert!(said.contains("SSL alert number 112"), "{arguments:?}: {said}");
        assert!(said.contains("no peer certificate available"), "{arguments:?}: {said}");
        let record = gate.records(number + 1).pop().unwrap();
        assert_eq!((record.end(), record.text("protocol")), ("no_route", "tls"));
        let name = if number < 2 { "unknown.test" } else { "" };
        assert_eq!((record.text("host"), record.tls().text("error")), (name, "unrecognized_name"));
    }
}

#[test]
fn each_name_gets_its_own_certificate() {
    let authority = Authority::new("authority");
    let every = ["www.site.test", "a.site.test", "a.b.site.test", "site.example", "else.test"];
    let pairs: Vec<Pair> = (0..4).map(|_| authority.signs(&every)).collect();
    let rules = [
        pairs[0].rule(&[], ""),
        pairs[1].rule(&["*.site.test"], ""),
        pairs[2].rule(&["www.site.test"], ""),
        pairs[3].rule(&["site.*"], ""),
    ];
    let gate = Ringgate::start(&site(&rules));
    for version in VERSIONS {
        let settings = Arc::new(tls_settings(&authority, version));
        for (name, expected) in [
            ("www.site.test", 2),
            ("a.site.test", 1),
            ("a.b.site.test", 1),
            ("site.example", 3),
            ("else.test", 0),
        ] {
            let client = TlsClient::connect(gate.address("web"), &settings, name);
            let shown: &[CertificateDer<'_>] = client.session.peer_certificates().unwrap();
            assert!(shown == [pairs[expected].der.clone()], "{name}");
        }
    }
    // A name is the same in capitals.
    let said = openssl(&gate, &authority, "WWW.Site.TEST", &[]);
    assert!(said.contains("Verify return code: 0"), "{said}");
}

#[test]
fn a_client_gets_the_kind_of_certificate_that_it_accepts() {
    let authority = Authority::new("authority");
    let rsa = authority.signs_as(Kind::Rsa, &["site.test"]);
    let ecdsa = authority.signs(&["site.test"]);
    let files = format!(
        "[[listener.tls]]\ncertificate = [{:?}, {:?}]\nkey = [{:?}, {:?}]\n",
        rsa.certificate, ecdsa.certificate, rsa.key, ecdsa.key
    );
    let gate = Ringgate::start(&site(&[files]));
    // The authority's own key is an ECDSA one, and a client may say that it cannot check that.
    for (arguments, expected) in [
        (&["-tls1_3"][..], "public key is 256 bit"),
        (&["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "public key is 256 bit"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "public key is 2048 bit"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256"], "public key is 2048 bit"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256:ECDSA+SHA256"], "public key is 256 bit"),
        // handshake_failure: nothing in common.
        (&["-tls1_2", "-sigalgs", "ed448"], "SSL alert number 40"),
    ] {
        let said = openssl(&gate, &authority, "site.test", arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let record = gate.record();
    assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "incompatible"));
}

#[test]
fn a_protocol_is_agreed_on_or_the_handshake_fails() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&["site.test", "two.test"]);
    let rules = [pair.rule(&["site.test"], ""), pair.rule(&["two.test"], "alpn = [\"a\", \"b\"]")];
    let gate = Ringgate::start(&site(&rules));
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, protocols, expected) in [
            ("site.test", "http/1.1,h2", "ALPN protocol: h2"),
            ("site.test", "http/1.1", "ALPN protocol: http/1.1"),
            ("site.test", "", "No ALPN negotiated"),
            // The server's preference counts.
            ("two.test", "b,a", "ALPN protocol: a"),
        ] {
            let mut arguments = vec![version];
            if !protocols.is_empty() {
                arguments.extend(["-alpn", protocols]);
            }
            let said = openssl(&gate, &authority, name, &arguments);
            assert!(said.contains(expected), "{version}, {protocols:?}: {said}");
        }
    }
    // no_application_protocol, RFC 7301 section 3.2.
    let said = openssl(&gate, &authority, "site.test", &["-tls1_2", "-alpn", "spdy/3"]);
    assert!(said.contains("SSL alert number 120"), "{said}");
    let record = gate.record();
    assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "incompatible"));
}

#[test]
fn an_alert_follows_what_the_handshake_has_sent_before_it() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&["site.test"]);
    let gate = Ringgate::start(&site(&[pair.rule(&["site.test"], "")]));
    // In TLS 1.3 both fail when the ServerHello is written.
    for (arguments, expected) in [
        (["-tls1_3", "-alpn", "spdy/3"], "SSL alert number 120"),
        (["-tls1_3", "-sigalgs", "ed448"], "SSL alert number 40"),
    ] {
        let said = openssl(&gate, &authority, "site.test", &arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn old_versions_are_refused_as_the_rule_says() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&["new.test", "old.test"]);
    let rules = [pair.rule(&["new.test"], ""), pair.rule(&["old.test"], "min_version = \"1.2\"")];
    let gate = Ringgate::start(&(site(&rules) + "[tls]\nmin_version = \"1.3\"\n"));
    for (name, version, expected) in [
        ("new.test", "-tls1_3", "New, TLSv1.3"),
        ("old.test", "-tls1_3", "New, TLSv1.3"),
        ("old.test", "-tls1_2", "New, TLSv1.2"),
        // protocol_version.
        ("new.test", "-tls1_2", "SSL alert number 70"),
        // handshake_failure: without an extension that TLS 1.1 does not know.
        ("old.test", "-tls1_1", "SSL alert number 40"),
    ] {
        // Distributions forbid their clients the versions that are refused here.
        let arguments = [version, "-cipher", "DEFAULT:@SECLEVEL=0"];
        let said = openssl(&gate, &authority, name, &arguments);
        assert!(said.contains(expected), "{name}, {version}: {said}");
    }
    for record in gate.records(2) {
        assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "incompatible"));
    }
}

#[test]
fn clients_must_show_a_certificate_of_the_right_authority() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let foreign = Authority::new("others");
    let pair = authority.signs(&["site.test"]);
    let rule = pair.rule(&["site.test"], &format!("client_ca = {:?}", clients.file()));
    let gate = Ringgate::start(&site(&[rule]));
    let address = gate.address("web");
    let mut failed = 0;
    for version in VERSIONS {
        let shown = clients.signs(&["a client"]);
        let settings = Arc::new(tls_settings_with(&authority, version, &shown));
        let mut client = HttpClient::over(TlsClient::connect(address, &settings, "site.test"));
        client.send("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n");
        assert_eq!(client.response().body, b"page");

        let of = |pair: &Pair| tls_settings_with(&authority, version, pair);
        let foreign = of(&foreign.signs(&["a client"]));
        let expired = of(&clients.signs_as(Kind::Expired, &["a client"]));
        for (settings, alert, error) in [
            (
                tls_settings(&authority, version),
                AlertDescription::CertificateRequired,
                "certificate_missing",
            ),
            (foreign, AlertDescription::UnknownCA, "certificate_issuer"),
            (expired, AlertDescription::CertificateExpired, "certificate_expired"),
        ] {
            let settings = Arc::new(settings);
            let failure = match TlsClient::try_connect(address, &settings, "site.test") {
                Err(failure) => failure,
                // The client was done before it was judged.
                Ok(mut client) => client.expect_failure(),
            };
            assert_eq!(alert_of(&failure), Some(alert), "{failure}");
            failed += 1;
            let records = gate.records_where(failed, |record| record.end() == "tls_failed");
            assert_eq!(records[failed - 1].tls().text("error"), error, "{records:?}");
        }
    }
}

#[test]
fn a_host_that_demands_certificates_is_not_reached_by_another_name() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = authority.signs(&["open.test", "closed.test"]);
    let gate = Ringgate::start(&site(&[
        pair.rule(&["open.test"], ""),
        pair.rule(&["closed.test"], &format!("client_ca = {:?}", clients.file())),
    ]));
    let address = gate.address("web");
    let status = |client: &mut HttpClient<_>, host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response().status
    };
    for version in VERSIONS {
        let without = Arc::new(tls_settings(&authority, version));
        let shown = clients.signs(&["a client"]);
        let with = Arc::new(tls_settings_with(&authority, version, &shown));
        let over = |settings, name| HttpClient::over(TlsClient::connect(address, settings, name));
        let mut open = over(&without, "open.test");
        assert_eq!(status(&mut open, "open.test"), 200);
        assert_eq!(status(&mut open, "CLOSED.test:443"), 421);
        let mut closed = over(&with, "closed.test");
        assert_eq!(status(&mut closed, "closed.test"), 200);
        assert_eq!(status(&mut closed, "open.test"), 200);
    }
    // Nor without TLS.
    let mut plain = HttpClient::connect(address);
    plain.send("GET / HTTP/1.1\r\nHost: closed.test\r\n\r\n");
    assert_eq!(plain.response().status, 421);
    let records = gate.records_where(3, |record| record.text("reason") == "misdirected");
    for record in &records {
        let said = (record.number("status"), record.text("method"), record.text("path"));
        assert_eq!(said, (421, "GET", "/"), "{record:?}");
        assert!(record.text("host").eq_ignore_ascii_case("closed.test"), "{record:?}");
    }
}

#[test]
fn plain_http_to_a_host_that_demands_certificates_is_redirected_to_https() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = authority.signs(&["closed.test"]);
    let rule = pair.rule(&["closed.test"], &format!("client_ca = {:?}", clients.file()));
    let redirect = "route = [{ prefix = \"/\", redirect = { scheme = \"https\" } }, \
                    { prefix = \"/\", respond = { body = \"page\" } }]";
    let gate = Ringgate::start(&format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         {rule}\n[[listener.host]]\n{redirect}\n"
    ));
    let address = gate.address("web");
    let mut plain = HttpClient::connect(address);
    plain.send("GET /a HTTP/1.1\r\nHost: closed.test\r\n\r\n");
    let response = plain.response();
    assert_eq!((response.status, response.field("location")), (301, Some("https://closed.test/a")));
    let shown = Arc::new(tls_settings_with(&authority, VERSIONS[1], &clients.signs(&["a client"])));
    let mut client = HttpClient::over(TlsClient::connect(address, &shown, "closed.test"));
    client.send("GET /a HTTP/1.1\r\nHost: closed.test\r\n\r\n");
    assert_eq!(client.response().body, b"page");
}

#[test]
fn what_is_and_what_looks_like_tls_shares_a_port_with_plain_http() {
    if !inside_namespace("tls_rules::what_is_and_what_looks_like_tls_shares_a_port_with_plain_http")
    {
        return;
    }
    let (authority, web) = (Authority::new("authority"), Web::start());
    let passed_on = TlsSite::start("passed.test", "passed on");
    let (stripped, shadowsocks) = (Named::start("stripped"), ss_server(None));
    let pair = authority.signs(&["site.test", "stripped.test"]);
    let rules = [
        pair.rule(&["site.test"], ""),
        pair.rule(&["stripped.test"], "cluster = \"stripped\""),
        "[[listener.tls]]\nnames = [\"passed.test\"]\ncluster = \"passed\"\n".to_owned(),
        "[[listener.tls]]\nnames = [\"cdn.test\"]\nsimple_obfs = true\ncluster = \"ss\"\n"
            .to_owned(),
        format!("[cluster.passed]\nendpoints = [\"{}\"]\n", passed_on.address()),
        format!("[cluster.stripped]\nendpoints = [\"{}\"]\n", stripped.address()),
        format!("[cluster.ss]\nendpoints = [\"{}\"]\n", shadowsocks.address()),
    ];
    let gate = Ringgate::start(&site(&rules));
    let address = gate.address("web");
    let socks = Socks::start(address, Some(("obfs-local", "obfs=tls;obfs-host=cdn.test")));

    // One kind goes on while the others are served.
    let download = socks.begins_download(&web);
    for _ in 0..5 {
        let mut plain = HttpClient::connect(address);
        plain.send("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n");
        assert_eq!(plain.response().body, b"page");

        let output = curl(address, &authority, &["https://site.test/"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "page");

        let output = curl_trusting(address, &passed_on.certificate(), &["https://passed.test/"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "passed on");

        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::connect(address, &settings, "stripped.test");
        assert_eq!(client.rest(), b"stripped");
    }
    drop(download);
    socks.downloads(&web, 20 << 20);
    let whole = |record: &Record| record.text("host") == "cdn.test" && record.end() == "upstream";
    let records = gate.records_where(1, whole);
    assert!(records[0].number("bytes_down") > 20 << 20, "{records:?}");
    for name in ["passed.test", "stripped.test"] {
        let records = gate.records_where(5, |record| record.text("host") == name);
        let is_ended = |record: &Record| record.text("cluster") == "stripped";
        assert!(records.iter().all(|one| is_ended(one) == one.has_tls()), "{records:?}");
    }
}
