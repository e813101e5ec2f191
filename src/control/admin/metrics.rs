//! The numbers in the text format of Prometheus. They are summed when they are asked for: workers
//! only write cells of their own.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use super::certificates::Certificate;
use super::exposition::Out;
use super::stats::{Listener, Process, Worker, listeners, workers};
use super::view::{Phase, View};
use super::{certificates, clusters};
use crate::control::dns::Age;

/// All numbers.
pub(super) fn of(view: &Arc<View>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessNumbers(Process::now())));
    registry
        .sub_registry_with_prefix("ringgate")
        .register_collector(Box::new(Numbers(Arc::clone(view))));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

/// What every process has, by the names that Prometheus clients use for it.
#[derive(Debug)]
struct ProcessNumbers(Process);

impl Collector for ProcessNumbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let Process { cpu_seconds, resident_bytes, open_descriptors, started_seconds } = self.0;
        let help = "CPU time of the process, in user and kernel mode";
        out.counter("process_cpu_seconds", help, [([], cpu_seconds)])?;
        let help = "Memory of the process that is in RAM";
        out.gauge("process_resident_memory_bytes", help, [([], resident_bytes as f64)])?;
        let help = "Open file descriptors";
        out.gauge("process_open_fds", help, [([], open_descriptors as f64)])?;
        let help = "When the process was started, in seconds since 1970";
        out.gauge("process_start_time_seconds", help, [([], started_seconds)])
    }
}

/// What ringgate counts.
struct Numbers(Arc<View>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (view, mut out) = (&*self.0, Out(encoder));
        process(&mut out, view)?;
        by_listener(&mut out, &listeners(view))?;
        let requests = view.hosts.iter().map(|host| {
            let labels = [("listener", &*host.listener), ("host", &*host.name)];
            (labels, host.requests() as f64)
        });
        let help = "Requests that have found a route of a host of the configuration, by its first \
                    name";
        out.counter("host_requests", help, requests)?;
        clusters::encode(&mut out, view)?;
        by_worker(&mut out, &workers(view))?;
        names(&mut out, view)?;
        logs(&mut out, view)?;
        let certificates = certificates::all(view);
        let of = |time: fn(&Certificate) -> SystemTime| {
            let all = certificates.iter();
            all.map(move |one| ([("certificate", one.file.as_str())], seconds(time(one))))
        };
        let help = "When a certificate that is in use begins to be valid, in seconds since 1970";
        out.gauge("certificate_not_before_seconds", help, of(|one| one.not_before))?;
        let help = "When a certificate that is in use ends, in seconds since 1970";
        out.gauge("certificate_not_after_seconds", help, of(|one| one.not_after))
    }
}

fn process(out: &mut Out<'_>, view: &View) -> fmt::Result {
    let facts = &view.facts;
    let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", env!("RINGGATE_COMMIT"))];
    out.gauge("build_info", "The version of ringgate; the value is 1", [(build, 1.0)])?;
    let driver = [("driver", facts.running.driver_name())];
    out.gauge("driver_info", "How workers wait for sockets; the value is 1", [(driver, 1.0)])?;
    let is_ready = f64::from(u8::from(view.phase == Phase::Serving));
    out.gauge("ready", "1 while the process serves, 0 when it is about to end", [([], is_ready)])?;
    let help = "Reloads that have changed the configuration";
    out.counter("reloads", help, [([], view.reloads as f64)])?;
    let help = "When the configuration was taken into use, in seconds since 1970";
    out.gauge("configuration_since_seconds", help, [([], seconds(view.since))])?;
    let help = "The limit of open file descriptors";
    out.gauge("file_limit", help, [([], facts.file_limit as f64)])?;
    let alive = view.parts.layouts.iter().filter(|layout| layout.strong_count() > 0).count();
    let help = "Configurations in memory: the present one, and earlier ones that are still used";
    out.gauge("generations_alive", help, [([], alive as f64)])
}

fn names(out: &mut Out<'_>, view: &View) -> fmt::Result {
    let ages: Vec<(&str, Age)> =
        view.parts.ages.iter().map(|(cluster, ages)| (&**cluster, ages.age())).collect();
    let answered = ages
        .iter()
        .filter_map(|(cluster, age)| Some(([("cluster", *cluster)], seconds(age.oldest?))));
    let help = "When the name of a cluster was answered by DNS whose last answer is the oldest, in \
                seconds since 1970";
    out.gauge("cluster_dns_answered_seconds", help, answered)?;
    let failures = ages.iter().map(|(cluster, age)| ([("cluster", *cluster)], age.failures as f64));
    out.counter("cluster_dns_failures", "Look-ups of names of a cluster that failed", failures)?;
    let failing = ages.iter().map(|(cluster, age)| ([("cluster", *cluster)], age.failing as f64));
    let help = "Names of a cluster whose last look-up has failed, by name and family";
    out.gauge("cluster_dns_failing_names", help, failing)
}

fn logs(out: &mut Out<'_>, view: &View) -> fmt::Result {
    let lost = view.parts.losses.each().flat_map(|(log, dropped, lost)| {
        let labels = |reason| [("log", log), ("reason", reason)];
        [(labels("dropped"), dropped as f64), (labels("write_failed"), lost as f64)]
    });
    let help = "Records of an access log that were dropped, because the writer could not keep up, \
                or could not be written";
    out.counter("access_log_lost_records", help, lost)
}

