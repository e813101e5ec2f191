//! Handshakes: what they agree on, and how they fail.

use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;

use super::*;

#[test]
fn a_handshake_tells_what_was_agreed_on() {
    for case in CASES {
        let mut pair = Pair::open(case, &[]);
        assert_eq!(pair.session.version(), Some(["1.2", "1.3"][case.1]));
        assert!(pair.session.suite().unwrap().starts_with("TLS"));
        assert_eq!(pair.session.take_server_name().as_deref(), Some(NAME));
        assert_eq!(pair.session.protocol(), Some(&b"http/1.1"[..]));
        assert!(!pair.session.is_resumed());
        assert_eq!(pair.session.kept.capacity(), 0);
    }
}

#[test]
fn a_session_can_be_resumed() {
    for (side, version) in CASES {
        let mut client = (*configs().clients[version]).clone();
        client.resumption = rustls::client::Resumption::in_memory_sessions(4);
        let client = Arc::new(client);
        for resumed in [false, true] {
            let mut pair = Pair::with(side, &configs().servers[version], &client, NAME, &[]);
            assert_eq!(pair.shake(), None);
            assert_eq!((pair.session.state(), pair.session.is_resumed()), (State::Open, resumed));
        }
    }
}

#[test]
fn an_end_within_the_handshake_or_a_record_cuts_the_stream_off() {
    for case in CASES {
        let mut pair = Pair::new(case, &[]);
        let hello = std::mem::take(&mut pair.hello);
        pair.deliver(&hello).unwrap();
        let wire = pair.sent_by_peer();
        pair.receive(&wire[..wire.len() - 1]);
        assert!(pair.session.state() == State::Handshake && pair.session.is_truncated_by_end());

        let mut pair = Pair::open(case, &[]);
        let wire = pair.encrypted_by_peer(b"data");
        assert_eq!(pair.receive(&wire[..wire.len() - 1]).0, b"");
        assert!(pair.session.kept() > 0 && pair.session.is_truncated_by_end());
        // A reply while an incomplete record waits.
        let output = pair.encrypt(b"reply");
        assert_eq!(pair.deliver(&output).unwrap(), b"reply");
        assert_eq!(pair.receive(&wire[wire.len() - 1..]).0, b"data");
    }
}

#[test]
fn data_may_follow_the_handshake_in_one_read() {
    let mut pair = Pair::new(TLS13, &[]);
    let hello = pair.sent_by_peer();
    let (_, output) = pair.receive(&hello);
    pair.deliver(&output).unwrap();
    let data = bytes(2 * MAX_HANDSHAKE);
    let wire = pair.encrypted_by_peer(&data);
    assert!(pair.receive(&wire).0 == data);
    assert_eq!(pair.session.state(), State::Open);
}

#[test]
fn a_name_without_a_certificate_is_answered_by_an_alert() {
    const OTHER: &str = "other.example.test";
    for version in 0..2 {
        let Configs { servers, clients, .. } = configs();
        let mut pair = Pair::with(Server, &servers[version], &clients[version], OTHER, &[]);
        let error = pair.shake();
        assert!(matches!(error, Some(rustls::Error::AlertReceived(_))), "{error:?}");
        assert_eq!(pair.session.state(), State::Failed(Error::NoCertificate));
        assert_eq!(pair.session.take_server_name().as_deref(), Some(OTHER));

        let mut pair = Pair::with(Client, &servers[version], &clients[version], OTHER, &[]);
        assert!(pair.shake().is_some());
        assert_eq!(pair.session.state(), State::Failed(Error::Alert));
    }
}

#[test]
fn bytes_that_are_no_hello_are_answered_by_an_alert() {
    let mut pair = Pair::new(TLS13, &[]);
    let (_, output) = pair.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(output, DECODE_ERROR);
    assert_eq!(pair.session.state(), State::Failed(Error::Hello));
}

#[test]
fn each_byte_of_a_handshake_may_come_alone() {
    for case in CASES {
        let mut pair = Pair::new(case, &[1]);
        let hello = std::mem::take(&mut pair.hello);
        pair.deliver(&hello).unwrap();
        let mut wire = pair.sent_by_peer();
        // The session goes on as soon as a flight is complete, and not before.
        loop {
            let (last, before) = wire.split_last().unwrap();
            let (plaintext, mut output) = pair.receive(before);
            assert_eq!((plaintext, pair.session.state()), (vec![], State::Handshake));
            output.extend(pair.receive(&[*last]).1);
            pair.deliver(&output).unwrap();
            if pair.session.state() == State::Open {
                break;
            }
            wire = pair.sent_by_peer();
        }
        let wire = pair.encrypted_by_peer(b"data");
        assert_eq!(pair.receive(&wire).0, b"data");
    }
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    for case in CASES {
        let mut client = (*configs().clients[case.1]).clone();
        if case.1 == 1 {
            // Its key shares have more than a kilobyte each way.
            let mut provider = aws_lc_rs::default_provider();
            provider.kx_groups.insert(0, X25519MLKEM768);
            let mut roots = RootCertStore::empty();
            roots.add(configs().certified.cert[0].clone()).unwrap();
            client = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[VERSIONS[1]])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        }
        let client = Arc::new(client);
        for cut in (1..2600).step_by(23) {
            let cuts = [cut, usize::MAX];
            let mut pair = Pair::with(case.0, &configs().servers[case.1], &client, NAME, &cuts);
            assert_eq!(pair.shake(), None);
            assert_eq!((pair.session.state(), pair.session.kept()), (State::Open, 0));
        }
    }
}

/// A server whose chain has this many bytes behind its certificate.
fn server_with_chain(version: usize, length: usize) -> Arc<ServerConfig> {
    let Configs { servers, certified, .. } = configs();
    let mut certified = certified.clone();
    certified.cert.push(CertificateDer::from(vec![7; length]));
    let mut server = (*servers[version]).clone();
    server.cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    Arc::new(server)
}

#[test]
fn a_handshake_has_a_length_limit_however_it_is_cut() {
    for version in 0..2 {
        for cuts in [&[][..], &[1000], &[20_000]] {
            let state = |length| {
                let server = server_with_chain(version, length);
                let client = &configs().clients[version];
                let mut pair = Pair::with(Client, &server, client, NAME, cuts);
                pair.shake();
                assert_eq!(pair.session.kept.capacity(), 0);
                pair.session.state()
            };
            assert_eq!(state(40_000), State::Open);
            assert_eq!(state(64_000), State::Open);
            assert_eq!(state(65_100), State::Failed(Error::HandshakeTooLong));
        }
    }
}

#[test]
fn a_hello_has_a_length_limit_however_it_is_cut() {
    // A ClientHello that claims to be longer than any.
    let wire = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 16_380]].concat();
    for cuts in [&[][..], &[1000]] {
        let mut pair = Pair::new(TLS13, cuts);
        let (_, output) = pair.receive(&wire);
        assert_eq!(output, DECODE_ERROR);
        assert_eq!(pair.session.state(), State::Failed(Error::Hello));
    }
    // One that is long enough, but has a record for each byte.
    let message = [&[1, 0, 0x20, 0][..], &[0; 0x2000]].concat();
    let wire: Vec<u8> = message.iter().flat_map(|&byte| [22, 3, 1, 0, 1, byte]).collect();
    let mut pair = Pair::new(TLS13, &[1000]);
    assert_eq!(pair.receive(&wire).1, DECODE_ERROR);
    assert_eq!(pair.session.state(), State::Failed(Error::Hello));
}
