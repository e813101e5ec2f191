//! How contenders, workloads and figures are written for people.

use std::fmt;

use super::results::{Contender, Generator, Rest, Workload};
use super::statistics::Spread;

/// Longer bodies are counted by their bytes, shorter ones by their number.
const SMALL_BODY: u32 = 64 * 1024;

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
            Contender::Caddy => "Caddy",
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
        use Contender::{
            Caddy, Envoy, Haproxy, HaproxySplice, Nginx, NginxHuge, NginxV2ray, V2ray,
        };
        let is_nginx = matches!(self, Nginx | NginxHuge | NginxV2ray);
        is_nginx || matches!(self, Haproxy | HaproxySplice | Envoy | Caddy | V2ray)
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
            Generator::H2load => ", by h2load",
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Workload::BulkUp { connections } => format!("bulk up, {connections}"),
            Workload::BulkDown { connections } => format!("bulk down, {connections}"),
            Workload::RoundTrips { connections, size } => {
                format!("{} round trips, {connections}", bytes(size.into()))
            }
            Workload::Churn { connections } => format!("connect, 100 B, close, {connections}"),
            Workload::Redirects { connections } => format!("301 keep-alive, {connections}"),
            Workload::RedirectsOnce { connections } => {
                format!("301 on a connection each, {connections}")
            }
            Workload::StreamUp { connections } => format!("/stream bulk up, {connections}"),
            Workload::StreamDown { connections } => format!("/stream bulk down, {connections}"),
            Workload::StreamRoundTrips { connections, size } => {
                format!("/stream {} round trips, {connections}", bytes(size.into()))
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
                format!("TLS {} round trips, {connections}", bytes(size.into()))
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
            // Their group is called site, and HTTPS keeps them out of the group called TLS.
            Workload::SiteAnswers { connections, size, tls, by } => {
                format!("site, answers of {}{}, {connections}{by}", bytes(size), over(tls))
            }
            Workload::SiteUploads { connections, size, by } => {
                format!("site, uploads of {}, {connections}{by}", bytes(size))
            }
            Workload::SiteFiles { connections, size, tls, by } => {
                format!("site, files of {}{}, {connections}{by}", bytes(size), over(tls))
            }
            Workload::SiteStreams { connections, streams, by } => {
                format!("site, HTTP/2 301, {connections} with {streams} streams{by}")
            }
            Workload::SiteMixed { large, small } => {
                format!("site, answers of 1 KiB, {small}, beside {large} of 10 MiB")
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

fn over(tls: bool) -> &'static str {
    if tls { " by HTTPS" } else { "" }
}

/// A number of bytes as the size of a message or a body.
pub(super) fn bytes(size: u32) -> String {
    const KIB: u32 = 1 << 10;
    const MIB: u32 = 1 << 20;
    match size {
        MIB.. if size.is_multiple_of(MIB) => format!("{} MiB", size / MIB),
        KIB.. if size.is_multiple_of(KIB) => format!("{} KiB", size / KIB),
        _ => format!("{size} B"),
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
    /// Whether bytes are counted, and not messages, connections or requests.
    pub(crate) fn is_bulk(self) -> bool {
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
            | Workload::WssDown { .. }
            | Workload::SiteUploads { .. } => true,
            Workload::SiteAnswers { size, .. } | Workload::SiteFiles { size, .. } => {
                size > SMALL_BODY
            }
            _ => false,
        }
    }

    pub(crate) fn units(self) -> Units {
        if self.is_bulk() {
            Units { rate: "Gbit/s", rate_factor: 8e-9, cost: "CPU-s/GB", cost_factor: 1e9 }
        } else {
            Units { rate: "k/s", rate_factor: 1e-3, cost: "CPU-s/M", cost_factor: 1e6 }
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
