//! TLS to the endpoints of a cluster.

use std::rc::Rc;
use std::sync::Arc;

use super::{Attempt, Reason};
use crate::config::{ClusterTls, Trust};
use crate::handshake::{self, Failure};
use crate::proto::tls::{Authorities, Client, ClientSettings};
use crate::sys::{Address, Stream};
use crate::timers::{Fired, Watch};
use crate::transport::{TlsPool, TlsStream};

/// How one worker makes handshakes with the endpoints of a cluster.
pub(super) struct Tls {
    client: Client,
    server_name: Option<Arc<str>>,
}

impl Tls {
    /// Makes it from the configuration. `system` are the authorities of this machine. `None` if
    /// rustls refuses the configuration, or if these are needed and there are none: the check of
    /// the configuration and the start make sure that neither happens.
    pub(super) fn new(config: &ClusterTls, system: Option<&Authorities>) -> Option<Tls> {
        let authorities = match &config.trust {
            Trust::System => Some(system?),
            Trust::File(file) => Some(&file.authorities),
            Trust::Anyone => None,
        };
        let client = Client::new(&ClientSettings {
            authorities,
            identity: config.certificate.as_ref().map(|files| &files.identity),
            protocols: &config.alpn,
            min_version: config.min_version,
        });
        Some(Tls { client: client.ok()?, server_name: config.server_name.clone() })
    }

    /// Makes the handshake on a new connection to an endpoint. The watch runs the limit of the
    /// connect.
    pub(super) async fn connect(
        &self,
        stream: &Rc<Stream>,
        endpoint: &Address,
        pool: &Rc<TlsPool>,
        watch: &Watch,
    ) -> Result<Rc<TlsStream>, Attempt> {
        let name = match (&self.server_name, endpoint) {
            (Some(name), _) => name.to_string(),
            (None, Address::Ip(ip)) => ip.ip().to_string(),
            (None, Address::Unix(_)) => return Err(Reason::Tls("no_server_name").into()),
        };
        let mut hello = Vec::new();
        let session = self.client.session(&name, &mut hello);
        let session = session.map_err(|error| Reason::Tls(error.reason()))?;
        let tls = Rc::new(TlsStream::new(stream, session, hello, pool));
        match handshake::make(&tls, &[], pool, watch).await {
            Ok(()) => Ok(tls),
            Err(Failure::Session) => Err(Reason::Tls(tls.failure().unwrap_or("other")).into()),
            Err(Failure::Ended) => Err(Reason::Tls("ended").into()),
            Err(Failure::Reset) => Err(Reason::Tls("reset").into()),
            Err(Failure::Fired(Fired::Drained)) => Err(Attempt::Drained),
            Err(Failure::Fired(_)) => Err(Reason::TimedOut.into()),
        }
    }
}
