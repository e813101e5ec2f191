//! Certificates by ACME, from a real ACME server: both challenges, renewals, failures, restarts.

mod desk;
mod directory;
mod reloaded;
mod whole;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringgate::control::acme::ChallengeKind::{Http01, TlsAlpn01};
use serde_json::json;

use self::desk::{Answers, Desk};
use self::directory::Directory;
use crate::support::{PebblePlace, SHORT, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The validity of certificates, in seconds.
const QUARTER: u32 = 90 * 24 * 3600;

/// The files of certificates in a storage.
fn certificates(storage: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(storage).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|kind| kind == "pem")).collect()
}

#[test]
fn both_challenges_get_a_certificate_of_all_names() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(QUARTER, 0), Answers::start(&place));
    for (kind, names) in [(Http01, ["a.test", "www.a.test"]), (TlsAlpn01, ["b.test", "www.b.test"])]
    {
        let desk = Desk::start(&place, &answers, storage.path(), kind, &[&names]);
        assert!(desk.stored.is_empty());
        let before = answers.asked();
        let (ordered, identity) = desk.issued();
        assert_eq!(ordered.iter().collect::<Vec<_>>(), names);
        assert!(names.iter().all(|name| identity.covers(name)), "{identity:?}");
        assert!(answers.asked() >= before + 2);
        // Challenges are withdrawn before the certificate is passed on.
        assert!(answers.are_empty());
    }
    let files = certificates(storage.path());
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains("PRIVATE KEY") && text.matches("BEGIN CERTIFICATE").count() >= 2);
    }
}

#[test]
fn orders_run_one_after_the_other_and_a_restart_needs_no_network() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let answers = Answers::start(&place);
    let orders: [&[&str]; 3] = [&["a.test"], &["b.test"], &["c.test", "d.test"]];
    let start = || Desk::start(&place, &answers, storage.path(), Http01, &orders);
    let issued = {
        let _pebble = place.start(QUARTER, 0);
        let desk = start();
        let mut issued = [desk.issued(), desk.issued(), desk.issued()];
        issued.sort_by_key(|(names, _)| names.to_string());
        issued
    };
    let desk = start();
    assert_eq!(desk.stored, issued);
    // The directory is gone, and nothing is due for 50 days.
    desk.advance(50 * DAY);
    assert!(desk.is_idle());
    desk.advance(11 * DAY);
    let line = desk.line_with("cannot get a certificate");
    assert!(line.contains("certificate=\"valid\"") && line.contains("cannot connect"), "{line}");
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(QUARTER, 0), Answers::start(&place));
    let desk = Desk::start(&place, &answers, storage.path(), TlsAlpn01, &[&["a.test"]]);
    let (_, first) = desk.issued();
    let asked = answers.asked();
    desk.advance(54 * DAY);
    desk.advance(7 * DAY);
    let (_, second) = desk.issued();
    assert_ne!(first, second);
    assert!(answers.asked() > asked);
    let stored = certificates(storage.path());
    assert_eq!(stored.len(), 1);
}

#[test]
fn a_certificate_of_seconds_is_renewed_again_and_again() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(6, 0), Answers::start(&place));
    let desk = Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    let [(_, first), (_, second), (_, third)] = [(); 3].map(|()| desk.issued());
    assert!(first.not_after() < second.not_after() && second.not_after() < third.not_after());
    // Before it expires, and not much before.
    let between = second.not_before().duration_since(first.not_before()).unwrap();
    assert!(between >= Duration::from_secs(3), "{between:?}");
}

#[test]
fn a_clock_that_was_ahead_delays_no_attempt() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let answers = Answers::start(&place);
    let desk = Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    desk.line_with("failures=1 ");
    // The next attempt would be in ten years and two minutes.
    desk.advance(3650 * DAY);
    desk.line_with("failures=2 ");
    let _pebble = place.start(QUARTER, 0);
    desk.set_back(3650 * DAY);
    let (names, identity) = desk.issued();
    assert!(identity.covers(names.first()), "{identity:?}");
}

