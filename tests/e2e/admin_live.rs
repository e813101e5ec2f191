//! What the admin endpoint shows of connections that are open.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::admin::{admin, asks, listener, stats};
use crate::reload::{cluster, page, start, tcp, udp};
use crate::support::{
    Authority, Echo, HttpClient, Record, Ringgate, SHORT, UdpEcho, Upstream, Web, bytes, connect,
    curl, free_port, read_until, wait_for,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];

/// Bytes up and down of a listener.
fn moved(own: SocketAddr, name: &str) -> (u64, u64) {
    let shown = stats(own);
    let bytes = |field: &str| listener(&shown, name)[field].as_u64().unwrap();
    (bytes("bytes_up"), bytes("bytes_down"))
}

/// Waits until a listener has counted just these bytes.
#[track_caller]
fn has_moved(own: SocketAddr, name: &str, expected: (u64, u64)) {
    let mut last = (0, 0);
    let is_done = || {
        last = moved(own, name);
        assert!(last.0 <= expected.0 && last.1 <= expected.1, "{last:?} is beyond {expected:?}");
        (last == expected).then_some(())
    };
    wait_for(&format!("{name} has moved {expected:?}"), SHORT, is_done);
}

fn is_closed(own: SocketAddr, name: &str) {
    wait_for(&format!("{name} has no connection"), SHORT, || {
        (listener(&stats(own), name)["connections"]["open"] == 0).then_some(())
    });
}

/// Sends this many bytes, and reads as many.
fn echoes(client: &mut TcpStream, count: usize) {
    let sent = bytes(count as u64, count);
    std::thread::scope(|scope| {
        let mut sending = client.try_clone().unwrap();
        let sent = &sent;
        scope.spawn(move || sending.write_all(sent).unwrap());
        let mut received = vec![0; count];
        client.read_exact(&mut received).unwrap();
        assert!(received == *sent);
    });
}

#[test]
fn bytes_of_a_relay_are_counted_while_it_lasts_and_once() {
    let echo = Echo::start();
    for driver in BOTH {
        let [own, raw] = [(); 2].map(|()| free_port().address());
        let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
        let gate = start(&config, driver);
        let mut tunnel = connect(raw);
        let mut sum = 0;
        // Alone in the outbox, copied, spliced, and small again.
        for count in [1, 600, 10_000, 3_000_000, 5, 200_000, 1] {
            echoes(&mut tunnel, count);
            sum += count as u64;
            has_moved(own, "raw", (sum, sum));
        }
        drop(tunnel);
        is_closed(own, "raw");
        let record = gate.record();
        assert_eq!((record.number("bytes_up"), record.number("bytes_down")), (sum, sum));
        assert_eq!(moved(own, "raw"), (sum, sum), "{driver}");
    }
}

#[test]
fn bytes_that_an_upstream_does_not_take_are_not_counted() {
    for driver in BOTH {
        let upstream = Upstream::listen();
        let [own, raw] = [(); 2].map(|()| free_port().address());
        let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", upstream.address());
        let gate = start(&config, driver);
        let mut client = connect(raw);
        let mut behind = upstream.accept();
        // Until the sockets on the way are full.
        client.set_nonblocking(true).unwrap();
        let block = vec![1; 64 * 1024];
        let mut sent = 0;
        wait_for("the way is full", SHORT, || {
            let before = sent;
            while let Ok(count) = client.write(&block) {
                sent += count as u64;
            }
            let counted = moved(own, "raw").0;
            (sent == before && counted > 0 && counted < sent).then_some(())
        });
        // What the upstream reads is what was counted, and the rest of what was sent.
        client.set_nonblocking(false).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = Vec::new();
        behind.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, sent);
        has_moved(own, "raw", (sent, 0));
        // A reset while bytes are on their way leaves the numbers of the record.
        drop((behind, client));
        is_closed(own, "raw");
        let record = gate.record();
        assert_eq!(moved(own, "raw"), (record.number("bytes_up"), record.number("bytes_down")));
    }
}

