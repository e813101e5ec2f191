//! The fields of requests and answers that are passed on: those of one connection, those about the
//! client, those of the configuration.

use std::os::unix::net::UnixStream;

use crate::support::{
    Authority, Backend, HttpClient, Request, Response, Ringgate, SHORT, TlsClient, Upstream,
    VERSIONS, over_each_driver, proxied, tls_settings, wait_for,
};

fn to(upstream: &Upstream, listener: &str, route: &str) -> String {
    proxied(&format!("\"{}\"", upstream.address()), listener, route, "")
}

/// What the backend gets for a GET of `target` with these lines, and what the client gets for an
/// answer with those.
#[track_caller]
fn exchange(
    gate: &Ringgate,
    upstream: &Upstream,
    target: &str,
    asked: &str,
    answered: &str,
) -> (Request, Response) {
    let mut client = HttpClient::connect(gate.address("web"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: own.test:81\r\n{asked}\r\n"));
    let mut backend = upstream.backend();
    let request = backend.request();
    let close = if answered.contains("Connection") { "" } else { "Connection: close\r\n" };
    backend.send(format!("HTTP/1.1 200 Fine\r\n{answered}{close}Content-Length: 1\r\n\r\na"));
    drop(backend);
    (request, client.response())
}

fn lines(head: &str) -> Vec<&str> {
    head.trim_end().lines().collect()
}

#[test]
fn a_request_arrives_with_its_own_fields_in_order_and_those_about_the_client() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "", ""), |gate| {
        let asked = "B-One: 1\r\nAccept:  text/html \r\nb-one: 2\r\nX-Empty:\r\nCookie: a=b\r\n";
        let (request, response) = exchange(&gate, &upstream, "/p?q=%20", asked, "X-One: a\r\n");
        let id = request.field("x-request-id").unwrap();
        assert!(id.len() >= 16, "{id}");
        let mut expected = vec![
            "GET /p?q=%20 HTTP/1.1",
            "Host: own.test:81",
            "B-One: 1",
            "Accept: text/html",
            "B-One: 2",
            "X-Empty: ",
            "Cookie: a=b",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: own.test:81",
        ];
        let own = format!("X-Request-Id: {id}");
        expected.push(&own);
        assert_eq!(lines(&request.head), expected);
        assert!(response.head.starts_with("HTTP/1.1 200 Fine\r\n"), "{}", response.head);
        assert_eq!(response.field("x-one"), Some("a"));
        assert!(response.field("date").is_some(), "{}", response.head);
        assert_eq!(response.field("server"), None, "{}", response.head);
        let (next, _) = exchange(&gate, &upstream, "/", "", "");
        assert_ne!(next.field("x-request-id"), request.field("x-request-id"));
    });
}

#[test]
fn fields_of_one_connection_are_not_passed_on() {
    let upstream = Upstream::listen();
    let hop = "Connection: X-Own, keep-alive\r\nConnection: x-other\r\nX-Own: a\r\nX-Other: b\r\n\
               Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\n\
               Trailer: X-T\r\nUpgrade: h2c\r\nX-Kept: c\r\n";
    over_each_driver(&to(&upstream, "", ""), |gate| {
        let (request, response) = exchange(&gate, &upstream, "/", hop, hop);
        for name in [
            "connection",
            "x-own",
            "x-other",
            "keep-alive",
            "proxy-connection",
            "trailer",
            "upgrade",
        ] {
            assert_eq!(request.field(name), None, "{}", request.head);
            assert_eq!(response.field(name), None, "{}", response.head);
        }
        assert!(matches!(request.field("te"), None | Some("trailers")), "{}", request.head);
        assert_eq!(response.field("te"), None, "{}", response.head);
        assert_eq!((request.field("x-kept"), response.field("x-kept")), (Some("c"), Some("c")));
    });
}