#[test]
fn a_failure_keeps_the_certificate_and_is_told_once_for_each_attempt() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(QUARTER, 0), Answers::start(&place));
    let desk = Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    let (_, first) = desk.issued();
    let stored = fs::read(&certificates(storage.path())[0]).unwrap();

    answers.are_given.store(false, Ordering::Relaxed);
    desk.advance(61 * DAY);
    for failures in ["failures=1 ", "failures=2 "] {
        let line = desk.line_with("WARN");
        assert!(line.contains(failures) && line.contains("a.test: "), "{line}");
        assert!(
            line.contains("(unauthorized)") && line.contains("certificate=\"valid\""),
            "{line}"
        );
        // The pauses are about a minute and about two.
        desk.advance(3 * MINUTE);
    }
    assert!(desk.is_idle());
    assert_eq!(fs::read(&certificates(storage.path())[0]).unwrap(), stored);

    // The third attempt may have begun.
    answers.are_given.store(true, Ordering::Relaxed);
    desk.advance(60 * MINUTE);
    let (_, second) = desk.issued();
    assert_ne!(first, second);
}

#[test]
fn a_directory_that_cannot_be_reached_at_the_start_is_tried_again() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let answers = Answers::start(&place);
    let desk = Desk::start(&place, &answers, storage.path(), TlsAlpn01, &[&["a.test"]]);
    let line = desk.line_with("cannot get a certificate");
    assert!(line.contains("certificate=\"none\"") && line.contains("refused"), "{line}");
    let _pebble = place.start(QUARTER, 0);
    desk.advance(2 * MINUTE);
    desk.issued();
}

#[test]
fn refused_nonces_delay_an_order_by_seconds() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(QUARTER, 90), Answers::start(&place));
    let desk = Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    desk.issued();
}

#[test]
fn two_processes_with_one_storage_order_one_certificate() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let (_pebble, answers) = (place.start(QUARTER, 0), Answers::start(&place));
    let desks = [(); 2]
        .map(|()| Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test", "b.test"]]));
    wait_for("a certificate is stored", SHORT, || certificates(storage.path()).pop());
    // The other process looks again after 15 s.
    desks.iter().for_each(|desk| desk.advance(MINUTE));
    let [(_, one), (_, other)] = desks.each_ref().map(Desk::issued);
    assert_eq!(one, other);
    // Two at once would take the challenges from each other, and one of them would fail at first.
    assert!(desks.iter().all(Desk::has_no_failure));
}

#[test]
fn a_directory_that_has_forgotten_the_account_gets_a_new_one() {
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let answers = Answers::start(&place);
    let pebble = place.start(QUARTER, 0);
    let desk = Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    let (_, first) = desk.issued();
    drop(pebble);
    let _pebble = place.start(QUARTER, 0);
    desk.advance(61 * DAY);
    desk.line_with("(accountDoesNotExist)");
    assert_ne!(desk.issued().1, first);
}

#[test]
fn what_the_directory_suggests_and_asks_for_is_followed() {
    // 1. A certificate for 90 days, and a directory that suggests to renew it now.
    let (place, storage) = (PebblePlace::new(), tempfile::tempdir().unwrap());
    let answers = Answers::start(&place);
    let start = || Desk::start(&place, &answers, storage.path(), Http01, &[&["a.test"]]);
    let pebble = place.start(QUARTER, 0);
    let (_, first) = start().issued();
    drop(pebble);
    let replaced = json!({"type": "urn:ietf:params:acme:error:alreadyReplaced", "detail": "again"});
    let limited = json!({
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many\n\u{1b}[31mcertificates",
    });
    let refusals =
        vec![("409 Conflict", 90, replaced), ("429 Too Many Requests", 100_000, limited)];
    let directory = Directory::start(&place, refusals);

    // 2. The order names the certificate that it replaces.
    let desk = start();
    assert_eq!(desk.stored.len(), 1);
    assert_eq!(desk.stored[0].1, first);
    desk.advance(5 * MINUTE);
    let order = directory.order();
    assert_eq!(order["identifiers"], json!([{"type": "dns", "value": "a.test"}]));
    let replaces = order["replaces"].as_str().unwrap();
    assert_eq!(replaces.split('.').count(), 2, "{replaces}");
    desk.line_with("again (alreadyReplaced)");

    // 3. Since this was refused, the next one does not.
    desk.advance(3 * MINUTE);
    assert_eq!(directory.order().get("replaces"), None);
    let line = desk.line_with("(rateLimited)");
    assert!(line.contains("too many\\n\\u{1b}[31mcertificates"), "{line}");
    let pause = line.split("retry_in_s=").nth(1).unwrap().split(' ').next().unwrap();
    assert!((100_000..=100_060).contains(&pause.parse().unwrap()), "{line}");
}
