//! Datagrams there and back: every client keeps so many on the way. What is counted are datagrams
//! through the proxy, both ways.
//!
//! One that is lost is not missed for ever: who has had no answer for a while sends anew.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::dial::Target;
use super::poller::{Poller, Ready};
use super::{Meter, Outcome};
use crate::while_doing;

/// Datagrams of a client on the way.
const WINDOW: usize = 8;
/// Without an answer for so long, what was on the way is taken for lost.
const LOST: Duration = Duration::from_millis(50);
/// How often a server looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct Load {
    pub(crate) clients: u16,
    /// Bytes of payload.
    pub(crate) size: u16,
    pub(crate) seconds: Duration,
    pub(crate) warmup: Duration,
}

/// Sends and receives for a time.
pub(crate) fn run(target: &Target, load: &Load) -> io::Result<Outcome> {
    let mut clients = Clients::open(target.connect, load)?;
    clients.go_on_until(Instant::now() + load.warmup)?;
    let before = clients.answers;
    let meter = Meter::start(target)?;
    clients.go_on_until(meter.start + load.seconds)?;
    meter.stop(2 * (clients.answers - before), None)
}

struct Clients {
    sockets: Vec<UdpSocket>,
    poller: Poller,
    message: Vec<u8>,
    buffer: Vec<u8>,
    answers: u64,
    last_answer: Instant,
}

impl Clients {
    fn open(to: SocketAddr, load: &Load) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut sockets = Vec::new();
        for key in 0..load.clients {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(to).map_err(while_doing(format!("datagrams to {to}")))?;
            socket.set_nonblocking(true)?;
            poller.add(&socket, key.into(), EventFlags::IN)?;
            sockets.push(socket);
        }
        let message = vec![0x5a; load.size.into()];
        let (buffer, last_answer) = (vec![0; 65_536], Instant::now());
        let clients = Self { sockets, poller, message, buffer, answers: 0, last_answer };
        clients.fill_windows();
        Ok(clients)
    }

    /// What a socket has no room for is lost.
    fn fill_windows(&self) {
        for socket in &self.sockets {
            for _ in 0..WINDOW {
                let _ = socket.send(&self.message);
            }
        }
    }

    fn go_on_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Ready::new();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(());
            }
            self.poller.wait_for(LOST.min(deadline - now), &mut ready)?;
            if ready.is_empty() && self.last_answer.elapsed() >= LOST {
                self.last_answer = Instant::now();
                self.fill_windows();
            }
            for &(key, _) in &ready {
                self.turn(key)?;
            }
        }
    }

    /// As many go out as have come back.
    fn turn(&mut self, key: usize) -> io::Result<()> {
        let socket = &self.sockets[key];
        for _ in 0..WINDOW {
            match socket.recv(&mut self.buffer) {
                Ok(length) if length == self.message.len() => {}
                Ok(length) => {
                    let asked = self.message.len();
                    return Err(io::Error::other(format!("{length} bytes came back of {asked}")));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            self.answers += 1;
            let _ = socket.send(&self.message);
        }
        self.last_answer = Instant::now();
        Ok(())
    }
}

/// Sends every datagram back until somebody says `stop`.
pub(crate) fn serve(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            // Who is gone needs no answer.
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;

    #[test]
    fn datagrams_come_back_and_are_counted_both_ways() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&socket, &stop).unwrap());
            let (seconds, warmup) = (Duration::from_millis(100), Duration::from_millis(20));
            let load = Load { clients: 4, size: 300, seconds, warmup };
            let outcome = run(&testing::target(address, None), &load).unwrap();
            assert!(outcome.units > 20 && outcome.units.is_multiple_of(2));
            stop.store(true, Ordering::Relaxed);
        });
    }
}
