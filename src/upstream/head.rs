//! Reads the head of a response while its bytes arrive.

use std::time::Instant;

use super::{Connection, Failure, Response};
use crate::proto::http::{self, HeadScan, RequestKind, Scan, may_begin_response, parse_response};
use crate::sched::Charge;
use crate::sys::Errno;

/// Bytes that may arrive until the head is complete, interim responses included.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Interim responses (RFC 9110 section 15.2) that are accepted before the final one.
pub(super) const MAX_INTERIM: usize = 16;

impl Connection<'_> {
    /// Reads the final response to an upgrade and drops the interim ones before it. A 101 is final:
    /// what follows it is not HTTP. Whether the upstream may switch protocols is for the caller to
    /// check.
    ///
    /// # Errors
    /// No complete head has arrived, or it cannot be accepted.
    pub async fn read_response(&self) -> Result<Response, Failure> {
        let mut heads = Heads::new(self.pool.charge(), RequestKind::Upgrade);
        loop {
            let (head, length) = self.read_head(&mut heads).await?;
            if !head.is_interim() {
                return Ok(heads.into_response(head, length));
            }
            heads.drop_head(length);
        }
    }

    /// Reads the next head, which may be an interim one, and returns it with its length. `heads`
    /// then begins with its bytes.
    ///
    /// # Errors
    /// No complete head has arrived, or it cannot be accepted.
    pub async fn read_head(&self, heads: &mut Heads) -> Result<(http::Response, usize), Failure> {
        // What was read with the head before it may have the whole next one.
        if let Some(found) = heads.next()? {
            return Ok(found);
        }
        loop {
            // The limit may fire before the task can read what has arrived. So the bytes are read
            // in any case: a response that they complete is in time.
            let fired = self.watch.readable(self.transport).await.err();
            self.receive(heads)?;
            if let Some(found) = heads.next()? {
                heads.charge.set(heads.bytes.len());
                return Ok(found);
            }
            if let Some(fired) = fired {
                return Err(Failure::Fired(fired));
            }
            if !heads.charge.try_set(heads.bytes.len()) {
                return Err(Failure::BudgetSpent);
            }
        }
    }

    /// Reads once, if there is anything to read.
    fn receive(&self, heads: &mut Heads) -> Result<(), Failure> {
        let mut buffer = self.pool.buffer();
        let left = MAX_HEAD - heads.received;
        match self.transport.recv(&mut buffer[..left.min(self.pool.read_size())]) {
            // The buffer was empty: this is not the end of the stream, but a head that is too long.
            Ok(0) if left == 0 => Err(Failure::HeadTooLarge),
            Ok(0) if self.write_failed.get() => Err(Failure::Reset),
            Ok(0) => Err(Failure::Closed),
            Ok(read) => {
                heads.push(&buffer[..read]);
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(_) => Err(Failure::Reset),
        }
    }
}

/// The bytes of the head that is being received, and of what was read after it.
pub struct Heads {
    kind: RequestKind,
    /// Empty lines, the head, and what was read after it.
    pub(super) bytes: Vec<u8>,
    /// Counts `bytes`.
    charge: Charge,
    /// The search for the end of the head in `bytes`.
    scan: HeadScan,
    /// All bytes received, those of dropped responses included. At most [`MAX_HEAD`].
    received: usize,
    /// The number of interim responses that were dropped.
    interim: usize,
    /// When the first byte has arrived.
    begun: Option<Instant>,
}

impl Heads {
    /// Makes the bytes of a connection from which nothing was read since its request of this kind.
    pub fn new(charge: Charge, kind: RequestKind) -> Heads {
        Heads {
            kind,
            bytes: Vec::new(),
            charge,
            scan: HeadScan::default(),
            received: 0,
            interim: 0,
            begun: None,
        }
    }

    /// When the first byte has arrived.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The bytes from the head on that was found last.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.begun.get_or_insert_with(Instant::now);
        self.received += bytes.len();
        // `reserve_exact`, because the capacity must be what is counted.
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next head and its length when it is complete; `bytes` then begins with it.
    pub(super) fn next(&mut self) -> Result<Option<(http::Response, usize)>, Failure> {
        let (start, end) = match self.scan.advance(&self.bytes) {
            Scan::Complete { start, end } => (start, end),
            Scan::Incomplete if may_begin_response(&self.bytes[self.scan.start()..]) => {
                return Ok(None);
            }
            // An upstream that speaks another protocol may never end a line, so the first wrong
            // byte decides.
            Scan::Incomplete | Scan::BareLineFeed => return Err(Failure::Malformed),
        };
        let head = parse_response(&self.bytes[start..end], self.kind).ok_or(Failure::Malformed)?;
        if head.is_interim() && self.interim == MAX_INTERIM {
            return Err(Failure::Malformed);
        }
        self.bytes.drain(..start);
        Ok(Some((head, end - start)))
    }

    /// Drops the bytes, of which no more are needed.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
        self.charge.set(0);
    }

    /// Drops the interim response that was found last, so that the next one can be found.
    pub fn drop_head(&mut self, length: usize) {
        self.interim += 1;
        self.bytes.drain(..length);
        self.scan = HeadScan::default();
    }

    /// The final response, of which this head was found.
    pub fn into_response(self, head: http::Response, head_length: usize) -> Response {
        Response { head, bytes: self.bytes, head_length, _charge: self.charge }
    }
}
