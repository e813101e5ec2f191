//! What is counted, and that real programs of Prometheus take it.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::admin::{admin, asks, metric};
use crate::reload::{cluster, echoes, page, start, tcp, udp};
use crate::support::{
    Authority, Echo, HttpClient, SHORT, UPGRADE, UdpEcho, Upstream, free_port, read_until,
    stream_site, wait_for, with_deadlines,
};
use crate::udp::{ask, client};

#[track_caller]
fn of<'v>(shown: &'v Value, list: &str, key: &str, name: &str) -> &'v Value {
    let mut all = shown[list].as_array().unwrap().iter();
    all.find(|one| one[key] == name).unwrap_or_else(|| panic!("{name}: {shown:#}"))
}

#[track_caller]
fn shown(own: SocketAddr, path: &str) -> Value {
    let (status, body) = asks(own, &format!("GET {path}"), "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
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

        let clusters = shown(own, "/clusters");
        let (alive, dead) = (echo.address().to_string(), dead.address().to_string());
        let c = of(&clusters, "clusters", "name", "c");
        assert_eq!(c["discovery"], "static");
        assert_eq!((&c["listed"], &c["failing"]), (&2.into(), &1.into()), "{clusters:#}");
        let one = of(c, "endpoints", "address", &alive);
        assert_eq!(one["connections"], serde_json::json!({ "total": 8, "open": 8 }));
        assert_eq!((&one["state"], &one["failing_workers"]), (&"up".into(), &0.into()));
        let other = of(c, "endpoints", "address", &dead);
        assert_eq!(
            (&other["state"], &other["connections"]["total"]),
            (&"failing".into(), &0.into())
        );
        assert!(other["failures"]["refused"].as_u64() >= Some(2), "{clusters:#}");
        let d = of(&clusters, "clusters", "name", "d");
        assert_eq!(d["connections"], serde_json::json!({ "total": 1, "open": 1 }));

        // The cluster has the dead endpoint no more, and its tunnels go on.
        let other = free_port().address();
        gate.reload(
            &config
                .replace(&format!(", \"{dead}\""), "")
                .replace(&dns.to_string(), &other.to_string()),
        );
        let clusters = shown(own, "/clusters");
        let c = of(&clusters, "clusters", "name", "c");
        assert_eq!(
            (&c["listed"], &c["connections"]["total"]),
            (&1.into(), &8.into()),
            "{clusters:#}"
        );
        assert!(c["failures"]["refused"].as_u64() >= Some(2), "the sum stays: {clusters:#}");
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

#[test]
fn a_page_of_ringgate_is_not_counted_as_bytes_of_an_endpoint() {
    let [backend, tunnelled] = [(); 2].map(|()| Upstream::listen());
    let [own, web] = [(); 2].map(|()| free_port().address());
    let (dead, address) = (backend.address().to_string(), tunnelled.address().to_string());
    let config = admin(own)
        + &proxied("proxy", web, "c")
        + &cluster("c", backend.address())
        + &stream_site(tunnelled.address(), "");
    let gate = start(&config, "io_uring");
    let mut visitor = HttpClient::connect(web);
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    read_until(&mut backend.accept(), b"\r\n\r\n");
    assert_eq!(visitor.response().status, 502);
    let mut visitor = HttpClient::connect(gate.address("web"));
    visitor.send(UPGRADE);
    read_until(&mut tunnelled.accept(), b"\r\n\r\n");
    assert_eq!(visitor.response().status, 502);
    for endpoint in [dead, address] {
        let down = wait_for("the request is counted", SHORT, || {
            let text = metrics(own);
            let bytes = |way| {
                let labels = format!("endpoint=\"{endpoint}\",direction=\"{way}\"");
                let mut lines = text.lines().filter(|line| line.contains(&labels));
                let line = lines.find(|line| line.starts_with("ringgate_endpoint_bytes_total"));
                line.unwrap().rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
            };
            (bytes("up") > 0.0).then(|| bytes("down"))
        });
        assert_eq!(down, 0.0, "{endpoint}");
    }
}

#[test]
fn a_cluster_that_a_reload_has_removed_is_not_one_without_endpoints() {
    let echo = Echo::start();
    let [own, raw, other] = [(); 3].map(|()| free_port().address());
    let config = admin(own) + &tcp("raw", raw, "c") + &cluster("c", echo.address());
    let gate = start(&config, "io_uring");
    let mut tunnel = with_deadlines(TcpStream::connect(raw).unwrap());
    echoes(&mut tunnel, 1);
    let of_cluster = |what| format!("ringgate_cluster_{what}{{cluster=\"c\"}}");
    let text = metrics(own);
    assert_eq!(metric(&text, &of_cluster("endpoints")), 1.0);
    gate.reload(&(admin(own) + &page("web", other, "hello")));
    let text = metrics(own);
    assert_eq!(metric(&text, &of_cluster("open_connections")), 1.0);
    for what in ["", "drained_", "failing_", "unreachable_"] {
        let name = format!("ringgate_cluster_{what}endpoints{{cluster=\"c\"}}");
        assert!(!text.contains(&name), "{name} is there:\n{text}");
    }
}

#[test]
fn what_alerts_compare_is_there_from_the_start() {
    let authority = Authority::new("authority");
    let pair = authority.signs(&["a.test"]);
    let [own, web, raw] = [(); 3].map(|()| free_port().address());
    let tls = format!("{}[[listener.host]]\nnames = [\"a.test\"]", pair.rule(&[], ""));
    let config = admin(own)
        + &page("web", web, "hello").replace("[[listener.host]]", &tls)
        + &page("raw", raw, "hello");
    let _gate = start(&config, "io_uring");
    let text = metrics(own);
    for version in ["1.2", "1.3"] {
        for resumed in ["false", "true"] {
            let labels = format!("version=\"{version}\",resumed=\"{resumed}\"");
            let name = |listener| {
                format!(
                    "ringgate_listener_tls_handshakes_total{{listener=\"{listener}\",{labels}}}"
                )
            };
            assert_eq!(metric(&text, &name("web")), 0.0);
            assert!(!text.contains(&name("raw")), "it ends no TLS");
        }
    }
    let file = pair.certificate.display();
    let [begin, end] = ["before", "after"].map(|which| {
        let name = format!("ringgate_certificate_not_{which}_seconds{{certificate=\"{file}\"}}");
        metric(&text, &name)
    });
    assert!(begin < end, "{begin} {end}");
    // The endpoint itself takes no place.
    let _visitor = with_deadlines(TcpStream::connect(raw).unwrap());
    wait_for("a worker has ticked with the connection", SHORT, || {
        let text = metrics(own);
        let sum = |metric: &str| -> f64 {
            let all = text.lines().filter_map(|line| line.strip_prefix(metric));
            all.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        let max = sum("ringgate_worker_max_places{");
        (sum("ringgate_worker_places{") == 1.0 && max > 1.0).then_some(())
    });
}

#[test]
fn the_certificate_that_is_in_use_is_shown_after_its_files_have_changed() {
    let authority = Authority::new("authority");
    let [first, second] =
        [&["a.test"][..], &["a.test", "b.test"]].map(|names| authority.signs(names));
    let [own, web] = [(); 2].map(|()| free_port().address());
    let config = admin(own)
        + &page("web", web, "hello").replace(
            "[[listener.host]]",
            &format!("{}[[listener.host]]\nnames = [\"a.test\"]", first.rule(&[], "")),
        );
    let gate = start(&config, "io_uring");
    let one = || shown(own, "/certificates")["certificates"][0].clone();
    let file = first.certificate.display().to_string();
    assert_eq!((&one()["source"], &one()["file"]), (&"file".into(), &file.into()));
    assert_eq!(one()["names"], serde_json::json!(["a.test"]));
    fs::copy(&second.key, &first.key).unwrap();
    fs::copy(&second.certificate, &first.certificate).unwrap();
    gate.line_with("a certificate was read again");
    let both = serde_json::json!(["a.test", "b.test"]);
    // The line is written before the certificate is given on.
    wait_for("it is shown", SHORT, || (one()["names"] == both).then_some(()));
    assert_eq!(shown(own, "/stats")["certificates"][0]["names"], both);
    gate.reload(&(config.replace("hello", "other")));
    assert_eq!(one()["names"], both);
}

#[test]
fn the_configuration_in_use_is_shown_without_secrets() {
    let [own, web] = [(); 2].map(|()| free_port().address());
    let fields = "request_fields = { set = { authorization = \"Basic hunter2\" } }";
    let config = admin(own)
        + &proxied("web", web, "c").replace("cluster = ", &format!("{fields}\ncluster = "))
        + &cluster("c", free_port().address());
    let gate = start(&config, "epoll");
    let (_, text) = asks(own, "GET /config", "");
    assert!(!text.contains("hunter2") && text.contains("(redacted)"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    // Also what the file leaves out.
    assert_eq!(value["cluster"]["c"]["connect_attempts"], 2, "{value:#}");
    // A file that is refused is not in use.
    fs::write(gate.config_file(), "nonsense").unwrap();
    assert_eq!(asks(own, "POST /reload", "Content-Length: 0\r\n").0, 422);
    assert_eq!(asks(own, "GET /config", "").1, text);
    // The next reload must not take this line for its own.
    gate.line_with("the new configuration is not used");
    gate.reload(&config.replace("\"c\"", "\"d\"").replace("cluster.c", "cluster.d"));
    let value = shown(own, "/config");
    assert!(value["cluster"]["d"].is_object() && value["cluster"]["c"].is_null());
}

#[test]
fn what_is_copied_spliced_and_asked_of_a_host_is_counted() {
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let [own, raw, web] = [(); 3].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &page("web", web, "hello").replace(
                "[[listener.host]]",
                "[[listener.host]]\nnames = [\"a.test\", \"z.test\"]",
            )
            + &cluster("c", echo.address());
        let _gate = start(&config, driver);
        let mut tunnel = with_deadlines(TcpStream::connect(raw).unwrap());
        echoes(&mut tunnel, 1);
        drop(tunnel);
        for host in ["a.test", "z.test", "other.test"] {
            let mut visitor = HttpClient::connect(web);
            visitor.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            visitor.response();
        }
        let text = wait_for("the tunnel has ended, and a worker has ticked", SHORT, || {
            let text = metrics(own);
            let name = "ringgate_splice_refused_total{listener=\"raw\",reason=\"few_bytes\"}";
            let worker = |what| format!("ringgate_worker_{what}{{worker=\"0\"}}");
            let ticks = ["ticks_total", "max_pipes"].map(|what| metric(&text, &worker(what)));
            (metric(&text, name) == 1.0 && !ticks.contains(&0.0)).then_some(text)
        });
        let labels = "listener=\"raw\",direction=\"up\",relay=\"copy\"";
        let name = format!("ringgate_listener_relayed_bytes_total{{{labels}}}");
        assert_eq!(metric(&text, &name), 10_000.0);
        let name = "ringgate_host_requests_total{listener=\"web\",host=\"a.test\"}";
        assert_eq!(metric(&text, name), 2.0);
        assert!(!text.contains("other.test"));
        assert_eq!(metric(&text, "ringgate_generations_alive"), 1.0);
    }
}
