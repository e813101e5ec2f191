//! Data, its limits, and the close.

use proptest::prelude::*;

use super::super::records::{OVERHEAD, SMALL_RECORD, SMALL_UNTIL};
use super::*;

#[test]
fn both_sides_close() {
    for case in CASES {
        let mut pair = Pair::open(case, &[]);
        assert!(pair.session.is_truncated_by_end());
        pair.peer.writer().write_all(b"last").unwrap();
        pair.peer.send_close_notify();
        let wire = pair.sent_by_peer();
        assert_eq!(pair.receive(&wire).0, b"last");
        assert_eq!(pair.session.state(), State::PeerClosed);
        assert!(!pair.session.is_truncated_by_end());

        let mut output = Output::default();
        pair.session.encrypt(b"answer", &mut output).unwrap();
        pair.session.close(&mut output);
        pair.session.close(&mut output);
        assert_eq!(record_lengths(&output).len(), 2);
        assert_eq!(pair.deliver(&output).unwrap(), b"answer");
        assert_eq!(pair.peer.reader().read(&mut [0]).unwrap(), 0);
        assert_eq!(pair.session.encrypt(b"more", &mut output), Err(Error::Closed));
    }
}

#[test]
fn data_can_be_received_after_the_session_has_closed() {
    for case in CASES {
        let mut pair = Pair::open(case, &[]);
        let mut output = Output::default();
        pair.session.close(&mut output);
        pair.deliver(&output).unwrap();
        let wire = pair.encrypted_by_peer(b"late");
        assert_eq!((pair.receive(&wire).0, pair.session.state()), (b"late".to_vec(), State::Open));
    }
}

#[test]
fn a_corrupted_record_after_the_session_has_closed_is_not_decrypted() {
    for case in CASES {
        let mut pair = Pair::open(case, &[]);
        pair.session.close(&mut Output::default());
        let mut wire = pair.encrypted_by_peer(b"late");
        *wire.last_mut().unwrap() ^= 1;
        assert_eq!(pair.receive(&wire), (vec![], vec![]));
        assert_eq!(pair.session.state(), State::Failed(Error::Decrypt));
    }
}

#[test]
fn records_are_small_at_the_beginning() {
    for case in CASES {
        let mut pair = Pair::open(case, &[]);
        let plaintext = bytes(SMALL_UNTIL + 2 * MAX_PLAINTEXT);
        let output = pair.encrypt(&plaintext);
        let lengths = record_lengths(&output);
        assert_eq!(lengths.len(), SMALL_UNTIL / SMALL_RECORD + 2);
        assert!(lengths[..16].iter().all(|length| *length <= SMALL_RECORD + OVERHEAD));
        assert!(pair.deliver(&output).unwrap() == plaintext);
    }
}

#[test]
fn keys_are_updated_when_the_peer_asks() {
    for side in [Server, Client] {
        let mut pair = Pair::open((side, 1), &[]);
        for _ in 0..100 {
            pair.peer.refresh_traffic_keys().unwrap();
            let wire = pair.encrypted_by_peer(b"to");
            assert_eq!(pair.receive(&wire), (b"to".to_vec(), vec![]));
            let output = pair.encrypt(b"from");
            assert_eq!(pair.deliver(&output).unwrap(), b"from");
        }
    }
}

#[test]
fn key_updates_without_data_are_limited() {
    for side in [Server, Client] {
        let mut pair = Pair::open((side, 1), &[]);
        for _ in 0..32 {
            pair.peer.refresh_traffic_keys().unwrap();
            let wire = pair.sent_by_peer();
            // The reply waits for the next data, so that a flood makes no output.
            assert_eq!(pair.receive(&wire), (vec![], vec![]));
        }
        assert_eq!(pair.session.state(), State::Open);
        pair.peer.refresh_traffic_keys().unwrap();
        let wire = pair.sent_by_peer();
        pair.receive(&wire);
        assert_eq!(pair.session.state(), State::Failed(Error::Misbehaved));
    }
}

#[test]
fn replayed_and_reordered_records_are_not_decrypted() {
    for case in CASES {
        for order in [[0, 0], [1, 0]] {
            let mut pair = Pair::open(case, &[]);
            let records = [pair.encrypted_by_peer(b"one"), pair.encrypted_by_peer(b"two")];
            let wire = order.map(|at| &records[at][..]).concat();
            let (plaintext, output) = pair.receive(&wire);
            let first: &[u8] = if order[0] == 0 { b"one" } else { b"" };
            assert_eq!(plaintext, first);
            assert_eq!(pair.session.state(), State::Failed(Error::Decrypt));
            assert!(matches!(pair.deliver(&output), Err(rustls::Error::AlertReceived(_))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_cut_gives_the_same_plaintext(
        case in proptest::sample::select(&CASES[..]),
        cuts in proptest::collection::vec(prop_oneof![1usize..20, 1usize..40_000], 1..20),
        messages in proptest::collection::vec(prop_oneof![1usize..300, 16_000usize..50_000], 1..6),
    ) {
        let mut pair = Pair::open(case, &cuts);
        for length in messages {
            let message = bytes(length);
            let wire = pair.encrypted_by_peer(&message);
            let (plaintext, output) = pair.receive(&wire);
            prop_assert!(plaintext == message && output.is_empty());
            prop_assert_eq!(pair.session.kept.capacity(), 0);
            let output = pair.encrypt(&message);
            prop_assert!(pair.deliver(&output).unwrap() == message);
        }
    }

    #[test]
    fn a_corrupted_record_ends_with_an_alert(
        case in proptest::sample::select(&CASES[..]),
        cuts in proptest::collection::vec(1usize..500, 1..5),
        at in 5usize..300,
        bit in 0u8..8,
    ) {
        let mut pair = Pair::open(case, &cuts);
        let mut wire = pair.encrypted_by_peer(&bytes(300));
        wire[at] ^= 1 << bit;
        let (plaintext, output) = pair.receive(&wire);
        prop_assert!(plaintext.is_empty());
        prop_assert_eq!(pair.session.state(), State::Failed(Error::Decrypt));
        let error = pair.deliver(&output);
        prop_assert!(matches!(error, Err(rustls::Error::AlertReceived(_))), "{:?}", error);
    }

    #[test]
    fn any_bytes_are_handled(
        first in any::<Vec<u8>>(),
        cuts in proptest::collection::vec(1usize..50, 0..5),
    ) {
        let mut pair = Pair::new(TLS13, &cuts);
        let (plaintext, _) = pair.receive(&first);
        prop_assert!(plaintext.is_empty());
    }
}
