//! The whole program: rules with `acme` get their certificates while it runs, and keep them.

use std::path::Path;

use serde_json::Value;

use crate::admin::{admin, asks};
use crate::support::{
    Authority, LONG, PebblePlace, Record, Ringgate, SHORT, Setup, curl_trusting, free_port,
    require, run, wait_for,
};

const NAMES: [&str; 2] = ["live.test", "www.live.test"];
const QUARTER: u32 = 90 * 24 * 3600;
/// Connections that are certain to reach both workers, but for one time in thousands.
const BOTH: usize = 16;

/// `[acme]`, and the http listener `edge` whose certificate comes by it. `rule` has more lines of
/// its TLS rule.
fn config(
    place: &PebblePlace,
    storage: &Path,
    challenge: &str,
    listen: &str,
    rule: &str,
) -> String {
    format!(
        "[acme]\ndirectory = \"{}\"\nstorage = {storage:?}\nchallenge = \"{challenge}\"\n\
         terms_agreed = true\nca = {:?}\ncontact = \"mailto:admin@example.com\"\n\
         [[listener]]\nname = \"edge\"\nlisten = \"{listen}\"\nprotocol = \"http\"\n\
         [[listener.tls]]\nnames = {NAMES:?}\nacme = true\n{rule}\
         [[listener.host]]\nroute = [{{ prefix = \"/\", respond = {{ body = \"site\" }} }}]\n",
        place.url(),
        place.authorities(),
    )
}

fn start(config: &str, driver: &str) -> Ringgate {
    let server = format!("workers = 2\ndriver = \"{driver}\"");
    Setup { config: config.to_owned(), server, ..Setup::default() }.start()
}

/// Whether a client that trusts `issuer` gets the site, every time.
fn serves(gate: &Ringgate, issuer: &Path) -> bool {
    NAMES.iter().cycle().take(BOTH).all(|name| {
        let url = format!("https://{name}/");
        curl_trusting(gate.address("edge"), issuer, &[&url]).stdout == b"site"
    })
}

/// The status of a response to a request in plain HTTP.
fn status(gate: &Ringgate, listener: &str, url: &str) -> String {
    let mut curl = require("curl");
    curl.args(["-q", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", url]);
    curl.args(["--connect-to", &format!("::{}", gate.address(listener))]);
    String::from_utf8(run(&mut curl).stdout).unwrap()
}

#[test]
fn a_site_gets_its_certificate_and_a_restart_serves_it_without_the_authority() {
    for (challenge, driver) in [("tls-alpn-01", "auto"), ("http-01", "epoll")] {
        let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
        let listen = place.tls().to_string();
        let mut config = config(&place, storage.path(), challenge, &listen, "");
        config += &format!(
            "[[listener]]\nname = \"web\"\nlisten = \"{}\"\nprotocol = \"http\"\n\
             [[listener.host]]\n\
             route = [{{ prefix = \"/\", redirect = {{ scheme = \"https\" }} }}]\n",
            place.http()
        );
        let own = free_port().address();
        config += &admin(own);
        let pebble = place.start(QUARTER, 0);
        let gate = start(&config, driver);
        gate.line_with("a certificate was issued");
        // The configuration has none: it is what is in use.
        let one = wait_for("it is shown", SHORT, || {
            let (_, shown) = asks(own, "GET /certificates", "");
            let shown: Value = serde_json::from_str(&shown).unwrap();
            shown["certificates"].get(0).cloned()
        });
        assert_eq!((&one["source"], one["names"].as_array().unwrap().len()), (&"acme".into(), 2));
        assert_eq!(one["days_left"], 89, "{one:#}");
        let issuer = place.issuer();
        wait_for("the certificate", LONG, || serves(&gate, &issuer).then_some(()));
        let challenged = |record: &Record| record.text("route") == "acme";
        assert!(!gate.records_where(1, challenged).is_empty(), "{challenge}");
        // What is no challenge goes to its route.
        let other = "http://live.test/.well-known/acme-challenge/other";
        assert_eq!(status(&gate, "web", other), "301");

        drop((gate, pebble));
        assert!(serves(&start(&config, driver), &issuer), "{challenge}");
    }
}

/// The authority has no client certificate, and asks in plain HTTP.
#[test]
fn challenges_are_answered_for_a_host_that_demands_client_certificates() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let clients = Authority::new("clients");
    let rule = format!("client_ca = {:?}\n", clients.file());
    let listen = place.http().to_string();
    let config = config(&place, storage.path(), "http-01", &listen, &rule);
    let _pebble = place.start(QUARTER, 0);
    let gate = start(&config, "auto");
    gate.line_with("a certificate was issued");
    assert_eq!(status(&gate, "edge", "http://live.test/"), "421");
}
