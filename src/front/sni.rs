//! TLS: the ClientHello selects a rule. Where TLS does not end here, every byte is passed on
//! unchanged. Also simple-obfs, which only looks like TLS and ends here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::accepted::{Accepted, relayed};
use super::challenges::PROTOCOL;
use super::linger::linger;
use crate::cluster::Lease;
use crate::config::{RelayTimeouts, Tls, TlsAction, TlsEnd, TlsRule};
use crate::observe::access_log::{self, Record};
use crate::observe::live::{Activity, Protocol};
use crate::observe::outcome::{End, Outcome};
use crate::proto::client_hello::{ClientHello, HelloReader, Progress};
use crate::proto::codec::Stack;
use crate::proto::obfs::{Decoder, Encoder, ObfsHello};
use crate::proto::tls::Server;
use crate::relay::Flow;
use crate::route;
use crate::sys::{Errno, random_bytes};
use crate::timers::{Limit, OnDrain, Watch};

/// The most bytes that are read at once while the hello is not complete.
const READ: usize = 16 * 1024;

/// Serves a connection of a tls listener.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(mut conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let limit = match conn.listener.present().as_ref().and_then(|service| service.tls()) {
            Some(tls) => Limit::new(tls.hello_timeout, End::HeadTimeout),
            None => return conn.end_unserved("tls"),
        };
        let watch = conn.watch(limit);
        watch.on_drain(OnDrain::Grace);
        watch.join_group(conn.listener.group());
        serve_begun(&mut conn, &watch, Vec::new()).await;
    }
}

/// Serves a connection from which `bytes` were read. The watch runs the limit of the hello. Returns
/// true if TLS ends here and the connection goes on with the routes of its listener.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve_begun(
    conn: &mut Accepted,
    watch: &Watch,
    bytes: Vec<u8>,
) -> impl Future<Output = bool> {
    async move {
        // 1. Do everything that comes before the relay. Boxed, because the relay lives much longer.
        let Connected { asked, lease, mut flows, timeouts } =
            match Box::pin(begin(conn, watch, bytes)).await {
                Begun::Connected(connected) => connected,
                Begun::Routes => return true,
                Begun::Over => return false,
            };

        // 2. Relay bytes.
        let end = conn.relay(watch, &lease, &mut flows.0, &mut flows.1, timeouts).await;
        let outcome = relayed(conn, watch, lease, (&flows.0, &flows.1), end);
        conn.record(conn.start(), &outcome, |record| asked.describe(record));

        // 3. After simple-obfs some bytes of the client may be unread, and after a failed session
        // its alert may be on the way. They must not cause a reset, nor be lost by one.
        let is_coded = flows.0.is_coded();
        drop((outcome, flows));
        if is_coded && matches!(end, End::Client | End::Upstream | End::BadRequest) {
            Box::pin(linger(conn, watch)).await;
        } else {
            Box::pin(conn.linger_after_alert(watch)).await;
        }
        false
    }
}

/// What follows the hello.
enum Begun {
    /// A relay to the cluster of the rule.
    Connected(Connected),
    /// TLS ends here, and the routes of the listener serve what is in it.
    Routes,
    /// Nothing.
    Over,
}

/// A connection that can be relayed.
struct Connected {
    asked: Asked,
    lease: Lease,
    /// Boxed, so that the future of a connection holds them once.
    flows: Box<(Flow, Flow)>,
    timeouts: RelayTimeouts,
}

/// Reads the hello, makes the handshake where TLS ends here, and connects where the rule has a
/// cluster.
async fn begin(conn: &mut Accepted, watch: &Watch, bytes: Vec<u8>) -> Begun {
    conn.speaks(Protocol::Tls);

    // 1. Read the hello. The rules are those of the moment when it is complete.
    let hello = read_hello(conn, watch, bytes).await;
    // A reload may have removed the listener a while ago, or its rules.
    let Some(service) = conn.listener.service() else {
        let refused = hello.err().unwrap_or(Refused::from(End::Drain));
        refuse(conn, watch, refused, false).await;
        return Begun::Over;
    };
    let Some(tls) = service.tls() else {
        let refused = hello.err().unwrap_or(Refused::from(End::NoRoute));
        refuse(conn, watch, refused, false).await;
        return Begun::Over;
    };
    let timeouts = tls.timeouts;
    let routed = match hello.and_then(|hello| hello.route(conn, tls)) {
        Ok(routed) => routed,
        Err(refused) => {
            let ends_tls = !service.servers.is_empty();
            drop(service);
            refuse(conn, watch, refused, ends_tls).await;
            return Begun::Over;
        }
    };

    // 2. Begin what the rule says.
    let (asked, flows) = match routed {
        Routed::PassOn(asked, flows) => (asked, flows),
        Routed::Challenge(server, name, bytes) => {
            super::tls::answer_challenge(conn, watch, &server, &name, bytes).await;
            return Begun::Over;
        }
        Routed::End(asked, end, bytes) => {
            if !super::tls::accept(conn, &service, watch, &asked, &end, bytes).await {
                return Begun::Over;
            }
            // From now on the session has it.
            let asked = Asked { name: None, ..asked };
            let pool = &conn.context.pool;
            let flows = || Flow::new(pool, Vec::new());
            (asked, Box::new((flows(), flows())))
        }
    };

    // 3. Connect. The attempts have their own limits.
    let Some(cluster) = asked.rule.action.cluster() else { return Begun::Routes };
    let cluster = Rc::clone(service.cluster(cluster));
    drop(service);
    match conn.connect(&cluster).await {
        Ok(lease) => {
            let activity = match &asked.rule.action {
                TlsAction::PassOn { .. } => Activity::Sni,
                TlsAction::Obfs { .. } => Activity::Obfs,
                TlsAction::End(_) => Activity::Tls,
            };
            conn.reaches(activity, &cluster, &lease);
            Begun::Connected(Connected { asked, lease, flows, timeouts })
        }
        Err(failure) => {
            conn.reset_for(&failure);
            let outcome = failure.outcome();
            conn.record(conn.start(), &outcome, |record| asked.describe(record));
            Begun::Over
        }
    }
}

