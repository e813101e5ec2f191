//! Records that rustls never sends, encrypted with the keys of a peer.

use ::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::super::records::SMALL_RECORD;
use super::*;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// The most records without content, one after the other, that rustls accepts.
const MAX_EMPTY: usize = 32;
/// The most warning alerts that rustls accepts.
const MAX_WARNINGS: usize = 4;

/// The keys of a peer, whose connection has ended.
struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    version: usize,
}

/// A session, and what can forge the records of its peer.
fn forge(case: Case) -> (Pair, Forger) {
    let mut pair = Pair::open(case, &[]);
    // Another peer takes its place.
    let peer = std::mem::replace(&mut pair.peer, Pair::new(case, &[]).peer);
    let (sequence, secrets) = peer.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("another suite was chosen")
    };
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap();
    let iv = iv.as_ref().try_into().unwrap();
    (pair, Forger { key: LessSafeKey::new(key), iv, sequence, version: case.1 })
}

impl Forger {
    /// A record of TLS 1.2 (RFC 5288 section 3) or 1.3 (RFC 8446 section 5.2).
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        let mut nonce = self.iv;
        nonce.iter_mut().skip(4).zip(sequence).for_each(|(byte, mask)| *byte ^= mask);
        let mut sealed = content.to_vec();
        let (outer, explicit) = if self.version == 1 {
            sealed.push(kind);
            (DATA, &[][..])
        } else {
            (kind, &nonce[4..])
        };
        let length = u16::try_from(sealed.len()).unwrap();
        let header = |length: u16| [&[outer, 3, 3][..], &length.to_be_bytes()].concat();
        let aad = match self.version {
            1 => header(length + 16),
            _ => [&sequence[..], &header(length)].concat(),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).unwrap();
        self.sequence += 1;
        let length = u16::try_from(explicit.len() + sealed.len()).unwrap();
        [&header(length), explicit, &sealed].concat()
    }
}

#[test]
fn a_forged_record_is_like_one_of_the_peer() {
    for case in CASES {
        let (mut pair, mut forger) = forge(case);
        for text in [&b"one"[..], b"two"] {
            let record = forger.record(DATA, text);
            assert_eq!(pair.receive(&record), (text.to_vec(), vec![]));
        }
    }
}

#[test]
fn records_without_content_are_limited() {
    for case in CASES {
        let (mut pair, mut forger) = forge(case);
        for _ in 0..3 {
            for _ in 0..MAX_EMPTY {
                assert_eq!(pair.receive(&forger.record(DATA, b"")).0, b"");
            }
            assert_eq!(pair.receive(&forger.record(DATA, b"data")).0, b"data");
        }
        assert_eq!(pair.session.state(), State::Open);
        // In one read.
        let flood: Vec<_> = (0..=MAX_EMPTY).map(|_| forger.record(DATA, b"")).collect();
        assert_eq!(pair.receive(&flood.concat()).0, b"");
        assert_eq!(pair.session.state(), State::Failed(Error::Misbehaved));
    }
}

#[test]
fn warnings_are_limited_in_tls_1_2_and_refused_in_tls_1_3() {
    const UNSUPPORTED_CERTIFICATE: u8 = 43;
    const USER_CANCELED: u8 = 90;
    for case in CASES {
        let (mut pair, mut forger) = forge(case);
        let kind = if case.1 == 0 { UNSUPPORTED_CERTIFICATE } else { USER_CANCELED };
        for _ in 0..MAX_WARNINGS {
            assert_eq!(pair.receive(&forger.record(ALERT, &[1, kind])), (vec![], vec![]));
            assert_eq!(pair.session.state(), State::Open);
        }
        pair.receive(&forger.record(ALERT, &[1, kind]));
        assert_eq!(pair.session.state(), State::Failed(Error::Misbehaved));
    }
    for side in [Server, Client] {
        let (mut pair, mut forger) = forge((side, 1));
        let (_, output) = pair.receive(&forger.record(ALERT, &[1, UNSUPPORTED_CERTIFICATE]));
        assert_eq!(pair.session.state(), State::Failed(Error::Alert));
        assert_eq!(record_lengths(&output).len(), 1);
    }
}

#[test]
fn renegotiation_is_refused_once_and_fails_then() {
    for side in [Server, Client] {
        let (mut pair, mut forger) = forge((side, 0));
        // A ClientHello, or a HelloRequest (RFC 5246 section 7.4.1.1).
        let message = match side {
            Server => Pair::new((Server, 0), &[]).sent_by_peer()[5..].to_vec(),
            Client => vec![0; 4],
        };
        let (_, output) = pair.receive(&forger.record(HANDSHAKE, &message));
        assert_eq!((output[0], pair.session.state()), (ALERT, State::Open));
        assert_eq!(pair.receive(&forger.record(DATA, b"data")).0, b"data");
        pair.receive(&forger.record(HANDSHAKE, &message));
        assert_eq!(pair.session.state(), State::Failed(Error::Misbehaved));
    }
}

