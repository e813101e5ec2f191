//! What is measured, and through whom.

use super::results::{Contender, Generator, Rest, Workload};
use super::site;

/// What has a target of its own; in bursts for few clients, whose datagrams then fit the buffers
/// that Linux gives a socket.
pub(super) const DATAGRAMS: [Workload; 4] = [
    Workload::Datagrams { clients: SMALL, size: 300, burst: 1 },
    Workload::Datagrams { clients: SMALL, size: 1350, burst: 1 },
    Workload::Datagrams { clients: 4, size: 300, burst: 16 },
    Workload::Datagrams { clients: 4, size: 1350, burst: 16 },
];

/// One workload and those who do it, in the order of the first round.
pub(super) type Comparison = (Workload, Vec<Contender>);

/// How many times the rounds of the others a full run gives to what the targets are about: the
/// median of five ratios of bulk still moves by a tenth from run to run.
const JUDGED: u16 = 2;

/// A run of the suite.
pub(super) struct Plan {
    /// Weighed at these numbers of connections, before anything else.
    pub(super) rests: Vec<(Rest, Vec<u16>)>,
    pub(super) weighed: Vec<Contender>,
    /// Done round by round.
    pub(super) comparisons: Vec<Comparison>,
    /// Trials of the balance over workers.
    pub(super) balance_trials: u16,
}

use Contender::{
    Caddy, Direct, Envoy, Floor, Haproxy, HaproxySplice, Nginx, NginxHuge, NginxV2ray, Ringgate,
    RinggateL4, RinggateTwo, RinggateUser, V2ray,
};

const PROXIES: [Contender; 4] = [Ringgate, Nginx, Haproxy, Envoy];
/// What the targets are about.
const BULK: u16 = 16;
const SMALL: u16 = 64;
const SMALL_SIZE: u16 = 100;
/// Of HTTP/2, on each connection.
const STREAMS: u16 = 10;

impl Plan {
    /// One row for each target.
    pub(super) fn quick() -> Plan {
        let bulk = [&PROXIES[..], &[NginxHuge, HaproxySplice, Floor]].concat();
        let small = Workload::RoundTrips { connections: SMALL, size: SMALL_SIZE };
        Plan {
            rests: Rest::ALL.map(|rest| (rest, vec![0, 2000])).into(),
            weighed: vec![Ringgate],
            comparisons: [
                vec![
                    (Workload::BulkUp { connections: BULK }, bulk.clone()),
                    (Workload::BulkDown { connections: BULK }, bulk),
                    (Workload::StreamUp { connections: BULK }, tunnels()),
                    (Workload::StreamDown { connections: BULK }, tunnels()),
                    (small, PROXIES.to_vec()),
                    (Workload::Churn { connections: SMALL }, PROXIES.to_vec()),
                    (Workload::Redirects { connections: SMALL }, PROXIES.to_vec()),
                ],
                ended(),
                // The larger ones alone, to save time.
                datagrams().into_iter().filter(|(work, _)| is_large(work)).collect(),
                wss(),
                tls(),
                site(),
                vec![beside_bulk(), beside_large_bodies()],
            ]
            .concat(),
            balance_trials: 0,
        }
    }

    /// How many rounds a workload gets where most get `rounds`.
    pub(super) fn rounds(workload: Workload, rounds: u16, quick: bool) -> u16 {
        let judged = || {
            let quick = Plan::quick();
            let mut judged =
                quick.comparisons.iter().map(|(workload, _)| workload).chain(&DATAGRAMS);
            judged.any(|judged| *judged == workload)
        };
        if !quick && judged() { rounds * JUDGED } else { rounds }
    }

    /// What all of it is called.
    pub(super) fn names(&self) -> Vec<String> {
        let workloads = self.comparisons.iter().map(|(workload, _)| workload.to_string());
        let rests = self.rests.iter().map(|(rest, _)| rest.to_string());
        let balance = (self.balance_trials > 0).then(|| super::BALANCE.to_string());
        workloads.chain(rests).chain(balance).collect()
    }

    /// Everything.
    pub(super) fn full() -> Plan {
        let steps = vec![0, 1000, 5000, 9000];
        Plan {
            rests: Rest::ALL.map(|rest| (rest, steps.clone())).into(),
            weighed: PROXIES.to_vec(),
            comparisons: [
                bulk(),
                round_trips(),
                connections_and_requests(),
                streams(),
                ended(),
                datagrams(),
                wss(),
                tls(),
                tls_by_others(),
                many_flows(),
                two_workers(),
                site().into_iter().map(and_direct).collect(),
                site_by_others(),
                vec![beside_bulk(), beside_large_bodies()],
            ]
            .concat(),
            balance_trials: 20,
        }
    }
}

