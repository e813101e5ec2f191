//! Lines and lists of protocols, and heads that are rewritten.

use super::*;
use crate::proto::http::{HeadScan, Scan, parse_request};
use proptest::prelude::*;

fn list(values: &[&str]) -> UpgradeList {
    let mut list = UpgradeList::default();
    values.iter().for_each(|value| list.add(value.as_bytes()));
    list
}

#[test]
fn lines_and_lists_mean_the_same() {
    for values in [
        &["websocket"][..],
        &["WebSocket"],
        &["websocket, h2c"],
        &["h2c ,\twebsocket"],
        &["h2c", "websocket"],
        &["websocket", "h2c"],
        &["", "websocket"],
        &[", ,websocket,"],
        &["websocket/13", "websocket"],
    ] {
        assert!(list(values).has_websocket(), "{values:?}");
    }
    for values in [
        &[][..],
        &[""],
        &["h2c"],
        &["websocket/13"],
        &["websockets"],
        &["websocket h2c"],
        &["websocket;v=13"],
        &["\"websocket\""],
        &["web", "socket"],
        &["web, socket"],
    ] {
        assert!(!list(values).has_websocket(), "{values:?}");
    }
}

#[test]
fn an_answer_names_one_protocol() {
    for values in [&["websocket"][..], &["WEBSOCKET"], &["websocket,"], &["websocket"; 2]] {
        assert!(list(values).is_only_websocket(), "{values:?}");
    }
    for values in [
        &[][..],
        &[""],
        &["h2c"],
        &["websocket, h2c"],
        &["websocket", "h2c"],
        &["h2c", "websocket"],
        &["websocket/13"],
    ] {
        assert!(!list(values).is_only_websocket(), "{values:?}");
    }
    assert!(list(&[]).is_missing() && !list(&[""]).is_missing());
}

#[test]
fn alone_is_one_line_with_one_value() {
    assert!(list(&["websocket"]).is_single_websocket());
    assert!(list(&["WebSocket"]).is_single_websocket());
    for values in [
        &[][..],
        &["websocket,"],
        &["websocket"; 2],
        &["", "websocket"],
        &["websocket", ""],
        &["h2c", "websocket"],
    ] {
        assert!(!list(values).is_single_websocket(), "{values:?}");
    }
}

#[test]
fn other_protocols_are_left_out_of_the_head() {
    let head = b"GET /upgrade: HTTP/1.1\r\nHost: upgrade:\r\nUPGRADE:h2c\r\nX: upgrade: y\r\n\
                 Upgrades: no\r\nUpgrade: websocket, x\r\nConnection: Upgrade\r\n\r\n";
    let expected = b"GET /upgrade: HTTP/1.1\r\nHost: upgrade:\r\nUpgrade: websocket\r\n\
                     X: upgrade: y\r\nUpgrades: no\r\nConnection: Upgrade\r\n\r\n";
    let mut out = Vec::new();
    write_websocket_alone(head, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
}

proptest! {
    #[test]
    fn a_rewritten_head_is_the_same_upgrade_to_websocket_alone(
        lines in proptest::collection::vec(
            "(Upgrade|UPGRADE|X|Upgrade-X):[ \t]*((websocket|WebSocket|h2c|a/1)?[ \t]*,?){0,3}",
            0..6,
        ),
    ) {
        let head = format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{}\r\n",
            lines.iter().map(|line| format!("{line}\r\n")).collect::<String>()
        );
        let request = parse_request(head.as_bytes(), 100).expect("a request");
        prop_assume!(request.is_upgrade);
        let mut out = Vec::new();
        write_websocket_alone(head.as_bytes(), &mut out);
        prop_assert!(request.names_websocket_alone || out.len() <= head.len());
        let end = Scan::Complete { start: 0, end: out.len() };
        prop_assert_eq!(HeadScan::default().advance(&out), end);
        let rewritten = parse_request(&out, 100).expect("still a request");
        prop_assert!(rewritten.is_upgrade && rewritten.names_websocket_alone);
        prop_assert_eq!((rewritten.path, rewritten.body), (request.path, request.body));
        // A second rewrite changes nothing.
        let mut again = Vec::new();
        write_websocket_alone(&out, &mut again);
        prop_assert_eq!(again, out);
    }
}
