//! Why a look-up fails. Each error keeps its cause as its source; the log line about a name shows
//! the whole chain.

use std::error::Error;
use std::net::IpAddr;
use std::{fmt, io};

use hickory_resolver::net::NetError;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::ResponseCode;

use crate::error::chain;

/// Why it is not known which addresses a name has.
#[derive(Debug)]
pub(super) enum LookupError {
    /// A file of the system exists, but cannot be read now.
    File {
        /// The path of the file.
        path: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// Every name server of resolv.conf is in a zone without a network interface.
    NoServer,
    /// The thread that reads files has ended.
    ThreadEnded,
    /// The name cannot be sent in a query.
    InvalidName(ProtoError),
    /// No server has given an answer about the name: each server with its error; never empty.
    Servers(Vec<(IpAddr, ServerError)>),
}

/// Why a name server gives no answer about a name.
#[derive(Debug)]
pub(super) enum ServerError {
    /// The server names other servers instead.
    Referral,
    /// The server reports an error: SERVFAIL, REFUSED, …
    Code(ResponseCode),
    /// The server refuses connections, or there is no route to it.
    Unreachable,
    /// The query failed in another way; mostly it timed out.
    Query(NetError),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::File { path, .. } => write!(f, "cannot read {path}"),
            LookupError::NoServer => f.write_str(
                "/etc/resolv.conf names no usable server: the network interfaces of their zones do \
                 not exist",
            ),
            LookupError::ThreadEnded => f.write_str("the thread that reads files has ended"),
            LookupError::InvalidName(error) => error.fmt(f),
            LookupError::Servers(failures) => f.write_str(&by_error(failures)),
        }
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LookupError::File { source, .. } => Some(source),
            LookupError::InvalidName(error) => Some(error),
            // The text has the errors of all servers; the last one ends it.
            LookupError::Servers(failures) => {
                let (_, error) = failures.last()?;
                Some(error)
            }
            LookupError::NoServer | LookupError::ThreadEnded => None,
        }
    }
}

impl fmt::Display for ServerError {
    /// The text never contains the name, so that names with the same error share a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Referral => f.write_str("a referral to other servers"),
            ServerError::Code(code) => code.fmt(f),
            ServerError::Unreachable => f.write_str("the server cannot be reached"),
            ServerError::Query(error) => error.fmt(f),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let ServerError::Query(error) = self { Some(error) } else { None }
    }
}

/// Formats errors: `127.0.0.2, 127.0.0.3: request timed out; 127.0.0.4: Query Refused`.
fn by_error(failures: &[(IpAddr, ServerError)]) -> String {
    let texts: Vec<(IpAddr, String)> =
        failures.iter().map(|(server, error)| (*server, chain(error))).collect();
    let groups = texts.chunk_by(|one, next| one.1 == next.1).map(|group| {
        let servers: Vec<String> = group.iter().map(|(server, _)| server.to_string()).collect();
        let error = group.first().map_or("", |(_, error)| error);
        format!("{}: {error}", servers.join(", "))
    });
    groups.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_with_the_same_error_are_listed_together() {
        let server = |last| IpAddr::from([127, 0, 0, last]);
        let error = LookupError::Servers(vec![
            (server(2), ServerError::Query(NetError::Timeout)),
            (server(3), ServerError::Query(NetError::Timeout)),
            (server(4), ServerError::Code(ResponseCode::Refused)),
        ]);
        let timeout = NetError::Timeout;
        let refused = ResponseCode::Refused;
        let expected = format!("127.0.0.2, 127.0.0.3: {timeout}; 127.0.0.4: {refused}");
        assert_eq!(chain(&error), expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_has_the_io_error_as_its_source() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = LookupError::File { path: "/etc/hosts", source };
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::PermissionDenied));
        assert_eq!(chain(&error), "cannot read /etc/hosts: permission denied");
    }
}