/// For mixtures, where always splicing could pay, too.
fn splicing() -> Vec<Contender> {
    [&PROXIES[..], &[HaproxySplice]].concat()
}

/// For tunnels, which are to cost no more than plain L4 in the same round.
fn tunnels() -> Vec<Contender> {
    [&splicing()[..], &[RinggateL4]].concat()
}

fn bulk() -> Vec<Comparison> {
    let contenders = [&PROXIES[..], &[NginxHuge, HaproxySplice, Floor, Direct]].concat();
    let up = [1, BULK, 256].map(|connections| Workload::BulkUp { connections });
    let down = [1, BULK, 256].map(|connections| Workload::BulkDown { connections });
    up.into_iter().chain(down).map(|workload| (workload, contenders.clone())).collect()
}

fn round_trips() -> Vec<Comparison> {
    let contenders = [&PROXIES[..], &[Direct]].concat();
    let mut comparisons = Vec::new();
    for size in [SMALL_SIZE, 4096, 16_384] {
        for connections in [1, SMALL, 512] {
            comparisons.push((Workload::RoundTrips { connections, size }, contenders.clone()));
        }
    }
    comparisons
}

fn connections_and_requests() -> Vec<Comparison> {
    vec![
        (Workload::Churn { connections: SMALL }, [&PROXIES[..], &[Direct]].concat()),
        (Workload::Redirects { connections: SMALL }, PROXIES.to_vec()),
        (Workload::RedirectsOnce { connections: SMALL }, PROXIES.to_vec()),
    ]
}

fn streams() -> Vec<Comparison> {
    let workloads = [
        Workload::StreamUp { connections: BULK },
        Workload::StreamDown { connections: BULK },
        Workload::StreamRoundTrips { connections: SMALL, size: SMALL_SIZE },
    ];
    workloads.map(|workload| (workload, tunnels())).to_vec()
}

/// Tunnels that end at the proxy, beside plain L4 and beside the plugin that does the same.
fn ended() -> Vec<Comparison> {
    vec![
        (Workload::ObfsUp { connections: BULK }, vec![Ringgate, RinggateL4]),
        (Workload::ObfsDown { connections: BULK }, vec![Ringgate, RinggateL4]),
        (Workload::WebSocketUp { connections: BULK }, vec![Ringgate, V2ray]),
        (Workload::WebSocketDown { connections: BULK }, vec![Ringgate, V2ray]),
    ]
}

/// TLS that is ended here, with a plain server behind it.
fn tls() -> Vec<Comparison> {
    let by = Generator::Own;
    let bulk = [Workload::TlsUp { connections: BULK }, Workload::TlsDown { connections: BULK }];
    let large = [&PROXIES[..], &[NginxHuge]].concat();
    let others = [
        Workload::TlsRoundTrips { connections: SMALL, size: SMALL_SIZE },
        Workload::Handshakes { connections: SMALL, by },
        Workload::Resumptions { connections: SMALL, by },
    ];
    let others = others.map(|workload| (workload, PROXIES.to_vec()));
    bulk.into_iter().map(|workload| (workload, large.clone())).chain(others).collect()
}

/// TLS and WebSocket ended by one program, beside the two that usually do it.
fn wss() -> Vec<Comparison> {
    [Workload::WssUp { connections: BULK }, Workload::WssDown { connections: BULK }]
        .map(|workload| (workload, vec![Ringgate, NginxV2ray]))
        .to_vec()
}

/// The same with generators that others wrote, and what they can be compared with.
fn tls_by_others() -> Vec<Comparison> {
    let workloads = [
        Workload::Handshakes { connections: 1, by: Generator::STime },
        Workload::Handshakes { connections: SMALL, by: Generator::Hey },
        Workload::Resumptions { connections: 1, by: Generator::STime },
        Workload::TlsRedirects { connections: SMALL, by: Generator::Own },
        Workload::TlsRedirects { connections: SMALL, by: Generator::Wrk },
    ];
    workloads.map(|workload| (workload, PROXIES.to_vec())).to_vec()
}

/// HAProxy passes no datagrams on.
fn datagrams() -> Vec<Comparison> {
    DATAGRAMS.map(|workload| (workload, vec![Ringgate, Nginx, Envoy])).to_vec()
}

