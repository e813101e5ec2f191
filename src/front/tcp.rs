//! L4: relays every byte of a connection to one cluster.

use super::accepted::{Accepted, describe_failure, describe_relay};
use crate::config::{Protocol, Tcp};
use crate::relay::{self, Flow};

/// Connects, relays and writes the record.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Protocol::Tcp(Tcp { cluster, timeouts }) = &conn.listener.config.protocol else {
            return;
        };

        // 1. Connect. Boxed, so that the long-lived future of the relay stays small.
        let lease = match Box::pin(conn.connect(cluster)).await {
            Ok(lease) => lease,
            Err(failure) => {
                conn.reset_for(&failure);
                return conn.record(conn.start(), |record| {
                    record.cluster = Some(cluster);
                    describe_failure(&failure, record);
                });
            }
        };

        // 2. Relay bytes.
        let context = &conn.context;
        let mut up = Flow::new(&context.pool, Vec::new());
        up.expect();
        let mut down = Flow::new(&context.pool, Vec::new());
        let watch = context.timers.watch(&conn.client, timeouts.idle);
        watch.set_upstream(Some(&lease.stream));
        watch.keep_alive(conn.listener.keepalive());
        let (client, upstream) = (&conn.client, &lease.stream);
        let half_closed = timeouts.half_closed;
        let end = relay::run(client, upstream, &mut up, &mut down, &watch, half_closed).await;

        // 3. Write the record.
        conn.record(conn.start(), |record| {
            record.cluster = Some(cluster);
            describe_relay(&lease, &up, &down, record);
            record.end = end;
        });
    }
}
