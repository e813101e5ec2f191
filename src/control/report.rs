//! Reports of what the workers could not serve, and of panics, once a second.

use std::sync::Arc;

use super::panics;
use crate::front::{Layout, Report, Shortage};
use crate::sys::{self, Errno};

/// Reports all of it.
pub(super) fn of(layout: &Layout, counts: &Shortage) {
    shortage(layout, counts);
    refused(layout);
    panics::report_rest();
}

/// Reports what the workers could not serve for lack of descriptors or local ports.
fn shortage(layout: &Layout, counts: &Shortage) {
    let mut accept_failed = None;
    for listener in &layout.listeners {
        if let Some(errno) = listener.admission.take_accept_error() {
            accept_failed = Some((Arc::clone(&listener.config.name), errno));
        }
    }
    let Some(report) = counts.report(accept_failed) else { return };
    let Report { waiting, reset, answered, dropped, connect_error, accept_failed } = report;
    let file_limit = sys::file_limit();
    if accept_failed.is_none() && connect_error.is_none() && reset + answered + dropped == 0 {
        tracing::warn!(
            waiting,
            file_limit,
            "the limit of open files is reached: new connections wait in the backlog until others \
             end. Raise the limit (LimitNOFILE= in a systemd unit, `ulimit -n NUMBER` in a shell)"
        );
        return;
    }
    // connect(2) fails with these errors if no local port is left: EAGAIN is that of UDP.
    let no_ports = [Some(Errno::ADDRNOTAVAIL), Some(Errno::AGAIN)].contains(&connect_error);
    if no_ports && accept_failed.is_none() {
        tracing::warn!(
            waiting,
            reset,
            answered,
            dropped,
            connect_error = connect_error.map(tracing::field::display),
            "no local ports are left for upstreams: clients are reset, get a 502 (answered) or \
             lose a datagram (dropped). Widen net.ipv4.ip_local_port_range or add endpoints (TCP)"
        );
        return;
    }
    let (listener, error) = accept_failed.unzip();
    let error = error.map(tracing::field::display);
    tracing::warn!(
        waiting,
        reset,
        answered,
        dropped,
        listener = listener.as_deref(),
        error,
        connect_error = connect_error.map(tracing::field::display),
        file_limit,
        "no descriptors are left: clients wait in the backlog, or are reset, get a 502 (answered) \
         or lose a datagram (dropped), because there is no socket to their upstream. Raise the \
         limit of open files (LimitNOFILE= in a systemd unit, `ulimit -n NUMBER` in a shell)"
    );
}

/// Reports the connections beyond the limits of their listeners.
fn refused(layout: &Layout) {
    for listener in &layout.listeners {
        let (config, reset) = (&listener.config, listener.admission.take_refused());
        if reset > 0 {
            tracing::warn!(
                listener = %config.name,
                max_connections = config.max_connections,
                reset,
                "connections beyond max_connections were reset"
            );
        }
    }
}