fn is_large(workload: &Workload) -> bool {
    matches!(workload, Workload::Datagrams { size: 1350, .. })
}

/// A site with a backend, files and HTTP/2. HAProxy and Envoy serve no files.
fn site() -> Vec<Comparison> {
    site_workloads(Generator::Own)
}

/// Where a proxy stands between the load and a plain backend: what both could do without it.
fn and_direct((workload, mut contenders): Comparison) -> Comparison {
    if matches!(workload, Workload::SiteAnswers { tls: false, .. } | Workload::SiteUploads { .. }) {
        contenders.push(Direct);
    }
    (workload, contenders)
}

/// The same with generators that others wrote. HTTP/2 has no other, but hey has one connection.
fn site_by_others() -> Vec<Comparison> {
    site_workloads(Generator::Wrk)
}

fn site_workloads(by: Generator) -> Vec<Comparison> {
    let (small, large) = (site::SMALL, site::LARGE);
    let proxies = [&PROXIES[..], &[Caddy]].concat();
    let splicing = [&proxies[..], &[HaproxySplice]].concat();
    let servers = vec![Ringgate, Nginx, Caddy];
    let (connections, bulk) = (SMALL, BULK);
    let streams = match by {
        Generator::Own => {
            Workload::SiteStreams { connections: BULK, streams: STREAMS, by: Generator::H2load }
        }
        _ => Workload::SiteStreams { connections: 1, streams: STREAMS, by: Generator::Hey },
    };
    vec![
        (Workload::SiteAnswers { connections, size: small, tls: false, by }, proxies.clone()),
        (Workload::SiteAnswers { connections, size: small, tls: true, by }, proxies.clone()),
        (
            Workload::SiteAnswers { connections: bulk, size: large, tls: false, by },
            splicing.clone(),
        ),
        (Workload::SiteUploads { connections: bulk, size: large, by }, splicing),
        (Workload::SiteFiles { connections, size: small, tls: false, by }, servers.clone()),
        (Workload::SiteFiles { connections: bulk, size: large, tls: false, by }, servers.clone()),
        (Workload::SiteFiles { connections: bulk, size: large, tls: true, by }, servers),
        (streams, proxies),
    ]
}

/// Among the last ones, as the next.
fn beside_large_bodies() -> Comparison {
    let contenders = [&PROXIES[..], &[Caddy, HaproxySplice]].concat();
    (Workload::SiteMixed { large: BULK, small: SMALL }, contenders)
}

/// Among the last ones: the servers of bulk then have a low priority.
fn beside_bulk() -> Comparison {
    (Workload::Mixed { bulk: BULK, small: SMALL }, splicing())
}

/// More flows than a user without privileges may have large pipes for (pipe(7)).
fn many_flows() -> Vec<Comparison> {
    let contenders = vec![Ringgate, RinggateUser, Nginx, Haproxy, HaproxySplice, Envoy, Floor];
    let mut comparisons = Vec::new();
    for connections in [500, 2000] {
        comparisons.push((Workload::BulkUp { connections }, contenders.clone()));
        comparisons.push((Workload::BulkDown { connections }, contenders.clone()));
    }
    comparisons
}

/// The second worker shares its CPU with the load: only the cost of a unit says anything.
fn two_workers() -> Vec<Comparison> {
    let both = vec![Ringgate, RinggateTwo];
    vec![
        (Workload::BulkDown { connections: 2 * BULK }, both.clone()),
        (Workload::RoundTrips { connections: 2 * SMALL, size: SMALL_SIZE }, both.clone()),
        (Workload::Churn { connections: 2 * SMALL }, both),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_spends_more_rounds_on_what_is_judged() {
        let (judged, other) =
            (Workload::BulkUp { connections: BULK }, Workload::BulkUp { connections: 1 });
        assert_eq!(Plan::rounds(judged, 5, false), 10);
        assert_eq!(Plan::rounds(other, 5, false), 5);
        assert_eq!(Plan::rounds(judged, 5, true), 5);
    }

    #[test]
    fn nothing_comes_behind_the_servers_change_of_priority() {
        for plan in [Plan::quick(), Plan::full()] {
            let mixed = |comparison: &Comparison| comparison.0.is_mixed();
            let first = plan.comparisons.iter().position(mixed).unwrap();
            assert!(plan.comparisons[first..].iter().all(mixed));
        }
    }
}
