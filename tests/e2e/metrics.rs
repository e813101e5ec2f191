//! What is counted, and that real programs of Prometheus take it.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::admin::{admin, asks, metric};
use crate::reload::{cluster, echoes, page, start, tcp, udp};
use crate::support::{
    Echo, HttpClient, SHORT, UdpEcho, Upstream, free_port, wait_for, with_deadlines,
};
use crate::udp::{ask, client};

#[track_caller]
fn clusters(own: SocketAddr) -> Value {
    let (status, body) = asks(own, "GET /clusters", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[track_caller]
fn of<'v>(shown: &'v Value, list: &str, key: &str, name: &str) -> &'v Value {
    let mut all = shown[list].as_array().unwrap().iter();
    all.find(|one| one[key] == name).unwrap_or_else(|| panic!("{name}: {shown:#}"))
}

fn metrics(own: SocketAddr) -> String {
    let (status, text) = asks(own, "GET /metrics", "");
    assert_eq!(status, 200, "{text}");
    text
}

fn proxied(listener: &str, listen: SocketAddr, cluster: &str) -> String {
    page(listener, listen, "")
        .replace("respond = { body = \"\" }", &format!("cluster = \"{cluster}\""))
}

#[test]
fn an_endpoint_is_counted_by_cluster_and_address_and_a_reload_changes_nothing() {
    let (echo, udp_echo, dead) = (Echo::start(), UdpEcho::start(""), free_port());
    for driver in ["io_uring", "epoll"] {
        let [own, raw, dns] = [(); 3].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &udp("dns", dns, "d")
            + &cluster("c", echo.address())
            + &cluster("d", udp_echo.address());
        let config = config.replace(
            &format!("[cluster.c]\nendpoints = [\"{}\"", echo.address()),
            &format!("[cluster.c]\nendpoints = [\"{}\", \"{}\"", echo.address(), dead.address()),
        );
        let gate = start(&config, driver);
        let tunnels: Vec<TcpStream> = (0..8)
            .map(|seed| {
                let mut tunnel = with_deadlines(TcpStream::connect(raw).unwrap());
                echoes(&mut tunnel, seed);
                tunnel
            })
            .collect();
        let session = client(dns);
        assert_eq!(ask(&session, b"x"), b"x");

        let shown = clusters(own);
        let (alive, dead) = (echo.address().to_string(), dead.address().to_string());
        let c = of(&shown, "clusters", "name", "c");
        assert_eq!(c["discovery"], "static");
        assert_eq!((&c["listed"], &c["failing"]), (&2.into(), &1.into()), "{shown:#}");
        let one = of(c, "endpoints", "address", &alive);
        assert_eq!(one["connections"], serde_json::json!({ "total": 8, "open": 8 }));
        assert_eq!((&one["state"], &one["failing_workers"]), (&"up".into(), &0.into()));
        let other = of(c, "endpoints", "address", &dead);
        assert_eq!(
            (&other["state"], &other["connections"]["total"]),
            (&"failing".into(), &0.into())
        );
        assert!(other["failures"]["refused"].as_u64() >= Some(2), "{shown:#}");
        let d = of(&shown, "clusters", "name", "d");
        assert_eq!(d["connections"], serde_json::json!({ "total": 1, "open": 1 }));

        // The cluster has the dead endpoint no more, and its tunnels go on.
        let other = free_port().address();
        gate.reload(
            &config
                .replace(&format!(", \"{dead}\""), "")
                .replace(&dns.to_string(), &other.to_string()),
        );
        let shown = clusters(own);
        let c = of(&shown, "clusters", "name", "c");
        assert_eq!((&c["listed"], &c["connections"]["total"]), (&1.into(), &8.into()), "{shown:#}");
        assert!(c["failures"]["refused"].as_u64() >= Some(2), "the sum stays: {shown:#}");
        assert_eq!(c["endpoints"].as_array().unwrap().len(), 1);
        for mut tunnel in tunnels {
            tunnel.shutdown(std::net::Shutdown::Write).unwrap();
            tunnel.read_to_end(&mut Vec::new()).unwrap();
        }
        let text = wait_for("the tunnels are counted", SHORT, || {
            let text = metrics(own);
            let open = metric(&text, "ringgate_cluster_open_connections{cluster=\"c\"}");
            (open == 0.0).then_some(text)
        });
        let labels = format!("cluster=\"c\",endpoint=\"{alive}\"");
        for way in ["up", "down"] {
            let name = format!("ringgate_endpoint_bytes_total{{{labels},direction=\"{way}\"}}");
            assert_eq!(metric(&text, &name), 80_000.0);
        }
        assert_eq!(metric(&text, &format!("ringgate_endpoint_connections_total{{{labels}}}")), 8.0);
        assert_eq!(metric(&text, "ringgate_cluster_connect_seconds_count{cluster=\"c\"}"), 8.0);
        assert!(!text.contains(&dead), "it is forgotten");
    }
}

#[test]
fn a_connection_that_is_used_again_is_no_connect() {
    let backend = Upstream::listen();
    let [own, web] = [(); 2].map(|()| free_port().address());
    let config = admin(own) + &proxied("web", web, "c") + &cluster("c", backend.address());
    let _gate = start(&config, "io_uring");
    let mut visitor = HttpClient::connect(web);
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = backend.backend();
    for request in 0..3 {
        if request > 0 {
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        backend.request();
        backend.answer("hello");
        assert_eq!(visitor.response().body, b"hello");
    }
    let text = wait_for("the last request has ended", SHORT, || {
        let text = metrics(own);
        let done = metric(&text, "ringgate_cluster_first_byte_seconds_count{cluster=\"c\"}");
        (done == 3.0).then_some(text)
    });
    assert_eq!(metric(&text, "ringgate_cluster_connect_seconds_count{cluster=\"c\"}"), 1.0);
    assert_eq!(metric(&text, "ringgate_cluster_connections_total{cluster=\"c\"}"), 3.0);
}
