//! The access log: one line for each connection, request and tunnel, error paths included.
//!
//! A worker fills in a [`Record`] when something ends and gives it to its own [`Recorder`], which
//! formats it into a batch and hands batches over a bounded queue: no lock, no wait, no system call
//! but the wake-up of a sleeping writer. The [`Writer`] owns the files and one thread for each of
//! them, so a pipe nobody reads stops neither the workers nor the other files. What cannot be
//! written in time is dropped and counted.

mod field;
mod format;
mod record;
mod recorder;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use super::outlet::Target;
pub use format::{Format, TemplateError};
pub use record::{End, Record, Relay};
pub use recorder::Recorder;
pub use value::Clock;
pub use writer::Writer;