/// Records a connection that has no rule, and ends it. `ends_tls` is true if another rule ends TLS.
async fn refuse(conn: &Accepted, watch: &Watch, refused: Refused, ends_tls: bool) {
    let is_unrecognized = refused.end == End::NoRoute && ends_tls;
    conn.record(conn.start(), &Outcome::new(refused.end), |record| {
        record.protocol = "tls";
        record.host = refused.name.as_deref();
        record.tls = is_unrecognized.then(|| access_log::Tls {
            server_name: refused.name.as_deref(),
            error: Some("unrecognized_name"),
            ..access_log::Tls::default()
        });
    });
    if is_unrecognized {
        return super::tls::send_unrecognized_name(conn, watch).await;
    }
    // A reset, because the client must not take a clean end for a response.
    conn.client.reset_on_close();
}

/// The rule and the name of a connection.
pub(super) struct Asked {
    rule: Arc<TlsRule>,
    pub(super) name: Option<String>,
}

impl Asked {
    pub(super) fn describe<'a>(&'a self, record: &mut Record<'a>) {
        record.protocol = "tls";
        let ended = record.tls.as_ref().and_then(|tls| tls.server_name);
        record.host = self.name.as_deref().or(ended);
        record.route = Some(&self.rule.name);
        record.cluster = self.rule.action.cluster().map(|name| &**name);
    }
}

/// What a rule does with a connection.
enum Routed {
    /// The bytes go to the cluster of the rule, through two flows that begin with what was read.
    PassOn(Asked, Box<(Flow, Flow)>),
    /// The handshake is a challenge of a certificate authority, and nothing follows it.
    Challenge(Server, String, Vec<u8>),
    /// TLS ends here. The bytes that were read go to the session.
    End(Asked, Arc<TlsEnd>, Vec<u8>),
}

/// Why a connection has no route, and the name that it asked for.
struct Refused {
    end: End,
    name: Option<String>,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Refused { end, name: None }
    }
}

/// A complete ClientHello, and all bytes that were read.
struct Hello {
    reader: HelloReader,
    bytes: Vec<u8>,
}

async fn read_hello(conn: &Accepted, watch: &Watch, bytes: Vec<u8>) -> Result<Hello, Refused> {
    let mut hello = Hello { reader: HelloReader::default(), bytes };
    let mut charge = conn.context.pool.charge();
    let mut progress = hello.reader.advance(&hello.bytes);
    while progress == Progress::Incomplete {
        // Twice, because the reader holds a copy of the message.
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
        // By now the bytes that arrived as the limit fired are read.
        if let Some(fired) = fired
            && progress == Progress::Incomplete
        {
            return Err(Refused::from(fired.end()));
        }
    }
    watch.on_drain(OnDrain::Wait);
    match progress {
        Progress::Refused => Err(Refused::from(End::BadRequest)),
        Progress::Incomplete | Progress::Complete => Ok(hello),
    }
}

impl Hello {
    /// Finds the rule, and prepares what it does.
    fn route(mut self, conn: &Accepted, tls: &Tls) -> Result<Routed, Refused> {
        let pool = &conn.context.pool;
        let message = self.reader.message();
        // A hello that cannot be parsed counts as one without a name and without protocols.
        let hello = ClientHello::parse(message).unwrap_or_default();
        let name = hello.server_name.map(str::to_owned);
        if let Some(name) = &name
            && hello.offers(PROTOCOL)
            && let Some(server) = conn.context.challenges.borrow().server(name)
        {
            return Ok(Routed::Challenge(server.clone(), name.clone(), self.bytes));
        }
        let obfs = self.reader.whole_record().zip(ObfsHello::parse(message));
        let Some(rule) = route::find_tls(tls, &hello, obfs.is_some()) else {
            return Err(Refused { end: End::NoRoute, name });
        };
        let asked = Asked { rule: Arc::clone(rule), name };
        if let TlsAction::End(end) = &rule.action {
            return Ok(Routed::End(asked, Arc::clone(end), self.bytes));
        }
        // Real TLS: everything that was read goes to the upstream unchanged.
        let is_obfs = matches!(rule.action, TlsAction::Obfs { .. });
        let Some((length, obfs)) = obfs.filter(|_| is_obfs) else {
            let (up, down) = (Flow::new(pool, self.bytes), Flow::new(pool, Vec::new()));
            return Ok(Routed::PassOn(asked, Box::new((up, down))));
        };
        let mut random = [0; 28];
        random_bytes(&mut random);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The time has 32 bits, as in TLS 1.2 (RFC 5246 section 7.4.1.2).
        let encoder = Encoder::new(obfs.session_id, since.as_secs() as u32, &random);
        let mut up = Flow::coded(pool, Stack::new(Decoder::default()));
        up.push(obfs.payload);
        up.receive(&mut self.bytes[length..]);
        let down = Flow::coded(pool, Stack::new(encoder));
        Ok(Routed::PassOn(asked, Box::new((up, down))))
    }
}
