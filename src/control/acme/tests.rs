//! When an order acts next, and which stored files are accepted.

use std::time::UNIX_EPOCH;

use rcgen::{CertificateParams, KeyPair};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn names(names: &[&str]) -> Names {
    Names::new(names).unwrap()
}

fn day(number: u32) -> SystemTime {
    UNIX_EPOCH + number * DAY
}

/// A certificate with its key, valid between two days.
fn pem(names: &[&str], from: SystemTime, to: SystemTime) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (from.into(), to.into());
    let key = KeyPair::generate().unwrap();
    format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem())
}

fn identity(from: SystemTime, to: SystemTime) -> Identity {
    parse(&pem(&["a.test"], from, to), &names(&["a.test"])).unwrap()
}

#[test]
fn what_is_missing_is_ordered_now_and_what_is_there_later() {
    let now = day(10);
    let mut order = Order::new(&names(&["a.test"]), now);
    assert_eq!((order.next(), order.check), (now, None));
    order.accept(identity(day(0), day(90)), now);
    assert!((day(55)..=day(60)).contains(&order.due));
    // Before that the authority is asked for a better time; orders go first.
    assert!(order.next() > now && order.next() < now + DAY);
    // An expired certificate is used, and due since long ago.
    order.accept(identity(day(0), day(9)), now);
    assert!(order.next() < now && order.check.is_none());
}

#[test]
fn a_certificate_that_is_due_when_it_is_issued_is_not_ordered_again_at_once() {
    // The clock is 100 days ahead, or the authority suggests a window in the past.
    let now = day(100);
    let mut order = Order::new(&names(&["a.test"]), now);
    order.accept(identity(day(0), day(90)), now);
    order.rest(now);
    assert_eq!(order.next(), now + DAY);
    order.set_due(day(50));
    assert_eq!(order.next(), now + DAY);
    // One of minutes rests for a tenth of its lifetime.
    order.accept(identity(now, now + Duration::from_secs(100)), now);
    order.rest(now);
    order.set_due(day(50));
    assert_eq!(order.due, now + Duration::from_secs(10));
}

#[test]
fn another_configuration_shortens_no_pause() {
    let (now, list) = (day(100), names(&["a.test"]));
    let stored = |identity: Option<&Identity>| {
        let mut order = Order::new(&list, now);
        identity.iter().for_each(|identity| order.accept((*identity).clone(), now));
        order
    };

    // 1. A name that has failed, without a certificate or with one that is due.
    for certificate in [None, Some(identity(day(0), day(110)))] {
        let mut before = stored(certificate.as_ref());
        before.fail(Retry::After(DAY), now);
        before.fail(Retry::After(2 * DAY), now);
        let due = before.due;
        let mut order = stored(certificate.as_ref());
        order.go_on(before, now);
        assert_eq!((order.due, order.failures), (due, 2));
        assert_eq!(order.identity, certificate);
        assert!(order.must_wait(now) && !order.must_wait(due));
        // What was stored meanwhile ends the pause.
        let newer = identity(day(99), day(199));
        let mut renewed = stored(Some(&newer));
        renewed.go_on(order, now);
        assert_eq!((renewed.failures, renewed.identity), (0, Some(newer)));
        assert!(renewed.due > day(150));
    }

    // 2. A certificate that is due when it is issued rests, also if it could not be stored.
    let mut before = stored(Some(&identity(day(0), day(90))));
    before.rest(now);
    let mut order = stored(None);
    order.go_on(before, now);
    assert_eq!((order.next(), order.identity.is_some()), (now + DAY, true));
}

#[test]
fn a_stored_certificate_must_be_for_all_names() {
    let pem = pem(&["a.test", "*.b.test"], day(0), day(9));
    for (wanted, is_good) in
        [(&["a.test"][..], true), (&["a.test", "x.b.test"], true), (&["a.test", "b.test"], false)]
    {
        assert_eq!(parse(&pem, &names(wanted)).is_ok(), is_good, "{wanted:?}");
    }
    parse("", &names(&["a.test"])).unwrap_err();
}

#[test]
fn a_stored_file_that_is_damaged_counts_as_none() {
    let place = tempfile::tempdir().unwrap();
    let settings = Settings {
        directory: "https://acme.example/directory".to_owned(),
        contacts: Vec::new(),
        storage: place.path().join("acme"),
        challenge: ChallengeKind::Http01,
        authorities: None,
        orders: vec![names(&["a.test"]), names(&["b.test"])],
        clock: Clock::default(),
    };
    let storage = Storage::open(&settings.storage, &settings.directory).unwrap();
    storage.store_certificate(&settings.orders[0], "damaged").unwrap();
    // Expired.
    let good = pem(&["b.test"], day(0), day(9));
    storage.store_certificate(&settings.orders[1], &good).unwrap();
    let acme = Acme::open(settings).unwrap();
    let found: Vec<_> = acme.certificates().map(|(names, _)| names.first()).collect();
    assert_eq!(found, ["b.test"]);
}