#[test]
fn a_client_cannot_take_away_what_others_rely_on() {
    let upstream = Upstream::listen();
    over_each_driver(
        &to(&upstream, "", "request_fields = { set = { x-env = \"prod\" } }"),
        |gate| {
            let asked = "Connection: host, content-length, x-forwarded-for, X-Forwarded-Proto, \
                     x-forwarded-host, x-request-id, x-env, cookie\r\nCookie: a\r\n\
                     X-Env: forged\r\n";
            let (request, _) = exchange(&gate, &upstream, "/", asked, "");
            assert_eq!(request.field("host"), Some("own.test:81"));
            assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(request.field("x-forwarded-proto"), Some("http"));
            assert_eq!(request.field("x-forwarded-host"), Some("own.test:81"));
            assert_eq!(request.field("x-env"), Some("prod"));
            assert!(request.field("x-request-id").is_some(), "{}", request.head);
            assert_eq!(request.field("cookie"), Some("a"));

            // A body keeps its length.
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, transfer-encoding\r\n\
             Content-Length: 4\r\n\r\nbody",
            );
            let mut backend = upstream.backend();
            assert_eq!(backend.request().body, b"body");
        },
    );
}

#[test]
fn fields_about_the_client_are_replaced_unless_the_peer_is_trusted() {
    const FORGED: &str = "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nx-forwarded-for: 192.0.2.3\r\n\
                          X-Forwarded-Proto: https\r\nX-Forwarded-Host: other.test\r\n\
                          X-Request-Id: given\r\nX-Real-IP: 192.0.2.9\r\n\
                          Forwarded: for=192.0.2.4\r\nX-Forwarded-Port: 1\r\n\
                          X_Forwarded_For: 192.0.2.5\r\nProxy: http://192.0.2.6/\r\n";
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "trusted_proxies = [\"192.0.2.0/24\"]", ""), |gate| {
        let (request, _) = exchange(&gate, &upstream, "/", FORGED, "");
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
        assert_eq!(request.field("x-forwarded-host"), Some("own.test:81"));
        assert_ne!(request.field("x-request-id"), Some("given"));
        assert!(!request.head.contains("192.0.2."), "{}", request.head);
        assert_eq!(request.field("x-forwarded-port"), None, "{}", request.head);
    });
    let trusted = "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.0/8\"]";
    over_each_driver(&to(&upstream, trusted, ""), |gate| {
        let (request, _) = exchange(&gate, &upstream, "/", FORGED, "");
        let all = "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1";
        assert_eq!(request.field("x-forwarded-for"), Some(all));
        assert_eq!(request.field("x-forwarded-proto"), Some("https"));
        assert_eq!(request.field("x-forwarded-host"), Some("other.test"));
        assert_eq!(request.field("x-request-id"), Some("given"));
        // Not these, which backends could take for others.
        assert!(!request.head.contains("192.0.2.5"), "{}", request.head);
        assert!(!request.head.contains("192.0.2.6"), "{}", request.head);
        // Without them it is as for everyone.
        let (request, _) = exchange(&gate, &upstream, "/", "", "");
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    });
}

