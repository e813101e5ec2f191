//! TLS that ends in ringgate, and the bytes in it on their way to a cluster: none is lost, and each
//! side learns of the other's end as it was.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::support::{
    Authority, Echo, LONG, OpensslClient, Ringgate, SHORT, Setup, TlsClient, Upstream, VERSIONS,
    bytes, connect, expect_end, expect_reset, free_port, holds_for, reset, slow_reader,
    tls_settings, wait_for,
};

const NAME: &str = "mail.test";
const MIB: usize = 1024 * 1024;

/// A driver and a version of TLS. What a relay promises is the same with all.
#[derive(Clone, Copy, Debug)]
struct Way {
    driver: &'static str,
    version: &'static SupportedProtocolVersion,
}

/// Both ends of one connection.
struct Relayed {
    gate: Ringgate,
    client: TlsClient,
    upstream: TcpStream,
}

fn every_way() -> impl Iterator<Item = Way> {
    let of = |driver| VERSIONS.map(|version| Way { driver, version });
    ["io_uring", "epoll"].into_iter().flat_map(of)
}

impl Way {
    /// A ringgate in front of `to`; `listener` is more lines of its listener, `server` of
    /// `[server]`.
    fn start(self, to: SocketAddr, listener: &str, server: &str) -> (Ringgate, Arc<ClientConfig>) {
        // Captured, so shown with the test's failure only.
        eprintln!("over {self:?}");
        let authority = Authority::new("authority");
        let rule = authority.signs(&[NAME]).rule(&[NAME], "cluster = \"mail\"");
        let config = format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
             {listener}\n{rule}\n[cluster.mail]\nendpoints = [\"{to}\"]\n"
        );
        let server = format!("driver = \"{}\"\n{server}", self.driver);
        let gate = Setup { config, server, ..Setup::default() }.start();
        (gate, Arc::new(tls_settings(&authority, self.version)))
    }

    fn open(self) -> Relayed {
        self.open_with("", "")
    }

    fn open_with(self, listener: &str, server: &str) -> Relayed {
        let backend = Upstream::listen();
        let (gate, settings) = self.start(backend.address(), listener, server);
        let client = TlsClient::connect(gate.address("edge"), &settings, NAME);
        let upstream = backend.accept();
        Relayed { gate, client, upstream }
    }
}

#[track_caller]
fn read_whole(stream: &mut TcpStream) -> Vec<u8> {
    let mut whole = Vec::new();
    let read = stream.read_to_end(&mut whole);
    assert!(read.is_ok(), "{read:?} after {} bytes", whole.len());
    whole
}

/// The end of the connection is a reset, also where TLS would see a missing close_notify.
#[track_caller]
fn expect_cut(client: &mut TlsClient) {
    let failure = client.expect_failure();
    assert_eq!(failure.kind(), ErrorKind::ConnectionReset, "{failure}");
}

#[test]
fn openssl_talks_to_an_echo_and_changes_its_keys_in_between() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let rule = authority.signs(&[NAME]).rule(&[], "cluster = \"echo\"");
    let config = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n{rule}\n\
         [cluster.echo]\nendpoints = [\"{}\"]\n",
        echo.address()
    );
    let gate = Ringgate::start(&config);
    let address = gate.address("edge");
    let mut client = OpensslClient::start(address, &authority, NAME, &["-tls1_3"]);
    for round in 0..3 {
        client.echoes(&format!("before {round}"));
        // It asks for new keys of the other side, too.
        client.asks_for_new_keys(round + 1);
        client.echoes(&format!("after {round}"));
    }
    client.types("Q");
    client.ends();
    let record = gate.record();
    assert_eq!((record.end(), record.text("protocol")), ("client", "tls"));
    assert_eq!((record.text("host"), record.text("route")), (NAME, "*"));
    let tls = record.tls();
    assert_eq!((tls.text("version"), tls.text("cipher")), ("1.3", "TLS13_AES_256_GCM_SHA384"));
    assert_eq!((tls.text("sni"), tls.text("alpn"), tls.text("error")), (NAME, "", ""));
    assert_eq!(tls.flag("resumed"), Some(false));
}

