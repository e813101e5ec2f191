//! Bulk bytes through a proxy, up or down, over a fixed number of connections.
//!
//! A timed run starts its clock after a warm-up: the buffers on the way are full by then, and what
//! goes in during the interval equals what comes out. A counted run is timed until the last byte
//! has arrived. At the end of an upload the sink's own count is compared with what was sent.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde_json::json;

use crate::dial::{STEP_TIMEOUT, Target, dial};
use crate::poller::Poller;
use crate::sink::{BUFFER, discard};
use crate::source::Source;
use crate::{usage, while_doing};

/// A counted run that has not ended by then has failed.
const COUNTED_LIMIT: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
}

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, value_enum)]
    pub(crate) direction: Direction,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
    /// Move this many bytes over each connection instead of running for a time
    #[arg(long, conflicts_with_all = ["seconds", "warmup"])]
    pub(crate) bytes: Option<u64>,
    /// Read what arrives instead of having the kernel drop it
    #[arg(long)]
    pub(crate) copy: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Client to sink
    Up,
    /// Sink to client
    Down,
}

pub(crate) struct Outcome {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: Option<f64>,
    /// Connections whose other end confirmed every byte.
    pub(crate) confirmed: usize,
}

impl Outcome {
    pub(crate) fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }

    pub(crate) fn cpu_seconds_per_gb(&self) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / (self.bytes as f64 / 1e9))
    }
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    let Arguments { target, load } = arguments;
    if let Some(cpu) = target.cpu {
        usage::pin(cpu)?;
    }
    usage::raise_file_limit()?;
    let outcome = run(target, load)?;
    if target.json {
        let object = json!({
            "direction": if load.direction == Direction::Up { "up" } else { "down" },
            "connections": load.connections,
            "bytes": outcome.bytes,
            "seconds": outcome.seconds,
            "gbit_per_s": outcome.gbit_per_s(),
            "confirmed": outcome.confirmed,
            "cpu_seconds": outcome.cpu_seconds,
            "cpu_seconds_per_gb": outcome.cpu_seconds_per_gb(),
        });
        println!("{object}");
        return Ok(());
    }
    let Outcome { bytes, seconds, confirmed, .. } = outcome;
    print!("{:.2} Gbit/s: {bytes} bytes in {seconds:.2} s", outcome.gbit_per_s());
    println!(", {confirmed} of {} connections confirmed", load.connections);
    if let (Some(cpu), Some(per_gb)) = (outcome.cpu_seconds, outcome.cpu_seconds_per_gb()) {
        println!("{cpu:.2} CPU-s, {per_gb:.3} CPU-s/GB");
    }
    Ok(())
}

/// Opens the connections, moves the bytes and waits for the confirmations.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    let mut flow = Flow::open(target, load)?;
    match load.bytes {
        None => {
            flow.move_until(Instant::now() + load.warmup)?;
            let (start, before) = (Instant::now(), flow.moved);
            let cpu = usage::cpu_seconds_of(target.pid)?;
            flow.move_until(start + load.seconds)?;
            let cpu_seconds = cpu_since(target, cpu)?;
            let seconds = start.elapsed().as_secs_f64();
            let bytes = flow.moved - before;
            Ok(Outcome { bytes, seconds, cpu_seconds, confirmed: flow.finish()? })
        }
        Some(_) => {
            let (start, cpu) = (flow.opened, usage::cpu_seconds_of(target.pid)?);
            flow.move_until(start + COUNTED_LIMIT)?;
            if flow.open_lanes > 0 {
                return Err(io::Error::other(format!("{} flows never ended", flow.open_lanes)));
            }
            let bytes = flow.moved;
            let confirmed = flow.finish()?;
            let seconds = start.elapsed().as_secs_f64();
            Ok(Outcome { bytes, seconds, cpu_seconds: cpu_since(target, cpu)?, confirmed })
        }
    }
}

fn cpu_since(target: &Target, before: Option<f64>) -> io::Result<Option<f64>> {
    let after = usage::cpu_seconds_of(target.pid)?;
    Ok(after.zip(before).map(|(after, before)| after - before))
}

