//! L4: relays every byte of a connection to one cluster.

use super::accepted::{Accepted, relayed};
use crate::config::{Protocol, RelayTimeouts, Tcp};
use crate::observe::outcome::{End, Outcome};
use crate::relay::{self, Flow};
use crate::timers::Limit;

/// Connects, relays and writes the record.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Protocol::Tcp(Tcp { cluster, timeouts }) = &conn.listener.config.protocol else {
            return;
        };
        let outcome = forward(&conn, cluster, *timeouts).await;
        conn.record(conn.start(), &outcome, |record| record.cluster = Some(cluster));
    }
}

#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
fn forward(
    conn: &Accepted,
    cluster: &str,
    timeouts: RelayTimeouts,
) -> impl Future<Output = Outcome> {
    async move {
        // 1. Connect. Boxed, so that the long-lived future of the relay stays small.
        let lease = match Box::pin(conn.connect(cluster)).await {
            Ok(lease) => lease,
            Err(failure) => {
                conn.reset_for(&failure);
                return failure.outcome();
            }
        };

        // 2. Relay bytes.
        let context = &conn.context;
        let mut up = Flow::new(&context.pool, Vec::new());
        up.expect();
        let mut down = Flow::new(&context.pool, Vec::new());
        let watch =
            context.timers.watch(conn.client.socket(), Limit::new(timeouts.idle, End::Idle));
        watch.set_upstream(Some(lease.upstream.socket()));
        watch.keep_alive(conn.listener.keepalive());
        let (client, upstream) = (&conn.client, &lease.upstream);
        let half_closed = timeouts.half_closed;
        let end = relay::run(client, upstream, &mut up, &mut down, &watch, half_closed).await;
        relayed(lease, &up, &down, end)
    }
}
