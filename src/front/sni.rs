//! TLS: a ClientHello says which cluster the connection goes to, and every byte goes on as it came;
//! or simple-obfs, which only looks like TLS, ends here.

use std::time::{SystemTime, UNIX_EPOCH};

use super::context::{Accepted, describe_failure, describe_relay};
use super::linger::linger;
use crate::config::{Protocol, Tls, TlsRule};
use crate::observe::access_log::{End, Record};
use crate::proto::client_hello::{ClientHello, HelloReader, Progress};
use crate::proto::obfs::{Decoder, Encoder, ObfsHello};
use crate::relay::{Charge, Coding, Flow};
use crate::route;
use crate::sys::{Errno, random_bytes};
use crate::timers::{Fired, OnDrain, Watch};

/// Bytes that are read at once while the hello is not complete.
const READ: usize = 16 * 1024;

/// Serves a connection of a tls listener.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Protocol::Tls(tls) = &conn.listener().protocol else { return };
        let watch = conn.context.timers.watch(&conn.client, tls.hello_timeout);
        watch.on_drain(OnDrain::Grace);
        serve_begun(&conn, tls, &watch, Vec::new()).await;
    }
}

/// Serves a connection from which these bytes were read. The watch runs the limit of the hello.
pub(super) async fn serve_begun(conn: &Accepted, tls: &Tls, watch: &Watch, bytes: Vec<u8>) {
    // 1. The hello. Boxed, as the relay lives much longer.
    let hello = Box::pin(read_hello(conn, watch, bytes)).await;
    let (asked, mut up, mut down) = match hello.and_then(|hello| hello.route(conn, tls)) {
        Ok(routed) => routed,
        Err(refused) => {
            // Not a clean end: whoever waits for an answer is not to take this for one.
            conn.client.reset_on_close();
            return conn.record(conn.start(), |record| {
                record.protocol = "tls";
                record.host = refused.name.as_deref();
                record.end = refused.end;
            });
        }
    };

    // 2. An upstream. The attempts have their own limits.
    let lease = match Box::pin(conn.connect(asked.rule.cluster)).await {
        Ok(lease) => lease,
        Err(failure) => {
            conn.reset_for(&failure);
            return conn.record(conn.start(), |record| {
                asked.describe(conn, record);
                describe_failure(&failure, record);
            });
        }
    };

    // 3. Bytes.
    let end = conn.relay(watch, &lease, &mut up, &mut down, tls.timeouts).await;
    conn.record(conn.start(), |record| {
        asked.describe(conn, record);
        describe_relay(&lease, &up, &down, record);
        record.end = end;
    });

    // 4. What the client sent behind an end that its records told is not read yet.
    if up.is_coded() && matches!(end, End::Client | End::Upstream | End::BadRequest) {
        drop((lease, up, down));
        linger(conn, watch).await;
    }
}

/// Where a connection goes.
struct Asked<'c> {
    rule: &'c TlsRule,
    name: Option<String>,
}

impl Asked<'_> {
    fn describe<'a>(&'a self, conn: &'a Accepted, record: &mut Record<'a>) {
        record.protocol = "tls";
        record.host = self.name.as_deref();
        record.route = Some(&self.rule.name);
        record.cluster = Some(conn.cluster_name(self.rule.cluster));
    }
}

/// Why a connection goes nowhere, and the name it asked for.
struct Refused {
    end: End,
    name: Option<String>,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Refused { end, name: None }
    }
}

/// A complete ClientHello, and everything that was read.
struct Hello {
    reader: HelloReader,
    bytes: Vec<u8>,
}

async fn read_hello(conn: &Accepted, watch: &Watch, bytes: Vec<u8>) -> Result<Hello, Refused> {
    let mut hello = Hello { reader: HelloReader::default(), bytes };
    let mut charge = Charge::new(&conn.context.pool);
    let mut progress = hello.reader.advance(&hello.bytes);
    while progress == Progress::Incomplete {
        // The message is in the reader, too.
        if !charge.try_set(2 * hello.bytes.len()) {
            return Err(Refused::from(End::Overflow));
        }
        if !hello.bytes.is_empty() {
            watch.on_drain(OnDrain::Wait);
        }
        let fired = watch.readable(&conn.client).await.err();
        let mut buffer = conn.context.pool.buffer();
        match conn.client.recv(&mut buffer[..READ.min(conn.context.pool.read_size())]) {
            Ok(0) => return Err(Refused::from(End::Client)),
            Ok(read) => {
                progress = hello.reader.advance(&buffer[..read]);
                hello.bytes.reserve_exact(read);
                hello.bytes.extend_from_slice(&buffer[..read]);
            }
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Refused::from(End::ClientReset)),
        }
        // What arrived as the limit fired is read by now.
        match fired.filter(|_| progress == Progress::Incomplete) {
            None => {}
            Some(Fired::Drained) => return Err(Refused::from(End::Drain)),
            Some(_) => return Err(Refused::from(End::HeadTimeout)),
        }
    }
    watch.on_drain(OnDrain::Wait);
    match progress {
        Progress::Refused => Err(Refused::from(End::BadRequest)),
        Progress::Incomplete | Progress::Complete => Ok(hello),
    }
}

impl Hello {
    /// Where it goes, and the two flows of the relay with what was read in them.
    fn route<'c>(
        mut self,
        conn: &Accepted,
        tls: &'c Tls,
    ) -> Result<(Asked<'c>, Flow, Flow), Refused> {
        let pool = &conn.context.pool;
        let message = self.reader.message();
        // One that cannot be read asks for nobody we know: whoever has every other name may say so.
        let hello = ClientHello::parse(message).unwrap_or_default();
        let name = hello.server_name.map(str::to_owned);
        let obfs = self.reader.whole_record().zip(ObfsHello::parse(message));
        let Some(rule) = route::find_tls(tls, &hello, obfs.is_some()) else {
            return Err(Refused { end: End::NoRoute, name });
        };
        let asked = Asked { rule, name };
        let Some((length, obfs)) = obfs.filter(|_| rule.simple_obfs) else {
            let (up, down) = (Flow::new(pool, self.bytes), Flow::new(pool, Vec::new()));
            return Ok((asked, up, down));
        };
        let mut random = [0; 28];
        random_bytes(&mut random);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // As TLS 1.2 has it (RFC 5246 section 7.4.1.2): 32 bits.
        let encoder = Encoder::new(obfs.session_id, since.as_secs() as u32, &random);
        let mut up = Flow::coded(pool, Coding::FromObfs(Decoder::default()));
        up.push(obfs.payload);
        up.receive(&mut self.bytes[length..]);
        Ok((asked, up, Flow::coded(pool, Coding::ToObfs(encoder))))
    }
}