#[test]
fn bytes_of_a_session_and_of_a_long_response_are_counted_while_they_last() {
    let udp_echo = UdpEcho::start("");
    for driver in BOTH {
        let upstream = Upstream::listen();
        let [own, web, dns] = [(); 3].map(|()| free_port().address());
        let site = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"{web}\"\nprotocol = \"http\"\n\
             [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\ncluster = \"c\"\n"
        );
        let config = admin(own)
            + &site
            + &udp("dns", dns, "d")
            + &cluster("c", upstream.address())
            + &cluster("d", udp_echo.address());
        let gate = start(&config, driver);

        let session = crate::udp::client(dns);
        assert_eq!(crate::udp::ask(&session, &[7; 100]), [7; 100]);
        assert_eq!(crate::udp::ask(&session, &[8; 50]), [8; 50]);
        has_moved(own, "dns", (150, 150));

        let mut client = HttpClient::connect(web);
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut behind = HttpClient::over(upstream.accept());
        read_until(&mut behind.stream, b"\r\n\r\n");
        behind.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        behind.send(vec![1; 400_000]);
        let response = client.head_only();
        assert_eq!((response.status, client.take(400_000).len()), (200, 400_000));
        let counted = wait_for("a part of the response is counted", SHORT, || {
            let (up, down) = moved(own, "web");
            // The head of the response comes on top.
            (up > 0 && (400_000..401_000).contains(&down)).then_some((up, down))
        });
        behind.send(vec![1; 600_000]);
        client.take(600_000);
        let record = gate.record();
        let whole = (record.number("bytes_up"), record.number("bytes_down"));
        assert_eq!((whole.0, whole.1 - 600_000), counted);
        has_moved(own, "web", whole);
    }
}

/// The sums of all records of a listener.
fn recorded(records: &[Record], name: &str) -> (u64, u64) {
    let of = records.iter().filter(|record| record.text("listener") == name);
    of.fold((0, 0), |(up, down), record| {
        (up + record.number("bytes_up"), down + record.number("bytes_down"))
    })
}

