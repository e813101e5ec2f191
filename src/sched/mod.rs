//! How the tasks of one worker share its time and its memory.
//!
//! A worker is one thread: while a task runs, all others wait. The runtime has a ready queue, first
//! in, first out, but no budget and no priority. This module adds what the tasks of a proxy need to
//! be fair to each other:
//!
//! - [`Yielder`]: a task yields, so that all other ready tasks run before it goes on.
//! - [`Turns`]: one task at a time does long work, and after a budget all other ready tasks run
//!   first. [`BULK_BUDGET`] is that of bulk.
//! - [`Outbox`]: the small messages that flows have read in one turn of the event loop are sent by
//!   one system call.
//! - [`WaitQueue`]: tasks wait for something that they share, first in, first out.
//! - [`StopFlag`]: ends the wait of a task from outside.
//! - [`Memory`]: all connections together keep a bounded number of bytes.
//! - [`spawn_isolated`]: a panic of one task ends that task alone.
//!
//! It knows streams, but no limits, no protocols and no configuration.

mod catch_panic;
mod memory;
mod outbox;
mod stop_flag;
#[cfg(test)]
mod testing;
mod turns;
mod wait_queue;
mod yielder;

pub use catch_panic::{Panicked, begin_panic, catch_panic, not_caught, spawn_isolated};
pub use memory::{BUDGET, Charge, Memory, SMALL};
pub use outbox::{MAX_MESSAGE, Outbox, QueuedSend, ShortSend};
pub use stop_flag::StopFlag;
pub use turns::{BULK_BUDGET, Turn, Turns};
pub use wait_queue::{Ticket, WaitQueue};
pub use yielder::Yielder;
