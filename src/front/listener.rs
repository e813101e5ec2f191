//! A listener on one worker, as its connections see it: what each of them keeps until its end.
//!
//! It stays the same object as long as a configuration has a listener of this name. What it does
//! with new connections and requests is its [`Service`], which a reload replaces: a connection
//! takes the service of the moment for each request, and drops it before a long wait. So a tunnel
//! that lasts for days keeps no configuration alive.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::generation::Shared;
use super::http::Limits;
use super::moment::Moment;
use super::service::Service;
use crate::config::AccessLog;
use crate::observe::access_log::{Lane, Record, Recorder};
use crate::observe::counters::Counters;
use crate::observe::live::Source;
use crate::observe::outcome::Outcome;
use crate::sys::{Address, Keepalive, SocketOptions};
use crate::timers::ticks;

/// One listener of one worker. Its connections share it.
pub struct Listener {
    /// That of no other listener of this worker, and not 0.
    group: u32,
    id: u64,
    name: Arc<str>,
    /// Its limit of connections, which all workers share.
    pub admission: Arc<Admission>,
    /// What this worker counts.
    pub counters: Arc<Counters>,
    source: Rc<Source>,
    options: Cell<SocketOptions>,
    log: RefCell<Option<Log>>,
    /// `None` if the configuration has had no such listener for [`LAST_REQUESTS`].
    service: RefCell<Option<Rc<Service>>>,
    /// The limits of requests by its last service of HTTP. `None` if there was none.
    limits: Cell<Option<Limits>>,
    /// The tick at which the configuration had no such listener any more.
    removed: Cell<Option<u32>>,
}

/// How long requests are served that arrive on connections of a listener which was removed. Each
/// response says that its connection ends. Connections that are idle after that are closed: sooner,
/// a request that is on its way would be lost more often.
pub const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Where records go.
struct Log {
    lane: Rc<Lane>,
    config: Arc<AccessLog>,
}

impl Listener {
    /// Makes a listener of the worker with this index, which does nothing yet.
    pub(super) fn new(shared: &Shared, index: usize, group: u32) -> Listener {
        let source = Source {
            listener: Arc::clone(&shared.config.name),
            counters: Arc::clone(&shared.counters[index]),
        };
        Listener {
            group,
            id: shared.id,
            name: Arc::clone(&shared.config.name),
            admission: Arc::clone(&shared.admission),
            counters: Arc::clone(&shared.counters[index]),
            source: Rc::new(source),
            options: Cell::new(shared.config.socket),
            log: RefCell::new(None),
            service: RefCell::new(None),
            limits: Cell::new(None),
            removed: Cell::new(None),
        }
    }

    /// Takes over a configuration, with the service that was made of it.
    pub(super) fn set(&self, shared: &Shared, recorder: &Recorder, service: Rc<Service>) {
        let config = &shared.config;
        self.admission.set_limit(config.max_connections);
        self.options.set(config.socket);
        let log = shared.sink.as_ref().zip(config.access_log.as_ref());
        *self.log.borrow_mut() =
            log.map(|(sink, log)| Log { lane: recorder.lane(sink), config: Arc::clone(log) });
        if let Some(http) = service.http() {
            self.limits.set(Some(Limits::from(http)));
        }
        *self.service.borrow_mut() = Some(service);
        self.removed.set(None);
    }

    /// Notes that the configuration has no such listener any more. Connections that are relayed go
    /// on.
    pub(super) fn remove(&self, now: u32) {
        self.removed.set(Some(now));
    }

    /// Returns true if the configuration has no such listener any more.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.get().is_some()
    }

    /// Returns true as long as requests are served.
    pub(super) fn has_service(&self) -> bool {
        self.service.borrow().is_some()
    }

    /// The limits of requests. They stay when the service has ended, because the last responses
    /// may still be on their way. `None` if it has never served HTTP.
    pub(super) fn limits(&self) -> Option<Limits> {
        self.limits.get()
    }

    /// Ends the service if the listener was removed a while ago. Returns true if it ends now.
    pub(super) fn end_service(&self, now: u32) -> bool {
        let removed = self.removed.get();
        let is_over =
            removed.is_some_and(|removed| now.wrapping_sub(removed) >= ticks(LAST_REQUESTS));
        is_over && self.service.take().is_some()
    }

    /// The group of its connections (see [`Watch::join_group`](crate::timers::Watch::join_group)).
    pub(super) fn group(&self) -> u32 {
        self.group
    }

    /// See [`Shared::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name, which no other listener of the configuration has.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What its connections have in common.
    pub(super) fn source(&self) -> &Rc<Source> {
        &self.source
    }

    /// What it does at present. `None` if the configuration has no such listener any more.
    pub fn service(&self) -> Option<Rc<Service>> {
        self.service.borrow().clone()
    }

    /// The service without a count. Must not be kept over an await.
    pub(super) fn present(&self) -> Ref<'_, Option<Rc<Service>>> {
        self.service.borrow()
    }

    /// The options of its sockets and of those to upstreams.
    pub fn options(&self) -> SocketOptions {
        self.options.get()
    }

    /// TCP keepalive for the streams to upstreams.
    pub fn tcp_keepalive(&self) -> Option<Keepalive> {
        self.options.get().keepalive
    }

    /// Returns true if records say what requests tell about their clients.
    pub(super) fn names_visitors(&self) -> bool {
        self.log.borrow().as_ref().is_some_and(|log| log.config.format.names_visitors())
    }

    /// Counts an outcome and writes its access record. `describe` sets what was asked for:
    /// protocol, request, route and cluster.
    pub(super) fn record<'a>(
        &'a self,
        client: &'a Address,
        start: Moment,
        outcome: &'a Outcome,
        describe: impl FnOnce(&mut Record<'a>),
    ) {
        self.counters.add(outcome);
        let log = self.log.borrow();
        let Some(Log { lane, config }) = &*log else { return };
        let mut record = Record {
            start: start.wall,
            listener: &self.name,
            protocol: "tcp",
            client,
            method: None,
            host: None,
            path: None,
            status: outcome.status,
            route: None,
            cluster: None,
            endpoint: outcome.endpoint.as_deref(),
            attempts: outcome.attempts,
            failed_endpoints: &outcome.failed_endpoints,
            reason: outcome.reason,
            duration: start.instant.elapsed(),
            connect: outcome.connect,
            bytes_up: outcome.bytes_up,
            bytes_down: outcome.bytes_down,
            relay: outcome.relay,
            end: outcome.end,
            upstream_status: outcome.upstream_status,
            first_byte: outcome.first_byte,
            is_reused: outcome.is_reused,
            retries: outcome.retries,
            copied: outcome.copied,
            body_bytes: outcome.bytes_down.saturating_sub(outcome.head_down),
            referer: None,
            user_agent: None,
            tls: None,
        };
        describe(&mut record);
        lane.record(&config.format, &record);
    }
}
