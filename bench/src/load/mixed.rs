//! Small round trips while bulk goes through the same proxy: what bulk costs its neighbours.
//!
//! The bulk is moved by a thread of its own at the lowest priority. The CPU of the load then always
//! serves the small messages first, and their latency is the proxy's rather than the load's.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::bulk::{Direction, Flow};
use super::command::{self, Unit};
use super::dial::{STEP_TIMEOUT, Target};
use super::exchange::Exchange;
use super::http::Request;
use super::source::Send;
use super::transfers::Transfers;
use super::{echo, keepalive};
use crate::{usage, while_doing};

/// How often the bulk is counted and asked to stop.
const SLICE: Duration = Duration::from_millis(5);

/// Each small connection sends so often. Sent as fast as they are answered, they would leave the
/// less of the load's CPU to the bulk, the better the proxy is.
const PACE: Duration = Duration::from_millis(10);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Address for the bulk; default: that of the small messages
    #[arg(long, value_name = "ADDR")]
    bulk_connect: Option<SocketAddr>,
    #[command(flatten)]
    load: Load,
}

#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Connections that move bulk, half of them up and half of them down
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) bulk: u16,
    /// Connections that send small messages
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) small: u16,
    /// Bytes of one small message, at most 16 KiB: it must go out in one piece
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) size: u16,
    /// How the bulk is sent up
    #[arg(long, value_enum, default_value_t)]
    pub(crate) send: Send,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

pub(crate) struct Outcome {
    /// The small round trips, with the CPU time of all.
    pub(crate) small: super::Outcome,
    /// What the bulk moved in the same interval; little where the CPU had no time left for it.
    pub(crate) bulk_bytes: u64,
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    let Arguments { target, bulk_connect, load } = arguments;
    command::prepare(target)?;
    let bulk_target = Target { connect: bulk_connect.unwrap_or(target.connect), ..target.clone() };
    let Outcome { small, bulk_bytes } = run(target, &bulk_target, load)?;
    let mut figures = command::figures(&small, Unit::Each("round_trips"));
    figures.push(("bulk_bytes", json!(bulk_bytes)));
    figures.push(("bulk_gbit_per_s", json!(bulk_bytes as f64 * 8.0 / small.seconds / 1e9)));
    command::print(target.json, &figures);
    Ok(())
}

/// Starts the bulk, measures the small round trips beside it, and ends the bulk.
pub(crate) fn run(small: &Target, bulk: &Target, load: &Load) -> io::Result<Outcome> {
    small.must_be_plain()?;
    bulk.must_be_plain()?;
    let open_bulk = || {
        let mut flow = Flow::<TcpStream>::new(load.send, false)?;
        flow.open(bulk, Direction::Up, load.bulk / 2, None)?;
        flow.open(bulk, Direction::Down, load.bulk - load.bulk / 2, None)?;
        Ok(flow)
    };
    beside(small, load, open_bulk, || echo::open(small, load.small, load.size))
}

/// Small requests while large bodies go through the same proxy, half of them up and half of them
/// down.
pub(crate) fn run_requests(
    target: &Target,
    load: &Load,
    small: &Request,
    large: (&str, u64),
) -> io::Result<Outcome> {
    target.must_be_plain()?;
    let (path, size) = large;
    let open_bulk = || {
        let mut transfers = Transfers::<TcpStream>::new(load.send)?;
        transfers.open(target, Direction::Up, load.bulk / 2, path, size)?;
        transfers.open(target, Direction::Down, load.bulk - load.bulk / 2, path, size)?;
        Ok(transfers)
    };
    beside(target, load, open_bulk, || keepalive::open(target, load.small, small))
}

/// What moves bulk.
trait Bulk {
    fn moved(&self) -> u64;
    fn move_until(&mut self, deadline: Instant) -> io::Result<()>;
    fn finish(self) -> io::Result<()>;
}

impl Bulk for Flow<TcpStream> {
    fn moved(&self) -> u64 {
        self.moved
    }

    fn move_until(&mut self, deadline: Instant) -> io::Result<()> {
        self.move_until(deadline)
    }

    fn finish(self) -> io::Result<()> {
        self.finish()
    }
}

impl Bulk for Transfers<TcpStream> {
    fn moved(&self) -> u64 {
        self.moved
    }

