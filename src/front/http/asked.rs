//! What a request asked for, kept for its record while the exchange waits.

use crate::config::Route;
use crate::front::accepted::Accepted;
use crate::front::visitor::Kept;
use crate::observe::access_log::Record;
use crate::proto::http::{Request, Version};

/// The method, the host and the target of a request, one behind the other.
pub(in crate::front) struct Asked {
    text: String,
    method: usize,
    host: usize,
    version: Version,
    /// The version as records name it.
    protocol: &'static str,
    /// If records name it.
    visitor: Option<Box<Kept>>,
}

impl Asked {
    /// Copies what a request asks for, and who asks, from its head.
    pub(in crate::front) fn of(
        request: &Request<'_>,
        head: &[u8],
        protocol: &'static str,
        conn: &Accepted,
    ) -> Asked {
        Asked {
            visitor: Kept::of(head, conn.listener.names_visitors()),
            text: [request.method, request.host, request.target].concat(),
            method: request.method.len(),
            host: request.host.len(),
            version: request.version,
            protocol,
        }
    }

    /// Bytes of memory.
    pub(super) fn kept(&self) -> usize {
        self.text.len() + self.visitor.as_ref().map_or(0, |visitor| visitor.length())
    }

    /// The version of HTTP/1 in which the request was parsed.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The method.
    pub(in crate::front) fn method(&self) -> &str {
        &self.text[..self.method]
    }

    /// Says in a record what was asked for.
    pub(in crate::front) fn describe<'a>(
        &'a self,
        route: Option<&'a Route>,
        record: &mut Record<'a>,
    ) {
        let (host, target) = self.text[self.method..].split_at(self.host);
        record.protocol = self.protocol;
        record.method = Some(self.method());
        record.host = Some(host).filter(|host| !host.is_empty());
        record.path = Some(target);
        record.route = route.map(|route| &*route.name);
        if let Some(visitor) = &self.visitor {
            visitor.visitor().describe(record);
        }
    }
}
