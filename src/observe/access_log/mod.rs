//! The access log: one line for each connection, request and tunnel, error paths included.
//!
//! When a connection, request or tunnel ends, the worker fills in a [`Record`] and passes it to the
//! [`Lane`] of its listener. The lane formats it into a batch and hands batches over through the
//! bounded queue of a [`Sink`]. This needs no lock, no wait and no system call except the wake-up
//! of a sleeping writer. The [`Writer`] owns the files and one thread for each file, so an unread
//! pipe stops neither the workers nor the other files. Records that cannot be written in time are
//! dropped and counted.

mod combined;
mod field;
mod format;
mod record;
mod recorder;
mod sink;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use super::log_file::Target;
pub use format::{Format, TemplateError};
pub use record::{Record, Tls};
pub use recorder::{Lane, Recorder};
pub use sink::Sink;
pub use value::Clock;
pub use writer::{Kept, Losses, Opening, Reopener, Writer};
