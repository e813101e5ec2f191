//! What the process serves by: one configuration, with all that was made of it. A reload prepares
//! the next one beside it, and then puts it in its place.
//!
//! Everything that may be refused is prepared: the file is read and checked, addresses are bound,
//! logs are opened, names are looked up. Until [`Serving::commit`] nothing has changed, and what
//! was prepared can be dropped. `commit` cannot fail.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use core_affinity::CoreId;

use super::admin::{self, Admin, Facts, Parts, Phase, View};
use super::certificates::Certificates;
use super::changed::Changed;
use super::crew::{Crew, Started};
use super::dns::{self, Dns};
use super::endpoints::Failures;
use super::manager::Manager;
use super::memory::Memory;
use super::orders::{self, Orders};
use super::reading::{
    Read, Source, opened_logs, sinks, system_authorities, threads_for_files, warn_of,
};
use super::roster::Roster;
use super::sockets::{self, Inherited, Sockets};
use super::takeover::{Attempt, Knowledge, Link, Offered, Reporter, Reports};
use super::{Logging, enough_descriptors};
use crate::config::{Config, Originals};
use crate::error::Error;
use crate::front::{self, Admission, Layout, Resources};
use crate::observe::access_log::Writer;
use crate::observe::counters::Registry;
use crate::sys::{Address, Needs, Shares};
use crate::worker::{Command, Running};

/// How long a start and a reload wait for the first DNS answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// What others have given to the process.
pub(super) struct Given<'a> {
    pub(super) manager: Manager,
    /// Sockets of the service manager.
    pub(super) handed: Inherited,
    /// The connection to a predecessor.
    pub(super) link: Option<Link>,
    /// Becomes true when the predecessor has stopped, so that its clients wait for this process.
    pub(super) has_turn: &'a Cell<bool>,
}

/// What the process serves by.
pub(super) struct Serving {
    pub(super) manager: Manager,
    pub(super) source: Source,
    file_limit: u64,
    pub(super) config: Arc<Config>,
    pub(super) layout: Arc<Layout>,
    pub(super) writer: Writer,
    pub(super) sockets: Sockets,
    pub(super) crew: Crew,
    pub(super) running: Running,
    failures: Failures,
    dns: Dns,
    certificates: Certificates,
    pub(super) orders: Orders,
    /// The last read of a configuration, which may hang.
    pub(super) reading: Option<JoinHandle<()>>,
    /// The last store of a configuration, which may hang.
    pub(super) storing: Option<JoinHandle<()>>,
    /// The limits of all listeners with connections, also of those that were removed.
    admissions: HashMap<Arc<str>, Arc<Admission>>,
    /// What the workers count of all listeners, also of those that were removed.
    pub(super) counters: Registry,
    /// What a predecessor counts.
    pub(super) reports: Reports,
    /// Tells a successor what this process counts.
    pub(super) reporter: Option<Reporter>,
    memory: Memory,
    pub(super) admin: Admin,
    pub(super) facts: Arc<Facts>,
    /// How many reloads have changed the configuration.
    reloads: u64,
    /// All layouts that something may still use.
    layouts: Vec<Weak<Layout>>,
}

/// The next configuration, with everything that may be refused.
pub(super) struct Prepared {
    begun: Instant,
    config: Arc<Config>,
    originals: Originals,
    layout: Layout,
    change: sockets::Change,
    names: dns::Next,
    opened: orders::Opened,
    shares: Shares,
    fixed: Vec<&'static str>,
    admin: admin::Prepared,
}

