//! Events that a client cannot time: input that arrives just as a limit fires, or when memory is
//! spent. The tests run connections of a worker and move its time on themselves.

mod panics;
mod removed;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::*;
use crate::config;
use crate::observe::counters::{Open, Registry};
use crate::observe::endpoints::Endpoints;
use crate::observe::outcome::End;
use crate::relay::Pool;
use crate::sched::{BUDGET, Yielder};
use crate::sys::{Address, Stream};
use crate::timers::TICK;

const UPGRADE: &str = "GET /stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n\r\n";
const HEAD: &str = "[access_log]\npath = \"off\"\n[[listener]]\nname = \"a\"\n\
                    listen = \"127.0.0.1:1\"\n";

/// A worker with one listener and an upstream.
struct Bench {
    context: Rc<Context>,
    upstream: TcpListener,
}

fn layout(config: &config::Config) -> Layout {
    layout_with(config, Resources::default())
}

fn endpoints(addresses: &[Address]) -> Endpoints {
    Endpoints::unshared(addresses, 1)
}

/// The same with these resources, such as the layout before.
fn layout_with(config: &config::Config, resources: Resources) -> Layout {
    let open = |_: &config::AccessLog| Err("the log is off");
    Layout::new(config, resources, &HashMap::new(), &mut Registry::new(1), open).unwrap()
}

/// Runs a worker over epoll. Only [`Bench::while_a_limit_fires`] moves its time on.
fn bench(listener: &str, test: impl AsyncFnOnce(Bench)) {
    bench_with(listener, BUDGET, test);
}

/// [`bench`] with another budget for what connections keep.
fn bench_with(listener: &str, budget: usize, test: impl AsyncFnOnce(Bench)) {
    let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
    builder.enable_timer().build().unwrap().block_on(serve(listener, budget, test));
}

/// Runs a worker in the present runtime.
async fn serve(listener: &str, budget: usize, test: impl AsyncFnOnce(Bench)) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    upstream.set_nonblocking(true).unwrap();
    let address = upstream.local_addr().unwrap();
    let text = format!("{HEAD}{listener}\n[cluster.c]\nendpoints = [\"{address}\"]\n");
    let config = config::parse("test", &text, Path::new("")).unwrap_or_else(|e| panic!("{e}"));
    let pool = Pool::new(4, budget, None, Yielder::start().unwrap());
    let (load, shortage) = (Arc::new(Load::new(10)), Arc::default());
    let layout = layout(&config);
    let context = Context::new(&layout, 0, pool, load, shortage, 4).unwrap();
    context.generation.borrow().set_endpoints("c", &endpoints(&[Address::Ip(address)]));
    test(Bench { context: Rc::new(context), upstream }).await;
}

impl Bench {
    /// Connects a client that is served. Its connection buffers little before the client reads.
    fn client(&self) -> TcpStream {
        self.client_of(spawn)
    }

