//! Responses that arrive in pieces, incomplete, malformed, or just as a limit fires. The test sends
//! them on the other ends of the sockets.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use socket2::SockRef;

use super::head::{Heads, MAX_HEAD, MAX_INTERIM};
use super::*;
use crate::observe::outcome::End;
use crate::proto::http::Body;
use crate::relay::Flow;
use crate::sched::{BUDGET, Memory, Yielder};
use crate::sys::Stream;
use crate::timers::{Limit, TICK, Timers, ticks};

const LIMIT: Duration = Duration::from_millis(100);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A client and an upstream. Only [`Bench::pass_limit`] moves the time on.
struct Bench {
    pool: Rc<Pool>,
    timers: Rc<Timers>,
    watch: Watch,
    client: Transport,
    /// The test's end of `client`.
    client_peer: TcpStream,
    upstream: Transport,
    /// The test's end of `upstream`.
    upstream_peer: TcpStream,
}

/// Runs the test over epoll, with this budget for what connections keep.
fn bench(budget: usize, test: impl AsyncFnOnce(Bench)) {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
    runtime.block_on(async {
        let pool = Pool::new(4, budget, None, Yielder::start().unwrap());
        let timers = Timers::new(pool.yielder());
        let ((client, client_peer), (upstream, upstream_peer)) = (connect(), connect());
        let watch = timers.watch(client.socket(), Limit::new(LIMIT, End::ResponseTimeout));
        watch.set_upstream(Some(upstream.socket()));
        test(Bench { pool, timers, watch, client, client_peer, upstream, upstream_peer }).await;
    });
}

/// Makes a TCP connection, because a Unix stream has no reset.
fn connect() -> (Transport, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap())), theirs)
}

impl Bench {
    fn connection(&self) -> Connection<'_> {
        Connection::new(&self.upstream, &self.pool, &self.watch)
    }

    fn send(&self, text: &str) {
        (&self.upstream_peer).write_all(text.as_bytes()).unwrap();
    }

    fn end(&self) {
        self.upstream_peer.shutdown(Shutdown::Write).unwrap();
    }

    /// Polls a future until it is ready, or until it has read what there is and waits for more.
    async fn settle<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut idle_rounds = 0;
        while idle_rounds < 10 {
            let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
            self.pool.yielder().yield_now().await;
            idle_rounds = if self.upstream.has_input() { 0 } else { idle_rounds + 1 };
            assert!(Instant::now() < deadline, "not within 10 s");
        }
        None
    }

    /// Lets the limit pass before a task can run.
    fn pass_limit(&self) {
        let begun = self.timers.now();
        while self.timers.now() - begun < ticks(LIMIT) {
            std::thread::park_timeout(TICK);
            self.timers.tick();
        }
    }

    /// Reads the response that arrives in these pieces, each of which is read before the next one
    /// is sent.
    async fn read(&self, pieces: &[&str]) -> Result<Response, Failure> {
        let connection = self.connection();
        let mut reading = pin!(connection.read_response());
        for piece in pieces {
            self.send(piece);
            if let Some(result) = self.settle(reading.as_mut()).await {
                return result;
            }
        }
        panic!("the response is not complete");
    }

    /// Passes on the body that arrives in these pieces after this head and is followed by the end
    /// of the stream. Returns the result and what the client gets.
    async fn pass(&self, connection: &Connection<'_>, head: &str, body: &[&str]) -> (End, String) {
        let response = self.read(&[head]).await.unwrap();
        let mut down = Flow::new(&self.pool, Vec::new());
        let end = {
            let mut passing = pin!(connection.pass_body(response, &self.client, &mut down));
            let mut end = self.settle(passing.as_mut()).await;
            for piece in body {
                if end.is_none() {
                    self.send(piece);
                    end = self.settle(passing.as_mut()).await;
                }
            }
            if end.is_none() {
                self.end();
                end = self.settle(passing.as_mut()).await;
            }
            end.expect("the body has an end")
        };
        (end, self.client_reads(down.bytes()))
    }

    fn client_reads(&self, length: u64) -> String {
        let mut text = String::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while (text.len() as u64) < length {
            let mut byte = [0];
            match (&self.client_peer).read(&mut byte) {
                Ok(1) => text.push(byte[0] as char),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("{other:?} after {text:?}"),
            }
            assert!(Instant::now() < deadline, "only {text:?}");
        }
        text
    }
}

#[test]
fn a_head_that_arrives_in_pieces_is_read_whole() {
    bench(BUDGET, async |bench| {
        let pieces =
            ["\r", "\nHT", "TP/1.1 200 O", "K\r\nContent-Len", "gth: 4\r\n\r", "\npage and more"];
        let response = bench.read(&pieces).await.unwrap();
        assert_eq!((response.head.status, response.head.body), (200, Body::Length(4)));
        assert_eq!(response.head_bytes(), OK.as_bytes());
        assert_eq!(response.rest(), b"page and more");
        assert_eq!(response.bytes(), format!("{OK}page and more").as_bytes());
    });
}

