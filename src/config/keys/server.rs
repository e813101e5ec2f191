//! `[server]`

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::{Field, Off, Time, Workers};

/// Workers and shutdown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Server {
    /// How many workers run, and on which CPUs. A worker is a thread that is pinned to one CPU.
    /// `"auto"` is one worker for each CPU that this process may use. With a number, workers run on
    /// the first of these CPUs, and start again at the first one if there are more workers than
    /// CPUs. With a list of CPU ids, one worker runs on each.
    #[schemars(
        example = [0, 2, 4],
        extend(
            "default" = "auto", "x-unit" = "workers",
            "x-advice" = "write \"auto\", a number of workers, or a list of CPU ids such as [0, 2]"
        )
    )]
    pub(in crate::config) workers: Field<Workers>,
    /// How workers wait for sockets.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) driver: Field<Driver>,
    /// How long ringgate goes on accepting after SIGTERM, SIGINT or SIGQUIT, so that load balancers
    /// see that it ends before it refuses. Meanwhile HTTP/1.1 responses say `connection: close`,
    /// HTTP/2 connections get a GOAWAY, and connections between two requests end. `drain_timeout`
    /// begins when this time is over. A second signal ends it at once.
    #[schemars(example = "10s", extend("default" = "off"))]
    pub(in crate::config) drain_delay: Field<Off>,
    /// How long open connections may continue after SIGTERM, SIGINT or SIGQUIT, and after
    /// `drain_delay`. Nothing new is accepted meanwhile. A further signal ends them at once.
    #[schemars(example = "30s", extend("default" = "30s"))]
    pub(in crate::config) drain_timeout: Field<Time>,
}

/// How workers wait for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring, or epoll if the kernel refuses io_uring.
    Auto,
    /// io_uring only. ringgate does not start if the kernel refuses it.
    IoUring,
    /// epoll.
    Epoll,
}