#[test]
fn a_client_without_an_address_is_not_in_the_list_of_addresses() {
    let upstream = Upstream::listen();
    let dir = tempfile::tempdir().unwrap();
    let front = dir.path().join("front.sock");
    let config = to(&upstream, "", "").replace("127.0.0.1:0", &format!("unix:{}", front.display()));
    over_each_driver(&config, |_gate| {
        let mut client = HttpClient::over(UnixStream::connect(&front).unwrap());
        client.send("GET / HTTP/1.1\r\nHost: own.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
        let mut backend = upstream.backend();
        let request = backend.request();
        assert_eq!(request.field("x-forwarded-for"), None, "{}", request.head);
        assert_eq!(request.field("x-forwarded-host"), Some("own.test"), "{}", request.head);
        backend.answer("a");
        assert_eq!(client.response().body, b"a");
    });
}

#[test]
fn max_forwards_is_counted_down_and_ends_here_at_zero() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "", ""), |gate| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("OPTIONS /a HTTP/1.1\r\nHost: own.test\r\nMax-Forwards: 1\r\n\r\n");
        let mut backend = upstream.backend();
        let request = backend.request();
        assert_eq!((request.asks(), request.field("max-forwards")), ("OPTIONS /a", Some("0")));
        backend.answer("a");
        assert_eq!(client.response().body, b"a");

        client.send("OPTIONS /a HTTP/1.1\r\nHost: own.test\r\nMax-Forwards: 0\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, &*response.body), (200, &b""[..]), "{}", response.head);
        assert!(response.field("allow").is_some(), "{}", response.head);
        // For other methods it has no meaning.
        client.send("GET /b HTTP/1.1\r\nHost: own.test\r\nMax-Forwards: 0\r\n\r\n");
        let request = backend.request();
        assert_eq!((request.asks(), request.field("max-forwards")), ("GET /b", Some("0")));
        backend.answer("b");
        assert_eq!(client.response().body, b"b");
    });
}

#[test]
fn the_backend_learns_that_a_request_came_over_tls() {
    let authority = Authority::new("authority");
    let rule = authority.signs(&["site.test"]).rule(&[], "");
    let upstream = Upstream::listen();
    let settings = tls_settings(&authority, VERSIONS[1]).into();
    over_each_driver(&to(&upstream, &rule, ""), |gate| {
        let client = TlsClient::connect(gate.address("web"), &settings, "site.test");
        let mut client = HttpClient::over(client);
        client.send("GET / HTTP/1.1\r\nHost: site.test\r\nX-Forwarded-Proto: http\r\n\r\n");
        let mut backend = upstream.backend();
        let request = backend.request();
        assert_eq!(request.field("x-forwarded-proto"), Some("https"));
        backend.answer("a");
        assert_eq!(client.response().body, b"a");
    });
}

#[test]
fn the_target_is_rewritten_as_the_route_says() {
    let upstream = Upstream::listen();
    let address = upstream.address();
    let route = |matching: &str, rewrite: &str| {
        format!("[[listener.host.route]]\n{matching}\ncluster = \"app\"\n{rewrite}\n")
    };
    let config = [
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\n"
            .to_owned(),
        route("prefix = \"/api/\"", "rewrite = { prefix = \"/\", host = \"api.test\" }"),
        route("prefix = \"/v1\"", "rewrite = { prefix = \"/v2\" }"),
        route("path = \"/one\"", "rewrite = { path = \"/two\" }"),
        route("prefix = \"/\"", ""),
        format!("[cluster.app]\nendpoints = [\"{address}\"]\n"),
    ]
    .concat();
    over_each_driver(&config, |gate| {
        for (target, expected) in [
            ("/api/users?a=/api/", "/users?a=/api/"),
            ("/api/", "/"),
            ("/api/?", "/?"),
            ("/api/%2Fx/%41", "/%2Fx/%41"),
            ("/v1/a", "/v2/a"),
            ("/v1", "/v2"),
            ("/one?x=y", "/two?x=y"),
            ("/other/%7Ea?b", "/other/%7Ea?b"),
        ] {
            let (request, _) = exchange(&gate, &upstream, target, "", "");
            assert_eq!(request.asks(), format!("GET {expected}"), "{target}");
            let host = if target.starts_with("/api/") { "api.test" } else { "own.test:81" };
            assert_eq!(request.field("host"), Some(host), "{target}");
            assert_eq!(request.field("x-forwarded-host"), Some("own.test:81"), "{target}");
        }
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("GET http://own.test/api/x?y HTTP/1.1\r\nHost: own.test\r\n\r\n");
        let mut backend = upstream.backend();
        let request = backend.request();
        assert_eq!((request.asks(), request.field("host")), ("GET /x?y", Some("api.test")));
        backend.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        client.response();
        let mut client = HttpClient::connect(gate.address("web"));
        client.send("OPTIONS /v1/* HTTP/1.1\r\nHost: own.test\r\n\r\n");
        assert_eq!(upstream.backend().request().asks(), "OPTIONS /v2/*");
    });
}

