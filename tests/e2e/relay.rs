//! A relay is as good as a wire: what one side does, the other side sees. Every test runs over
//! every way.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::support::{
    EVERY_WAY, Relayed, SOON, Setup, Way, bytes, expect_closed, expect_end, expect_reset,
    holds_for, jam, l4, reset,
};

const MIB: usize = 1024 * 1024;

#[test]
fn the_upstream_goes_on_sending_after_the_client_has_ended() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.write_all(b"that is all").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = String::new();
        upstream.read_to_string(&mut received).unwrap();
        assert_eq!(received, "that is all");

        sends_everything(&mut upstream, &mut client);
        upstream.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut client);
        assert_eq!(gate.record().end(), "client");
    }
}

#[test]
fn the_client_goes_on_sending_after_the_upstream_has_ended() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        upstream.write_all(b"that is all").unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "that is all");

        sends_everything(&mut client, &mut upstream);
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        assert_eq!(gate.record().end(), "upstream");
    }
}

/// 1 MiB of bytes from one end to the other, compared.
fn sends_everything(from: &mut (impl Write + Send), to: &mut impl Read) {
    let sent = bytes(7, MIB);
    let mut received = vec![0; MIB];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == sent, "the bytes are not what was sent");
}

#[test]
fn the_end_of_a_client_passes_a_jammed_other_direction() {
    for way in EVERY_WAY {
        let Relayed { gate: _gate, client, mut upstream } = way.open();
        jam(&mut upstream);
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
    }
}

#[test]
fn what_stands_behind_urgent_data_arrives_and_so_does_the_end() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        let sent = bytes(5, 8 * MIB);
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| upstream.write_all(&sent).unwrap());
            client.read_exact(&mut received).unwrap();
        });
        // A splice stops at the mark; with the end behind it, it says so in the same way as at the
        // end. All of this is there before the next splice.
        gate.frozen(|| {
            upstream.write_all(&sent[..MIB / 16]).unwrap();
            socket2::SockRef::from(&upstream).send_out_of_band(b"!").unwrap();
            upstream.write_all(b"behind the mark").unwrap();
            upstream.shutdown(Shutdown::Write).unwrap();
        });
        received.clear();
        client.read_to_end(&mut received).unwrap();
        // The urgent byte itself is nothing that a plain read gets (tcp(7)).
        assert!(received == [&sent[..MIB / 16], b"behind the mark"].concat(), "{way:?}");
        drop(client);
        assert_eq!(gate.record().text("relay"), "splice", "{way:?}");
    }
}

#[test]
fn a_reset_of_the_client_is_a_reset_upstream() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.write_all(b"x").unwrap();
        upstream.read_exact(&mut [0]).unwrap();
        reset(client);
        expect_reset(&mut upstream);
        assert_eq!(gate.record().end(), "client_reset");
    }
}

#[test]
fn a_reset_of_the_upstream_is_a_reset_for_the_client() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        upstream.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        reset(upstream);
        expect_reset(&mut client);
        assert_eq!(gate.record().end(), "upstream_reset");
    }
}

#[test]
fn a_reset_behind_a_half_close_is_still_a_reset() {
    for way in EVERY_WAY {
        let Relayed { gate, client, mut upstream } = way.open();
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        reset(client);
        // A peer that has already been told the end sees the reset as EPIPE, and by writing only.
        let part = bytes(1, MIB);
        let error = std::iter::repeat_with(|| upstream.write_all(&part)).find_map(Result::err);
        let kind = error.expect("repeats until it fails").kind();
        let reset = matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        assert!(reset, "{way:?}: {kind}");
        assert_eq!(gate.record().end(), "client_reset");
    }
}

#[test]
fn a_reset_of_a_client_that_does_not_read_is_a_reset_upstream() {
    for way in EVERY_WAY {
        let Relayed { gate, client, mut upstream } = way.open();
        jam(&mut upstream);
        reset(client);
        expect_reset(&mut upstream);
        assert_eq!(gate.record().end(), "client_reset");
    }
}

#[test]
fn silence_on_both_sides_ends_at_the_idle_timeout() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("300ms", "1m");
        let start = Instant::now();
        expect_closed(&mut client);
        expect_closed(&mut upstream);
        let passed = start.elapsed();
        assert!(passed > Duration::from_millis(200), "{way:?}: after {passed:?}");
        assert!(passed < SOON, "{way:?}: after {passed:?}");
        assert_eq!(gate.record().end(), "idle");
    }
}

/// A limit that a machine which stands still for a moment does not reach, and longer than that.
const LIMIT: &str = "4s";
const OVER_LIMIT: Duration = Duration::from_secs(6);

/// Does something every 100 ms, for longer than [`LIMIT`], as long as it is true.
fn again_and_again(what: &str, mut each: impl FnMut() -> bool) {
    let mut last = Instant::now();
    holds_for(what, OVER_LIMIT, || {
        let due = last.elapsed() >= Duration::from_millis(100);
        if due {
            last = Instant::now();
        }
        !due || each()
    });
}

/// Runs a test that takes its time over every way at once.
fn over_every_way_at_once(test: impl Fn(Way) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for way in EVERY_WAY {
            scope.spawn(move || test(way));
        }
    });
}

