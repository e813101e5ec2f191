//! The part of a flow that decodes or encodes its bytes on the way.
//!
//! Bytes are coded where they were read, in the worker's buffer. A coded flow is copied and never
//! spliced, because the proxy must see its bytes.

use std::ops::Range;
use std::rc::Rc;

use super::Flow;
use super::control::Control;
use crate::proto::codec::{Codec, Stack, State};
use crate::relay::pool::{BUFFER_SIZE, Pool};
use crate::sched::Charge;

/// The codecs and control frames of a coded flow.
pub(super) struct Coded {
    pub(super) codecs: Stack,
    /// `None` if the protocol has no control frames.
    pub(super) control: Option<Control>,
    /// Bytes of the source that are behind the end of what was decoded.
    behind: Vec<u8>,
    /// Counts `behind`.
    charge: Charge,
}

impl Flow {
    /// Makes a flow that codes its bytes.
    pub fn coded(pool: &Rc<Pool>, codecs: Stack) -> Flow {
        Flow::with_control(pool, codecs, None)
    }

    pub(super) fn with_control(pool: &Rc<Pool>, codecs: Stack, control: Option<Control>) -> Flow {
        let mut flow = Flow::new(pool, Vec::new());
        let (behind, charge) = (Vec::new(), pool.charge());
        flow.coded = Some(Box::new(Coded { codecs, control, behind, charge }));
        flow
    }

    /// Returns true when this flow codes its bytes.
    pub fn is_coded(&self) -> bool {
        self.coded.is_some()
    }

    /// Returns true when the source has broken the protocol that this flow decodes. The flow has
    /// ended at that point.
    pub fn has_protocol_error(&self) -> bool {
        self.coded.as_ref().is_some_and(|coded| coded.codecs.state() == State::Broken)
    }

    /// Codes bytes that were read from the source elsewhere. They are changed in place, so the
    /// codecs must need no headroom.
    pub fn receive(&mut self, bytes: &mut [u8]) {
        debug_assert_eq!(self.headroom(), 0);
        let range = self.code(bytes, 0..bytes.len());
        self.push(&bytes[range]);
    }

    /// The same for bytes that must stay as they are, and codecs that may need headroom.
    pub fn begin_with(&mut self, bytes: &[u8]) {
        let Some(coded) = &self.coded else { return self.push(bytes) };
        let headroom = coded.codecs.headroom(bytes.len());
        let mut buffer = vec![0; headroom + bytes.len()];
        buffer[headroom..].copy_from_slice(bytes);
        let range = self.code(&mut buffer, headroom..headroom + bytes.len());
        self.push(&buffer[range]);
    }

    /// Returns true when what the flow decodes has ended by its own rules, before or with the
    /// source.
    pub fn is_complete(&self) -> bool {
        self.coded.as_ref().is_some_and(|coded| coded.codecs.state() == State::Ended)
    }

    /// Returns true when the payload exceeds the limit of a codec. It is then a protocol error,
    /// too.
    pub fn is_too_long(&self) -> bool {
        self.coded.as_ref().is_some_and(|coded| coded.codecs.is_too_long())
    }

    /// Takes the bytes of the source that are behind the end of what was decoded. From now on the
    /// caller counts them.
    pub fn take_behind(&mut self) -> Vec<u8> {
        let Some(coded) = &mut self.coded else { return Vec::new() };
        coded.charge.set(0);
        std::mem::take(&mut coded.behind)
    }

    /// Appends the bytes that complete the output when the source has ended.
    pub(super) fn push_last_bytes(&mut self) {
        if let Some(coded) = &mut self.coded {
            let last = coded.codecs.finish();
            self.push(last);
        }
    }

    /// Bytes to leave free in the worker's buffer before those that are read.
    pub(super) fn headroom(&self) -> usize {
        self.coded.as_ref().map_or(0, |coded| coded.codecs.headroom(BUFFER_SIZE))
    }

    /// Codes the bytes that were read into the buffer at `input`. Returns the range that is to be
    /// written.
    pub(super) fn code(&mut self, buffer: &mut [u8], input: Range<usize>) -> Range<usize> {
        let Some(coded) = &mut self.coded else { return input };
        let end = input.end;
        let output = coded.codecs.code(buffer, input);
        if coded.codecs.state() != State::Open {
            self.ended = true;
            coded.behind.extend_from_slice(&buffer[end - coded.codecs.unused()..end]);
            coded.charge.set(coded.behind.len());
        }
        output
    }
}
