//! What TLS takes from outside of the configuration over a reload: keys of tickets.

use std::sync::Arc;

use rustls::HandshakeKind;

use crate::support::{
    Authority, Echo, Setup, TlsClient, VERSIONS, free_port, tls_settings, write_private,
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
