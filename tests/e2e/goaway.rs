//! Connections of HTTP/2 that end by themselves: a request that is on its way as the first GOAWAY
//! arrives is served (RFC 9113 section 6.8).

use rustix::process::{Signal, kill_process};

use crate::drain_delay::{DATA, GOAWAY, begin_http2, frame_of, request_frame};
use crate::reload::page;
use crate::support::{
    Authority, LONG, SHORT, SOON, Setup, TlsClient, free_port, http2_settings, wait_for,
};
use crate::takeover::{BOTH, Chain, has_ended};

const NAME: &str = "site.test";
/// The type of a frame (RFC 9113 section 6.7).
const PING: u8 = 6;

/// Ends a connection without a stream by `end`, and lets a request cross its first GOAWAY.
fn a_request_crosses_the_goaway(line: &str, end: fn(&mut Chain)) {
    let authority = Authority::new("authority");
    let settings = http2_settings(&authority);
    for driver in BOTH {
        let rule = authority.signs(&[NAME]).rule(&[NAME], "");
        let config = page("web", free_port().address(), "page")
            .replace("\"http\"", &format!("\"http\"\n{line}"))
            .replace("[[listener.host]]\n", &format!("{rule}\n[[listener.host]]\n"));
        let server = format!("driver = \"{driver}\"\ndrain_timeout = \"60s\"");
        let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
        let first = chain.current;
        let mut client = TlsClient::connect(chain.address("web"), &settings, NAME);
        begin_http2(&mut client);
        assert_eq!(frame_of(&mut client, DATA), b"page");
        end(&mut chain);
        // All streams are still accepted: the last one has the greatest number that there is.
        let goaway = frame_of(&mut client, GOAWAY);
        assert_eq!(goaway[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], "over {driver}");
        client.send(request_frame(3));
        let ping = frame_of(&mut client, PING);
        assert_eq!(frame_of(&mut client, DATA), b"page", "over {driver}");
        // The answer shows that the client knows. What it sends from now on is not served.
        client.send([&[0, 0, 8, PING, 1, 0, 0, 0, 0], &ping[..]].concat());
        let goaway = frame_of(&mut client, GOAWAY);
        assert_eq!(goaway[..8], [0, 0, 0, 3, 0, 0, 0, 0], "over {driver}");
        client.socket.set_read_timeout(Some(SOON)).unwrap();
        client.rest();
        drop(client);
        if chain.current == first {
            kill_process(first, Signal::TERM).unwrap();
        }
        wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
    }
}

/// There was one GOAWAY, with the last stream that had arrived.
#[test]
fn a_request_on_its_way_as_another_process_takes_over_is_served() {
    a_request_crosses_the_goaway("", |chain| {
        chain.take_over();
    });
}

#[test]
fn a_request_on_its_way_as_a_drain_begins_is_served() {
    a_request_crosses_the_goaway("", |chain| kill_process(chain.current, Signal::TERM).unwrap());
}

#[test]
fn a_request_on_its_way_as_the_keepalive_timeout_is_over_is_served() {
    a_request_crosses_the_goaway("keepalive_timeout = \"2s\"", |_| ());
}

/// The client answers no PING.
#[test]
fn a_drain_and_a_further_signal_end_with_a_client_that_is_mute() {
    let authority = Authority::new("authority");
    let settings = http2_settings(&authority);
    for (driver, signals) in [("io_uring", 1), ("epoll", 1), ("io_uring", 2), ("epoll", 2)] {
        let rule = authority.signs(&[NAME]).rule(&[NAME], "");
        let config = page("web", free_port().address(), "page")
            .replace("[[listener.host]]\n", &format!("{rule}\n[[listener.host]]\n"));
        let server = format!("driver = \"{driver}\"\ndrain_timeout = \"60s\"");
        let mut gate = Setup { config, server, ..Setup::default() }.start();
        let mut client = TlsClient::connect(gate.address("web"), &settings, NAME);
        begin_http2(&mut client);
        frame_of(&mut client, DATA);
        (0..signals).for_each(|_| gate.signal(Signal::TERM));
        // It says which requests were served, and closes.
        client.socket.set_read_timeout(Some(SOON)).unwrap();
        if signals == 1 {
            frame_of(&mut client, GOAWAY);
            let goaway = frame_of(&mut client, GOAWAY);
            assert_eq!(goaway[..8], [0, 0, 0, 1, 0, 0, 0, 0], "over {driver}");
            client.rest();
        }
        assert!(gate.wait_exit(LONG).success(), "over {driver}");
    }
}
