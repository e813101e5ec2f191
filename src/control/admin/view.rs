//! What the endpoint shows: facts about the process, and the configuration of the moment.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::control::endpoint_counters::EndpointCounters;
use crate::observe::counters::Cells;
use crate::worker::{Pulse, Running};

/// What there is to show. A reload, a drain and a take-over replace it.
#[derive(Clone)]
pub(in crate::control) struct View {
    pub(in crate::control) facts: Arc<Facts>,
    pub(in crate::control) config: Arc<Config>,
    /// The counters of all listeners, by name. Also those of listeners that
    /// the configuration does not have any more, while connections use them.
    pub(in crate::control) listeners: Vec<(Arc<str>, Cells)>,
    pub(in crate::control) phase: Phase,
    /// How many reloads have changed the configuration since the start.
    pub(in crate::control) reloads: u64,
    /// When the configuration of the moment was taken into use.
    pub(in crate::control) since: SystemTime,
}

/// What does not change while the process runs.
pub(in crate::control) struct Facts {
    pub(in crate::control) begun: Instant,
    pub(in crate::control) file_limit: u64,
    pub(in crate::control) running: Running,
    /// Of each worker.
    pub(in crate::control) pulses: Vec<Arc<Pulse>>,
    /// The counters of all clusters and their endpoints.
    pub(in crate::control) endpoints: EndpointCounters,
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
