//! Connections that do nothing, and what they cost the process that holds them.
//!
//! Memory is what the kernel counts as the process's own; socket buffers are the kernel's and not
//! in it. A connection that has carried a byte and then rests is the honest case: whatever was
//! taken for that byte should be given back. The last weight is that after all have been closed.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::command::{self, Figures};
use super::dial::{Target, dial_by, head_end};
use super::wire::Wire;
use super::{http, tls};
use crate::{usage, while_doing};

/// How long the proxy may take to accept everything and to come to rest.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to let go of what was closed; what it still holds then, it keeps.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// At rest is a process whose memory and descriptors have not changed for this long.
const REST: Duration = Duration::from_millis(600);
/// Descriptors that this process needs for other things than the connections.
const SPARE_DESCRIPTORS: u64 = 100;

#[derive(Args, Clone)]
pub(crate) struct Load {
    /// What each connection does once before it rests
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) touch: Touch,
    /// Numbers of connections at which the process is weighed, in rising order
    #[arg(long, value_delimiter = ',', default_value = "0,2000")]
    pub(crate) steps: Vec<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Touch {
    /// Nothing: it is opened and that is all
    None,
    /// Sends one byte to the sink and waits until it is back
    Echo,
    /// Sends one GET request and reads the head of the answer
    Http,
}

impl Touch {
    /// Descriptors that a proxy must hold for each connection, at the least.
    fn descriptors(self) -> u64 {
        match self {
            Self::None | Self::Http => 1,
            Self::Echo => 2,
        }
    }
}

/// What the process weighed at rest with so many connections open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Weight {
    pub(crate) connections: u16,
    /// There had been connections, and they had been closed.
    pub(crate) closed: bool,
    /// Bytes of anonymous memory in RAM.
    pub(crate) anonymous: u64,
    /// Bytes of private dirty memory; unknown where it may not be read.
    pub(crate) private_dirty: Option<u64>,
    /// Bytes of all memory in RAM.
    pub(crate) rss: u64,
    pub(crate) descriptors: u64,
}

impl Weight {
    fn of(pid: u32, connections: u16, closed: bool) -> io::Result<Self> {
        Ok(Self {
            connections,
            closed,
            anonymous: usage::anonymous_memory(pid)?,
            private_dirty: usage::private_dirty(pid),
            rss: usage::resident_memory(pid)?,
            descriptors: usage::descriptors(pid)? as u64,
        })
    }

    fn figures(&self) -> Figures {
        vec![
            ("connections", json!(self.connections)),
            ("closed", json!(self.closed)),
            ("anonymous", json!(self.anonymous)),
            ("private_dirty", json!(self.private_dirty)),
            ("rss", json!(self.rss)),
            ("descriptors", json!(self.descriptors)),
        ]
    }
}

pub(crate) fn main(arguments: &command::Arguments<Load>) -> io::Result<()> {
    let command::Arguments { target, load } = arguments;
    let [pid] = target.pids[..] else {
        return Err(io::Error::other("idle needs one --pid, the process to be weighed"));
    };
    command::prepare(target)?;
    let figures: Vec<Figures> = run(target, pid, load)?.iter().map(Weight::figures).collect();
    if target.json {
        let weights: Vec<_> = figures.iter().map(command::object).collect();
        command::print(true, &vec![("weights", json!(weights))]);
    } else {
        figures.iter().for_each(|weight| command::print(false, weight));
    }
    Ok(())
}

/// Opens connections up to each step in turn and weighs the process at each, and once more after
/// all have been closed.
pub(crate) fn run(target: &Target, pid: u32, load: &Load) -> io::Result<Vec<Weight>> {
    match target.tls {
        None => run_over::<TcpStream>(target, pid, load),
        Some(_) => run_over::<tls::Stream>(target, pid, load),
    }
}

fn run_over<W: Wire>(target: &Target, pid: u32, load: &Load) -> io::Result<Vec<Weight>> {
    let most = usize::from(load.steps.last().copied().unwrap_or_default());
    if !load.steps.is_sorted() {
        return Err(io::Error::other("the steps must rise"));
    }
    check_file_limit(most as u64)?;

    // An earlier run's connections must be gone, or they would be subtracted from this one's.
    let base = at_rest(pid, 0, false, SETTLE_LIMIT, |_| true)?.descriptors;
    let mut weights = Vec::new();
    let mut held = Vec::with_capacity(most);
    let dialler = W::dialler(target)?;
    for &step in &load.steps {
        while held.len() < usize::from(step) {
            let doing = while_doing(format!("connection {} of {most}", held.len()));
            held.push(open::<W>(&dialler, target, load.touch).map_err(doing)?);
        }
        let wanted = base + u64::from(step) * load.touch.descriptors();
        let weight = at_rest(pid, step, false, SETTLE_LIMIT, |held| held >= wanted)?;
        if weight.descriptors < wanted {
            let message = format!(
                "process {pid} holds {} descriptors with {step} connections and was to hold at \
                 least {wanted}",
                weight.descriptors
            );
            return Err(io::Error::other(message));
        }
        weights.push(weight);
    }
    drop(held);
    weights.push(at_rest(pid, 0, true, CLOSE_LIMIT, |held| held <= base)?);
    Ok(weights)
}

/// The connections need descriptors here, and as many again when the sink is here, too.
fn check_file_limit(connections: u64) -> io::Result<()> {
    let needed = 2 * connections + SPARE_DESCRIPTORS;
    let limit = usage::raise_file_limit()?;
    if needed > limit {
        let message = format!(
            "{connections} idle connections need {needed} descriptors here, for both of their \
             ends; the hard limit is {limit} (ulimit -Hn)"
        );
        return Err(io::Error::other(message));
    }
    Ok(())
}

fn open<W: Wire>(dialler: &W::Dialler, target: &Target, touch: Touch) -> io::Result<W> {
    let command = match touch {
        Touch::None => Vec::new(),
        Touch::Echo => b"E.".to_vec(),
        Touch::Http => http::Request::redirect().bytes(&target.host, false),
    };
    let mut stream = dial_by::<W>(dialler, target, &command)?.stream;
    match touch {
        Touch::None => {}
        Touch::Echo => stream.read_exact(&mut [0])?,
        Touch::Http => {
            let mut answer = [0; 4096];
            let length = stream.read(&mut answer)?;
            if head_end(&answer[..length]).is_none() {
                return Err(io::Error::other("no answer to a plain request"));
            }
        }
    }
    Ok(stream)
}

/// Waits until the process holds as many descriptors as it should and nothing changes any more.
/// What it weighs when the time is up is for the caller to judge.
fn at_rest(
    pid: u32,
    connections: u16,
    closed: bool,
    limit: Duration,
    enough: impl Fn(u64) -> bool,
) -> io::Result<Weight> {
    let mut last = Weight::of(pid, connections, closed)?;
    let mut since = Instant::now();
    usage::wait_until(limit, || {
        let now = Weight::of(pid, connections, closed)?;
        if now != last {
            since = Instant::now();
            last = now;
        }
        Ok(enough(last.descriptors) && since.elapsed() >= REST)
    })?;
    Ok(last)
}
