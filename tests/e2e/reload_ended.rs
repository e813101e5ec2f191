//! The end of listeners that a reload removes: their service, their clients and their logs.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use crate::reload::{cluster, page, start, tcp};
use crate::support::{
    Echo, HttpClient, LONG, Record, Ringgate, Setup, client_hello, connect, expect_reset,
    free_port, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_log_of_a_removed_listener_is_closed_without_another_reload() {
    for driver in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("goes.log");
        let (one, two) = (free_port().address(), free_port().address());
        let stays = page("stays", one, "stays");
        let key = format!("access_log = {{ path = {log:?} }}\nprotocol");
        let goes = page("goes", two, "goes").replace("protocol", &key);
        let gate = start(&(stays.clone() + &goes), driver);
        let is_open = || {
            let files = format!("/proc/{}/fd", gate.pid().as_raw_nonzero());
            let files = fs::read_dir(files).unwrap().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == log)
        };
        let mut client = HttpClient::connect(two);
        client.send(GET);
        client.response();
        assert!(is_open());
        gate.reload(&stays);
        // Its service ends after 5 s.
        wait_for(&format!("the log is closed over {driver}"), LONG, || (!is_open()).then_some(()));
        client.expect_end();
    }
}

/// A request, or a hello, of which the client has sent the first half.
struct Half {
    client: TcpStream,
    rest: Vec<u8>,
}

impl Half {
    fn of(gate: &Ringgate, listener: &str, whole: &[u8]) -> Half {
        let (first, rest) = whole.split_at(20);
        let mut client = gate.connect(listener);
        client.write_all(first).unwrap();
        Half { client, rest: rest.to_vec() }
    }

    fn complete(mut self) -> TcpStream {
        self.client.write_all(&self.rest).unwrap();
        self.client
    }
}

#[test]
fn a_client_that_comes_too_late_is_not_left_in_doubt_and_has_a_record() {
    for driver in BOTH {
        let echo = Echo::start();
        let [stays, web, sni, edge] = [(); 4].map(|()| free_port().address());
        // The halves of a hello wait for longer than the service lasts.
        let rule = "hello_timeout = \"1m\"\n[[listener.tls]]\ncluster = \"c\"\n";
        let stays = page("stays", stays, "stays");
        let sni = tcp("sni", sni, "c")
            .replace("protocol = \"tcp\"\ncluster = \"c\"", &format!("protocol = \"tls\"\n{rule}"));
        let edge = page("edge", edge, "x")
            .replace("[[listener.host]]", &(rule.to_owned() + "[[listener.host]]"));
        let goes = page("web", web, "x") + &sni + &edge + &cluster("c", echo.address());
        // One worker, so that all of them end in the same tick.
        let server = format!("driver = \"{driver}\"\nworkers = 1");
        let config = stays.clone() + &goes;
        let gate = Setup { config, server, ..Setup::default() }.start();
        let hello = client_hello(Some("a.test"), &[], 0);
        let silent = ["web", "edge"].map(|listener| gate.connect(listener));
        let mut silent_tls = gate.connect("sni");
        let http = ["web", "edge"].map(|listener| Half::of(&gate, listener, GET.as_bytes()));
        let tls = ["sni", "edge"].map(|listener| Half::of(&gate, listener, &hello));
        // When every thread waits, what the clients have sent was read.
        gate.frozen(|| ());
        gate.reload(&stays);

        // Nothing comes from these: they end with the service.
        for client in silent {
            HttpClient::over(client).expect_end();
        }
        expect_reset(&mut silent_tls);
        // A request is answered, and what has no response is reset.
        for client in http.map(Half::complete) {
            let mut client = HttpClient::over(client);
            let response = client.response();
            assert_eq!(response.status, 503, "{driver}");
            assert_eq!(response.field("connection"), Some("close"));
            client.expect_end();
        }
        for mut client in tls.map(Half::complete) {
            expect_reset(&mut client);
        }
        let records = gate.records_where(5, |record| record.end() == "drain");
        let mut of: Vec<_> =
            records.iter().map(|one| (one.text("listener"), one.text("protocol"))).collect();
        of.sort_unstable();
        let expected = [
            ("edge", "HTTP/1.1"),
            ("edge", "tls"),
            ("sni", "tls"),
            ("sni", "tls"),
            ("web", "HTTP/1.1"),
        ];
        assert_eq!(of, expected, "{driver}");
        let is_answered = |one: &&Record| one.text("protocol") == "HTTP/1.1";
        assert!(records.iter().filter(is_answered).all(|one| one.number("status") == 503));
        // The others go on.
        let mut client = connect(gate.address("stays"));
        client.write_all(GET.as_bytes()).unwrap();
        assert_eq!(HttpClient::over(client).response().body, b"stays");
    }
}
