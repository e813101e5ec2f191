//! One question to one name server, as glibc's res_send asks it: one datagram with the whole
//! time-out for its answer, and TCP where the answer does not fit.
//!
//! Which server is asked, and when the next one is, is decided by the caller: hickory's own pool
//! asks two servers at once, prefers the fastest, and has one time-out for all of them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::DnsExchange;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{ConnectionProvider, PoolContext, Resolver};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What a server says.
pub(super) enum Said {
    /// Addresses, with the smallest time to live of the chain of aliases; perhaps none of this
    /// type.
    Addresses(Vec<IpAddr>, Duration),
    NoSuchName,
    NoAddress,
    /// No answer, or one that says nothing about the name.
    Failed(String),
}

/// Asks for one type of record of a fully qualified name.
pub(super) async fn ask(
    server: SocketAddr,
    name: Name,
    record: RecordType,
    options: &ResolverOpts,
) -> Said {
    let servers = vec![NameServerConfig::udp_and_tcp(server.ip())];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let built =
        Resolver::builder_with_config(config, Connect { server, runtime: Runtime::default() })
            .with_options(options.clone())
            .build();
    let result = match built {
        Ok(resolver) => resolver.lookup(name, record).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(lookup) => {
            let records = lookup.answers();
            let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
            let addresses = records.iter().filter_map(|record| record.data.ip_addr()).collect();
            Said::Addresses(addresses, Duration::from_secs(ttl.into()))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Said::NoSuchName,
            ResponseCode::NoError => Said::NoAddress,
            // Without the question: names with the same trouble share a line of the log.
            code => Said::Failed(code.to_string()),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Said::Failed(code.to_string()),
        Err(error) => Said::Failed(error.to_string()),
    }
}

/// Connects to one server whatever address it is asked for: hickory's lacks the zone.
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

/// Tokio, with UDP sockets that are connected: one to a port that is closed fails at once.
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

/// A UDP socket that receives the errors of its connection, too.
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

    /// An ICMP error makes the socket ready with EPOLLERR alone, for which tokio's own receiving
    /// does not wait.
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