    /// The same of a client that `serve` serves.
    fn client_of(&self, serve: impl FnOnce(Accepted)) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(client);
        let (ours, address) = listener.accept().unwrap();
        SockRef::from(&ours).set_send_buffer_size(16 * 1024).unwrap();
        ours.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let stream = Stream::from_fd(ours.into()).unwrap();
        let permit = self.context.load.permit().unwrap();
        let listener = Rc::clone(self.context.generation.borrow().listener("a").unwrap());
        let address = Address::Ip(address);
        let conn = Accepted::admit(&self.context, &listener, stream, address, permit).unwrap();
        serve(conn);
        client
    }

    /// Runs tasks until `attempt` returns a value.
    async fn wait_for<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(result) = attempt() {
                return result;
            }
            assert!(Instant::now() < deadline, "not within 10 s");
            self.context.pool.yielder().yield_now().await;
        }
    }

    async fn accept(&self) -> TcpStream {
        let (stream, _) = self.wait_for(|| self.upstream.accept().ok()).await;
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Reads up to and including `mark`.
    async fn read_until(&self, stream: &mut TcpStream, mark: &str) -> String {
        let mut text = String::new();
        self.wait_for(|| {
            let mut byte = [0];
            while !text.ends_with(mark) {
                match stream.read(&mut byte) {
                    Ok(1) => text.push(byte[0] as char),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                    other => panic!("{other:?} after {text:?}"),
                }
            }
            Some(())
        })
        .await;
        text
    }

    /// Reads up to the end, which must be a clean one.
    async fn read_to_end(&self, stream: &mut TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        self.wait_for(|| match stream.read_to_end(&mut all) {
            Ok(_) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        all
    }

    /// The error that ends a stream.
    async fn end_of(&self, stream: &mut TcpStream) -> std::io::Error {
        self.wait_for(|| match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            other => Some(other.expect_err("an end in order, or an answer")),
        })
        .await
    }

    /// Yields until tasks have read what there is, and wait.
    async fn settle(&self) {
        for _ in 0..10 {
            self.context.pool.yielder().yield_now().await;
        }
    }

    /// Sends bytes and lets the time pass before a task can run.
    async fn while_a_limit_fires(&self, stream: &mut TcpStream, bytes: &str, time: Duration) {
        self.settle().await;
        stream.write_all(bytes.as_bytes()).unwrap();
        let begun = self.context.timers.now();
        while self.context.timers.now() - begun < crate::timers::ticks(time) {
            std::thread::park_timeout(TICK);
            self.context.timers.tick();
        }
    }
}

const LIMIT: Duration = Duration::from_millis(100);

fn site(keys: &str, route: &str) -> String {
    format!("protocol = \"http\"\n{keys}\n[[listener.host]]\n[[listener.host.route]]\n{route}")
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_head_that_is_complete_as_its_limit_fires_is_answered_and_so_is_the_next() {
    let page = "prefix = \"/\"\nrespond = { body = \"page\" }";
    bench(&site("head_timeout = \"100ms\"", page), async |bench| {
        let mut client = bench.client();
        client.write_all(&GET.as_bytes()[..10]).unwrap();
        bench.while_a_limit_fires(&mut client, &GET[10..], LIMIT).await;
        for _ in 0..2 {
            let response = bench.read_until(&mut client, "page").await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            bench.settle().await;
            client.write_all(GET.as_bytes()).unwrap();
        }
    });
}

#[test]
fn a_first_request_that_arrives_as_its_limit_fires_is_answered_and_so_is_the_next() {
    let page = "prefix = \"/\"\nrespond = { body = \"page\" }";
    for tls in ["", "[[listener.tls]]\ncluster = \"c\""] {
        let keys = format!("head_timeout = \"100ms\"\n{tls}");
        bench(&site(&keys, page), async |bench| {
            let mut client = bench.client();
            bench.while_a_limit_fires(&mut client, GET, LIMIT).await;
            for _ in 0..2 {
                let response = bench.read_until(&mut client, "page").await;
                assert!(response.starts_with("HTTP/1.1 200 "), "{tls}: {response}");
                bench.settle().await;
                client.write_all(GET.as_bytes()).unwrap();
            }
        });
    }
}

#[test]
fn a_page_that_is_asked_for_as_a_limit_fires_arrives_whole() {
    const LENGTH: usize = 500_000;
    let page = format!("prefix = \"/\"\nrespond = {{ body = \"{}\" }}", "x".repeat(LENGTH));
    bench(&site("keepalive_timeout = \"100ms\"", &page), async |bench| {
        let mut client = bench.client();
        client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        bench.read_until(&mut client, "\r\n\r\n").await;
        let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        bench.while_a_limit_fires(&mut client, &last, LIMIT).await;
        let response = bench.read_to_end(&mut client).await;
        assert!(response.len() > LENGTH, "{} bytes", response.len());
    });
}

#[test]
fn a_response_is_not_lost_to_what_arrives_as_the_wait_for_the_client_is_over() {
    // The response waits in the socket until the client reads.
    let page = format!("prefix = \"/\"\nrespond = {{ body = \"{}page\" }}", "x".repeat(16_000));
    bench(&site("", &page), async |bench| {
        let mut client = bench.client();
        // Draining makes the wait short.
        bench.context.closing.set(true);
        bench.context.draining.set(true);
        client.write_all(GET.as_bytes()).unwrap();
        bench.while_a_limit_fires(&mut client, "more", Duration::from_secs(1)).await;
        bench.settle().await;
        let response = bench.read_to_end(&mut client).await;
        assert!(response.ends_with(b"page"), "{} bytes", response.len());
    });
}

#[test]
fn a_hello_that_is_complete_as_its_limit_fires_goes_on() {
    let rule = "protocol = \"tls\"\nhello_timeout = \"100ms\"\n[[listener.tls]]\ncluster = \"c\"";
    bench(rule, async |bench| {
        // A ClientHello with one suite and no extensions (RFC 8446 section 4.1.2).
        let mut hello = "\u{16}\u{3}\u{1}\0\u{2d}\u{1}\0\0\u{29}\u{3}\u{3}".to_owned();
        hello += &("\u{7}".repeat(32) + "\0\0\u{2}\u{13}\u{1}\u{1}\0");
        let mut client = bench.client();
        client.write_all(&hello.as_bytes()[..20]).unwrap();
        bench.while_a_limit_fires(&mut client, &hello[20..], LIMIT).await;
        let mut upstream = bench.accept().await;
        assert_eq!(bench.read_until(&mut upstream, &hello[40..]).await, hello);
    });
}

/// Makes an upgrade that the upstream has read.
async fn upgrade(bench: &Bench) -> (TcpStream, TcpStream) {
    let mut client = bench.client();
    client.write_all(UPGRADE.as_bytes()).unwrap();
    let mut upstream = bench.accept().await;
    bench.read_until(&mut upstream, "\r\n\r\n").await;
    (client, upstream)
}

const STREAM: &str = "path = \"/stream\"\nupgrade = \"websocket\"\ncluster = \"c\"\n\
                      idle_timeout = \"100ms\"";

#[test]
fn an_answer_to_an_upgrade_that_arrives_as_the_limit_fires_is_in_time() {
    bench(&site("", STREAM), async |bench| {
        let (mut client, mut upstream) = upgrade(&bench).await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        bench.while_a_limit_fires(&mut upstream, answer, LIMIT).await;
        assert_eq!(bench.read_until(&mut client, "\r\n\r\n").await, answer);
    });
}

#[test]
fn the_rest_of_a_refusal_that_arrives_as_the_limit_fires_is_passed_on() {
    bench(&site("", STREAM), async |bench| {
        let (mut client, mut upstream) = upgrade(&bench).await;
        upstream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
        bench.read_until(&mut client, "half").await;
        bench.while_a_limit_fires(&mut upstream, "rest", LIMIT).await;
        assert_eq!(bench.read_to_end(&mut client).await, b"rest");
    });
}

#[test]
fn what_a_relay_is_sent_as_its_limit_fires_arrives() {
    bench("protocol = \"tcp\"\ncluster = \"c\"\nidle_timeout = \"100ms\"", async |bench| {
        let mut client = bench.client();
        let mut upstream = bench.accept().await;
        bench.while_a_limit_fires(&mut client, "late", LIMIT).await;
        assert_eq!(bench.read_until(&mut upstream, "late").await, "late");
        bench.while_a_limit_fires(&mut upstream, "back", LIMIT).await;
        assert_eq!(bench.read_until(&mut client, "back").await, "back");
    });
}

#[test]
fn a_request_behind_the_last_answer_of_a_drain_is_not_answered() {
    let page = "prefix = \"/\"\nrespond = { body = \"page\" }";
    bench(&site("", page), async |bench| {
        let mut client = bench.client();
        bench.context.closing.set(true);
        client.write_all(GET.repeat(2).as_bytes()).unwrap();
        let response = bench.read_until(&mut client, "page").await;
        assert!(response.contains("Connection: close"), "{response}");
        assert_eq!(bench.read_to_end(&mut client).await, b"");
    });
}

#[test]
fn a_connection_that_ends_wakes_the_accept_that_waits() {
    bench("protocol = \"tcp\"\ncluster = \"c\"", async |bench| {
        let client = bench.client();
        bench.settle().await;
        let woken = Rc::new(Cell::new(false));
        let (context, wakes) = (Rc::clone(&bench.context), Rc::clone(&woken));
        monoio::spawn(async move {
            context.waiting_accepts.join().woken().await;
            wakes.set(true);
        });
        bench.settle().await;
        assert!(!woken.get());
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        bench.wait_for(|| woken.get().then_some(())).await;
    });
}

#[test]
fn a_generation_is_replaced_while_its_connections_go_on() {
    bench("protocol = \"tcp\"\ncluster = \"c\"", async |bench| {
        let mut client = bench.client();
        let mut upstream = bench.accept().await;
        let context = &bench.context;
        let listener = Rc::clone(context.generation.borrow().listener("a").unwrap());
        let old = Rc::downgrade(&listener.service().unwrap());
        assert_eq!(old.upgrade().unwrap().cluster("c").in_use(), 1);
        // The next generation has another cluster, with another endpoint.
        let next = TcpListener::bind("127.0.0.1:0").unwrap();
        next.set_nonblocking(true).unwrap();
        let endpoint = next.local_addr().unwrap();
        let text = format!(
            "{HEAD}protocol = \"tcp\"\ncluster = \"d\"\n[cluster.d]\nendpoints = [\"{endpoint}\"]"
        );
        let config = config::parse("test", &text, Path::new("")).unwrap_or_else(|e| panic!("{e}"));
        context.apply(&layout(&config));
        // The relay keeps nothing of the configuration that it began with.
        assert!(old.upgrade().is_none());
        let same = Rc::clone(context.generation.borrow().listener("a").unwrap());
        assert!(Rc::ptr_eq(&same, &listener) && listener.counters.connections.open() == 1);
        context.generation.borrow().set_endpoints("c", &endpoints(&[]));
        context.generation.borrow().set_endpoints("d", &endpoints(&[Address::Ip(endpoint)]));

        let _new_client = bench.client();
        bench.wait_for(|| next.accept().ok()).await;
        client.write_all(b"still").unwrap();
        assert_eq!(bench.read_until(&mut upstream, "still").await, "still");
        drop((client, upstream));
        bench.wait_for(|| (listener.counters.connections.open() == 1).then_some(())).await;
    });
}

#[test]
fn a_connection_counts_from_its_beginning_to_its_end_and_its_outcome_once() {
    bench("protocol = \"tcp\"\ncluster = \"c\"\nidle_timeout = \"100ms\"", async |bench| {
        let listener = Rc::clone(bench.context.generation.borrow().listener("a").unwrap());
        let counts =
            || (listener.counters.connections.begun(), listener.counters.connections.open());
        let mut client = bench.client();
        let mut upstream = bench.accept().await;
        client.write_all(b"four").unwrap();
        bench.read_until(&mut upstream, "four").await;
        // Bytes count as they move.
        assert_eq!((counts(), listener.counters.bytes()), ((1, 1), (4, 0)));
        assert_eq!(listener.counters.open(), Open { tunnels: 1, ..Open::default() });
        drop(client);
        bench.read_to_end(&mut upstream).await;
        drop(upstream);
        bench.wait_for(|| (counts() == (1, 0)).then_some(())).await;
        assert_eq!(listener.counters.open(), Open::default());
        assert_eq!(listener.counters.bytes(), (4, 0));
        assert_eq!(listener.counters.ended_by(End::Client), 1);

        // A limit that fires becomes the end that it stands for.
        let _client = bench.client();
        let _upstream = bench.accept().await;
        bench.settle().await;
        while listener.counters.ended_by(End::Idle) == 0 {
            std::thread::park_timeout(TICK);
            bench.context.timers.tick();
            bench.settle().await;
        }
        assert_eq!(counts(), (2, 0));
    });
}

/// A site with a page of 3000 bytes, and `count` requests for it.
fn pages(count: usize) -> (String, String) {
    let page = format!("prefix = \"/\"\nrespond = {{ body = \"{}\" }}", "x".repeat(3000));
    (site("", &page), GET.repeat(count))
}

#[test]
fn answers_that_are_not_read_count_and_are_few_when_memory_is_spent() {
    let (site, requests) = pages(100);
    bench_with(&site, 20_000, async |bench| {
        let [mut first, mut second] = [bench.client(), bench.client()];
        first.write_all(requests.as_bytes()).unwrap();
        bench.settle().await;
        assert!(bench.context.pool.is_spent());
        second.write_all(requests.as_bytes()).unwrap();
        bench.settle().await;
        SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        // The second connection keeps only a small part of its responses.
        bench.wait_for(|| (bench.context.load.open() == 1).then_some(())).await;
        assert!(!bench.context.pool.is_spent());
    });
}

#[test]
fn requests_in_one_piece_are_answered_when_memory_is_spent() {
    let (site, requests) = pages(200);
    bench_with(&site, 0, async |bench| {
        let mut client = bench.client();
        client.write_all(requests.as_bytes()).unwrap();
        for _ in 0..200 {
            let head = bench.read_until(&mut client, "\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            bench.read_until(&mut client, &"x".repeat(3000)).await;
        }
    });
}

#[test]
fn a_long_hello_is_refused_when_memory_is_spent() {
    bench_with("protocol = \"tls\"\n[[listener.tls]]\ncluster = \"c\"", 0, async |bench| {
        let mut client = bench.client();
        // The start of a record of 16 KiB, with a ClientHello of nearly the same length.
        let start = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03";
        client.write_all(&[&start[..], &[0; 3000]].concat()).unwrap();
        assert_eq!(bench.end_of(&mut client).await.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_long_answer_to_an_upgrade_is_a_503_when_memory_is_spent() {
    let route = STREAM.replace("100ms", "1h");
    bench_with(&site("", &route), 0, async |bench| {
        let (mut client, mut upstream) = upgrade(&bench).await;
        let part = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(5000));
        upstream.write_all(part.as_bytes()).unwrap();
        let head = bench.read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    });
}