#[test]
fn what_is_counted_is_what_the_records_say() {
    const NAME: &str = "site.test";
    for driver in BOTH {
        let (authority, web) = (Authority::new("authority"), Web::start());
        let own = free_port().address();
        let files = tempfile::tempdir().unwrap();
        let folder = files.path().join("f");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("large"), bytes(3, 3_000_000)).unwrap();
        fs::write(folder.join("small"), b"small").unwrap();
        let config = admin(own)
            + &format!(
                "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
                 {}\n[[listener.host]]\nroute = [{{ prefix = \"/f\", root = {:?} }}, \
                 {{ path = \"/own\", respond = {{ body = \"own\" }} }}, \
                 {{ prefix = \"/\", cluster = \"c\" }}]\n{}",
                authority.signs(&[NAME]).rule(&[NAME], ""),
                files.path(),
                cluster("c", web.url("").strip_prefix("http://").unwrap().parse().unwrap()),
            );
        let gate: Ringgate = start(&config, driver);
        let paths =
            ["/f/large", "/f/small", "/own", "/f/none", "/bytes/300000", "/unmeasured/300000"];
        let urls = paths.map(|path| format!("https://{NAME}{path}"));
        let mut count = 0;
        for version in ["--http2", "--http1.1"] {
            // One connection, and then one for each.
            let all: Vec<&str> = urls.iter().map(String::as_str).collect();
            let sinks: Vec<&str> = all.iter().flat_map(|_| ["-o", "/dev/null"]).collect();
            curl(gate.address("edge"), &authority, &[&[version][..], &sinks, &all].concat());
            count += all.len();
            for url in &all {
                curl(gate.address("edge"), &authority, &[version, "-o", "/dev/null", url]);
                count += 1;
            }
            let upload = format!("@{}", folder.join("large").display());
            let url = format!("https://{NAME}/sum");
            let upload = [version, "-o", "/dev/null", "--data-binary", &upload, &url];
            curl(gate.address("edge"), &authority, &upload);
            count += 1;
        }
        let records = gate.records(count);
        let expected = recorded(&records, "edge");
        assert!(expected.0 > 6_000_000 && expected.1 > 12_000_000, "{expected:?}");
        is_closed(own, "edge");
        assert_eq!(moved(own, "edge"), expected, "{driver}");
    }
}

/// The open connections, by a query.
#[track_caller]
fn open(own: SocketAddr, query: &str) -> Value {
    let (status, body) = asks(own, &format!("GET /connections{query}"), "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The open connections of a listener.
fn open_of(own: SocketAddr, name: &str) -> Vec<Value> {
    let shown = open(own, "?limit=1000");
    assert_eq!(shown["silent_workers"], Value::Array(Vec::new()));
    let all = shown["connections"].as_array().unwrap().iter();
    all.filter(|one| one["listener"] == name).cloned().collect()
}

#[test]
fn what_is_open_is_listed_with_what_it_does() {
    let (echo, web) = (Echo::start(), Upstream::listen());
    for driver in BOTH {
        let [own, raw, site] = [(); 3].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &proxied("site", site, "w")
            + &cluster("c", echo.address())
            + &cluster("w", web.address());
        let _gate = start(&config, driver);
        assert_eq!(open(own, "")["total"], 0);
        let mut tunnels: Vec<TcpStream> = (0..3).map(|_| connect(raw)).collect();
        for (index, tunnel) in tunnels.iter_mut().enumerate() {
            echoes(tunnel, 100 * (index + 1));
        }
        let shown = open(own, "");
        assert_eq!(shown["total"], 3, "{shown:#}");
        let first = &shown["connections"][0];
        assert_eq!((&first["bytes_up"], &first["bytes_down"]), (&300.into(), &300.into()));
        assert_eq!(first["client"], tunnels[2].local_addr().unwrap().to_string());
        assert_eq!(first["listener"], "raw");
        assert_eq!((&first["protocol"], &first["kind"]), (&"tcp".into(), &"relay".into()));
        assert_eq!(first["cluster"], "c");
        assert_eq!(first["endpoint"], echo.address().to_string());
        assert!(first["age_seconds"].as_f64().unwrap() < 60.0);
        assert!(first["idle_seconds"].as_f64().unwrap() < 60.0);
        let few = open(own, "?limit=2&sort=oldest");
        assert_eq!((&few["total"], few["connections"].as_array().unwrap().len()), (&3.into(), 2));

        // A request on its way, and then a connection that waits for the next one.
        let mut client = HttpClient::connect(site);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut behind = HttpClient::over(web.accept());
        read_until(&mut behind.stream, b"\r\n\r\n");
        let waiting = &open_of(own, "site")[0];
        assert_eq!((&waiting["kind"], &waiting["cluster"]), (&"request".into(), &"w".into()));
        behind.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().status, 200);
        wait_for("the connection rests", SHORT, || {
            let shown = &open_of(own, "site")[0];
            assert_eq!(shown["protocol"], "HTTP/1.1");
            (shown["kind"] == Value::Null && shown["endpoint"] == Value::Null).then_some(())
        });
        drop((client, tunnels));
        wait_for("nothing is open", SHORT, || (open(own, "")["total"] == 0).then_some(()));
        assert_eq!(asks(own, "GET /connections?limit=0", "").0, 400);
        assert_eq!(asks(own, "GET /connections?what=1", "").0, 400);
    }
}

/// An http listener that passes every request on.
fn proxied(listener: &str, listen: SocketAddr, cluster: &str) -> String {
    format!(
        "[[listener]]\nname = \"{listener}\"\nlisten = \"{listen}\"\nprotocol = \"http\"\n\
         [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\ncluster = \"{cluster}\"\n"
    )
}

/// Closes a connection of this listener. Returns the status.
fn closes(own: SocketAddr, name: &str) -> u16 {
    let id = open_of(own, name)[0]["id"].as_str().unwrap().to_owned();
    let (status, body) =
        asks(own, &format!("POST /connections/{id}/close"), "Content-Length: 0\r\n");
    if status == 200 {
        // It is no longer there, or ends within the same turn.
        wait_for("it has ended", SHORT, || {
            let request = format!("POST /connections/{id}/close");
            (asks(own, &request, "Content-Length: 0\r\n").0 == 404).then_some(())
        });
    }
    assert!(body.contains("closed"), "{body}");
    status
}

#[test]
fn one_connection_is_closed_by_a_reset_and_its_record_says_so() {
    let (echo, web) = (Echo::start(), Upstream::listen());
    for driver in BOTH {
        let [own, raw, other, site] = [(); 4].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &tcp("other", other, "c")
            + &proxied("site", site, "w")
            + &cluster("c", echo.address())
            + &cluster("w", web.address());
        let gate = start(&config, driver);
        let is_reset = |stream: &mut TcpStream| {
            let error = stream.read(&mut [0; 16]).expect_err("a reset");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        };
        let (mut one, mut two) = (connect(raw), connect(other));
        echoes(&mut one, 10);
        echoes(&mut two, 10);
        assert_eq!(closes(own, "raw"), 200);
        is_reset(&mut one);
        let record = gate.record();
        assert_eq!((record.text("listener"), record.end()), ("raw", "admin_closed"));
        assert_eq!(listener(&stats(own), "raw")["ends"]["admin_closed"], 1);
        echoes(&mut two, 10);

        // A request that waits for its response.
        let mut client = HttpClient::connect(site);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut behind = HttpClient::over(web.accept());
        read_until(&mut behind.stream, b"\r\n\r\n");
        assert_eq!(closes(own, "site"), 200);
        is_reset(&mut client.stream);
        let records = gate.records(2);
        assert_eq!((records[1].text("path"), records[1].end()), ("/", "admin_closed"));

        // A connection that waits for a request has no record.
        let mut client = HttpClient::connect(site);
        client.send("GET /none HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
        drop(client);
        let mut client = HttpClient::connect(site);
        wait_for("it is there", SHORT, || (open_of(own, "site").len() == 1).then_some(()));
        assert_eq!(closes(own, "site"), 200);
        is_reset(&mut client.stream);
        assert_eq!(gate.records(3).len(), 3);
        assert_eq!(asks(own, "POST /connections/1-9-1/close", "Content-Length: 0\r\n").0, 404);
        assert_eq!(asks(own, "POST /connections/x/close", "Content-Length: 0\r\n").0, 404);
        assert_eq!(asks(own, "GET /connections/1-0-1/close", "").0, 405);
        echoes(&mut two, 10);
    }
}

#[test]
fn a_configuration_that_is_sent_is_stored_and_served_or_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let [own, web] = [(); 2].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "old")), "io_uring");
    let body = || {
        let mut visitor = HttpClient::connect(web);
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        String::from_utf8(visitor.response().body).unwrap()
    };
    let sends = |text: &str| {
        let fields = format!("Content-Length: {}\r\n", text.len());
        let mut client = HttpClient::connect(own);
        client.send(format!("POST /config HTTP/1.1\r\nHost: {own}\r\n{fields}\r\n{text}"));
        let response = client.response();
        (response.status, String::from_utf8(response.body).unwrap())
    };
    let file = gate.config_file();
    let before = fs::read_to_string(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    // Not valid, and valid but refused by the machine.
    let (status, text) = sends(&before.replace("respond", "respnd"));
    assert!(status == 422 && text.contains("respnd"), "{status} {text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = page("other", taken.local_addr().unwrap(), "x");
    assert_eq!(sends(&format!("{before}\n{other}")).0, 422);
    assert_eq!((fs::read_to_string(&file).unwrap(), body()), (before.clone(), "old".to_owned()));
    assert_eq!(stats(own)["reloads"], 0);

    let new = format!("# a comment\n{}", before.replace("\"old\"", "\"new\""));
    let (status, text) = sends(&new);
    assert_eq!(status, 200, "{text}");
    assert_eq!((fs::read_to_string(&file).unwrap(), body()), (new, "new".to_owned()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    // Too long, and from a page of another site.
    assert_eq!(asks(own, "POST /config", "Content-Length: 100000000\r\n").0, 413);
    let cross = "Content-Length: 0\r\nOrigin: http://evil.example\r\n";
    assert_eq!(asks(own, "POST /config", cross).0, 403);
}

#[test]
fn the_level_of_diagnostics_changes_at_once_and_until_the_next_reload() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let gate = start(&(admin(own) + &page("web", web, "a")), "epoll");
    let sets = |query: &str| asks(own, &format!("POST /log{query}"), "Content-Length: 0\r\n").0;
    let count = |part: &str| gate.lines().iter().filter(|line| line.contains(part)).count();
    let says = |part: &str, times: usize| {
        wait_for(part, SHORT, || (count(part) == times).then_some(()));
    };
    assert_eq!((sets(""), sets("?level=loud")), (400, 400));
    // Said once, at the level that shows it.
    assert_eq!(sets("?level=error"), 200);
    says("another level level=\"error\"", 1);
    assert_eq!(sets("?level=off"), 200);
    assert_eq!(sets("?level=info"), 200);
    says("another level level=\"info\"", 1);
    assert_eq!(count("level=\"off\""), 0);
    // The file has the last word again.
    assert_eq!(sets("?level=off"), 200);
    says("another level level=\"off\"", 1);
    assert_eq!(asks(own, "POST /reload", "Content-Length: 0\r\n").0, 200);
    says("reloaded", 1);
}