    fn move_until(&mut self, deadline: Instant) -> io::Result<()> {
        self.move_until(deadline)
    }

    fn finish(self) -> io::Result<()> {
        self.finish()
    }
}

/// Moves bulk by a thread of its own while the small messages are measured.
fn beside<B: Bulk>(
    target: &Target,
    load: &Load,
    open_bulk: impl FnOnce() -> io::Result<B> + std::marker::Send,
    open_small: impl FnOnce() -> io::Result<Exchange<TcpStream>>,
) -> io::Result<Outcome> {
    let state = &State { stop: AtomicBool::new(false), moved: AtomicU64::new(0) };
    thread::scope(|scope| {
        let (started, start) = mpsc::channel();
        let mover = scope.spawn(move || move_bulk(open_bulk()?, state, &started));
        // An error here means that the mover has ended before it began; it says why below.
        let begun = start.recv();
        let outcome = begun.map_or(Ok(None), |()| {
            open_small().and_then(|small| measure(small, target, load, state)).map(Some)
        });
        state.stop.store(true, Ordering::Relaxed);
        let moved = mover.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
        moved.map_err(while_doing("bulk"))?;
        outcome?.ok_or_else(|| io::Error::other("the bulk never began"))
    })
}

/// What the two threads tell each other.
struct State {
    stop: AtomicBool,
    moved: AtomicU64,
}

fn move_bulk(mut bulk: impl Bulk, state: &State, started: &Sender<()>) -> io::Result<()> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    while bulk.moved() == 0 {
        if Instant::now() > deadline {
            return Err(io::Error::other("not one byte is moved"));
        }
        bulk.move_until(Instant::now() + SLICE)?;
    }
    usage::be_nice(19)?;
    // Nobody listens any more when the other thread has failed; it then also says stop.
    let _ = started.send(());
    while !state.stop.load(Ordering::Relaxed) {
        bulk.move_until(Instant::now() + SLICE)?;
        state.moved.store(bulk.moved(), Ordering::Relaxed);
    }
    bulk.finish()
}

fn measure(
    mut small: Exchange<TcpStream>,
    target: &Target,
    load: &Load,
    state: &State,
) -> io::Result<Outcome> {
    small.pace(PACE);
    small.warm_up(load.warmup)?;
    let before = state.moved.load(Ordering::Relaxed);
    let small = small.measure(target, load.seconds)?;
    let bulk_bytes = state.moved.load(Ordering::Relaxed) - before;
    if bulk_bytes == 0 {
        return Err(io::Error::other("no bulk was moved beside the small messages"));
    }
    Ok(Outcome { small, bulk_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    fn load() -> Load {
        let (seconds, warmup) = (Duration::from_millis(200), Duration::from_millis(200));
        Load { bulk: 4, small: 1, size: 100, send: Send::Copy, seconds, warmup }
    }

    #[test]
    fn both_kinds_of_traffic_are_counted() {
        let (small, bulk) = (testing::sink(false), testing::sink(false));
        // What moves the bulk is nice, and on a busy machine it waits for longer than a short run
        // lasts.
        let lasting = |ms| Load { seconds: Duration::from_millis(ms), ..load() };
        let run = |ms| run(&small, &bulk, &lasting(ms));
        let outcome = run(200).or_else(|_| run(2000)).or_else(|_| run(20_000)).unwrap();
        assert!(outcome.small.units > 0 && outcome.small.latency.is_some());
        assert!(outcome.bulk_bytes > 0);
    }

    #[test]
    fn requests_are_counted_beside_large_bodies() {
        let (backend, small) = (testing::backend(), Request::of("/some/1024", 1024));
        let run = |ms| {
            let load = Load { seconds: Duration::from_millis(ms), ..load() };
            run_requests(&backend, &load, &small, ("/some/1000000", 1_000_000))
        };
        let outcome = run(200).or_else(|_| run(2000)).or_else(|_| run(20_000)).unwrap();
        assert!(outcome.small.units > 0 && outcome.small.latency.is_some());
        assert!(outcome.bulk_bytes > 0);
    }

    #[test]
    fn bulk_without_a_sink_is_an_error_and_ends() {
        let error = run(&testing::sink(false), &testing::unused_address(), &load()).err().unwrap();
        assert!(error.to_string().starts_with("bulk: cannot connect"), "{error}");
    }
}