impl Serving {
    /// Starts to serve.
    ///
    /// # Errors
    /// A port, a file, a ring or another resource is refused.
    pub(super) async fn start(
        config: Config,
        source: Source,
        cpus: Vec<Option<CoreId>>,
        file_limit: u64,
        given: Given<'_>,
    ) -> Result<Serving, Error> {
        // 1. Take first what may be refused: ports, files.
        let config = Arc::new(config);
        let Given { manager, handed, link, has_turn } = given;
        let offered = match &link {
            Some(link) => link.offered().await?,
            None => Offered { sockets: handed, ..Offered::default() },
        };
        if link.is_some() {
            manager.took_over(&offered.sockets, offered.bound_by_manager);
        }
        let mut sockets = Sockets::open(&config, cpus.len(), offered.sockets).await?;
        let mut endpoint = None;
        if link.is_none() {
            endpoint = Some(admin::Prepared::of(config.admin.as_ref(), None, |_| false).await?);
        }
        let mut writer = Writer::start()?;
        let system = system_authorities(&config, None)?;
        let files = threads_for_files(&config, None)?;
        let logs = opened_logs(&config, writer.opening())?;
        let (ticket_keys, known_names) = (offered.ticket_keys, offered.names);
        let resources = Resources { system, files, ticket_keys, ..Resources::default() };
        let mut counters = Registry::new(cpus.len());
        let sink = sinks(&mut writer, logs);
        let mut layout = Layout::new(&config, resources, &HashMap::new(), &mut counters, sink)?;
        let failures = Failures::start()?;
        let opened = Orders::open(&config, None)?;

        // 2. Resolve the endpoints.
        let (mut crew, mut pending) = Crew::new(cpus);
        let roster = Roster::new(crew.commands(), offered.steered);
        let mut dns = Dns::start(&config, roster.clone(), known_names)?;
        let mut names = dns.prepare(&config);
        if link.is_none() {
            // A successor is not the main process of the service yet.
            manager.status("Starting: waiting for addresses of names");
        }
        first_answers(&mut names).await;
        layout.endpoints = dns.commit(names);

        // 3. Start the workers.
        let mut orders = Orders::none();
        layout.certificates = orders.commit(opened, crew.commands());
        let shares = Shares::of(file_limit, &needs(&config, crew.len(), &sockets));
        let (layout, driver) = (Arc::new(layout), config.server.driver);
        for (index, worker) in pending.iter_mut().enumerate() {
            (worker.streams, worker.datagrams) = sockets.hand_to_worker(index);
        }
        let started = crew.start(pending, driver, &layout, &failures, shares).await?;

        // 4. Serve, in place of the predecessor if there is one.
        let link = link.map(|link| (link, offered.reports));
        let (running, reports) = serve_with(started, &mut sockets, link, has_turn).await?;
        // Also from sockets that listen only now.
        crew.tell(&Command::Resume);
        sockets.announce();
        tracing::info!(
            workers = crew.len(),
            driver = %running.driver_name(),
            ring_size = running.ring_size,
            file_limit,
            connection_limit = crew.len() * shares.connections,
            udp_session_limit = front::udp_session_limit(&config, crew.len(), &shares),
            "ready"
        );
        let certificates = Certificates::start(&config, &layout.ticket_keys, crew.commands());
        let admissions = admissions(&layout).collect();
        manager.store(&sockets, crew.len());
        manager.ready();
        manager.watch(crew.pulses());
        let facts = Arc::new(Facts {
            begun: Instant::now(),
            file_limit,
            running,
            pulses: crew.pulses(),
            commands: crew.commands(),
            roster,
        });
        let layouts = vec![Arc::downgrade(&layout)];
        let parts = Parts {
            newer: certificates.newer(),
            issued: orders.issued(),
            ages: dns.ages(),
            layouts: layouts.clone(),
            losses: writer.losses(),
        };
        let mut admin = Admin::new(view(&facts, &config, &counters, 0, parts));
        match endpoint {
            Some(endpoint) => admin.commit(endpoint, shares.admin),
            None => admin.follow_predecessor(config.admin.as_ref(), shares.admin),
        }
        let memory = Memory::start(counters.cells());
        Ok(Serving {
            manager,
            source,
            file_limit,
            config,
            layout,
            writer,
            sockets,
            crew,
            running,
            failures,
            dns,
            certificates,
            orders,
            reading: None,
            storing: None,
            admissions,
            counters,
            reports,
            reporter: None,
            memory,
            admin,
            facts,
            reloads: 0,
            layouts,
        })
    }

