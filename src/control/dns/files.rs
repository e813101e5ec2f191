//! A thread that reads the system's configuration of names. A large file, or a file system that
//! does not respond, delays look-ups and not the control plane.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::oneshot;

use super::error::LookupError;
use super::hosts::Hosts;
use super::system::{self, Resolver};
use crate::error::Error;

/// Where the addresses of a name come from.
pub(super) enum Source {
    /// The hosts file has the name. Then DNS is not asked, in either family.
    Hosts(Vec<IpAddr>),
    /// DNS must be asked, with this configuration.
    Dns(Box<Resolver>),
}

struct Request {
    host: String,
    reply: oneshot::Sender<Result<Source, LookupError>>,
}

/// The sender of requests. The thread ends when the last sender is dropped.
#[derive(Clone)]
pub(super) struct Files {
    requests: Sender<Request>,
}

impl Files {
    /// Starts the thread. `hosts` are the names that will be looked up first.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Files, Error> {
        let (requests, received) = channel();
        let hosts = Hosts::new(hosts);
        thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || serve(&received, hosts))
            .map_err(|error| Error::start("cannot start a thread", error, ""))?;
        Ok(Files { requests })
    }

    /// Returns where the addresses of a name come from, by the present content of the files.
    ///
    /// # Errors
    /// A file cannot be read now, or cannot be used.
    pub(super) async fn source(&self, host: &str) -> Result<Source, LookupError> {
        let (reply, source) = oneshot::channel();
        let request = Request { host: host.to_owned(), reply };
        self.requests.send(request).map_err(|_| LookupError::ThreadEnded)?;
        source.await.map_err(|_| LookupError::ThreadEnded)?
    }
}

fn serve(requests: &Receiver<Request>, mut hosts: Hosts) {
    for Request { host, reply } in requests {
        let source = match hosts.find(&host) {
            Ok(Some(addresses)) => Ok(Source::Hosts(addresses)),
            Ok(None) => system::resolver().map(|resolver| Source::Dns(Box::new(resolver))),
            Err(error) => Err(error),
        };
        // An error means that the look-up was cancelled.
        let _ = reply.send(source);
    }
}
