//! Which failures share a line, and when it is logged.

use super::*;
use crate::sys::{ConnectError, Errno};

const REFUSED: Reason = Reason::System(ConnectError::Refused(Errno::CONNREFUSED));
const NO_ROUTE: Reason = Reason::System(ConnectError::Unreachable(Errno::NETUNREACH));

fn report(port: u16, reason: Reason, failures: u64) -> Report {
    let endpoint = Address::Ip(([10, 0, 0, 1], port).into());
    Report { cluster: Arc::from("c"), endpoint, reason, failures }
}

fn line(port: u16, reasons: &[Reason], failures: u64) -> Line {
    let Report { cluster, endpoint, .. } = report(port, REFUSED, failures);
    Line { cluster, endpoint, reasons: reasons.to_vec(), failures }
}

#[test]
fn the_first_failure_is_logged_at_once_and_then_one_line_a_second() {
    let (mut summary, start) = (Summary::default(), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    summary.add(report(1, REFUSED, 1));
    assert_eq!(summary.take_due(at(0), false), [line(1, &[REFUSED], 1)]);
    // The reports of two workers.
    summary.add(report(1, REFUSED, 5));
    summary.add(report(1, Reason::TimedOut, 2));
    assert_eq!(summary.take_due(at(900), false), []);
    assert_eq!(summary.next(), Some(at(1000)));
    assert_eq!(summary.take_due(at(1000), false), [line(1, &[REFUSED, Reason::TimedOut], 7)]);
    assert_eq!(summary.take_due(at(5000), false), []);
    assert_eq!(summary.next(), None, "it is forgotten");
    summary.add(report(1, REFUSED, 1));
    assert_eq!(summary.take_due(at(5001), false), [line(1, &[REFUSED], 1)]);
}

#[test]
fn each_endpoint_has_lines_of_its_own() {
    let (mut summary, now) = (Summary::default(), Instant::now());
    summary.add(report(1, REFUSED, 1));
    summary.add(report(2, REFUSED, 4));
    let mut lines = summary.take_due(now, false);
    lines.sort_by_key(|line| line.failures);
    assert_eq!(lines, [line(1, &[REFUSED], 1), line(2, &[REFUSED], 4)]);
}

#[test]
fn an_unreachable_endpoint_is_logged_once_a_minute() {
    let (mut summary, start) = (Summary::default(), Instant::now());
    summary.add(report(1, NO_ROUTE, 1));
    assert_eq!(summary.take_due(start, false).len(), 1);
    summary.add(report(1, NO_ROUTE, 1));
    assert_eq!(summary.take_due(start + Duration::from_secs(59), false), []);
    assert_eq!(summary.take_due(start + Duration::from_secs(60), false), [line(1, &[NO_ROUTE], 1)]);
    // Another reason has the short interval.
    summary.add(report(1, REFUSED, 1));
    assert_eq!(summary.take_due(start + Duration::from_secs(61), false), [line(1, &[REFUSED], 1)]);
}

#[test]
fn remaining_failures_are_logged_at_the_end() {
    let (reports, received) = sync_channel(10);
    let (said, hear) = channel();
    let teller = thread::spawn(move || log_reports(&received, |line| said.send(line).unwrap()));
    reports.send(report(1, REFUSED, 1)).unwrap();
    let deadline = Duration::from_secs(20);
    assert_eq!(hear.recv_timeout(deadline).unwrap(), line(1, &[REFUSED], 1));
    reports.send(report(1, REFUSED, 3)).unwrap();
    drop(reports);
    assert_eq!(hear.recv_timeout(deadline).unwrap(), line(1, &[REFUSED], 3));
    teller.join().unwrap();
}
