//! L4: relays every byte of a connection to one cluster.

use std::rc::Rc;

use super::accepted::{Accepted, relayed};
use crate::cluster::Cluster;
use crate::config::RelayTimeouts;
use crate::observe::live::Activity;
use crate::observe::outcome::End;
use crate::relay::{self, Flow};
use crate::timers::Limit;

/// Connects, relays and writes the record.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(
    conn: Accepted,
    cluster: Rc<Cluster>,
    timeouts: RelayTimeouts,
) -> impl Future<Output = ()> {
    async move {
        // 1. Connect. Boxed, so that the long-lived future of the relay stays small.
        let lease = match Box::pin(conn.connect(&cluster)).await {
            Ok(lease) => lease,
            Err(failure) => {
                conn.reset_for(&failure);
                let (outcome, name) = (failure.outcome(), cluster.name());
                return conn.record(conn.start(), &outcome, |record| record.cluster = Some(name));
            }
        };

        // 2. Relay bytes.
        let context = &conn.context;
        let mut up = Flow::new(&context.pool, Vec::new());
        up.read_without_wait();
        let mut down = Flow::new(&context.pool, Vec::new());
        let limit = Limit::new(timeouts.idle, End::Idle);
        let watch = conn.watch(limit);
        watch.set_upstream(Some(lease.upstream.socket()));
        watch.set_tcp_keepalive(conn.listener.tcp_keepalive());
        let (client, upstream) = (&conn.client, &lease.upstream);
        let half_closed = timeouts.half_closed;
        conn.reaches(Activity::Relay, &cluster, &lease);
        let tunnel = conn.listener.counters.tunnels.guard();
        let end = relay::run(client, upstream, &mut up, &mut down, &watch, half_closed).await;
        drop(tunnel);

        // 3. Write the record.
        let outcome = relayed(&conn, &watch, lease, (&up, &down), end);
        conn.record(conn.start(), &outcome, |record| record.cluster = Some(cluster.name()));
    }
}
