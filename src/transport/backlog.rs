//! Bytes of a stream that wait. An idle stream has none, and then a backlog is one pointer.

/// Bytes that wait, in order.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<Waiting>>);

struct Waiting {
    bytes: Vec<u8>,
    /// Bytes at the start that are gone already.
    taken: usize,
}

impl Backlog {
    /// Makes a backlog of these bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Backlog {
        Backlog((!bytes.is_empty()).then(|| Box::new(Waiting { bytes, taken: 0 })))
    }

    /// The bytes that wait.
    pub(super) fn waiting(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |waiting| &waiting.bytes[waiting.taken..])
    }

    /// Returns true if none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of memory, those included that are gone already.
    pub(super) fn kept(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes.len())
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Some(waiting) => waiting.bytes.extend_from_slice(bytes),
            None => *self = Backlog::new(bytes.to_vec()),
        }
    }

    /// Puts bytes in front of those that wait.
    pub(super) fn push_first(&mut self, bytes: Vec<u8>) {
        match &mut self.0 {
            Some(waiting) => {
                waiting.bytes.splice(..waiting.taken, bytes);
                waiting.taken = 0;
            }
            None => *self = Backlog::new(bytes),
        }
    }

    /// Removes the first bytes. The memory is released with the last one.
    pub(super) fn take(&mut self, count: usize) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.taken += count;
        if waiting.taken >= waiting.bytes.len() {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut backlog = Backlog::default();
        backlog.push(b"");
        assert!(backlog.is_empty());
        backlog.push(b"abc");
        backlog.take(1);
        backlog.push(b"de");
        assert_eq!((backlog.waiting(), backlog.kept()), (&b"bcde"[..], 5));
        backlog.push_first(b"xy".to_vec());
        assert_eq!(backlog.waiting(), b"xybcde");
        backlog.take(6);
        assert!(backlog.is_empty() && backlog.kept() == 0);
        backlog.push_first(b"z".to_vec());
        assert_eq!(backlog.waiting(), b"z");
    }
}
