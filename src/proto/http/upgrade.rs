//! The `Upgrade` fields of a head (RFC 9110 section 7.8).
//!
//! Several lines with this name are equivalent to one line with all their values (section 5.3), but
//! not every server follows this rule: some read only the first line, some only the last, some each
//! line separately. A request that offers WebSocket among other protocols is therefore forwarded
//! with `websocket` as the only value, and a 101 must name that protocol and no other.

/// What the `Upgrade` fields of one head name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpgradeList {
    named: bool,
    /// Whether one of the values is `websocket`, in any case.
    websocket: bool,
    /// Whether one of the values is something else.
    other: bool,
    /// Whether there is exactly one line and its whole value is `websocket`.
    alone: bool,
}

impl UpgradeList {
    /// Adds the value of one more line.
    pub fn add(&mut self, value: &[u8]) {
        self.alone = !self.named && is_websocket(value);
        self.named = true;
        // Empty list members are ignored (RFC 9110 section 5.6.1.2).
        for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // A value with a version (`websocket/13`) is another protocol: RFC 6455 section 4.2.1
            // requires `websocket`.
            self.websocket |= is_websocket(member);
            self.other |= !member.is_empty() && !is_websocket(member);
        }
    }

    /// Returns true when the head has no `Upgrade` field.
    pub fn is_missing(self) -> bool {
        !self.named
    }

    /// Returns true when WebSocket is one of the named protocols.
    pub fn has_websocket(self) -> bool {
        self.websocket
    }

    /// Returns true when WebSocket is the only named protocol.
    pub fn is_websocket(self) -> bool {
        self.websocket && !self.other
    }

    /// Returns true when there is one line with the single value `websocket`. No server can read
    /// that in another way.
    pub fn is_websocket_alone(self) -> bool {
        self.alone
    }
}

fn is_websocket(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"websocket")
}

/// Appends a copy of a request head in which `Upgrade` names `websocket` alone. This single line
/// replaces the first `Upgrade` line, and further `Upgrade` lines are removed. All other lines stay
/// as they are. The head must have been parsed: folded lines and spaces before a colon are not
/// handled.
pub fn write_websocket_alone(head: &[u8], out: &mut Vec<u8>) {
    const NAME: &[u8] = b"upgrade:";
    let mut written = false;
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        if !line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            out.extend_from_slice(line);
        } else if !std::mem::replace(&mut written, true) {
            out.extend_from_slice(b"Upgrade: websocket\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
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
            assert!(list(values).is_websocket(), "{values:?}");
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
            assert!(!list(values).is_websocket(), "{values:?}");
        }
        assert!(list(&[]).is_missing() && !list(&[""]).is_missing());
    }

    #[test]
    fn alone_is_one_line_with_one_value() {
        assert!(list(&["websocket"]).is_websocket_alone());
        assert!(list(&["WebSocket"]).is_websocket_alone());
        for values in [
            &[][..],
            &["websocket,"],
            &["websocket"; 2],
            &["", "websocket"],
            &["websocket", ""],
            &["h2c", "websocket"],
        ] {
            assert!(!list(values).is_websocket_alone(), "{values:?}");
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
            prop_assume!(request.upgrade);
            let mut out = Vec::new();
            write_websocket_alone(head.as_bytes(), &mut out);
            prop_assert!(request.names_websocket_alone || out.len() <= head.len());
            let end = Scan::Complete { start: 0, end: out.len() };
            prop_assert_eq!(HeadScan::default().advance(&out), end);
            let rewritten = parse_request(&out, 100).expect("still a request");
            prop_assert!(rewritten.upgrade && rewritten.names_websocket_alone);
            prop_assert_eq!((rewritten.path, rewritten.body), (request.path, request.body));
            // A second rewrite changes nothing.
            let mut again = Vec::new();
            write_websocket_alone(&out, &mut again);
            prop_assert_eq!(again, out);
        }
    }
}
