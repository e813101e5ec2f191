//! Datagrams there and back. What is counted are datagrams through the proxy, both ways.
//!
//! Every client keeps a window of them on the way. Sent one by one they are small questions and
//! answers of many clients; sent in bursts (UDP segmentation offload) they are what a server of
//! QUIC sends, and what a receiver gets where the kernel puts together what arrives.
//!
//! One that is lost is not missed for ever: when nobody has had an answer for a while, all send
//! anew.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::event::epoll::EventFlags;

use super::dial::Target;
use super::poller::{Poller, Ready};
use super::{Meter, Outcome};
use crate::while_doing;

/// Datagrams of a client on the way that sends them one by one.
const WINDOW: usize = 8;
/// Without an answer for so long, what was on the way is taken for lost.
const LOST: Duration = Duration::from_millis(50);
/// How often a server looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Room for what the kernel may have put together.
const ROOM: usize = 64 * 1024;

pub(crate) struct Load {
    pub(crate) clients: u16,
    /// Bytes of payload.
    pub(crate) size: u16,
    /// Datagrams of one send; more than one are on the way alone.
    pub(crate) burst: u16,
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

/// A socket and how the kernel sends and receives many at once on it.
struct Peer {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Peer {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    /// Sends datagrams of one size. What a socket has no room for is lost.
    fn send(&self, to: SocketAddr, bytes: &[u8], size: usize) {
        let segment_size = (bytes.len() > size).then_some(size);
        let transmit =
            Transmit { destination: to, ecn: None, contents: bytes, segment_size, src_ip: None };
        let _ = self.state.try_send((&self.socket).into(), &transmit);
    }

    /// Receives what is there; an empty batch when nothing is.
    fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        meta: &'b mut [RecvMeta],
    ) -> io::Result<impl Iterator<Item = (SocketAddr, &'b [u8], usize)>> {
        let count = {
            let mut rooms: Vec<IoSliceMut<'_>> =
                buffer.chunks_exact_mut(ROOM).map(IoSliceMut::new).collect();
            match self.state.recv((&self.socket).into(), &mut rooms, meta) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                // Somebody is gone, and needs no answer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => 0,
                Err(error) => return Err(error),
            }
        };
        let received = meta[..count].iter().zip(buffer.chunks_exact(ROOM));
        Ok(received.map(|(meta, room)| (meta.addr, &room[..meta.len], meta.stride)))
    }
}

struct Clients {
    to: SocketAddr,
    peers: Vec<Peer>,
    /// Answers that each still waits for, of its burst.
    awaited: Vec<usize>,
    poller: Poller,
    burst: Vec<u8>,
    size: usize,
    answers: u64,
    last_answer: Instant,
}

impl Clients {
    fn open(to: SocketAddr, load: &Load) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut peers = Vec::new();
        for key in 0..load.clients {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(to).map_err(while_doing(format!("datagrams to {to}")))?;
            poller.add(&socket, key.into(), EventFlags::IN)?;
            peers.push(Peer::new(socket)?);
        }
        let size = usize::from(load.size);
        let burst = vec![0x5a; size * usize::from(load.burst)];
        let (awaited, last_answer) = (vec![0; peers.len()], Instant::now());
        let mut clients = Self { to, peers, awaited, poller, burst, size, answers: 0, last_answer };
        clients.fill_windows();
        Ok(clients)
    }

    fn bursts(&self) -> bool {
        self.burst.len() > self.size
    }

    fn fill_windows(&mut self) {
        for (peer, awaited) in self.peers.iter().zip(&mut self.awaited) {
            for _ in 0..if self.burst.len() > self.size { 1 } else { WINDOW } {
                peer.send(self.to, &self.burst, self.size);
            }
            *awaited = self.burst.len() / self.size;
        }
    }

    fn go_on_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut ready = Ready::new();
        let (mut buffer, mut meta) = (vec![0; ROOM * WINDOW], [RecvMeta::default(); WINDOW]);
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
                self.turn(key, &mut buffer, &mut meta)?;
            }
        }
    }

    /// As many go out as have come back; of a burst, when all have.
    fn turn(&mut self, key: usize, buffer: &mut [u8], meta: &mut [RecvMeta]) -> io::Result<()> {
        let mut came = 0;
        for (_, bytes, stride) in self.peers[key].receive(buffer, meta)? {
            if stride != self.size || !bytes.len().is_multiple_of(stride) {
                let (length, asked) = (bytes.len(), self.size);
                let message = format!("{length} bytes in {stride} came back of {asked}");
                return Err(io::Error::other(message));
            }
            came += bytes.len() / stride;
        }
        self.answers += came as u64;
        self.last_answer = Instant::now();
        if !self.bursts() {
            (0..came).for_each(|_| self.peers[key].send(self.to, &self.burst, self.size));
            return Ok(());
        }
        self.awaited[key] = self.awaited[key].saturating_sub(came);
        if self.awaited[key] == 0 {
            self.awaited[key] = self.burst.len() / self.size;
            self.peers[key].send(self.to, &self.burst, self.size);
        }
        Ok(())
    }
}

/// Sends every datagram back until somebody says `stop`, those that arrived together by one call.
pub(crate) fn serve(socket: UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let (mut poller, mut ready) = (Poller::new()?, Ready::new());
    poller.add(&socket, 0, EventFlags::IN)?;
    let peer = Peer::new(socket)?;
    let (mut buffer, mut meta) = (vec![0; ROOM * BATCH_SIZE], [RecvMeta::default(); BATCH_SIZE]);
    while !stop.load(Ordering::Relaxed) {
        poller.wait_for(STOP_INTERVAL, &mut ready)?;
        if !ready.is_empty() {
            for (from, bytes, stride) in peer.receive(&mut buffer, &mut meta)? {
                peer.send(from, bytes, stride);
            }
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
            let server = scope.spawn(|| serve(socket, &stop));
            let (seconds, warmup) = (Duration::from_millis(400), Duration::from_millis(20));
            for burst in [1, 16] {
                let load = Load { clients: 4, size: 300, burst, seconds, warmup };
                let outcome = run(&testing::target(address, None), &load).unwrap();
                assert!(outcome.units > 20 && outcome.units.is_multiple_of(2));
            }
            stop.store(true, Ordering::Relaxed);
            server.join().unwrap().unwrap();
        });
    }
}
