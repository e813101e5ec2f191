//! Much, little, and many at once. Every test runs over every way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::{
    EVERY_WAY, Echo, LONG, Relayed, Ringgate, Upstream, bytes, expect_end, fill, holds_for, l4,
    reset, wait_for,
};

const MIB: usize = 1024 * 1024;
const PART: usize = 256 * 1024;

#[test]
fn a_slow_reader_gets_everything_and_costs_no_memory() {
    for way in EVERY_WAY {
        let backend = Upstream::listen();
        let gate = way.start(&backend);
        let (client, upstream) = way.connect(&gate, &backend);
        SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
        let before = gate.anonymous_kib();
        std::thread::scope(|scope| {
            scope.spawn(|| sends(&upstream, 1, 64 * MIB));
            // As long as the client does not read at all, the upstream's bytes must wait in the
            // kernel.
            holds_for("memory stays bounded", Duration::from_millis(300), || {
                gate.anonymous_kib() < before + 4 * 1024
            });
            receives(&client, 1, 64 * MIB);
        });
        let after = gate.anonymous_kib();
        assert!(after < before + 4 * 1024, "{way:?}: {before} KiB before, {after} KiB after");
    }
}

#[test]
fn bulk_in_both_directions_at_once_is_byte_exact() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        std::thread::scope(|scope| {
            scope.spawn(|| sends(&client, 1, 24 * MIB));
            scope.spawn(|| sends(&upstream, 2, 24 * MIB));
            scope.spawn(|| receives(&upstream, 1, 24 * MIB));
            receives(&client, 2, 24 * MIB);
        });
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        drop(upstream);
        expect_end(&mut client);
        let record = gate.record();
        assert_eq!(record.text("relay"), "splice", "{way:?}: {record:?}");
        let (up, down) = way.handshake();
        assert_eq!(record.number("bytes_up"), up + 24 * MIB as u64);
        assert_eq!(record.number("bytes_down"), down + 24 * MIB as u64);
    }
}

fn sends(mut stream: &TcpStream, seed: u64, count: usize) {
    stream.set_write_timeout(Some(LONG)).unwrap();
    let mut part = vec![0; PART];
    for offset in (0..count).step_by(PART) {
        fill(seed, offset, &mut part);
        stream.write_all(&part).unwrap();
    }
}

fn receives(mut stream: &TcpStream, seed: u64, count: usize) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let (mut part, mut expected) = (vec![0; PART], vec![0; PART]);
    for offset in (0..count).step_by(PART) {
        stream.read_exact(&mut part).unwrap();
        fill(seed, offset, &mut expected);
        assert!(part == expected, "wrong bytes between {offset} and {}", offset + PART);
    }
}

#[test]
fn small_messages_go_through_without_waiting_for_more() {
    for way in EVERY_WAY {
        let Relayed { gate: _gate, mut client, mut upstream } = way.open();
        let start = Instant::now();
        for round in 0..2000 {
            let message = bytes(round, 1 + round as usize % 100);
            let mut received = vec![0; message.len()];
            client.write_all(&message).unwrap();
            upstream.read_exact(&mut received).unwrap();
            assert_eq!(received, message, "{way:?}: up, message {round}");
            upstream.write_all(&message).unwrap();
            client.read_exact(&mut received).unwrap();
            assert_eq!(received, message, "{way:?}: down, message {round}");
        }
        // Nagle's algorithm would make it 40 ms a message, and 160 s in all. On a busy machine each
        // of the four threads on the way waits for its turn.
        assert!(start.elapsed() < Duration::from_secs(60), "{way:?}: {:?}", start.elapsed());
    }
}

#[test]
fn many_small_writes_arrive_as_the_stream_they_are() {
    for way in EVERY_WAY {
        let Relayed { gate: _gate, mut client, mut upstream } = way.open();
        let sent = bytes(5, 100_000);
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| sent.chunks(17).for_each(|part| client.write_all(part).unwrap()));
            upstream.read_exact(&mut received).unwrap();
        });
        assert!(received == sent, "{way:?}: the bytes are not what was sent");
    }
}