#[test]
fn bulk_goes_both_ways_at_once_and_is_counted_without_its_records() {
    for way in every_way() {
        let echo = Echo::start();
        let (gate, settings) = way.start(echo.address(), "", "");
        let mut client = TlsClient::connect(gate.address("edge"), &settings, NAME);
        let sent = bytes(7, 20 * MIB);
        assert!(client.exchange(&sent, sent.len()) == sent, "the echo is not what was sent");
        client.close_notify();
        client.expect_close_notify();
        drop(client);
        let record = gate.record();
        let count = 20 * MIB as u64;
        assert_eq!((record.number("bytes_up"), record.number("bytes_down")), (count, count));
        assert_eq!((record.end(), record.text("relay")), ("client", "copy"));
    }
}

#[test]
fn small_messages_come_back_one_by_one() {
    for way in every_way() {
        let echo = Echo::start();
        let (gate, settings) = way.start(echo.address(), "", "");
        let mut client = TlsClient::connect(gate.address("edge"), &settings, NAME);
        for round in 0..1000_u64 {
            let message = bytes(round, 1 + round as usize % 300);
            client.send(&message);
            client.expect(&message);
        }
    }
}

#[test]
fn a_server_may_speak_first() {
    for way in every_way() {
        let Relayed { gate: _gate, mut client, mut upstream } = way.open();
        upstream.write_all(b"220 ready\r\n").unwrap();
        client.expect(b"220 ready\r\n");
    }
}

#[test]
fn a_client_that_has_said_all_still_gets_the_whole_answer() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        let answer = bytes(1, 2 * MIB);
        client.send(b"the question");
        client.close_notify();
        // TLS ends in order before the connection does, or with it.
        if way.driver == "epoll" {
            client.end_without_close_notify();
        }
        assert_eq!(read_whole(&mut upstream), b"the question");
        std::thread::scope(|scope| {
            let answer = &answer;
            scope.spawn(move || {
                upstream.write_all(answer).unwrap();
                drop(upstream);
            });
            assert!(client.rest() == *answer, "the answer is not what was sent");
        });
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("client", ""));
        assert_eq!(record.number("bytes_down"), answer.len() as u64);
    }
}

#[test]
fn a_server_that_has_said_all_still_gets_the_rest() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        upstream.write_all(b"no more from here").unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"no more from here");
        let late = bytes(2, 2 * MIB);
        std::thread::scope(|scope| {
            let late = &late;
            scope.spawn(move || {
                client.send(late);
                client.close_notify();
            });
            assert!(read_whole(&mut upstream) == *late, "not what was sent");
        });
        assert_eq!(gate.record().end(), "upstream");
    }
}

#[test]
fn an_end_without_a_close_notify_is_a_reset_behind_every_byte() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.send(bytes(1, 10_000));
        client.end_without_close_notify();
        let mut received = vec![0; 10_000];
        upstream.read_exact(&mut received).unwrap();
        assert!(received == bytes(1, 10_000), "not what was sent");
        expect_reset(&mut upstream);
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "truncated"));
        assert_eq!(record.number("bytes_up"), 10_000);
    }
}

#[test]
fn an_end_without_a_close_notify_is_a_reset_behind_more_than_a_socket_holds() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        let sent = bytes(1, MIB);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.send(&sent);
                client.end_without_close_notify();
            });
            let mut received = vec![0; sent.len()];
            let read = upstream.read_exact(&mut received);
            assert!(read.is_ok() && received == sent, "{read:?}");
        });
        expect_reset(&mut upstream);
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "truncated"));
        assert_eq!(record.number("bytes_up"), MIB as u64);
    }
}

#[test]
fn an_end_within_a_record_is_a_reset() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.send(b"whole");
        let record = client.records(b"and half");
        client.socket.write_all(&record[..record.len() - 1]).unwrap();
        let mut received = [0; 5];
        upstream.read_exact(&mut received).unwrap();
        client.end_without_close_notify();
        expect_reset(&mut upstream);
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "truncated"));
        assert_eq!(record.number("bytes_up"), 5);
    }
}

