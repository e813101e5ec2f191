//! What the endpoint shows: facts about the process, and the configuration of the moment.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::control::certificates::Newer;
use crate::control::dns::Ages;
use crate::control::orders::Issued;
use crate::control::roster::Roster;
use crate::front::Layout;
use crate::observe::access_log::Losses;
use crate::observe::counters::Cells;
use crate::observe::hosts::Host;
use crate::worker::{Command, Pulse, Running};

/// What there is to show. A reload, a drain and a take-over replace it.
#[derive(Clone)]
pub(in crate::control) struct View {
    pub(in crate::control) facts: Arc<Facts>,
    pub(in crate::control) config: Arc<Config>,
    /// The counters of all listeners, by name. Also those of listeners that
    /// the configuration does not have any more, while connections use them.
    pub(in crate::control) listeners: Vec<(Arc<str>, Cells)>,
    /// The counters of the hosts of http listeners.
    pub(in crate::control) hosts: Vec<Host>,
    pub(in crate::control) phase: Phase,
    /// How many reloads have changed the configuration since the start.
    pub(in crate::control) reloads: u64,
    /// When the configuration of the moment was taken into use.
    pub(in crate::control) since: SystemTime,
    pub(in crate::control) parts: Parts,
}

/// What parts of the control plane know by this configuration.
#[derive(Clone)]
pub(in crate::control) struct Parts {
    /// Certificates of files that were read since.
    pub(in crate::control) newer: Newer,
    /// Certificates by ACME.
    pub(in crate::control) issued: Arc<Issued>,
    /// The look-ups of the names of clusters.
    pub(in crate::control) ages: Vec<(Arc<str>, Ages)>,
    /// The layouts of this configuration and of earlier ones that are still used.
    pub(in crate::control) layouts: Vec<Weak<Layout>>,
    /// What is lost of the access logs.
    pub(in crate::control) losses: Losses,
}

/// What does not change while the process runs.
pub(in crate::control) struct Facts {
    pub(in crate::control) begun: Instant,
    pub(in crate::control) file_limit: u64,
    pub(in crate::control) running: Running,
    /// Of each worker.
    pub(in crate::control) pulses: Vec<Arc<Pulse>>,
    /// The endpoints of all clusters, with their counters.
    pub(in crate::control) roster: Roster,
    /// Where each worker gets commands.
    pub(in crate::control) commands: Vec<Sender<Command>>,
}

/// What the process is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Phase {
    /// It serves.
    Serving,
    /// It accepts until `drain_delay` is over.
    EndingSoon,
    /// It accepts nothing new.
    Draining,
}

impl Phase {
    /// The word in responses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::EndingSoon => "ending_soon",
            Phase::Draining => "draining",
        }
    }
}