#[test]
fn what_is_routed_is_what_is_sent() {
    let upstream = Upstream::listen();
    over_each_driver(&to(&upstream, "", ""), |gate| {
        // No other reading of these paths may lead to /moved, which is a redirect.
        for target in ["/a/../b", "/a/%2e%2E/moved", "/./moved", "//moved", "/a/..;/b", "/a\\..\\b"]
        {
            let mut client = HttpClient::connect(gate.address("web"));
            client.send(format!("GET {target} HTTP/1.1\r\nHost: own.test\r\n\r\n"));
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let answered = std::thread::scope(|scope| {
                let response = scope.spawn(move || client.response().status);
                let reached = wait_for("an answer", SHORT, || {
                    if response.is_finished() {
                        Some(None)
                    } else {
                        upstream.try_accept().map(Some)
                    }
                });
                let Some(stream) = reached else { return Err(response.join().unwrap()) };
                let mut backend = Backend::over(stream);
                let asked = backend.request().asks().to_owned();
                backend.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                response.join().unwrap();
                Ok(asked)
            });
            match answered {
                Ok(asked) => {
                    assert!(!asked.contains("/../") && !asked.contains("%2e"), "{target}: {asked}");
                }
                Err(status) => assert!(matches!(status, 301 | 400 | 404), "{target}: {status}"),
            }
        }
    });
}

#[test]
fn fields_of_requests_are_set_and_removed_as_the_route_says() {
    let upstream = Upstream::listen();
    let route = "request_fields = { set = { x-env = \"prod\", x-forwarded-for = \"none\" }, \
                 remove = [\"cookie\", \"x-forwarded-proto\", \"x-request-id\"] }";
    over_each_driver(&to(&upstream, "", route), |gate| {
        let asked = "X-ENV: test\r\nCookie: a\r\nCOOKIE: b\r\nX-Cookie: c\r\n";
        let (request, _) = exchange(&gate, &upstream, "/", asked, "");
        assert_eq!(request.fields("x-env"), ["prod"]);
        assert_eq!(request.fields("x-forwarded-for"), ["none"]);
        for name in ["cookie", "x-forwarded-proto", "x-request-id"] {
            assert_eq!(request.field(name), None, "{}", request.head);
        }
        assert_eq!(request.field("x-cookie"), Some("c"));
    });
}

#[test]
fn fields_of_answers_are_set_and_removed_as_route_and_listener_say() {
    let upstream = Upstream::listen();
    let listener = "response_fields = { set = { x-of = \"listener\", x-all = \"a\" }, \
                    remove = [\"x-internal\"] }\nserver_header = \"own\"";
    let route = "response_fields = { set = { x-of = \"route\" }, remove = [\"x-powered-by\"] }";
    over_each_driver(&to(&upstream, listener, route), |gate| {
        let answered = "X-Powered-By: PHP\r\nX-Internal: 1\r\nX-Of: backend\r\nServer: theirs\r\n\
                        Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
        let (_, response) = exchange(&gate, &upstream, "/", "", answered);
        let all = |name| response.fields(name).collect::<Vec<_>>();
        assert_eq!(all("x-of"), ["route"], "{}", response.head);
        assert_eq!(all("x-all"), ["a"], "{}", response.head);
        assert_eq!(all("set-cookie"), ["a=1", "b=2"], "{}", response.head);
        assert_eq!(all("x-powered-by"), [""; 0], "{}", response.head);
        assert_eq!(all("x-internal"), [""; 0], "{}", response.head);
        assert_eq!(all("server").len(), 1, "{}", response.head);
    });
}