#[test]
fn interim_responses_are_skipped() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let in_one_piece = format!("{CONTINUE}{hints}{OK}page");
    for pieces in [vec![CONTINUE, hints, OK], vec![in_one_piece.as_str()]] {
        bench(BUDGET, async |bench| {
            let response = bench.read(&pieces).await.unwrap();
            assert_eq!(response.head.status, 200);
            assert_eq!(response.head_bytes(), OK.as_bytes());
        });
    }
}

#[test]
fn a_101_is_final_and_what_it_switches_to_is_for_the_caller_to_check() {
    bench(BUDGET, async |bench| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n";
        let response = bench.read(&[&format!("{head}bytes")]).await.unwrap();
        assert_eq!((response.head.status, response.rest()), (101, &b"bytes"[..]));
        assert!(!response.head.switches_to_websocket(true));
    });
}

#[test]
fn too_many_interim_responses_are_refused() {
    bench(BUDGET, async |bench| {
        let response = bench.read(&[&(CONTINUE.repeat(MAX_INTERIM) + OK)]).await;
        assert_eq!(response.unwrap().head.status, 200);
        let response = bench.read(&[&CONTINUE.repeat(MAX_INTERIM + 1)]).await;
        assert_eq!(response.err(), Some(Failure::Malformed));
    });
}

/// Makes a head of this length.
fn head_of(status: u16, length: usize) -> String {
    let (start, end) = (format!("HTTP/1.1 {status} A\r\nB: "), "\r\n\r\n");
    format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let interim_and_final = head_of(103, MAX_HEAD / 2) + &head_of(200, MAX_HEAD / 2 + 1);
    for (heads, failure) in [
        (head_of(200, MAX_HEAD), None),
        (head_of(200, MAX_HEAD + 1), Some(Failure::HeadTooLarge)),
        (interim_and_final, Some(Failure::HeadTooLarge)),
    ] {
        bench(BUDGET, async |bench| {
            // In pieces that fit the buffers of the sockets.
            let pieces: Vec<_> =
                heads.as_bytes().chunks(8192).map(|it| str::from_utf8(it).unwrap()).collect();
            assert_eq!(bench.read(&pieces).await.err(), failure);
        });
    }
}

#[test]
fn what_cannot_begin_a_response_is_refused_at_its_first_bytes() {
    let after_interim = format!("{CONTINUE}SSH");
    for start in ["SSH-2.0-x", "\u{16}\u{3}\u{1}", "HTTP/2", "\n", "\r\n\r\nh", &after_interim] {
        bench(BUDGET, async |bench| {
            assert_eq!(bench.read(&[start]).await.err(), Some(Failure::Malformed), "{start:?}");
        });
    }
}

#[test]
fn a_head_that_is_malformed_or_ambiguous_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        bench(BUDGET, async |bench| {
            assert_eq!(bench.read(&[head]).await.err(), Some(Failure::Malformed), "{head}");
        });
    }
}

#[test]
fn an_end_before_the_head_is_complete_is_a_failure() {
    for (write_failed, failure) in [(false, Failure::Closed), (true, Failure::Reset)] {
        bench(BUDGET, async |bench| {
            bench.send("HTTP/1.1 200 OK\r\nA: ");
            bench.end();
            let connection = bench.connection();
            if write_failed {
                connection.note_failed_write();
            }
            let result = bench.settle(pin!(connection.read_response())).await;
            assert_eq!(result.unwrap().err(), Some(failure));
        });
    }
}

