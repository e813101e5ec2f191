//! What a worker allocates: nothing for a message, a block of bulk or a request, a known number for
//! a connection.
//!
//! A real worker runs in this process, on a thread whose allocations are counted; clients and
//! upstreams have threads of their own. The bounds do not depend on time, so that they hold on any
//! machine, however busy: where something happens once in a while by the clock, the clock is in the
//! bound. Every test prints what it counted (`cargo test --test allocations -- --nocapture`).

#![expect(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

mod counter;
mod tls;
mod worker;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use worker::{Worker, l4, site, udp};

/// Messages or requests of one measurement.
const MANY: u64 = 5_000;
const MESSAGE: usize = 100;
const BLOCK: usize = 256 * 1024;
const REQUEST: &[u8] = b"GET /a/page?q=1 HTTP/1.1\r\nHost: live.example.test\r\n\
    User-Agent: a browser\r\nAccept: */*\r\n\r\n";

/// A driver and what connections over it cost.
struct Driver {
    name: &'static str,
    /// Of the runtime the descriptor, and for an accept through the ring the room for an address;
    /// of ours the stream and the task.
    http_connection: u64,
    /// The same, the second stream with its descriptor, and what connecting needs, which is given
    /// back before the relay begins.
    l4_connection: u64,
}

const DRIVERS: [Driver; 2] = [
    Driver { name: "io_uring", http_connection: 4, l4_connection: 7 },
    Driver { name: "epoll", http_connection: 3, l4_connection: 6 },
];

#[test]
fn a_message_costs_no_allocation() {
    for driver in DRIVERS {
        let worker = Worker::start(driver.name, &l4(echo(), ""));
        let mut client = worker.connect();
        (0..100).for_each(|_| round_trip(&mut client));
        let counted = worker.count(|| (0..MANY).for_each(|_| round_trip(&mut client)));
        println!("{}: {counted} for {MANY} messages", driver.name);
        assert!(counted.total <= counted.wheel_turns(), "{counted}");
    }
}

#[test]
fn a_datagram_costs_no_allocation() {
    for driver in DRIVERS {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let worker = Worker::start(driver.name, &udp(server.local_addr().unwrap()));
        thread::spawn(move || {
            while let Ok((length, from)) = server.recv_from(&mut [0; 2 * MESSAGE]) {
                server.send_to(&[7; 2 * MESSAGE][..length], from).unwrap();
            }
        });
        let client = worker.datagrams();
        let ask = || {
            client.send(&[7; MESSAGE]).unwrap();
            assert_eq!(client.recv(&mut [0; 2 * MESSAGE]).unwrap(), MESSAGE);
        };
        (0..100).for_each(|_| ask());
        let counted = worker.count(|| (0..MANY).for_each(|_| ask()));
        println!("{}: {counted} for {MANY} datagrams", driver.name);
        assert!(counted.total <= counted.wheel_turns(), "{counted}");
    }
}

#[test]
fn bulk_costs_no_allocation() {
    const BLOCKS: u64 = 1024;
    for driver in DRIVERS {
        let (upstream, begin) = sink();
        let worker = Worker::start(driver.name, &l4(upstream, ""));
        let mut client = worker.connect();
        // What waiting to write needs for the first time is not what a block costs.
        jam(&mut client);
        begin.send(()).unwrap();
        let block = vec![1; BLOCK];
        let mut send = |blocks| (0..blocks).for_each(|_| client.write_all(&block).unwrap());
        send(64);
        let counted = worker.count(|| send(BLOCKS));
        println!("{}: {counted} for {BLOCKS} blocks of 256 KiB", driver.name);
        // 0 as a rule. A client that the system stops again and again may look like one that has
        // little to send: it is copied for a while, and what a copy cannot send is kept.
        assert!(counted.total <= BLOCKS / 64, "{counted}");
    }
}

#[test]
fn a_connection_costs_a_known_number_of_allocations() {
    for driver in DRIVERS {
        let worker = Worker::start(driver.name, &l4(echo(), ""));
        expect_each(&worker, driver.l4_connection, |worker| {
            let mut client = worker.connect();
            round_trip(&mut client);
            ends(client);
        });
    }
}

#[test]
fn an_http_connection_costs_a_known_number_of_allocations() {
    for driver in DRIVERS {
        let worker = Worker::start(driver.name, &site(""));
        expect_each(&worker, driver.http_connection, |worker| {
            let mut client = worker.connect();
            redirected(&mut client);
            ends(client);
        });
    }
}

/// Opens many connections one after the other and compares.
fn expect_each(worker: &Worker, each: u64, once: impl Fn(&Worker)) {
    const CONNECTIONS: u64 = 1000;
    (0..100).for_each(|_| once(worker));
    let counted = worker.count(|| (0..CONNECTIONS).for_each(|_| once(worker)));
    println!("{counted} for {CONNECTIONS} connections of {each} each");
    // The end of the last one of the warm-up may be counted here.
    let most = (CONNECTIONS + 1) * each + counted.wheel_slots();
    assert!(counted.total <= most, "{counted}, {most} are expected at most");
}

#[test]
fn a_request_costs_no_allocation() {
    for driver in DRIVERS {
        let worker = Worker::start(driver.name, &site(""));
        let mut client = worker.connect();
        (0..100).for_each(|_| redirected(&mut client));
        let counted = worker.count(|| (0..MANY).for_each(|_| redirected(&mut client)));
        println!("{}: {counted} for {MANY} requests", driver.name);
        assert!(counted.total <= counted.wheel_turns(), "{counted}");
    }
}

#[test]
fn a_record_costs_no_allocation_but_its_share_of_a_batch() {
    // Batches go at each tick and when they are full; a new one grows by doubling.
    const BATCH: u64 = 16;
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let worker =
            Worker::start(driver.name, &site(&format!("access_log = {{ path = {log:?} }}")));
        let mut client = worker.connect();
        (0..100).for_each(|_| redirected(&mut client));
        let counted = worker.count(|| (0..MANY).for_each(|_| redirected(&mut client)));
        drop(client);
        drop(worker);
        let text = std::fs::read(&log).unwrap();
        let batches = counted.ticks() + text.len() as u64 / (60 * 1024) + 1;
        println!("{}: {counted} for {MANY} requests in {batches} batches at most", driver.name);
        assert!(counted.total <= BATCH * batches, "{counted}, {batches} batches at most");
        let records = text.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(records as u64, MANY + 100);
    }
}

/// An upstream that sends back what it receives, one connection after the other.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..read]).unwrap();
            }
        }
    });
    address
}

/// An upstream that takes whatever its only connection sends, from the word to begin on.
fn sink() -> (SocketAddr, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (begin, begins) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        begins.recv().unwrap();
        let mut buffer = vec![0; 4 * BLOCK];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    (address, begin)
}

/// Writes until every buffer on the way is full.
fn jam(client: &mut TcpStream) {
    let limit = client.write_timeout().unwrap();
    client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while client.write(&[0; BLOCK]).is_ok() {}
    client.set_write_timeout(limit).unwrap();
}

fn round_trip(client: &mut TcpStream) {
    client.write_all(&[7; MESSAGE]).unwrap();
    client.read_exact(&mut [0; MESSAGE]).unwrap();
}

fn redirected(client: &mut TcpStream) {
    client.write_all(REQUEST).unwrap();
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let read = client.read(&mut answer[length..]).unwrap();
        assert!(read > 0, "an end instead of an answer");
        length += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 301 "));
}

/// Says that nothing more comes and waits for the same.
fn ends(mut client: TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
