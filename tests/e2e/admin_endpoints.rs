//! Endpoints that the admin endpoint takes out of use, or sets.

use std::io::Read;
use std::net::SocketAddr;

use serde_json::Value;

use crate::admin::{admin, asks};
use crate::reload::{start, tcp, udp};
use crate::support::{
    Echo, HttpClient, Named, SHORT, Setup, UdpEcho, Upstream, connect, free_port, wait_for,
};
use crate::takeover::{Chain, echoes};
use crate::udp::{ask, client};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const NOTHING: &str = "Content-Length: 0\r\n";

/// A cluster of these endpoints.
fn cluster(name: &str, endpoints: &[SocketAddr]) -> String {
    let list: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    format!("[cluster.{name}]\nendpoints = {list:?}\n")
}

#[track_caller]
fn does(own: SocketAddr, order: &str) {
    let (status, text) = asks(own, order, NOTHING);
    assert_eq!(status, 200, "{order}: {text}");
}

fn drain(own: SocketAddr, cluster: &str, endpoint: SocketAddr) {
    does(own, &format!("POST /clusters/{cluster}/endpoints/{endpoint}/drain"));
}

fn enable(own: SocketAddr, cluster: &str, endpoint: SocketAddr) {
    does(own, &format!("POST /clusters/{cluster}/endpoints/{endpoint}/enable"));
}

