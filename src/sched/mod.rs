//! How the tasks of one worker share its time.
//!
//! A worker is one thread: while a task runs, all others wait. The runtime has a ready queue, first
//! in, first out, but no budget and no priority. This module adds what the tasks of a proxy need to
//! be fair to each other:
//!
//! - [`Yielder`]: a task yields, so that all other ready tasks run before it goes on.
//! - [`Bulk`]: one flow at a time moves bulk, and after [`BULK_BUDGET`] bytes all other ready tasks
//!   run first.
//! - [`Outbox`]: the small messages that flows have read in one turn of the event loop are sent by
//!   one system call.
//! - [`WaitQueue`]: tasks wait for something that they share, first in, first out.
//!
//! It knows streams, but no limits, no protocols and no configuration.

mod bulk;
mod outbox;
#[cfg(test)]
mod testing;
mod wait_queue;
mod yielder;

pub use bulk::{BULK_BUDGET, Bulk, BulkTurn};
pub use outbox::{MAX_MESSAGE, Outbox, QueuedSend, ShortSend};
pub use wait_queue::{Ticket, WaitQueue};
pub use yielder::Yielder;