#[test]
fn a_reset_on_one_side_is_one_on_the_other() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        client.send(b"x");
        upstream.read_exact(&mut [0]).unwrap();
        reset(client.socket);
        expect_reset(&mut upstream);
        assert_eq!(gate.record().end(), "client_reset");

        let Relayed { gate, mut client, upstream } = way.open();
        reset(upstream);
        // Without a close_notify, so that it does not pass for an end.
        expect_cut(&mut client);
        assert_eq!(gate.record().end(), "upstream_reset");
    }
}

#[test]
fn a_server_that_writes_much_and_closes_at_once_is_read_whole_by_a_slow_client() {
    for way in every_way() {
        let backend = Upstream::listen();
        let (gate, settings) = way.start(backend.address(), "", "");
        let mut client = TlsClient::over(slow_reader(gate.address("edge")), &settings, NAME);
        client.shake_hands().unwrap();
        let mut upstream = backend.accept();
        let sent = bytes(5, MIB);
        let writing = {
            let sent = sent.clone();
            std::thread::spawn(move || upstream.write_all(&sent).unwrap())
        };
        // The first bytes are under way, and the kernel's buffers hold no more than a part.
        client.expect(&sent[..1000]);
        writing.join().unwrap();
        assert!(client.rest() == sent[1000..], "not what was sent");
        client.close_notify();
        drop(client);
        let record = gate.record();
        assert_eq!((record.end(), record.number("bytes_down")), ("upstream", MIB as u64));
    }
}

#[test]
fn a_client_that_writes_and_leaves_without_reading_loses_nothing() {
    for way in every_way() {
        let backend = Upstream::listen();
        let (gate, settings) = way.start(backend.address(), "", "");
        let address = gate.address("edge");
        let sent = bytes(6, 4096);
        for round in 0..100 {
            let mut client = TlsClient::connect(address, &settings, NAME);
            // In one segment with the end of the handshake in TLS 1.3, and its tickets find no
            // reader any more.
            client.session.writer().write_all(&sent).unwrap();
            client.close_notify();
            drop(client);
            assert!(read_whole(&mut backend.accept()) == sent, "round {round}");
        }
        let ended = |end: &str| end == "client" || end == "client_reset";
        assert!(gate.records(100).iter().all(|record| ended(record.end())));
    }
}

#[test]
fn bytes_that_came_with_the_end_of_the_handshake_are_not_lost_to_a_reset() {
    for way in every_way() {
        let backend = Upstream::listen();
        let (gate, settings) = way.start(backend.address(), "", "workers = 1");
        let mut client = TlsClient::over(connect(gate.address("edge")), &settings, NAME);
        client.session.writer().write_all(b"the last words").unwrap();
        client.shake_hands_up_to_the_last_flight();
        client.session.send_close_notify();
        let last = client.wire();
        gate.frozen(|| {
            client.socket.write_all(&last).unwrap();
            drop(client);
        });
        if way.version.version == rustls::ProtocolVersion::TLSv1_3 {
            assert_eq!(read_whole(&mut backend.accept()), b"the last words");
        }
        gate.record();
    }
}

#[test]
fn an_idle_connection_ends_with_a_close_notify() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } =
            way.open_with("idle_timeout = \"300ms\"", "");
        client.send(b"x");
        upstream.read_exact(&mut [0]).unwrap();
        client.expect_close_notify();
        expect_end(&mut upstream);
        assert_eq!(gate.record().end(), "idle");
    }
}

#[test]
fn new_keys_alone_do_not_keep_a_connection_from_being_idle() {
    let way = Way { driver: "io_uring", version: VERSIONS[1] };
    let Relayed { gate, mut client, upstream: _upstream } =
        way.open_with("idle_timeout = \"1s\"", "");
    let ended = wait_for("it is idle", SHORT, || {
        if client.session.refresh_traffic_keys().is_ok() {
            let _ = client.flush();
        }
        holds_for("a pause", Duration::from_millis(100), || true);
        std::fs::read_to_string(gate.access_log()).ok().filter(|log| !log.is_empty())
    });
    assert!(ended.contains("\"end\":\"idle\""), "{ended}");
}

#[test]
fn the_silence_of_a_server_does_not_pass_for_its_end() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } =
            way.open_with("half_closed_timeout = \"300ms\"", "");
        client.close_notify();
        expect_end(&mut upstream);
        expect_cut(&mut client);
        assert_eq!(gate.record().end(), "half_closed_timeout");
    }
}