struct Flow {
    lanes: Vec<Lane>,
    direction: Direction,
    /// How bytes that arrive are received.
    discard: RecvFlags,
    poller: Poller,
    buffer: Vec<u8>,
    source: Source,
    opened: Instant,
    /// Bytes over all lanes; the sum of `Lane::moved`.
    moved: u64,
    open_lanes: usize,
    timed: bool,
}

struct Lane {
    stream: TcpStream,
    moved: u64,
    /// Bytes still to be moved; out of reach in a timed run.
    left: u64,
}

impl Flow {
    fn open(target: &Target, load: &Load) -> io::Result<Self> {
        let quota = load.bytes.unwrap_or(u64::MAX);
        let (command, wanted) = match load.direction {
            Direction::Up => (b"U".to_vec(), EventFlags::OUT),
            Direction::Down => ([&b"D"[..], &quota.to_be_bytes()].concat(), EventFlags::IN),
        };
        let mut flow = Flow {
            lanes: Vec::new(),
            direction: load.direction,
            discard: discard(load.copy),
            poller: Poller::new()?,
            buffer: vec![0; BUFFER],
            source: Source::new()?,
            opened: Instant::now(),
            moved: 0,
            open_lanes: 0,
            timed: load.bytes.is_none(),
        };
        for key in 0..usize::from(load.connections) {
            let dialled = dial(target, &command)?;
            let early = dialled.early.len() as u64;
            dialled.stream.set_nonblocking(true)?;
            flow.poller.add(&dialled.stream, key, wanted)?;
            flow.lanes.push(Lane { stream: dialled.stream, moved: early, left: quota - early });
            flow.moved += early;
            flow.open_lanes += 1;
        }
        Ok(flow)
    }

    /// Moves bytes until the time is up or no lane has any left.
    fn move_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.open_lanes > 0 && Instant::now() < deadline {
            self.poller.wait(deadline, &mut ready)?;
            for &key in &ready {
                self.turn(key).map_err(|error| {
                    let moved = self.lanes[key].moved;
                    while_doing(format!("connection {key} after {moved} bytes"))(error)
                })?;
            }
        }
        Ok(())
    }

    /// One buffer on one lane.
    fn turn(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        let moved = match self.direction {
            Direction::Up => self.source.send(&lane.stream, lane.left),
            Direction::Down => rustix::net::recv(&lane.stream, &mut self.buffer[..], self.discard)
                .map(|(_, length)| length),
        };
        let moved = match moved {
            Ok(moved) => moved as u64,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if moved > lane.left {
            return Err(io::Error::other("more bytes arrived than were asked for"));
        }
        lane.moved += moved;
        lane.left -= moved;
        self.moved += moved;
        // An upload is over with its last byte, a download with the end of the stream behind it.
        let over = match self.direction {
            Direction::Up => lane.left == 0,
            Direction::Down => moved == 0,
        };
        if over && self.direction == Direction::Down && lane.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if over {
            self.poller.remove(&lane.stream)?;
            self.open_lanes -= 1;
            if self.direction == Direction::Up {
                lane.stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Ends every lane and returns how many of them were confirmed to be complete.
    fn finish(self) -> io::Result<usize> {
        if self.direction == Direction::Down {
            // A timed download is cut off and confirms nothing; a counted one ended by itself.
            return Ok(if self.timed { 0 } else { self.lanes.len() });
        }
        if self.timed {
            for lane in &self.lanes {
                lane.stream.shutdown(Shutdown::Write)?;
            }
        }
        let deadline = Instant::now() + STEP_TIMEOUT;
        let mut confirmed = 0;
        for (key, mut lane) in self.lanes.into_iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            lane.stream.set_nonblocking(false)?;
            lane.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut count = [0; 8];
            // Some proxies close both ways when one way ends: that loses the count, not the run.
            if lane.stream.read_exact(&mut count).is_err() {
                continue;
            }
            let (sent, arrived) = (lane.moved, u64::from_be_bytes(count));
            if sent != arrived {
                let message = format!("connection {key}: {sent} bytes sent, {arrived} arrived");
                return Err(io::Error::other(message));
            }
            confirmed += 1;
        }
        Ok(confirmed)
    }
}
