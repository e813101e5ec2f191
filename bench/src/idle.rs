//! Connections that do nothing, and what they cost the process that holds them.
//!
//! Memory is what the kernel counts as the process's own (anonymous pages in RAM); socket buffers
//! are the kernel's and not in it. A connection that has carried a byte and then rests is the
//! honest case: whatever was taken for that byte should be given back.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::dial::{Target, dial, head_end};
use crate::{usage, while_doing};

/// How long the proxy may take to accept everything and to come to rest.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// At rest is a process whose memory and descriptors have not changed for this long.
const REST: Duration = Duration::from_millis(600);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
}

#[derive(Args, Clone)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    pub(crate) connections: u16,
    /// What each connection does once before it rests
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) touch: Touch,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Touch {
    /// Nothing: it is opened and that is all
    None,
    /// Sends one byte to the sink and waits until it is back
    Echo,
    /// Sends one GET request and reads the head of the answer
    Http,
}

pub(crate) struct Outcome {
    pub(crate) connections: u16,
    /// Bytes of anonymous memory, in all.
    pub(crate) anonymous: i64,
    /// Bytes of private dirty memory, in all; unknown where it may not be read.
    pub(crate) private_dirty: Option<i64>,
    pub(crate) descriptors: i64,
}

impl Outcome {
    pub(crate) fn anonymous_per_connection(&self) -> f64 {
        self.anonymous as f64 / f64::from(self.connections)
    }

    pub(crate) fn private_dirty_per_connection(&self) -> Option<f64> {
        self.private_dirty.map(|bytes| bytes as f64 / f64::from(self.connections))
    }

    pub(crate) fn descriptors_per_connection(&self) -> f64 {
        self.descriptors as f64 / f64::from(self.connections)
    }
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    let Arguments { target, load } = arguments;
    let Some(pid) = target.pid else {
        return Err(io::Error::other("idle needs --pid, the process to be weighed"));
    };
    if let Some(cpu) = target.cpu {
        usage::pin(cpu)?;
    }
    usage::raise_file_limit()?;
    let outcome = run(target, load, pid)?;
    let (anonymous, dirty) =
        (outcome.anonymous_per_connection(), outcome.private_dirty_per_connection());
    let descriptors = outcome.descriptors_per_connection();
    if target.json {
        let object = json!({
            "connections": outcome.connections,
            "rss_anon_bytes_per_connection": anonymous,
            "private_dirty_bytes_per_connection": dirty,
            "descriptors_per_connection": descriptors,
        });
        println!("{object}");
        return Ok(());
    }
    let dirty = dirty.map_or("unknown".to_string(), |bytes| format!("{bytes:.0} B"));
    println!(
        "{} connections: {anonymous:.0} B anonymous, {dirty} private dirty and \
         {descriptors:.2} descriptors each",
        outcome.connections
    );
    Ok(())
}

/// Opens the connections one after the other and compares the process before and after.
pub(crate) fn run(target: &Target, load: &Load, pid: u32) -> io::Result<Outcome> {
    // An earlier run's connections must be gone, or they would be subtracted from this one's.
    let before = at_rest(pid, 0)?;
    let mut held = Vec::with_capacity(load.connections.into());
    for number in 0..load.connections {
        let stream = open(target, load.touch)
            .map_err(while_doing(format!("connection {number} of {}", load.connections)))?;
        held.push(stream);
    }
    let after = at_rest(pid, before.descriptors + i64::from(load.connections))?;
    drop(held);
    Ok(Outcome {
        connections: load.connections,
        anonymous: after.anonymous - before.anonymous,
        private_dirty: after.private_dirty.zip(before.private_dirty).map(|(a, b)| a - b),
        descriptors: after.descriptors - before.descriptors,
    })
}

fn open(target: &Target, touch: Touch) -> io::Result<TcpStream> {
    let command = match touch {
        Touch::None => &b""[..],
        Touch::Echo => b"E.",
        Touch::Http => b"GET / HTTP/1.1\r\nHost: live.example.com\r\n\r\n",
    };
    let mut stream = dial(target, command)?.stream;
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
    stream.flush()?;
    Ok(stream)
}

#[derive(PartialEq, Eq)]
struct Weight {
    anonymous: i64,
    private_dirty: Option<i64>,
    descriptors: i64,
}

impl Weight {
    fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            anonymous: usage::anonymous_memory(pid)? as i64,
            private_dirty: usage::private_dirty(pid).map(|bytes| bytes as i64),
            descriptors: usage::descriptors(pid)? as i64,
        })
    }
}

/// Waits until the process holds at least that many descriptors and nothing changes any more.
fn at_rest(pid: u32, descriptors: i64) -> io::Result<Weight> {
    let mut last = Weight::of(pid)?;
    let mut since = Instant::now();
    let rests = usage::wait_until(SETTLE_LIMIT, || {
        let now = Weight::of(pid)?;
        if now != last {
            since = Instant::now();
            last = now;
        }
        Ok(last.descriptors >= descriptors && since.elapsed() >= REST)
    })?;
    if rests {
        return Ok(last);
    }
    let message = format!(
        "process {pid} holds {} descriptors and was to hold at least {descriptors} at rest",
        last.descriptors
    );
    Err(io::Error::other(message))
}
