//! One open log file as the workers see it. All workers share it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::super::log_file::{Counts, Message};

/// Where records go: the queue of a file's thread. The file is closed when the last reference is
/// dropped and everything is written.
pub struct Sink {
    pub(super) queue: SyncSender<Message>,
    pub(super) counts: Arc<Counts>,
}
