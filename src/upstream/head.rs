//! Reads the head of a response while its bytes arrive.

use super::{Connection, Failure, Response};
use crate::proto::http::{self, HeadScan, RequestKind, Scan, may_begin_response, parse_response};
use crate::sys::Errno;

/// Bytes that may arrive until the head is complete, interim responses included.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Interim responses (RFC 9110 section 15.2) that are accepted before the final one.
pub(super) const MAX_INTERIM: usize = 16;

impl Connection<'_> {
    /// Reads the final response and drops the interim ones before it. A 101 is final: what follows
    /// it is not HTTP. Whether the upstream may switch protocols is for the caller to check.
    ///
    /// # Errors
    /// No complete head has arrived, or it cannot be accepted.
    pub async fn read_response(&self) -> Result<Response, Failure> {
        let mut heads = Heads::default();
        let mut charge = self.pool.charge();
        loop {
            // The limit may fire before the task can read what has arrived. So the bytes are read
            // in any case: a response that they complete is in time.
            let fired = self.watch.readable(self.transport).await.err();
            self.receive(&mut heads)?;
            if let Some((head, head_length)) = heads.take_final()? {
                let bytes = heads.bytes;
                charge.set(bytes.len());
                return Ok(Response { head, bytes, head_length, _charge: charge });
            }
            if let Some(fired) = fired {
                return Err(Failure::Fired(fired));
            }
            if !charge.try_set(heads.bytes.len()) {
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

/// The bytes of the head that is being received. Complete interim responses are dropped from them.
#[derive(Default)]
pub(super) struct Heads {
    /// Empty lines, the head, and what was read after it.
    pub(super) bytes: Vec<u8>,
    /// The search for the end of the head in `bytes`.
    scan: HeadScan,
    /// All bytes received, those of dropped responses included. At most [`MAX_HEAD`].
    received: usize,
    /// The number of dropped responses.
    interim: usize,
}

impl Heads {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        // `reserve_exact`, because the capacity must be what is counted.
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops complete interim responses. Returns the head of the final response and the head's
    /// length when it is complete; `bytes` then begins with that head.
    pub(super) fn take_final(&mut self) -> Result<Option<(http::Response, usize)>, Failure> {
        loop {
            let (start, end) = match self.scan.advance(&self.bytes) {
                Scan::Complete { start, end } => (start, end),
                Scan::Incomplete if may_begin_response(&self.bytes[self.scan.start()..]) => {
                    return Ok(None);
                }
                // An upstream that speaks another protocol may never end a line, so the first wrong
                // byte decides.
                Scan::Incomplete | Scan::BareLineFeed => return Err(Failure::Malformed),
            };
            let head = parse_response(&self.bytes[start..end], RequestKind::Upgrade);
            let head = head.ok_or(Failure::Malformed)?;
            if !head.is_interim() {
                self.bytes.drain(..start);
                return Ok(Some((head, end - start)));
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Failure::Malformed);
            }
            self.bytes.drain(..end);
            self.scan = HeadScan::default();
        }
    }
}
