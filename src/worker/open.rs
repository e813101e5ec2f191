//! What a worker says of its open connections, and the end of one of them.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::front::Context;
use crate::timers::{Order, Shown};

/// A question about open connections. Each worker that gets one answers once.
#[derive(Clone)]
pub enum Question {
    /// Which are open?
    List {
        /// The most that each worker lists.
        limit: usize,
        /// Which of them if there are more.
        order: Order,
        /// Gets the answer.
        answer: Sender<Listed>,
        /// See [`Place`].
        place: Place,
    },
    /// Close the one with this number.
    Close {
        /// See [`Shown::number`].
        number: u64,
        /// Gets false if it has ended.
        answer: Sender<bool>,
        /// See [`Place`].
        place: Place,
    },
}

/// Limits how many questions wait for workers: dropped when the last of them has answered, also if
/// the client does not wait for it.
pub type Place = Arc<dyn Any + Send + Sync>;

/// Open connections of one worker.
pub struct Listed {
    /// The index of the worker.
    pub worker: usize,
    /// The first ones in the order that was asked for.
    pub connections: Vec<Shown>,
    /// How many there are.
    pub total: usize,
}

/// Answers a question. It looks at every connection of the worker once.
pub(super) fn answer(question: Question, context: &Context) {
    let timers = &context.timers;
    // An error means that the client has gone.
    match question {
        Question::List { limit, order, answer, place } => {
            let (connections, total) = timers.open_connections(limit, order);
            let _ = answer.send(Listed { worker: context.index(), connections, total });
            drop(place);
        }
        Question::Close { number, answer, place } => {
            let _ = answer.send(timers.close_connection(number));
            drop(place);
        }
    }
}