#[test]
fn a_drain_waits_for_what_goes_on_and_cuts_what_it_ends() {
    for way in every_way() {
        let Relayed { mut gate, mut client, mut upstream } =
            way.open_with("", "drain_timeout = \"1s\"");
        gate.signal(Signal::TERM);
        gate.line_with("no new connections are accepted");
        client.send(b"still there");
        let mut received = [0; 11];
        upstream.read_exact(&mut received).unwrap();
        let sending =
            std::thread::spawn(move || while upstream.write_all(&[b'x'; 64 * 1024]).is_ok() {});
        expect_cut(&mut client);
        sending.join().unwrap();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert_eq!(gate.record().end(), "drain");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_a_reset() {
    for way in every_way() {
        let (gate, settings) = way.start(free_port().address(), "", "");
        // The client is done with the handshake before the server is asked.
        let mut client = TlsClient::connect(gate.address("edge"), &settings, NAME);
        expect_cut(&mut client);
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("sni")), ("connect_failed", NAME));
    }
}

#[test]
fn a_side_that_does_not_read_holds_the_other_one_up_and_memory_stays() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        let before = gate.anonymous_kib();
        let much = bytes(9, 32 * MIB);

        // Down, to a client that does not read.
        upstream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let down = write_until_stuck(&mut upstream, &much);
        // Up, to a server that does not read.
        client.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let wire = client.records(&much);
        let up = write_until_stuck(&mut client.socket, &wire);
        assert!(down < much.len() && up < wire.len(), "{down}, {up}");
        let grown = gate.anonymous_kib().saturating_sub(before);
        assert!(grown < 4096, "{grown} KiB");

        // Both read what was meant for them.
        upstream.set_write_timeout(Some(LONG)).unwrap();
        client.socket.set_write_timeout(Some(LONG)).unwrap();
        let mut reading = upstream.try_clone().unwrap();
        let mut sending = client.socket.try_clone().unwrap();
        std::thread::scope(|scope| {
            let (much, wire) = (&much, &wire);
            scope.spawn(move || upstream.write_all(&much[down..]).unwrap());
            scope.spawn(move || sending.write_all(&wire[up..]).unwrap());
            scope.spawn(move || {
                let mut received = vec![0; much.len()];
                reading.read_exact(&mut received).unwrap();
                assert!(received == *much, "up: not what was sent");
            });
            client.expect(much);
        });
    }
}

/// How many bytes are taken before a write times out.
fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while let Ok(written @ 1..) = stream.write(&bytes[taken..]) {
        taken += written;
    }
    taken
}

#[test]
fn an_upstream_that_does_not_take_the_rest_of_a_cut_off_stream_is_given_up() {
    for driver in ["io_uring", "epoll"] {
        let authority = Authority::new("authority");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // What a Unix socket has taken counts as sent only when it is read.
        let listener = UnixListener::bind(&path).unwrap();
        let rule = authority.signs(&[NAME]).rule(&[NAME], "cluster = \"mail\"");
        let config = format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
             idle_timeout = \"500ms\"\n{rule}\n[cluster.mail]\nendpoints = [\"unix:{}\"]\n",
            path.display()
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        let settings = Arc::new(tls_settings(&authority, VERSIONS[1]));
        let mut client = TlsClient::connect(gate.address("edge"), &settings, NAME);
        client.send(b"not read");
        client.end_without_close_notify();
        let (_upstream, _) = listener.accept().unwrap();
        let record = gate.record();
        assert_eq!((record.end(), record.number("bytes_up")), ("tls_failed", 8), "{driver}");
    }
}

#[test]
fn a_client_may_answer_a_close_notify_by_the_end_of_its_connection() {
    for way in every_way() {
        let Relayed { gate, mut client, mut upstream } = way.open();
        upstream.write_all(b"the answer").unwrap();
        upstream.shutdown(Shutdown::Write).unwrap();
        client.expect(b"the answer");
        client.expect_close_notify();
        client.end_without_close_notify();
        expect_end(&mut upstream);
        let record = gate.record();
        assert_eq!((record.end(), record.tls().text("error")), ("upstream", ""), "{way:?}");
    }
}
