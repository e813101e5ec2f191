//! What TLS takes from outside of the configuration over a reload: keys of tickets, and the
//! authorities of this machine.

use std::fs;
use std::sync::Arc;

use rustls::HandshakeKind;

use crate::support::{
    Authority, Echo, HttpClient, Setup, TlsClient, TlsSite, VERSIONS, expect_reset, free_port,
    tls_settings, write_private,
};

const NAME: &str = "site.test";

#[test]
fn keys_that_leave_a_file_are_not_used_any_more() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let (pair, dir) = (authority.signs(&[NAME]), tempfile::tempdir().unwrap());
    let file = dir.path().join("keys");
    write_private(&file, "A".repeat(43) + "=\n");
    let address = free_port().address();
    let config = |keys: &str| {
        format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"{address}\"\nprotocol = \"tls\"\n{}\
             [cluster.echo]\nendpoints = [\"{}\"]\n[tls]\n{keys}\n",
            pair.rule(&[NAME], "cluster = \"echo\""),
            echo.address()
        )
    };
    let in_file = config(&format!("ticket_keys = {file:?}"));
    for version in VERSIONS {
        let gate = Setup { config: in_file.clone(), ..Setup::default() }.start();
        let settings = Arc::new(tls_settings(&authority, version));
        let handshake = || {
            let mut client = TlsClient::connect(address, &settings, NAME);
            client.send(b"hello");
            // The tickets are on their way before this is.
            client.expect(b"hello");
            client.close_notify();
            client.expect_close_notify();
            client.session.handshake_kind().unwrap()
        };
        assert_eq!((handshake(), handshake()), (HandshakeKind::Full, HandshakeKind::Resumed));
        // The ticket is of the key of the file, which is used again.
        gate.reload(&in_file);
        assert_eq!(handshake(), HandshakeKind::Resumed, "{version:?}");
        gate.reload(&config(""));
        assert_eq!(handshake(), HandshakeKind::Full, "{version:?}");
        assert_eq!(handshake(), HandshakeKind::Resumed, "{version:?}");
        // Keys that are made here stay.
        gate.reload(&config("min_version = \"1.2\""));
        assert_eq!(handshake(), HandshakeKind::Resumed, "{version:?}");
        gate.reload(&in_file);
        assert_eq!(handshake(), HandshakeKind::Full, "{version:?}");
        drop(gate);
    }
}

#[test]
fn the_authorities_of_the_machine_are_read_again() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let site = TlsSite::with(&new.signs(&[NAME]), NAME, "page");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authorities.pem");
    fs::copy(old.file(), &file).unwrap();
    let address = free_port().address();
    let config = format!(
        "[[listener]]\nname = \"l4\"\nlisten = \"{address}\"\nprotocol = \"tcp\"\ncluster = \"c\"\n\
         [cluster.c]\nendpoints = [\"{}\"]\ntls = {{ server_name = \"{NAME}\" }}\n",
        site.address()
    );
    let env = vec![("SSL_CERT_FILE", file.to_str().unwrap().to_owned())];
    let gate = Setup { config: config.clone(), env, ..Setup::default() }.start();
    expect_reset(&mut gate.connect("l4"));
    gate.line_with("certificate_issuer");
    fs::copy(new.file(), &file).unwrap();
    gate.reload(&config);
    let asks = || {
        let mut client = HttpClient::connect(address);
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
        client.response().body
    };
    assert_eq!(asks(), b"page");
    fs::copy(old.file(), &file).unwrap();
    gate.reload(&config);
    expect_reset(&mut gate.connect("l4"));
}
