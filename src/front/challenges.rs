//! Answers to the challenges of ACME (RFC 8555 section 8): how a certificate authority finds out
//! that this machine controls a name. The control plane orders certificates and sends these.

use std::collections::HashMap;
use std::sync::Arc;

use crate::proto::tls::Server;

/// The path of http-01, before the token (RFC 8555 section 8.3).
const PATH: &str = "/.well-known/acme-challenge/";
/// The protocol of tls-alpn-01 (RFC 8737 section 6.2).
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// All challenges that are answered at present.
#[derive(Debug, Default)]
pub struct Challenges {
    /// http-01: the content of a response by its token.
    pub http: HashMap<String, Arc<[u8]>>,
    /// tls-alpn-01: the server by the name in lower case.
    pub tls: HashMap<String, Server>,
}

impl Challenges {
    /// The content for a request by http-01 with this path. `None` if it is not one of the
    /// challenges: then it is a request like others.
    pub(super) fn content(&self, path: &str) -> Option<&Arc<[u8]>> {
        if self.http.is_empty() {
            return None;
        }
        self.http.get(path.strip_prefix(PATH)?)
    }

    /// The server for a handshake by tls-alpn-01.
    pub(super) fn server(&self, name: &str) -> Option<&Server> {
        self.tls.get(&name.to_ascii_lowercase())
    }
}
