//! How contenders, workloads and figures are written for people.

use std::fmt;

use super::results::{Contender, Generator, Rest, Workload};
use super::statistics::Spread;

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Contender::Ringgate => "ringgate",
            Contender::RinggateL4 => "ringgate, plain L4",
            Contender::RinggateTwo => "ringgate, 2 workers",
            Contender::RinggateUser => "ringgate, not root",
            Contender::RinggateFour => "ringgate, 4 workers",
            Contender::Nginx => "nginx",
            Contender::NginxHuge => "nginx, 1 MiB buffers",
            Contender::Haproxy => "HAProxy",
            Contender::HaproxySplice => "HAProxy, always splicing",
            Contender::Envoy => "Envoy",
            Contender::V2ray => "v2ray-plugin",
            Contender::NginxV2ray => "nginx + v2ray-plugin",
            Contender::Floor => "floor (epoll + splice)",
            Contender::Direct => "direct, no proxy",
        })
    }
}

impl Contender {
    /// Another's program.
    pub(super) fn is_peer(self) -> bool {
        use Contender::{Envoy, Haproxy, HaproxySplice, Nginx, NginxHuge, NginxV2ray, V2ray};
        matches!(self, Nginx | NginxHuge | NginxV2ray | Haproxy | HaproxySplice | Envoy | V2ray)
    }
}

/// Behind the name of a workload.
impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Generator::Own => "",
            Generator::STime => ", by openssl s_time",
            Generator::Hey => ", by hey",
            Generator::Wrk => ", by wrk",
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Workload::BulkUp { connections } => format!("bulk up, {connections}"),
            Workload::BulkDown { connections } => format!("bulk down, {connections}"),
            Workload::RoundTrips { connections, size } => {
                format!("{} round trips, {connections}", bytes(size))
            }
            Workload::Churn { connections } => format!("connect, 100 B, close, {connections}"),
            Workload::Redirects { connections } => format!("301 keep-alive, {connections}"),
            Workload::RedirectsOnce { connections } => {
                format!("301 on a connection each, {connections}")
            }
            Workload::StreamUp { connections } => format!("/stream bulk up, {connections}"),
            Workload::StreamDown { connections } => format!("/stream bulk down, {connections}"),
            Workload::StreamRoundTrips { connections, size } => {
                format!("/stream {} round trips, {connections}", bytes(size))
            }
            Workload::ObfsUp { connections } => format!("obfs ended, bulk up, {connections}"),
            Workload::ObfsDown { connections } => format!("obfs ended, bulk down, {connections}"),
            Workload::WebSocketUp { connections } => {
                format!("WebSocket ended, bulk up, {connections}")
            }
            Workload::WebSocketDown { connections } => {
                format!("WebSocket ended, bulk down, {connections}")
            }
            Workload::TlsUp { connections } => format!("TLS bulk up, {connections}"),
            Workload::TlsDown { connections } => format!("TLS bulk down, {connections}"),
            Workload::TlsRoundTrips { connections, size } => {
                format!("TLS {} round trips, {connections}", bytes(size))
            }
            Workload::Handshakes { connections, by } => {
                format!("TLS full handshakes, {connections}{by}")
            }
            Workload::Resumptions { connections, by } => {
                format!("TLS resumed handshakes, {connections}{by}")
            }
            Workload::TlsRedirects { connections, by } => {
                format!("TLS 301 keep-alive, {connections}{by}")
            }
            Workload::WssUp { connections } => {
                format!("TLS and WebSocket ended, bulk up, {connections}")
            }
            Workload::WssDown { connections } => {
                format!("TLS and WebSocket ended, bulk down, {connections}")
            }
            Workload::Datagrams { clients, size, burst: 1 } => {
                format!("{size} B datagrams, {clients} clients")
            }
            Workload::Datagrams { clients, size, burst } => {
                format!("{size} B datagrams in bursts of {burst}, {clients} clients")
            }
            Workload::Mixed { bulk, small } => {
                format!("100 B round trips, {small}, beside {bulk} bulk flows")
            }
        };
        f.pad(&text)
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rest::Pairs => "idle L4 pairs",
            Rest::KeepAlive => "idle keep-alive connections",
            Rest::Tls => "idle TLS connections",
        })
    }
}

/// A number of bytes as a message size.
pub(super) fn bytes(size: u16) -> String {
    if size >= 1024 && size.is_multiple_of(1024) {
        format!("{} KiB", size / 1024)
    } else {
        format!("{size} B")
    }
}

/// The units in which a workload's rate and cost are written.
pub(crate) struct Units {
    pub(crate) rate: &'static str,
    /// What a rate in units a second is multiplied with.
    pub(crate) rate_factor: f64,
    pub(crate) cost: &'static str,
    /// What CPU seconds a unit are multiplied with.
    pub(crate) cost_factor: f64,
}

impl Workload {
    pub(crate) fn units(self) -> Units {
        match self {
            Workload::BulkUp { .. }
            | Workload::BulkDown { .. }
            | Workload::StreamUp { .. }
            | Workload::StreamDown { .. }
            | Workload::ObfsUp { .. }
            | Workload::ObfsDown { .. }
            | Workload::WebSocketUp { .. }
            | Workload::WebSocketDown { .. }
            | Workload::TlsUp { .. }
            | Workload::TlsDown { .. }
            | Workload::WssUp { .. }
            | Workload::WssDown { .. } => {
                Units { rate: "Gbit/s", rate_factor: 8e-9, cost: "CPU-s/GB", cost_factor: 1e9 }
            }
            _ => Units { rate: "k/s", rate_factor: 1e-3, cost: "CPU-s/M", cost_factor: 1e6 },
        }
    }
}

impl Spread {
    /// `median (low–high)` with so many digits behind the point.
    pub(crate) fn text(self, digits: usize) -> String {
        let Spread { median, low, high } = self;
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}
