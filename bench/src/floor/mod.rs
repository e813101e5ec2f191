//! The bare floor: the least that a TCP proxy can do, which real ones are compared with.
//!
//! One thread, one epoll, splice both ways (or recv and send, with `--copy`), half-closes passed
//! on, and nothing else: no timers, no logs, no configuration. Every socket is registered once,
//! edge-triggered, and never again; what epoll said is remembered until a call says otherwise.
//! Pipes belong to nobody: a connection keeps one only while bytes are stuck in it, so that the
//! same few pipes serve all and stay in the cache.

mod mover;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use socket2::{Domain, SockRef, Socket, Type};

use crate::load::poller::{Poller, Ready};
use crate::{sink, usage};
use mover::{Held, Mover, Taken};

const LISTENER: usize = usize::MAX;
/// How often the floor looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Rounds of one direction before the other connections have their turn: fewer of them seemed to
/// cost more per byte, more of them let small messages wait for longer.
const ROUNDS: usize = 8;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Address to listen on
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Address that every connection is passed on to
    #[arg(long, value_name = "ADDR")]
    connect: SocketAddr,
    /// Copy through one buffer instead of splicing
    #[arg(long)]
    copy: bool,
    /// CPU that the floor runs on
    #[arg(long)]
    cpu: Option<usize>,
    /// The floor ends by itself after this many seconds
    #[arg(long, default_value = "3600", value_parser = crate::parse_seconds)]
    seconds: Duration,
}

pub(crate) fn main(arguments: &Arguments) -> io::Result<()> {
    if let Some(cpu) = arguments.cpu {
        usage::pin(cpu)?;
    }
    usage::raise_file_limit()?;
    let listener = sink::listen(arguments.listen)?;
    println!("floor listening on {}", listener.local_addr()?);
    let deadline = Instant::now() + arguments.seconds;
    serve_until(listener, arguments.connect, arguments.copy, deadline, &AtomicBool::new(false))
}

/// Passes every connection of the listener on, until the deadline or until somebody says `stop`.
pub(crate) fn serve_until(
    listener: TcpListener,
    connect: SocketAddr,
    copy: bool,
    deadline: Instant,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut floor = Floor {
        listener,
        connect,
        poller: Poller::new()?,
        pairs: Vec::new(),
        free: Vec::new(),
        freed: Vec::new(),
        queue: Vec::new(),
        mover: Mover::new(copy),
    };
    floor.poller.add(&floor.listener, LISTENER, EventFlags::IN)?;
    let mut ready = Ready::new();
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        floor.turn(&mut ready)?;
    }
    Ok(())
}

struct Floor {
    listener: TcpListener,
    connect: SocketAddr,
    poller: Poller,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Keys that others may have from the next turn on: this one may still speak of the old owner.
    freed: Vec<usize>,
    /// Pairs that have something to do, each of them once.
    queue: Vec<usize>,
    mover: Mover,
}

/// A client and its server; the way `n` leads from side `n` to the other.
struct Pair {
    sides: [Side; 2],
    ways: [Way; 2],
    queued: bool,
}

struct Side {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    /// It will send nothing more; that may be behind bytes that are still to be read.
    ended: bool,
}

#[derive(Default)]
struct Way {
    held: Held,
    over: bool,
}

/// How a pair stands after its turn.
#[derive(PartialEq, Eq)]
enum State {
    Waits,
    CanGoOn,
    Over,
}

impl Floor {
    fn turn(&mut self, ready: &mut Ready) -> io::Result<()> {
        let limit = if self.queue.is_empty() { STOP_INTERVAL } else { Duration::ZERO };
        self.poller.wait_for(limit, ready)?;
        for &(key, flags) in ready.iter() {
            if key == LISTENER {
                self.accept()?;
            } else {
                self.note(key / 2, key % 2, flags);
            }
        }
        // Those that could go on are behind these, and come next time.
        let now = self.queue.len();
        for position in 0..now {
            self.pump(self.queue[position]);
        }
        self.queue.drain(..now);
        self.free.append(&mut self.freed);
        Ok(())
    }

    /// Remembers what epoll says of one side.
    fn note(&mut self, index: usize, side: usize, flags: EventFlags) {
        let Some(pair) = &mut self.pairs[index] else { return };
        if flags.contains(EventFlags::ERR) {
            self.close(index);
            return;
        }
        let side = &mut pair.sides[side];
        side.ended |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        side.readable |= side.ended || flags.contains(EventFlags::IN);
        side.writable |= flags.contains(EventFlags::OUT);
        if !pair.queued {
            pair.queued = true;
            self.queue.push(index);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let client = match rustix::net::accept_with(&self.listener, flags) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return Ok(()),
                // The client went away while it waited in the backlog.
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            SockRef::from(&client).set_tcp_nodelay(true)?;
            // Without a server the client sees its connection closed.
            let Ok(server) = connect(self.connect) else { continue };
            let index = self.free.pop().unwrap_or_else(|| {
                self.pairs.push(None);
                self.pairs.len() - 1
            });
            let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            self.poller.add(&client, 2 * index, wanted)?;
            self.poller.add(&server, 2 * index + 1, wanted)?;
            let sides = [client, server].map(|socket| Side {
                socket,
                readable: false,
                writable: false,
                ended: false,
            });
            self.pairs[index] = Some(Pair { sides, ways: Default::default(), queued: false });
        }
    }

    fn pump(&mut self, index: usize) {
        let Some(pair) = &mut self.pairs[index] else { return };
        pair.queued = false;
        match pair.pump(&mut self.mover) {
            Ok(State::Waits) => {}
            Ok(State::CanGoOn) => {
                pair.queued = true;
                self.queue.push(index);
            }
            // What goes wrong on one connection ends that connection alone.
            Ok(State::Over) | Err(_) => self.close(index),
        }
    }

