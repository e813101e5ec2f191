//! nginx's format "combined", byte for byte:
//!
//! ```text
//! $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer"
//! "$http_user_agent"
//! ```
//!
//! Tools that read the logs of nginx and Apache read this one, too. As in nginx the time is that of
//! the record and not of the request. Three values differ from nginx: the time is in UTC, there are
//! no users, and a head that is refused is `-`, because it is not kept.

use std::io::Write;

use super::record::Record;
use super::value::{Clock, HEX, write_number};
use crate::observe::outcome::End;
use crate::sys::Address;

/// Appends `record` as one line including its line feed.
pub(super) fn write(record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
    write_client(record.client, out);
    out.extend_from_slice(b" - - [");
    let end = record.start.checked_add(record.duration).unwrap_or(record.start);
    clock.write_common(end, out);
    out.extend_from_slice(b"] \"");
    match (record.method, record.path) {
        (Some(method), Some(path)) => {
            escape(method.as_bytes(), out);
            out.push(b' ');
            escape(path.as_bytes(), out);
            out.push(b' ');
            let protocol = if record.protocol == "HTTP/2" { "HTTP/2.0" } else { record.protocol };
            out.extend_from_slice(protocol.as_bytes());
        }
        _ => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    match record.status {
        Some(status) => write_number(status.into(), out),
        None if has_left(record) => out.extend_from_slice(b"499"),
        None => out.extend_from_slice(b"000"),
    }
    out.push(b' ');
    write_number(record.body_bytes, out);
    for value in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        match value {
            Some(value) => escape(value, out),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

/// Returns true if the client of a request has not waited for the response.
fn has_left(record: &Record) -> bool {
    record.method.is_some() && matches!(record.end, End::Client | End::ClientReset)
}

/// Writes the address without its port.
fn write_client(client: &Address, out: &mut Vec<u8>) {
    match client {
        // Writing to a Vec cannot fail.
        Address::Ip(address) => drop(write!(out, "{}", address.ip())),
        Address::Unix(_) => out.extend_from_slice(b"unix:"),
    }
}

/// Writes a value as nginx escapes it: quotes, backslashes, control characters and bytes beyond
/// ASCII become `\xXX`.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}