    /// Prepares the configuration that the file has now, or this `text`. Changes nothing; the
    /// future may be dropped at any time.
    ///
    /// # Errors
    /// The configuration is not valid, or a resource is refused.
    pub(super) async fn prepare(&mut self, text: Option<Arc<str>>) -> Result<Prepared, Error> {
        let begun = Instant::now();

        // 1. Read the file, and open what it names. On a network file system this may take long.
        let _kept = self.writer.keep();
        let Read { mut config, system, files, opened, logs, fixed } = self.read(text).await?;
        // This thread is not the one that has read it.
        let originals = config.settle();
        let needs = needs(&config, self.crew.len(), &self.sockets);
        enough_descriptors(self.file_limit, &needs)?;

        // 2. Look up new names.
        let resources = Resources {
            system,
            files,
            ticket_keys: Some(self.certificates.keys()),
            before: Some(Arc::clone(&self.layout)),
            ..Resources::default()
        };
        let sink = sinks(&mut self.writer, logs);
        let layout = Layout::new(&config, resources, &self.admissions, &mut self.counters, sink)?;
        let config = Arc::new(config);
        let mut names = self.dns.prepare(&config);
        first_answers(&mut names).await;

        // 3. Bind the addresses, last, so that what is refused holds none for long.
        let leaving = self.admin.leaving(config.admin.as_ref());
        let change = self.sockets.prepare(&config, leaving).await?;
        let is_freed = |address: &Address| self.sockets.frees(&change, address);
        let present = self.admin.address();
        let admin = admin::Prepared::of(config.admin.as_ref(), present, is_freed).await?;
        let shares = Shares::of(self.file_limit, &needs);
        Ok(Prepared {
            begun,
            config,
            originals,
            layout,
            change,
            names,
            opened,
            shares,
            fixed,
            admin,
        })
    }

    /// Begins to give the sockets to another process.
    pub(super) fn attempt(&self) -> Attempt {
        // A successor reads those of a file itself.
        let are_made_here = self.config.tls.ticket_keys.is_none();
        let ticket_keys = are_made_here.then(|| self.certificates.keys());
        let (keys, workers) = (ticket_keys.as_deref(), self.crew.commands());
        let known = Knowledge { names: self.dns.known(), steered: self.facts.roster.steered() };
        Attempt::start(&self.sockets, known, keys, workers, self.manager.clone())
    }

    /// Leaves what a successor does from now on: it has the paths of Unix sockets, orders
    /// certificates, and follows names and files. New connections are its own, so that what this
    /// process knows is enough for those it has.
    pub(super) fn leave(&mut self) {
        self.sockets.leave();
        self.orders = Orders::none();
        self.certificates.stop();
        self.dns.stop();
        self.admin.stop();
    }

    /// What the admin endpoint shows.
    fn view(&self) -> View {
        let parts = Parts {
            newer: self.certificates.newer(),
            issued: self.orders.issued(),
            ages: self.dns.ages(),
            layouts: self.layouts.clone(),
            losses: self.writer.losses(),
        };
        view(&self.facts, &self.config, &self.counters, self.reloads, parts)
    }

    /// Forgets the counters of listeners that are gone.
    fn forget_unused(&mut self, config: &Config) {
        let names: HashSet<&str> =
            config.listeners.iter().map(|listener| &*listener.name).collect();
        self.counters.forget_unused(|name| names.contains(name));
    }

    /// Forgets the counters that only a refused configuration would have.
    pub(super) fn forget_refused(&mut self) {
        let config = Arc::clone(&self.config);
        self.forget_unused(&config);
    }

