//! One question to one name server, sent as glibc's res_send does: one datagram with the whole
//! time-out for its answer, and TCP if the answer does not fit.
//!
//! The caller decides which server is asked and when the next one is. hickory's own pool would ask
//! two servers at once, prefer the fastest, and have one time-out for all of them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::DnsExchange;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{ConnectionProvider, PoolContext, Resolver};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::error::ServerError;

/// The longest chain of aliases (CNAME) that is followed: as many as common servers follow.
const MAX_ALIASES: usize = 16;
/// The longest time to live that is used: a day, in seconds. A mistake in a zone must not last
/// until the next start.
const MAX_TTL_S: u32 = 86_400;

/// What a server says about a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Addresses, with the smallest time to live of the chain of aliases. There may be none of the
    /// type that was asked for.
    Addresses(Vec<IpAddr>, Duration),
    NoSuchName,
    NoAddress,
}

/// Queries one server for one type of record of a fully qualified name.
pub(super) async fn query(
    server: SocketAddr,
    name: Name,
    record: RecordType,
    options: &ResolverOpts,
) -> Result<Resolution, ServerError> {
    let servers = vec![NameServerConfig::udp_and_tcp(server.ip())];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let built =
        Resolver::builder_with_config(config, Connect { server, runtime: Runtime::default() })
            .with_options(options.clone())
            .build();
    let result = match built {
        Ok(resolver) => resolver.lookup(name.clone(), record).await,
        Err(error) => Err(error),
    };
    classify(result, &name, record)
}

/// Separates answers about the name from everything else.
fn classify(
    result: Result<Lookup, NetError>,
    name: &Name,
    record: RecordType,
) -> Result<Resolution, ServerError> {
    match result {
        Ok(lookup) => Ok(addresses(lookup.answers(), name, record)),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Ok(Resolution::NoSuchName),
            // NS records without an SOA are a referral to other servers (RFC 2308 section 2.2).
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Err(ServerError::Referral)
            }
            ResponseCode::NoError => Ok(Resolution::NoAddress),
            code => Err(ServerError::Code(code)),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(ServerError::Code(code)),
        Err(NetError::NoConnections) => Err(ServerError::Unreachable),
        Err(error) => Err(ServerError::Query(error)),
    }
}

/// The addresses at the end of the chain of aliases. An answer may also hold records of other names
/// and types, which the resolver passes on.
fn addresses(records: &[Record], name: &Name, wanted: RecordType) -> Resolution {
    let (mut owner, mut ttl) = (name, u32::MAX);
    for _ in 0..MAX_ALIASES {
        let alias = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *owner => Some((&alias.0, record.ttl)),
            _ => None,
        });
        let Some((next, alias_ttl)) = alias else { break };
        (owner, ttl) = (next, ttl.min(alias_ttl));
    }
    let mut ips = Vec::new();
    let is_wanted = |record: &&Record| record.name == *owner && record.record_type() == wanted;
    for record in records.iter().filter(is_wanted) {
        ttl = ttl.min(record.ttl);
        ips.extend(record.data.ip_addr());
    }
    // A value with the most significant bit set counts as 0 (RFC 2181 section 8).
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl.min(MAX_TTL_S) };
    Resolution::Addresses(ips, Duration::from_secs(ttl.into()))
}

/// Connects to one server and ignores the address it is given: hickory's addresses have no zone.
#[derive(Clone)]
struct Connect {
    server: SocketAddr,
    runtime: Runtime,
}

type Connecting = Pin<Box<dyn Future<Output = Result<DnsExchange<Runtime>, NetError>> + Send>>;

impl ConnectionProvider for Connect {
    type Conn = DnsExchange<Runtime>;
    type FutureConn = Connecting;
    type RuntimeProvider = Runtime;

    fn new_connection(
        &self,
        _: IpAddr,
        config: &ConnectionConfig,
        pool: &PoolContext,
    ) -> Result<Connecting, NetError> {
        let (server, options) = (self.server, &pool.options);
        if matches!(config.protocol, ProtocolConfig::Udp) {
            let client = UdpClientStream::builder(server, self.runtime.clone())
                .with_timeout(Some(options.timeout))
                .with_max_retries(1);
            return Ok(Box::pin(async move { Ok(client.exchange()) }));
        }
        let (timeout, active) = (options.timeout, Some(options.max_active_requests));
        let client = TcpClientStream::exchange(server, None, timeout, active, self.runtime.clone());
        Ok(Box::pin(client))
    }

    fn runtime_provider(&self) -> &Runtime {
        &self.runtime
    }
}

/// Tokio with connected UDP sockets: one that is connected to a closed port fails at once.
#[derive(Clone, Default)]
struct Runtime(TokioRuntimeProvider);

impl RuntimeProvider for Runtime {
    type Handle = TokioHandle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, from, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Connected>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected { socket, server })
        })
    }
}

/// A UDP socket that also receives the errors of its connection.
struct Connected {
    socket: UdpSocket,
    server: SocketAddr,
}

type Receiving<'a> = Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'a>>;

impl DnsUdpSocket for Connected {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer)
    }

    /// Also waits for EPOLLERR: an ICMP error sets that alone, and tokio's own `recv` does not wait
    /// for it.
    fn recv_from<'a, 'b, 'c>(&'a self, buffer: &'b mut [u8]) -> Receiving<'c>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async {
            let ready = Interest::READABLE | Interest::ERROR;
            let receive = || Ok(recv(&self.socket, &mut *buffer, RecvFlags::empty())?);
            let (_, length) = self.socket.async_io(ready, receive).await?;
            Ok((length, self.server))
        })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, message, target)
    }
}

#[cfg(test)]
mod tests;