#[test]
fn a_key_update_may_be_cut_into_records_with_data_sent_between() {
    // A KeyUpdate that asks for another one (RFC 8446 section 4.6.3).
    const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];
    for side in [Server, Client] {
        for cut in 1..KEY_UPDATE.len() {
            let (mut pair, mut forger) = forge((side, 1));
            let mut output = Output::default();
            let (first, second) = KEY_UPDATE.split_at(cut);
            assert_eq!(pair.receive(&forger.record(HANDSHAKE, first)), (vec![], vec![]));
            assert!(pair.session.kept() > 0);
            pair.session.encrypt(b"between", &mut output).unwrap();
            assert_eq!(record_lengths(&output).len(), 1);
            assert_eq!(pair.receive(&forger.record(HANDSHAKE, second)), (vec![], vec![]));
            assert_eq!((pair.session.state(), pair.session.kept()), (State::Open, 0));
            // The reply to the KeyUpdate goes first.
            output.clear();
            pair.session.encrypt(b"after", &mut output).unwrap();
            assert_eq!(record_lengths(&output).len(), 2);
            // Its keys are new, so that a record with the old ones cannot be decrypted.
            pair.receive(&forger.record(DATA, b"old"));
            assert_eq!(pair.session.state(), State::Failed(Error::Decrypt));
        }
    }
}

#[test]
fn data_within_a_message_of_the_handshake_is_refused() {
    for case in CASES {
        for (kind, content) in [(DATA, &b"data"[..]), (ALERT, &[1, 0])] {
            let (mut pair, mut forger) = forge(case);
            pair.receive(&forger.record(HANDSHAKE, &[24, 0, 0]));
            pair.receive(&forger.record(kind, content));
            assert_eq!(pair.session.state(), State::Failed(Error::Misbehaved));
        }
    }
}

#[test]
fn a_message_of_too_many_records_is_refused() {
    for case in CASES {
        let (mut pair, mut forger) = forge(case);
        // A message of 16 KiB, one byte in each record.
        pair.receive(&forger.record(HANDSHAKE, &[4, 0, 64, 0]));
        let mut records = 1;
        while pair.session.state() == State::Open {
            pair.receive(&forger.record(HANDSHAKE, &[0]));
            assert!(pair.session.kept() <= MAX_RECORD);
            records += 1;
        }
        assert_eq!(pair.session.state(), State::Failed(Error::HandshakeTooLong));
        assert!((600..900).contains(&records), "{records}");
        assert_eq!(pair.session.kept(), 0);
    }
}

#[test]
fn whatever_follows_a_close_notify_is_ignored() {
    for case in CASES {
        let (mut pair, mut forger) = forge(case);
        let records = [
            forger.record(DATA, b"last"),
            forger.record(ALERT, &[1, 0]),
            forger.record(DATA, b"late"),
            b"no record".to_vec(),
        ];
        assert_eq!(pair.receive(&records.concat()), (b"last".to_vec(), vec![]));
        assert_eq!((pair.session.state(), pair.session.kept()), (State::PeerClosed, 0));
        // Data can be sent as before, again and again, and more input changes nothing.
        let mut output = Output::default();
        for length in [1, 100, 50_000] {
            pair.session.encrypt(&bytes(length), &mut output).unwrap();
            assert_eq!(pair.receive(&forger.record(DATA, b"late")), (vec![], vec![]));
        }
        assert_eq!(record_lengths(&output).len(), 2 + 50_000usize.div_ceil(SMALL_RECORD));
        pair.session.close(&mut output);
        assert_eq!(pair.session.encrypt(b"more", &mut output), Err(Error::Closed));
        assert_eq!(pair.session.state(), State::PeerClosed);
    }
}

#[test]
fn records_of_other_kinds_are_refused() {
    for case in CASES {
        for kind in [CHANGE_CIPHER_SPEC, 0, 24, 255] {
            let (mut pair, mut forger) = forge(case);
            pair.receive(&forger.record(kind, &[1]));
            let State::Failed(error) = pair.session.state() else {
                panic!("{case:?} {kind}: {:?}", pair.session.state())
            };
            let expected = [Error::Misbehaved, Error::Malformed, Error::Decrypt];
            assert!(expected.contains(&error), "{case:?} {kind}: {error:?}");
        }
    }
}

#[test]
fn records_have_a_length_limit() {
    for case in CASES {
        // The header alone is enough to refuse it.
        for (length, is_refused) in [(MAX_RECORD - 6, false), (MAX_RECORD - 5, true)] {
            let mut pair = Pair::open(case, &[]);
            let header = [&[DATA, 3, 3][..], &u16::try_from(length).unwrap().to_be_bytes()];
            let (_, output) = pair.receive(&header.concat());
            let state = if is_refused { State::Failed(Error::RecordTooLong) } else { State::Open };
            assert_eq!((pair.session.state(), output.is_empty()), (state, !is_refused));
            if is_refused {
                assert!(matches!(pair.deliver(&output), Err(rustls::Error::AlertReceived(_))));
            }
        }
        // More plaintext than a record may have.
        let (mut pair, mut forger) = forge(case);
        let full = forger.record(DATA, &bytes(MAX_PLAINTEXT));
        assert_eq!(pair.receive(&full).0, bytes(MAX_PLAINTEXT));
        let (plaintext, output) = pair.receive(&forger.record(DATA, &bytes(MAX_PLAINTEXT + 1)));
        assert!(plaintext.is_empty() && !output.is_empty());
        assert_eq!(pair.session.state(), State::Failed(Error::RecordTooLong));
    }
}