    /// Serves by what was prepared. Returns false if a worker has not carried it out in time: it
    /// does so when it goes on. The future may be dropped only when a worker has failed: some
    /// workers would have half of the new configuration.
    pub(super) async fn commit(&mut self, prepared: Prepared, logging: &Logging) -> bool {
        let Prepared { begun, config, originals, mut layout, .. } = prepared;
        let Prepared { change, names, opened, shares, fixed, admin, .. } = prepared;
        warn_of(&config);
        for key in fixed {
            tracing::warn!(
                key,
                "a reload cannot change this key: the old value stays in use. It takes a take-over \
                 (SIGUSR2) or a restart"
            );
        }
        logging.reload(&config.log);

        // 1. The manager removes the sockets that are closed below. This may take seconds, so no
        // new socket listens yet, and no worker has a part of the new configuration.
        self.manager.remove(self.sockets.removed(&change)).await;

        // 2. The workers get the listeners and clusters. There is no await between the state that
        // they get and the command, so that nothing newer goes before it.
        layout.endpoints = self.dns.commit(names);
        layout.certificates = self.orders.commit(opened, self.crew.commands());
        layout.ticket_keys = self.certificates.commit(&config);
        let layout = Arc::new(layout);
        let applied = Arc::new(AtomicUsize::new(0));
        self.crew.tell_each(|worker| {
            let kept = self.sockets.kept(&change, worker);
            let (layout, applied) = (Arc::clone(&layout), Arc::clone(&applied));
            Command::Layout { layout, kept, shares, applied }
        });
        let mut is_applied = self.crew.all_have(&applied).await;

        // 3. All workers know the new listeners, so any of them may accept for them. Clients of new
        // sockets wait from here on until the workers have them.
        self.admin.free(&admin).await;
        self.sockets.apply(change);
        let applied = Arc::new(AtomicUsize::new(0));
        self.crew.tell_each(|worker| {
            let (streams, datagrams) = self.sockets.hand_to_worker(worker);
            Command::Sockets { streams, datagrams, applied: Arc::clone(&applied) }
        });
        is_applied &= self.crew.all_have(&applied).await;
        self.manager.store(&self.sockets, self.crew.len());

        // 4. Forget the configuration before. A large one takes a while to free.
        self.admissions.retain(|_, admission| Arc::strong_count(admission) > 1);
        self.admissions.extend(admissions(&layout));
        self.forget_unused(&config);
        let changed = Changed::between(&self.config, &config);
        let before = (
            originals,
            std::mem::replace(&mut self.config, config),
            std::mem::replace(&mut self.layout, layout),
        );
        self.reloads += 1;
        self.layouts.retain(|layout| layout.strong_count() > 0);
        self.layouts.push(Arc::downgrade(&self.layout));
        self.admin.show(self.view());
        self.admin.commit(admin, shares.admin);
        tracing::info!(
            listeners_changed = changed.listeners,
            clusters_changed = changed.clusters,
            took_ms = begun.elapsed().as_millis() as u64,
            "reloaded"
        );
        self.memory.free(before, self.counters.cells());
        is_applied
    }

    /// Tells the successor what this process has counted, if there is one that listens.
    pub(super) fn report(&mut self) {
        if let Some(reporter) = &mut self.reporter {
            reporter.report(self.facts.roster.counted(&self.counters));
        }
    }

    /// Writes what is left in the logs. The workers have ended.
    pub(super) fn end(self) {
        let Serving { failures, layout, writer, .. } = self;
        failures.finish();
        drop(layout);
        writer.close();
    }
}

/// Lets the workers serve. From the moment on at which a predecessor has stopped, nothing can be
/// refused; and until it cannot go on any more, nothing changes for it.
///
/// # Errors
/// The predecessor has given up, and goes on.
async fn serve_with(
    started: Started,
    sockets: &mut Sockets,
    link: Option<(Link, bool)>,
    has_turn: &Cell<bool>,
) -> Result<(Running, Reports), Error> {
    let Some((link, reports)) = link else {
        sockets.commit();
        return Ok((started.serve().await?, Reports::default()));
    };
    link.ready().await?;
    has_turn.set(true);
    let running = started.serve().await?;
    let reports = link.accepting(reports).await?;
    sockets.commit();
    Ok((running, reports))
}

/// The objects that need descriptors.
fn needs(config: &Config, workers: usize, sockets: &Sockets) -> Needs {
    Needs { surplus_sockets: sockets.surplus(), ..config.needs(workers) }
}

fn admissions(layout: &Layout) -> impl Iterator<Item = (Arc<str>, Arc<Admission>)> {
    let pair = |one: &front::Shared| (Arc::clone(&one.config.name), Arc::clone(&one.admission));
    layout.listeners.iter().map(pair)
}

/// Waits for the first DNS answers for [`FIRST_ANSWERS`] at most.
async fn first_answers(names: &mut dns::Next) {
    if tokio::time::timeout(FIRST_ANSWERS, names.first_answers()).await.is_err() {
        let names = names.missing();
        tracing::warn!(names, "no answer from DNS yet: going on with what is known of these names");
    }
}

/// What the admin endpoint shows while the process serves. It holds no layout: the writer of the
/// access log ends when the last one is dropped.
fn view(
    facts: &Arc<Facts>,
    config: &Arc<Config>,
    counters: &Registry,
    reloads: u64,
    parts: Parts,
) -> View {
    View {
        facts: Arc::clone(facts),
        config: Arc::clone(config),
        listeners: counters.all(),
        hosts: counters.hosts.all(),
        phase: Phase::Serving,
        reloads,
        since: SystemTime::now(),
        parts,
    }
}
