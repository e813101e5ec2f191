//! Open connections: what the workers say of them, and the end of one.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::replies::{Reply, error, json};
use super::view::View;
use crate::timers::{Order, Shown};
use crate::worker::{Command, Listed, Place, Question};

/// Connections that are shown if the request does not say how many.
const DEFAULT_LIMIT: usize = 100;
/// The most that a request may ask for.
const MAX_LIMIT: usize = 10_000;
/// How long workers may take for their answers. They read commands once a tick.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a question waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// How many connections may be closed at once.
const MOST_ENDS: usize = 16;
const BUSY: &str = "too many ask for this at once: try again later";
/// The time between two looks whether they have answered.
const CHECK: Duration = Duration::from_millis(5);

/// What `GET /connections` shows.
#[derive(Serialize)]
struct Connections {
    /// How many are open, shown or not.
    total: usize,
    /// Workers that have not answered in time.
    silent_workers: Vec<usize>,
    connections: Vec<Connection>,
}

/// One open connection.
#[derive(Serialize)]
struct Connection {
    id: String,
    worker: usize,
    listener: String,
    client: Option<String>,
    protocol: &'static str,
    kind: Option<&'static str>,
    cluster: Option<String>,
    endpoint: Option<String>,
    age_seconds: f64,
    idle_seconds: Option<f64>,
    bytes_up: u64,
    bytes_down: u64,
}

/// What a request asks for.
struct Asked {
    limit: usize,
    order: Order,
}

/// Limits what is asked of the workers at once: for an answer they look at each connection, and do
/// nothing else meanwhile.
pub(super) struct Questions {
    lists: Arc<Semaphore>,
    ends: Arc<Semaphore>,
}

impl Questions {
    pub(super) fn new() -> Questions {
        Questions { lists: Arc::new(Semaphore::new(1)), ends: Arc::new(Semaphore::new(MOST_ENDS)) }
    }
}

/// Waits until a further question may be asked. `None` if that takes too long.
async fn place(of: &Arc<Semaphore>) -> Option<Place> {
    let place = timeout(TURN, Arc::clone(of).acquire_owned()).await.ok()?.ok()?;
    Some(Arc::new(place))
}

/// Lists open connections.
pub(super) async fn list(view: &View, query: Option<&str>, questions: &Questions) -> Reply {
    let Asked { limit, order } = match Asked::of(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let Some(place) = place(&questions.lists).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, BUSY);
    };
    let (answer, answers) = channel();
    let question = Question::List { limit, order, answer, place };
    for worker in &view.facts.commands {
        // An error means that the worker has ended.
        let _ = worker.send(Command::Connections(question.clone()));
    }
    drop(question);
    let workers = view.facts.commands.len();
    let listed = answers_of(workers, answers).await;
    let silent_workers = (0..workers)
        .filter(|index| !listed.iter().any(|one: &Listed| one.worker == *index))
        .collect();
    let total = listed.iter().map(|one| one.total).sum();
    let mut all: Vec<(usize, Shown)> = listed
        .into_iter()
        .flat_map(|one| one.connections.into_iter().map(move |shown| (one.worker, shown)))
        .collect();
    match order {
        Order::Bytes => all.sort_by_key(|(_, one)| u64::MAX - one.bytes.iter().sum::<u64>()),
        Order::Newest => all.sort_by_key(|(_, one)| one.age),
        Order::Oldest => all.sort_by_key(|(_, one)| Duration::MAX - one.age),
    }
    all.truncate(limit);
    let connections = all.into_iter().map(|(worker, shown)| Connection::of(worker, shown));
    let shown = Connections { total, silent_workers, connections: connections.collect() };
    json(StatusCode::OK, &shown)
}