#[test]
fn two_hundred_connections_at_once_do_not_mix() {
    for way in EVERY_WAY {
        let backend = Upstream::listen();
        let gate = way.start(&backend);
        let mut pairs: Vec<_> = (0..200).map(|_| way.connect(&gate, &backend)).collect();
        for (index, (client, upstream)) in pairs.iter_mut().enumerate() {
            client.write_all(&bytes(index as u64, 20_000)).unwrap();
            upstream.write_all(&bytes(!(index as u64), 20_000)).unwrap();
        }
        for (index, (client, upstream)) in pairs.iter_mut().enumerate() {
            let mut received = vec![0; 20_000];
            upstream.read_exact(&mut received).unwrap();
            assert!(received == bytes(index as u64, 20_000), "{way:?}: up of {index}");
            client.read_exact(&mut received).unwrap();
            assert!(received == bytes(!(index as u64), 20_000), "{way:?}: down of {index}");
        }
        drop(pairs);
        gate.records(200);
    }
}

#[test]
fn what_a_connection_used_is_given_back() {
    for way in EVERY_WAY {
        let backend = Upstream::listen();
        let gate = way.start(&backend);
        let round = || {
            let pairs: Vec<_> = (0..50).map(|_| way.connect(&gate, &backend)).collect();
            for (mut client, mut upstream) in pairs {
                client.write_all(&bytes(1, 100_000)).unwrap();
                upstream.read_exact(&mut vec![0; 100_000]).unwrap();
            }
        };
        // Pools may keep what one round needed; a second round must not need more.
        round();
        gate.records(50);
        let after_one = gate.descriptors();
        for _ in 0..3 {
            round();
        }
        gate.records(200);
        wait_for("descriptors are given back", LONG, || {
            (gate.descriptors() <= after_one + 10).then_some(())
        });
    }
}

#[test]
fn connections_that_end_badly_leave_nothing_behind() {
    for way in EVERY_WAY {
        let backend = Upstream::listen();
        let gate = way.start(&backend);
        let payload = bytes(1, 8 * MIB);
        let round = |size: usize| {
            let mut pairs: Vec<_> = (0..24).map(|_| way.connect(&gate, &backend)).collect();
            for (client, upstream) in &mut pairs {
                // Some fit the buffers, some are stopped in the middle, with a pipe full.
                client.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
                let _ = client.write_all(&payload[..size]);
                let _ = upstream.write_all(b"x");
            }
            for (index, (client, upstream)) in pairs.into_iter().enumerate() {
                match index % 4 {
                    0 => reset(client),
                    1 => reset(upstream),
                    2 => drop((client, upstream)),
                    _ => drop((upstream, client)),
                }
            }
        };
        round(8 * MIB);
        gate.records(24);
        let after_one = gate.descriptors();
        round(10);
        round(8 * MIB);
        gate.records(72);
        wait_for("descriptors are given back", LONG, || {
            (gate.descriptors() <= after_one + 4).then_some(())
        });
        let mut pairs: Vec<_> = (0..4).map(|_| way.connect(&gate, &backend)).collect();
        for (client, upstream) in &mut pairs {
            client.write_all(b"still here").unwrap();
            upstream.read_exact(&mut [0; 10]).unwrap();
        }
    }
}

#[test]
fn one_connection_does_not_wait_for_another_that_is_jammed() {
    let echo = Echo::start();
    let gate = Ringgate::start(&l4(echo.address(), "", ""));
    let jammed: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut client = gate.connect("ingress");
            client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            while client.write(&[0; 64 * 1024]).is_ok() {}
            client
        })
        .collect();
    for _ in 0..20 {
        let mut client = gate.connect("ingress");
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    drop(jammed);
}