    /// Closing the sockets also takes them out of epoll.
    fn close(&mut self, index: usize) {
        if self.pairs[index].take().is_some() {
            self.freed.push(index);
        }
    }
}

impl Pair {
    fn pump(&mut self, mover: &mut Mover) -> Result<State, Errno> {
        let mut can_go_on = false;
        for way in 0..2 {
            let [client, server] = &mut self.sides;
            let (from, to) = if way == 0 { (client, server) } else { (server, client) };
            can_go_on |= self.ways[way].pump(from, to, mover)?;
        }
        Ok(if self.ways[0].over && self.ways[1].over {
            State::Over
        } else if can_go_on {
            State::CanGoOn
        } else {
            State::Waits
        })
    }
}

impl Way {
    /// Moves until one of the two sides has to be waited for; true when it stopped before that.
    fn pump(&mut self, from: &mut Side, to: &mut Side, mover: &mut Mover) -> Result<bool, Errno> {
        for _ in 0..ROUNDS {
            if self.over || !to.writable {
                return Ok(false);
            }
            let mut held = std::mem::take(&mut self.held);
            if matches!(held, Held::Nothing) {
                if !from.readable {
                    return Ok(false);
                }
                held = match mover.take(&from.socket)? {
                    Taken::Some(held) => held,
                    Taken::All(held) => {
                        // Of the end that has been seen already epoll does not speak again.
                        from.readable = from.ended;
                        held
                    }
                    Taken::Nothing => {
                        from.readable = false;
                        return Ok(false);
                    }
                    Taken::End => {
                        self.over = true;
                        rustix::net::shutdown(&to.socket, Shutdown::Write)?;
                        return Ok(false);
                    }
                };
            }
            self.held = mover.give(held, &to.socket)?;
            // Not everything was taken: the other side is full, until epoll says otherwise.
            to.writable = matches!(self.held, Held::Nothing);
        }
        Ok(true)
    }
}

fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::bulk::{self, Direction};
    use crate::load::dial::{Target, dial};
    use crate::load::source::Send;
    use crate::load::{churn, echo, testing};
    use std::io::{Read, Write};

    fn start(copy: bool) -> Target {
        let listener = sink::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let target = testing::target(listener.local_addr().unwrap(), None);
        let (sink, deadline) = (testing::sink(false), Instant::now() + Duration::from_secs(60));
        std::thread::spawn(move || {
            serve_until(listener, sink.connect, copy, deadline, &AtomicBool::new(false))
        });
        target
    }

    fn counted(direction: Direction, send: Send) -> bulk::Load {
        let (seconds, warmup) = (Duration::ZERO, Duration::ZERO);
        let bytes = Some(5_000_001);
        bulk::Load { direction, connections: 4, seconds, warmup, bytes, send, copy: true }
    }

    #[test]
    fn bulk_arrives_to_the_last_byte_both_ways() {
        for copy in [false, true] {
            let target = start(copy);
            for direction in [Direction::Up, Direction::Down] {
                for send in [Send::Copy, Send::File, Send::Pages] {
                    let outcome = bulk::run(&target, &counted(direction, send)).unwrap();
                    assert_eq!(outcome.units, 20_000_004);
                }
            }
        }
    }

    #[test]
    fn small_messages_and_short_connections_pass() {
        for copy in [false, true] {
            let target = start(copy);
            let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
            let load = echo::Load { connections: 8, size: 300, seconds, warmup };
            assert!(echo::run(&target, &load).unwrap().units > 10);
            let kind = churn::Kind::Echo { size: 300 };
            let load = churn::Load { connections: 8, kind, seconds, warmup };
            assert!(churn::run(&target, &load).unwrap().units > 10);
        }
    }

    #[test]
    fn bytes_that_are_stuck_come_through_in_order() {
        for copy in [false, true] {
            let mut stream = dial(&start(copy), b"E").unwrap().stream;
            let pattern: Vec<u8> = (0..251 * 400u32).map(|number| (number % 251) as u8).collect();
            // Nobody reads for now: everything on the way fills up, until nothing more goes in.
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut sent = Vec::new();
            while let Ok(length) = stream.write(&pattern[sent.len() % 251..]) {
                sent.extend_from_slice(&pattern[sent.len() % 251..][..length]);
            }
            let mut back = vec![0; sent.len()];
            stream.read_exact(&mut back).unwrap();
            assert!(back == sent, "what came back is not what was sent");
        }
    }

    #[test]
    fn an_end_one_way_leaves_the_other_way_open() {
        for copy in [false, true] {
            let mut stream = dial(&start(copy), b"Uabc").unwrap().stream;
            rustix::net::shutdown(&stream, Shutdown::Write).unwrap();
            let mut count = Vec::new();
            stream.read_to_end(&mut count).unwrap();
            assert_eq!(count, 3u64.to_be_bytes());
        }
    }

    #[test]
    fn a_reset_ends_its_own_connection_alone() {
        for copy in [false, true] {
            let target = start(copy);
            let mut calm = dial(&target, b"E").unwrap().stream;
            let load = [&b"D"[..], &u64::MAX.to_be_bytes()].concat();
            for _ in 0..10 {
                let rude = dial(&target, &load).unwrap().stream;
                SockRef::from(&rude).set_linger(Some(Duration::ZERO)).unwrap();
            }
            calm.write_all(b"still here").unwrap();
            let mut back = [0; 10];
            calm.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"still here");
        }
    }
}