/// Closes the connection with this id.
pub(super) async fn close(view: &View, id: Id, questions: &Questions) -> Reply {
    const GONE: &str = "there is no such connection any more";
    let Id { process, worker, number } = id;
    let commands = view.facts.commands.get(worker).filter(|_| process == std::process::id());
    let Some(commands) = commands else {
        return error(StatusCode::NOT_FOUND, GONE);
    };
    let Some(place) = place(&questions.ends).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, BUSY);
    };
    let (answer, answers) = channel();
    // An error means that the worker has ended.
    let _ = commands.send(Command::Connections(Question::Close { number, answer, place }));
    match answers_of(1, answers).await.first() {
        Some(true) => {
            let id = id.to_string();
            tracing::info!(id, "a connection is closed by the admin endpoint");
            json(StatusCode::OK, &json!({ "result": "closed" }))
        }
        Some(false) => error(StatusCode::NOT_FOUND, GONE),
        None => error(StatusCode::GATEWAY_TIMEOUT, "the worker does not answer"),
    }
}

/// Which connection: of this process, of this worker, with this number there. A successor has
/// other ids, so that an id of before a take-over names no connection of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    process: u32,
    worker: usize,
    number: u64,
}

impl Id {
    /// Reads `PROCESS-WORKER-NUMBER`.
    pub(super) fn parse(text: &str) -> Option<Id> {
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
        let [process, worker, number] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        if ![process, worker, number].into_iter().all(is_number) {
            return None;
        }
        Some(Id {
            process: process.parse().ok()?,
            worker: worker.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.process, self.worker, self.number)
    }
}

/// Waits for this many answers, for [`PATIENCE`] at most.
async fn answers_of<T>(count: usize, answers: Receiver<T>) -> Vec<T> {
    let begun = Instant::now();
    let mut all = Vec::new();
    loop {
        all.extend(answers.try_iter());
        if all.len() >= count || begun.elapsed() >= PATIENCE {
            return all;
        }
        sleep(CHECK).await;
    }
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    fn of(query: &str) -> Result<Asked, String> {
        let mut asked = Asked { limit: DEFAULT_LIMIT, order: Order::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("limit", value) => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    asked.limit = limit.ok_or("`limit` is a number from 1 to 10000")?;
                }
                ("sort", "bytes") => asked.order = Order::Bytes,
                ("sort", "newest") => asked.order = Order::Newest,
                ("sort", "oldest") => asked.order = Order::Oldest,
                ("sort", _) => return Err("`sort` is bytes, newest or oldest".to_owned()),
                _ => return Err("the query may have `limit` and `sort`".to_owned()),
            }
        }
        Ok(asked)
    }
}

impl Connection {
    fn of(worker: usize, shown: Shown) -> Connection {
        let Shown { number, listener, client, protocol, activity, reached, .. } = shown;
        let (cluster, endpoint) = reached.unzip();
        Connection {
            id: Id { process: std::process::id(), worker, number }.to_string(),
            worker,
            listener,
            client: client.map(|client| client.to_string()),
            protocol,
            kind: activity,
            cluster,
            endpoint: endpoint.map(|endpoint| endpoint.to_string()),
            age_seconds: tenths(shown.age),
            idle_seconds: shown.idle.map(tenths),
            bytes_up: shown.bytes[0],
            bytes_down: shown.bytes[1],
        }
    }
}

/// Seconds, as precise as they are known.
fn tenths(time: Duration) -> f64 {
    (time.as_millis() / 100) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_process_a_worker_and_a_number() {
        let id = Id { process: 7, worker: 0, number: 1 << 40 };
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        for wrong in ["", "-", "1-2", "1-2-", "-1-2", "+1-2-3", "1-2-+3", "1-2-3-4", "a-b-c"] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused() {
        let limit = |query| Asked::of(query).map(|asked| asked.limit);
        assert_eq!(limit(""), Ok(100));
        assert_eq!(limit("limit=5&sort=newest"), Ok(5));
        for wrong in ["limit=0", "limit=10001", "limit=x", "limit", "sort=size", "other=1"] {
            assert!(Asked::of(wrong).is_err(), "{wrong}");
        }
    }
}