fn by_listener(out: &mut Out<'_>, all: &[Listener<'_>]) -> fmt::Result {
    let of = |number: fn(&Listener<'_>) -> u64| {
        all.iter().map(move |one| ([("listener", one.name)], number(one) as f64))
    };
    let help = "Connections that were accepted";
    out.counter("listener_connections", help, of(|one| one.connections.total))?;
    let help = "Connections that are open, tunnels among them";
    out.gauge("listener_open_connections", help, of(|one| one.connections.open))?;
    let help = "Upgrades and relayed connections that have begun";
    out.counter("listener_tunnels", help, of(|one| one.tunnels.total))?;
    let help = "Upgrades and relayed connections that are open";
    out.gauge("listener_open_tunnels", help, of(|one| one.tunnels.open))?;
    let help = "UDP sessions that have begun";
    out.counter("listener_sessions", help, of(|one| one.sessions.total))?;
    let help = "UDP sessions that are open";
    out.gauge("listener_open_sessions", help, of(|one| one.sessions.open))?;
    let bytes = all.iter().flat_map(|one| {
        let of = move |direction, bytes| {
            ([("listener", one.name), ("direction", direction)], bytes as f64)
        };
        [of("up", one.bytes_up), of("down", one.bytes_down)]
    });
    let help = "Bytes from clients (up) and to clients (down), counted while they move";
    out.counter("listener_bytes", help, bytes)?;
    let relayed = all.iter().flat_map(|one| {
        one.relayed.iter().flat_map(move |(relay, bytes)| {
            let labels = |way| [("listener", one.name), ("direction", way), ("relay", *relay)];
            [(labels("up"), bytes.up as f64), (labels("down"), bytes.down as f64)]
        })
    });
    let help = "Bytes from clients (up) and to clients (down) by how they were moved, counted when \
                what they belong to has ended: spliced in the kernel, copied, or sent by ringgate \
                itself (none)";
    out.counter("listener_relayed_bytes", help, relayed)?;
    let copied = all.iter().flat_map(|one| {
        let labels = |reason| [("listener", one.name), ("reason", reason)];
        one.copied.iter().map(move |(reason, count)| (labels(*reason), *count as f64))
    });
    let help = "Relays whose larger direction was copied and not spliced, by the reason";
    out.counter("splice_refused", help, copied)?;
    let ends = all.iter().flat_map(|one| {
        let labels = |end| [("listener", one.name), ("end", end)];
        one.ends.iter().map(move |(end, count)| (labels(end), *count as f64))
    });
    let help = "Requests, tunnels, connections and sessions by what ended them, as in the access \
                log";
    out.counter("listener_ended", help, ends)?;
    let handshakes = all.iter().flat_map(|one| {
        one.handshakes.iter().map(move |done| {
            let resumed = if done.is_resumed { "true" } else { "false" };
            let labels = [("listener", one.name), ("version", done.version), ("resumed", resumed)];
            (labels, done.count as f64)
        })
    });
    let help = "TLS handshakes with clients that are done";
    out.counter("listener_tls_handshakes", help, handshakes)?;
    let help = "TLS handshakes with clients that have failed";
    out.counter("listener_tls_failures", help, of(|one| one.failed_handshakes))?;
    let times = all.iter().map(|one| ([("listener", one.name)], one.handshake));
    let help = "Time from the accept of a connection to the end of its TLS handshake";
    out.histogram("listener_handshake_seconds", help, times)
}

fn by_worker(out: &mut Out<'_>, all: &[Worker]) -> fmt::Result {
    let names: Vec<String> = (0..all.len()).map(|index| index.to_string()).collect();
    let of = |number: fn(&Worker) -> f64| {
        let named = names.iter().zip(all);
        named.map(move |(name, one)| ([("worker", name.as_str())], number(one)))
    };
    let help = "Connections of a worker that are open";
    out.gauge("worker_open_connections", help, of(|one| one.connections as f64))?;
    let help = "UDP sessions of a worker that are open";
    out.gauge("worker_open_sessions", help, of(|one| one.sessions as f64))?;
    let help = "CPU time of a worker";
    out.counter("worker_cpu_seconds", help, of(|one| one.cpu_seconds))?;
    let help = "Turns of a worker's event loop that begin a tick: 20 a second unless it is busy";
    out.counter("worker_ticks", help, of(|one| f64::from(one.ticks)))?;
    let help = "Places of a worker that connections have, and streams of HTTP/2 with a descriptor \
                of their own";
    out.gauge("worker_places", help, of(|one| one.places as f64))?;
    let help = "Places that a worker has; without a free one new connections wait";
    out.gauge("worker_max_places", help, of(|one| one.max_places as f64))?;
    let help = "Pipes for splices that a worker has";
    out.gauge("worker_pipes", help, of(|one| one.pipes as f64))?;
    let help = "Pipes that a worker may have; without a free one bytes are copied";
    out.gauge("worker_max_pipes", help, of(|one| one.max_pipes as f64))?;
    let help = "Bytes that a worker keeps for its connections";
    out.gauge("worker_kept_bytes", help, of(|one| one.kept_bytes as f64))?;
    let help = "Connections of a worker to endpoints that wait for a request";
    out.gauge("worker_idle_upstreams", help, of(|one| one.idle_upstreams as f64))?;
    let help = "Listeners that a reload has removed and connections of a worker still use";
    out.gauge("worker_removed_listeners", help, of(|one| one.removed_listeners as f64))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
