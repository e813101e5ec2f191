//! The `Upgrade` fields of a head (RFC 9110 section 7.8).
//!
//! Several lines with this name are equivalent to one line with all their values (section 5.3), but
//! not every server follows this rule: some read only the first line, some only the last, some each
//! line separately. A request that offers WebSocket among other protocols is therefore forwarded
//! with `websocket` as the only value, and a 101 must name that protocol and no other.

/// What the `Upgrade` fields of one head name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpgradeList {
    /// Whether there is a field with this name.
    is_present: bool,
    /// Whether one of the values is `websocket`, in any case.
    has_websocket: bool,
    /// Whether one of the values is something else.
    has_other: bool,
    /// Whether there is exactly one line and its whole value is `websocket`.
    is_single_websocket: bool,
}

impl UpgradeList {
    /// Adds the value of one more line.
    pub fn add(&mut self, value: &[u8]) {
        self.is_single_websocket = !self.is_present && is_websocket(value);
        self.is_present = true;
        // Empty list members are ignored (RFC 9110 section 5.6.1.2).
        for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // A value with a version (`websocket/13`) is another protocol: RFC 6455 section 4.2.1
            // requires `websocket`.
            self.has_websocket |= is_websocket(member);
            self.has_other |= !member.is_empty() && !is_websocket(member);
        }
    }

    /// Returns true when the head has no `Upgrade` field.
    pub fn is_missing(self) -> bool {
        !self.is_present
    }

    /// Returns true when WebSocket is one of the named protocols.
    pub fn has_websocket(self) -> bool {
        self.has_websocket
    }

    /// Returns true when WebSocket is the only named protocol.
    pub fn is_only_websocket(self) -> bool {
        self.has_websocket && !self.has_other
    }

    /// Returns true when there is one line with the single value `websocket`. No server can read
    /// that in another way.
    pub fn is_single_websocket(self) -> bool {
        self.is_single_websocket
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
mod tests;