/// Sets the endpoints of a cluster. Returns the status and the body.
fn set(own: SocketAddr, cluster: &str, body: &str) -> (u16, String) {
    let mut client = HttpClient::connect(own);
    let length = body.len();
    client.send(format!(
        "POST /clusters/{cluster}/endpoints HTTP/1.1\r\nHost: {own}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    let response = client.response();
    (response.status, String::from_utf8(response.body).unwrap())
}

#[track_caller]
fn clusters(own: SocketAddr) -> Value {
    let (status, body) = asks(own, "GET /clusters", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The name of the backend that a connection gets; empty if it gets none.
fn name_of(listener: SocketAddr) -> String {
    let mut name = String::new();
    let _ = connect(listener).read_to_string(&mut name);
    name
}

/// The names of the backends that eight connections get, each once.
fn reached(listener: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = (0..8).map(|_| name_of(listener)).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_drained_endpoint_gets_nothing_new_and_what_uses_it_goes_on() {
    for driver in BOTH {
        let echo = [Echo::start(), Echo::start()];
        let dns = [UdpEcho::start("a"), UdpEcho::start("b")];
        let [own, raw, datagrams] = [(); 3].map(|()| free_port().address());
        let config = admin(own)
            + &tcp("raw", raw, "c")
            + &cluster("c", &echo.each_ref().map(Echo::address))
            + &udp("dns", datagrams, "d")
            + &cluster("d", &dns.each_ref().map(UdpEcho::address));
        let _gate = start(&config, driver);
        let mut tunnels: Vec<_> = (0..4).map(|_| connect(raw)).collect();
        tunnels.iter_mut().for_each(echoes);
        let sessions: Vec<_> = (0..4).map(|_| client(datagrams)).collect();
        sessions.iter().for_each(|session| assert_eq!(&ask(session, b"one")[1..], b"one"));

        drain(own, "c", echo[0].address());
        drain(own, "d", dns[0].address());
        // At once: the order is confirmed when all workers have carried it out.
        let used = |cluster: usize, endpoint: usize| {
            clusters(own)["clusters"][cluster]["endpoints"][endpoint]["connections"]["total"]
                .clone()
        };
        let shown = clusters(own);
        let of = |cluster: usize, address: SocketAddr| {
            let all = shown["clusters"][cluster]["endpoints"].as_array().unwrap();
            all.iter().position(|one| one["address"] == address.to_string()).unwrap()
        };
        let (c, d) = (of(0, echo[0].address()), of(1, dns[0].address()));
        let first = &shown["clusters"][0];
        assert_eq!(first["endpoints"][c]["state"], "drained", "{shown:#}");
        assert_eq!(first["endpoints"][1 - c]["state"], "up", "{shown:#}");
        assert!(first["listed"] == 2 && first["drained"] == 1, "{shown:#}");
        let before = (used(0, c), used(1, d));
        for _ in 0..8 {
            echoes(&mut connect(raw));
            assert_eq!(ask(&client(datagrams), b"new"), b"bnew");
        }
        assert_eq!((used(0, c), used(1, d)), before, "{driver}");
        tunnels.iter_mut().for_each(echoes);
        sessions.iter().for_each(|session| assert_eq!(&ask(session, b"two")[1..], b"two"));

        enable(own, "c", echo[0].address());
        (0..4).for_each(|_| echoes(&mut connect(raw)));
        assert_ne!(used(0, c), before.0, "{driver}");
    }
}

#[test]
fn a_kept_connection_to_a_drained_endpoint_is_not_used_again() {
    for driver in BOTH {
        let (first, second) = (Upstream::listen(), Upstream::listen());
        let [own, web] = [(); 2].map(|()| free_port().address());
        let config = admin(own)
            + &format!(
                "[[listener]]\nname = \"web\"\nlisten = \"{web}\"\nprotocol = \"http\"\n\
                 [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\ncluster = \"c\"\n"
            )
            + &cluster("c", &[first.address(), second.address()]);
        let _gate = start(&config, driver);
        drain(own, "c", second.address());
        let mut client = HttpClient::connect(web);
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(get);
        let mut kept = first.backend();
        for _ in 0..2 {
            kept.request();
            kept.answer("ok");
            assert_eq!(client.response().body, b"ok", "{driver}");
            client.send(get);
        }
        kept.request();
        kept.answer("ok");
        client.response();
        enable(own, "c", second.address());
        drain(own, "c", first.address());
        client.send(get);
        let mut other = second.backend();
        other.request();
        other.answer("ok");
        assert_eq!(client.response().body, b"ok", "{driver}");
    }
}

#[test]
fn endpoints_are_set_until_they_are_reset_or_the_file_names_others() {
    let named = ["a", "b", "c"].map(Named::start);
    let [a, b, c] = named.each_ref().map(Named::address);
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let of =
        |endpoints: &[SocketAddr]| admin(own) + &tcp("raw", raw, "c") + &cluster("c", endpoints);
    let config = of(&[a]);
    let gate = start(&config, "io_uring");
    let body = format!("{{\"endpoints\": [\"{b}\", \"{c}\"]}}");
    let sets = || {
        let (status, text) = set(own, "c", &body);
        assert_eq!(status, 200, "{text}");
        assert_eq!(reached(raw), ["b", "c"]);
        assert_eq!(clusters(own)["clusters"][0]["is_set"], true);
    };
    assert_eq!(reached(raw), ["a"]);
    sets();
    // A reload for another reason.
    gate.reload(&(of(&[a]) + "[log]\nlevel = \"debug\"\n"));
    assert_eq!(reached(raw), ["b", "c"]);
    does(own, "DELETE /clusters/c/endpoints");
    assert_eq!(reached(raw), ["a"]);
    sets();
    gate.reload(&of(&[a, b]));
    assert_eq!(reached(raw), ["a", "b"]);
    assert_eq!(clusters(own)["clusters"][0]["is_set"], false);
    // An endpoint that is drained stays so.
    drain(own, "c", a);
    gate.reload(&of(&[a, b, c]));
    assert_eq!(reached(raw), ["b", "c"]);
}

#[test]
fn a_successor_goes_on_with_what_was_changed() {
    let named = ["a", "b", "c"].map(Named::start);
    let [a, b, c] = named.each_ref().map(Named::address);
    let [own, raw, other] = [(); 3].map(|()| free_port().address());
    let config = admin(own)
        + &tcp("raw", raw, "c")
        + &tcp("other", other, "d")
        + &cluster("c", &[a, b])
        + &cluster("d", &[a]);
    let server = "drain_timeout = \"1s\"".to_owned();
    let mut chain = Chain::start(Setup { config, server, ..Setup::default() });
    drain(own, "c", a);
    assert_eq!(set(own, "d", &format!("{{\"endpoints\": [\"{c}\"]}}")).0, 200);
    for _ in 0..2 {
        chain.take_over();
        for _ in 0..4 {
            assert_eq!((&*name_of(raw), &*name_of(other)), ("b", "c"));
        }
    }
    wait_for("the endpoint of the successor", SHORT, || {
        std::net::TcpStream::connect(own).is_ok().then_some(())
    });
    enable(own, "c", a);
    does(own, "DELETE /clusters/d/endpoints");
    assert_eq!(name_of(other), "a");
    chain.end();
}

#[test]
fn what_cannot_be_changed_is_refused_and_changes_nothing() {
    let named = Named::start("a");
    let [own, raw, free] = [(); 3].map(|()| free_port().address());
    let path = tempfile::tempdir().unwrap();
    let socket = path.path().join("none.sock");
    let config = admin(own)
        + &tcp("raw", raw, "c")
        + &format!(
            "[cluster.c]\nendpoints = [\"{}\", \"unix:{}\"]\n",
            named.address(),
            socket.display()
        );
    let _gate = start(&config, "io_uring");
    let a = named.address();
    for (order, status) in [
        ("POST /clusters/x/endpoints/1.1.1.1:1/drain".to_owned(), 404),
        (format!("POST /clusters/c/endpoints/{free}/drain"), 404),
        (format!("POST /clusters/c/endpoints/{free}/enable"), 404),
        ("POST /clusters/c/endpoints/%ff/drain".to_owned(), 404),
        (format!("GET /clusters/c/endpoints/{a}/drain"), 405),
        ("GET /clusters/c/endpoints".to_owned(), 405),
        ("DELETE /clusters/x/endpoints".to_owned(), 404),
        (format!("POST /clusters/c/endpoints/{a}/forget"), 404),
    ] {
        assert_eq!(asks(own, &order, NOTHING).0, status, "{order}");
    }
    let (status, text) = set(own, "c", &format!("{{\"endpoints\": [\"{raw}\"]}}"));
    assert!(status == 422 && text.contains("leads back"), "{status}: {text}");
    for body in
        ["", "[]", "{\"endpoints\": [\"localhost:80\"]}", "{\"endpoints\": [\"1.1.1.1:0\"]}"]
    {
        let (status, text) = set(own, "c", body);
        assert_eq!(status, 422, "{body}: {text}");
    }
    let fields = "Content-Length: 0\r\nOrigin: http://stranger.example\r\n";
    let order = format!("POST /clusters/c/endpoints/{a}/drain");
    assert_eq!(asks(own, &order, fields).0, 403);
    assert_eq!(clusters(own)["clusters"][0]["drained"], 0);
    // The path of a Unix socket has slashes.
    let encoded = format!("unix:{}", socket.display()).replace('/', "%2F");
    does(own, &format!("POST /clusters/c/endpoints/{encoded}/drain"));
    assert_eq!(clusters(own)["clusters"][0]["drained"], 1);
    assert_eq!(name_of(raw), "a");
    // With nothing left, clients are refused by an end of their connections.
    drain(own, "c", a);
    assert_eq!(name_of(raw), "");
    enable(own, "c", a);
    assert_eq!(name_of(raw), "a");
}

#[test]
fn endpoints_that_lead_back_through_others_that_were_set_are_not_used() {
    let named = ["a", "b"].map(Named::start);
    let [a, b] = named.each_ref().map(Named::address);
    let [own, first, second, third] = [(); 4].map(|()| free_port().address());
    let listeners = admin(own) + &tcp("first", first, "c") + &tcp("second", second, "d");
    let config = listeners.clone() + &cluster("c", &[a]) + &cluster("d", &[b]);
    let gate = start(&config, "io_uring");
    // The first goes to the second, so that the second must not go to the first.
    let to = |address: SocketAddr| format!("{{\"endpoints\": [\"{address}\"]}}");
    assert_eq!(set(own, "c", &to(second)).0, 200);
    assert_eq!(name_of(first), "b");
    let (status, text) = set(own, "d", &to(first));
    assert!(status == 422 && text.contains("leads back"), "{status}: {text}");
    assert_eq!(name_of(first), "b");
    // One that was right until a reload brings a listener.
    assert_eq!(set(own, "d", &to(third)).0, 200);
    gate.reload(
        &(listeners + &tcp("third", third, "d") + &cluster("c", &[a]) + &cluster("d", &[b])),
    );
    assert!(gate.lines().iter().any(|line| line.contains("it is not used any more")));
    assert_eq!(name_of(third), "");
}

#[test]
fn an_endpoint_that_is_drained_is_shown_while_its_cluster_does_not_have_it() {
    let named = ["a", "b"].map(Named::start);
    let [a, b] = named.each_ref().map(Named::address);
    let [own, raw] = [(); 2].map(|()| free_port().address());
    let _gate = start(&(admin(own) + &tcp("raw", raw, "c") + &cluster("c", &[a, b])), "epoll");
    drain(own, "c", a);
    assert_eq!(set(own, "c", &format!("{{\"endpoints\": [\"{b}\"]}}")).0, 200);
    let shown = clusters(own);
    let endpoints = shown["clusters"][0]["endpoints"].as_array().unwrap();
    let one = endpoints.iter().find(|one| one["address"] == a.to_string()).unwrap();
    assert!(one["state"] == "drained" && one["is_listed"] == false, "{shown:#}");
    enable(own, "c", a);
    does(own, "DELETE /clusters/c/endpoints");
    assert_eq!(reached(raw), ["a", "b"]);
}