#[test]
fn a_reset_before_the_head_is_complete_is_a_failure() {
    bench(BUDGET, async |bench| {
        bench.send("HTTP/1.1 200 OK\r\nA: ");
        let Bench { pool, watch, upstream, upstream_peer, .. } = bench;
        SockRef::from(&upstream_peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(upstream_peer);
        let failure = Connection::new(&upstream, &pool, &watch).read_response().await.err();
        assert_eq!(failure, Some(Failure::Reset));
    });
}

#[test]
fn a_response_is_counted_and_a_long_head_is_refused_when_memory_is_spent() {
    bench(1, async |bench| {
        let response = bench.read(&[OK]).await.unwrap();
        assert!(bench.pool.is_spent());
        drop(response);
        assert!(!bench.pool.is_spent());
    });
    bench(0, async |bench| {
        assert_eq!(bench.read(&[OK]).await.unwrap().head.status, 200);
        let failure = bench.read(&[&head_of(200, 10_000)[..5000]]).await.err();
        assert_eq!(failure, Some(Failure::BudgetSpent));
    });
}

#[test]
fn what_arrived_before_the_limit_fired_is_read_first() {
    let (start, rest) = OK.split_at(20);
    let fired = Some(Failure::Fired(Fired::TimedOut(End::ResponseTimeout)));
    for (late, failure) in [(rest, None), (&rest[..5], fired), ("", fired)] {
        bench(BUDGET, async |bench| {
            let connection = bench.connection();
            let mut reading = pin!(connection.read_response());
            bench.send(start);
            assert!(bench.settle(reading.as_mut()).await.is_none());
            bench.send(late);
            bench.pass_limit();
            let result = bench.settle(reading).await.expect("the wait has failed");
            assert_eq!(result.err(), failure, "{late:?}");
        });
    }
}

#[test]
fn a_body_is_passed_on_up_to_its_end_and_no_further() {
    const LENGTH: &str = "HTTP/1.1 403 No\r\nContent-Length: 8\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n";
    const UNTIL_CLOSE: &str = "HTTP/1.1 403 No\r\n\r\n";
    const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let cases: [(&str, &[&str], &str, End); 7] = [
        (LENGTH, &["half", "restmore"], "halfrest", End::Done),
        (CHUNKED, &["4\r\npa", "ge\r\n0\r\n\r\nmore"], "4\r\npage\r\n0\r\n\r\n", End::Done),
        (UNTIL_CLOSE, &["half", "rest"], "halfrest", End::Done),
        (NO_CONTENT, &["more"], "", End::Done),
        (LENGTH, &["half"], "half", End::Upstream),
        (CHUNKED, &["4\r\npage\r\n"], "4\r\npage\r\n", End::Upstream),
        (CHUNKED, &["4\r\npage\r\n", "no size"], "4\r\npage\r\n", End::BadResponse),
    ];
    for (head, body, passed, end) in cases {
        bench(BUDGET, async |bench| {
            let result = bench.pass(&bench.connection(), head, body).await;
            assert_eq!(result, (end, passed.to_owned()), "{head}{body:?}");
        });
        // Read together with the head.
        bench(BUDGET, async |bench| {
            let message = format!("{head}{}", body[0]);
            let result = bench.pass(&bench.connection(), &message, &body[1..]).await;
            assert_eq!(result, (end, passed.to_owned()), "{message}");
        });
    }
}

#[test]
fn the_end_of_a_body_is_a_reset_after_a_failed_write() {
    bench(BUDGET, async |bench| {
        let connection = bench.connection();
        connection.note_failed_write();
        let result = bench.pass(&connection, "HTTP/1.1 403 No\r\n\r\n", &["half"]).await;
        assert_eq!(result, (End::UpstreamReset, "half".to_owned()));
    });
}

#[test]
fn what_arrives_of_a_body_as_the_limit_fires_is_passed_on() {
    for (late, end) in [("rest", End::Done), ("", End::Idle)] {
        bench(BUDGET, async |bench| {
            let head = "HTTP/1.1 403 No\r\nContent-Length: 8\r\n\r\nhalf";
            let response = bench.read(&[head]).await.unwrap();
            let mut down = Flow::new(&bench.pool, Vec::new());
            let connection = bench.connection();
            bench.watch.renew(Limit::new(LIMIT, End::Idle));
            let mut passing = pin!(connection.pass_body(response, &bench.client, &mut down));
            assert_eq!(bench.settle(passing.as_mut()).await, None);
            bench.send(late);
            bench.pass_limit();
            assert_eq!(bench.settle(passing).await, Some(end));
            bench.client_reads(4 + late.len() as u64);
        });
    }
}

/// Reads heads that arrive in these pieces.
fn heads(pieces: &[&[u8]]) -> Result<Option<(http::Response, Vec<u8>)>, Failure> {
    let charge = Charge::new(&Memory::new(BUDGET));
    let mut heads = Heads::new(charge, http::RequestKind::Upgrade);
    for piece in pieces {
        heads.push(piece);
        while let Some((head, length)) = heads.next()? {
            if !head.is_interim() {
                return Ok(Some((head, heads.bytes[..length].to_owned())));
            }
            heads.drop_head(length);
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn cuts_do_not_change_which_head_is_found(
        interim in "(\r\n)?(HTTP/1.1 10[0-4] A\r\n\r\n){0,3}",
        last in "HTTP/1.[012] [0-4]0[04] B\r\n(C|: )+\r\n\r\nD",
        cut in 0usize..120,
    ) {
        let text = interim + &last;
        let bytes = text.as_bytes();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(heads(&[first, second]), heads(&[bytes]));
    }
}
