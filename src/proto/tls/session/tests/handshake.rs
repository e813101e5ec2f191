//! Handshakes: what they agree on, and how they fail.

use super::*;

#[test]
fn a_handshake_tells_what_was_agreed_on() {
    for case in CASES {
        let pair = Pair::open(case, &[]);
        assert_eq!(pair.session.version(), Some(["1.2", "1.3"][case.1]));
        assert!(pair.session.suite().unwrap().starts_with("TLS"));
        assert_eq!(pair.session.server_name(), Some(NAME));
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
        let mut output = Vec::new();
        pair.session.encrypt(b"reply", &mut output).unwrap();
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
        let Configs { servers, clients } = configs();
        let mut pair = Pair::with(Server, &servers[version], &clients[version], OTHER, &[]);
        let error = pair.shake();
        assert!(matches!(error, Some(rustls::Error::AlertReceived(_))), "{error:?}");
        assert_eq!(pair.session.state(), State::Failed(Error::NoCertificate));
        assert_eq!(pair.session.server_name(), Some(OTHER));

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
