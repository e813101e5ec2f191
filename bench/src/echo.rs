//! Small round trips: every connection sends a message, waits until all of it is back, and goes on.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde_json::json;

use crate::dial::{Target, dial};
use crate::histogram::Histogram;
use crate::poller::Poller;
use crate::{usage, while_doing};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
}

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// Bytes of one message, at most 16 KiB: it must go out in one piece
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) size: u16,
    /// Length of the timed interval
    #[arg(long, default_value = "5", value_parser = crate::parse_seconds)]
    pub(crate) seconds: Duration,
    /// Seconds of load before the timed interval
    #[arg(long, default_value = "0.5", value_parser = crate::parse_seconds)]
    pub(crate) warmup: Duration,
}

pub(crate) struct Outcome {
    pub(crate) round_trips: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) latency: Histogram,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.round_trips as f64 / self.seconds
    }

    pub(crate) fn cpu_seconds_per_million(&self) -> Option<f64> {
        self.cpu_seconds.map(|cpu| cpu / (self.round_trips as f64 / 1e6))
    }
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    let Arguments { target, load } = arguments;
    if let Some(cpu) = target.cpu {
        usage::pin(cpu)?;
    }
    usage::raise_file_limit()?;
    let outcome = run(target, load)?;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| outcome.latency.quantile_us(share));
    if target.json {
        let object = json!({
            "connections": load.connections,
            "size": load.size,
            "round_trips": outcome.round_trips,
            "seconds": outcome.seconds,
            "per_second": outcome.per_second(),
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "cpu_seconds": outcome.cpu_seconds,
            "cpu_seconds_per_million": outcome.cpu_seconds_per_million(),
        });
        println!("{object}");
        return Ok(());
    }
    let count = outcome.round_trips;
    println!("{:.0} round trips/s: {count} in {:.2} s", outcome.per_second(), outcome.seconds);
    println!("p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us");
    if let Some(per_million) = outcome.cpu_seconds_per_million() {
        println!("{per_million:.2} CPU-s per million");
    }
    Ok(())
}

/// Opens the connections and keeps one message in flight on each of them.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    let mut exchange = Exchange::open(target, load)?;
    exchange.run_until(Instant::now() + load.warmup)?;
    exchange.round_trips = 0;
    exchange.latency = Histogram::new();
    let start = Instant::now();
    let before = usage::cpu_seconds_of(target.pid)?;
    exchange.run_until(start + load.seconds)?;
    let after = usage::cpu_seconds_of(target.pid)?;
    let seconds = start.elapsed().as_secs_f64();
    if exchange.round_trips == 0 {
        return Err(io::Error::other("no message came back"));
    }
    Ok(Outcome {
        round_trips: exchange.round_trips,
        seconds,
        cpu_seconds: after.zip(before).map(|(after, before)| after - before),
        latency: exchange.latency,
    })
}

struct Exchange {
    lanes: Vec<Lane>,
    poller: Poller,
    message: Vec<u8>,
    buffer: Vec<u8>,
    round_trips: u64,
    latency: Histogram,
}

struct Lane {
    stream: TcpStream,
    sent_at: Instant,
    /// Bytes of the message in flight that are back already.
    back: usize,
}

impl Exchange {
    fn open(target: &Target, load: &Load) -> io::Result<Self> {
        let size = usize::from(load.size);
        let mut exchange = Self {
            lanes: Vec::new(),
            poller: Poller::new()?,
            message: vec![0x5a; size],
            buffer: vec![0; size],
            round_trips: 0,
            latency: Histogram::new(),
        };
        for key in 0..usize::from(load.connections) {
            let stream = dial(target, b"E")?.stream;
            stream.set_nonblocking(true)?;
            exchange.poller.add(&stream, key, EventFlags::IN)?;
            exchange.lanes.push(Lane { stream, sent_at: Instant::now(), back: 0 });
            exchange.send(key)?;
        }
        Ok(exchange)
    }

    fn run_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Vec::new();
        while Instant::now() < deadline {
            self.poller.wait(deadline, &mut ready)?;
            for &key in &ready {
                self.receive(key).map_err(while_doing(format!("connection {key}")))?;
            }
        }
        Ok(())
    }

    fn send(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        lane.sent_at = Instant::now();
        lane.back = 0;
        let sent = rustix::net::send(&lane.stream, &self.message, SendFlags::NOSIGNAL)?;
        // The socket buffer is empty whenever a message goes out, so it takes the whole message.
        if sent < self.message.len() {
            return Err(io::Error::other("the socket took only a part of a message"));
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let lane = &mut self.lanes[key];
        match rustix::net::recv(&lane.stream, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, length)) => lane.back += length,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if lane.back < self.message.len() {
            return Ok(());
        }
        self.latency.record(lane.sent_at.elapsed());
        self.round_trips += 1;
        self.send(key)
    }
}