#[test]
fn a_byte_in_either_direction_puts_the_idle_timeout_off() {
    over_every_way_at_once(|way| {
        let Relayed { gate, mut client, mut upstream } = way.open_with(LIMIT, "1m");
        let mut turn = 0;
        again_and_again("a talking connection stays", || {
            turn += 1;
            let (from, to) = match turn % 2 {
                0 => (&mut client, &mut upstream),
                _ => (&mut upstream, &mut client),
            };
            from.write_all(b"x").and_then(|()| to.read_exact(&mut [0])).is_ok()
        });
        expect_closed(&mut client);
        assert_eq!(gate.record().end(), "idle");
    });
}

#[test]
fn a_half_closed_connection_that_falls_silent_ends() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open_with("1h", "300ms");
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        let start = Instant::now();
        expect_closed(&mut client);
        assert!(start.elapsed() < SOON, "{way:?}: {:?}", start.elapsed());
        assert_eq!(gate.record().end(), "half_closed_timeout");
    }
}

#[test]
fn a_half_closed_connection_lives_while_the_other_side_sends() {
    over_every_way_at_once(|way| {
        let Relayed { gate, mut client, mut upstream } = way.open_with("1h", LIMIT);
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut upstream);
        again_and_again("a sending half stays", || {
            upstream.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
        });
        drop(upstream);
        expect_end(&mut client);
        assert_eq!(gate.record().end(), "client");
    });
}

#[test]
fn a_record_counts_the_bytes_of_a_relay() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.write_all(&bytes(1, 1000)).unwrap();
        upstream.read_exact(&mut [0; 1000]).unwrap();
        upstream.write_all(&bytes(2, 3000)).unwrap();
        client.read_exact(&mut [0; 3000]).unwrap();
        let (from, to) = (client.local_addr().unwrap(), upstream.local_addr().unwrap());
        drop(client);
        expect_end(&mut upstream);
        drop(upstream);

        let record = gate.record();
        assert_eq!(record.text("client"), from.to_string());
        assert_eq!(record.text("endpoint"), to.to_string());
        let (up, down) = way.handshake();
        assert_eq!(record.number("bytes_up"), up + 1000, "{way:?}: {record:?}");
        assert_eq!(record.number("bytes_down"), down + 3000, "{way:?}: {record:?}");
        assert_eq!(record.end(), "client");
    }
}

/// Messages there and back until both directions know that they are small.
fn talks(client: &mut (impl Read + Write), upstream: &mut (impl Read + Write)) {
    for _ in 0..3 {
        client.write_all(b"x").unwrap();
        upstream.read_exact(&mut [0]).unwrap();
        upstream.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_slow_reader_of_small_messages_gets_them_all() {
    const MESSAGE: usize = 3000;
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        talks(&mut client, &mut upstream);
        let sent = bytes(11, 5000 * MESSAGE);
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for message in sent.chunks(MESSAGE) {
                    client.write_all(message).unwrap();
                    // So that they are read one by one.
                    let sent = Instant::now();
                    while sent.elapsed() < Duration::from_micros(50) {
                        std::thread::yield_now();
                    }
                }
            });
            // All buffers on the way are full by then.
            holds_for("the reader is slow", Duration::from_millis(600), || true);
            upstream.read_exact(&mut received).unwrap();
        });
        assert!(received == sent, "{way:?}: the bytes are not what was sent");
        drop(client);
        expect_end(&mut upstream);
        drop(upstream);
        let up = way.handshake().0 + 3 + sent.len() as u64;
        assert_eq!(gate.record().number("bytes_up"), up, "{way:?}");
    }
}

#[test]
fn an_end_right_behind_a_small_message_comes_behind_it() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        talks(&mut client, &mut upstream);
        gate.frozen(|| {
            client.write_all(b"last words").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            upstream.write_all(b"of both").unwrap();
            upstream.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = String::new();
        upstream.read_to_string(&mut received).unwrap();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "last wordsof both", "{way:?}");
    }
}

#[test]
fn what_an_upstream_sent_before_it_refused_more_arrives() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        gate.frozen(|| {
            upstream.write_all(b"farewell").unwrap();
            reset(upstream);
            client.write_all(b"more").unwrap();
        });
        let mut received = [0; 8];
        client.read_exact(&mut received).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert_eq!(&received, b"farewell", "{way:?}");
        expect_reset(&mut client);
        assert_eq!(gate.record().end(), "upstream_reset", "{way:?}");
    }
}

#[test]
fn an_upstream_that_takes_no_more_and_says_nothing_ends_at_the_half_closed_timeout() {
    let directory = tempfile::tempdir().unwrap();
    for driver in ["io_uring", "epoll"] {
        let path = directory.path().join(driver);
        let backend = UnixListener::bind(&path).unwrap();
        let config = l4(([127, 0, 0, 1], 1).into(), "half_closed_timeout = \"300ms\"", "")
            .replace("127.0.0.1:1", &format!("unix:{}", path.display()));
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let mut client = gate.connect("ingress");
        let (upstream, _) = backend.accept().unwrap();
        // Its connection stays, and a write to it fails.
        upstream.shutdown(Shutdown::Read).unwrap();
        client.write_all(b"refused").unwrap();
        expect_reset(&mut client);
        assert_eq!(gate.record().end(), "upstream_reset", "{driver}");
    }
}

#[test]
fn a_small_message_to_a_peer_that_has_reset_is_answered_by_a_reset() {
    for way in EVERY_WAY {
        let Relayed { gate, mut client, mut upstream } = way.open();
        talks(&mut client, &mut upstream);
        gate.frozen(|| {
            client.write_all(b"too late").unwrap();
            reset(upstream);
        });
        expect_reset(&mut client);
        assert_eq!(gate.record().end(), "upstream_reset", "{way:?}");
    }
}
