//! What a flow leaves behind and what it waits for, on sockets of the test.

use std::cell::Cell;
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::super::{End, run};
use super::*;
use crate::proto::codec::Stack;
use crate::proto::http::Rechunk;
use crate::sched::{BUDGET, Outbox, Yielder};
use crate::sys::Stream;
use crate::timers::{Limit, Timers};

const LONG: Duration = Duration::from_secs(3600);

/// Makes a connection: the relay's end and the test's end.
fn connection() -> (Transport, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap())), theirs)
}

fn with_pool(outbox: bool, test: impl AsyncFnOnce(Rc<Pool>)) {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
    runtime.block_on(async {
        let outbox = match outbox.then(|| Outbox::new().map(Outbox::start)).transpose() {
            Ok(outbox) => outbox,
            Err(error) => return eprintln!("not tested without a ring: {error}"),
        };
        test(Pool::new(4, BUDGET, outbox, Yielder::start().unwrap())).await;
    });
}

#[test]
fn a_message_that_was_queued_as_the_upstream_broke_is_not_counted() {
    with_pool(true, async |pool| {
        let ((client, mut client_peer), (upstream, upstream_peer)) = (connection(), connection());
        let watch = Timers::new(pool.yielder()).watch(client.socket(), Limit::new(LONG, End::Idle));
        watch.set_upstream(Some(upstream.socket()));
        let (mut up, mut down) = (Flow::new(&pool, Vec::new()), Flow::new(&pool, Vec::new()));
        (up.mode, down.mode) = (Mode::Small, Mode::Small);
        // Both events are ready at once: the task queues the message, and reads the reset before it
        // waits.
        up.read_without_wait();
        down.read_without_wait();
        client_peer.write_all(b"lost").unwrap();
        socket2::SockRef::from(&upstream_peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(upstream_peer);
        let end = run(&client, &upstream, &mut up, &mut down, &watch, LONG).await;
        assert_eq!((end, up.bytes()), (End::UpstreamReset, 0));
    });
}

#[test]
fn over_epoll_a_flow_whose_source_is_always_ready_yields() {
    with_pool(false, async |pool| {
        // A read takes one datagram, so that a flow without bulk always has more to read.
        let pair = || {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            ours.connect(theirs.local_addr().unwrap()).unwrap();
            theirs.connect(ours.local_addr().unwrap()).unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            (Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap())), theirs)
        };
        let ((from, source), (to, sink)) = (pair(), pair());
        let (other, mut other_source) = connection();
        let watch = Timers::new(pool.yielder()).watch(from.socket(), Limit::new(LONG, End::Idle));
        let ran_after = Rc::new(Cell::new(None));
        let runs = Rc::clone(&ran_after);
        let waiting = monoio::spawn(async move {
            other.socket().readable().await;
            runs.set(Some(std::iter::from_fn(|| sink.recv(&mut [0]).ok()).count()));
            // Returned, not dropped: a closed socket would refuse the remaining datagrams.
            sink
        });
        pool.yielder().yield_now().await;
        (0..150).for_each(|_| assert_eq!(source.send(b"x").unwrap(), 1));
        // The driver has marked `from` as readable. `other` cannot run before the flow yields.
        from.socket().readable().await;
        other_source.write_all(b"!").unwrap();
        let mut flow = Flow::new(&pool, Vec::new());
        flow.allow(150);
        flow.run(&from, &to, &watch).await.unwrap();
        let _sink = waiting.await;
        let after = ran_after.get().unwrap();

        assert!((1..=70).contains(&after), "{after} reads in a row");
    });
}

/// Runs `work` while the bulk turn belongs to another flow, and checks that no byte of it arrives
/// before that flow is dropped. Returns the flow and the bytes that arrived.
async fn waits_for_its_turn<F: Future<Output = Flow> + 'static>(
    pool: &Pool,
    work: F,
    mut peer: TcpStream,
) -> (Flow, Vec<u8>) {
    pool.bulk.turn(|turn| turn.spend(turn.left())).await;
    // The next turn is that of `yields`, which is not polled again.
    let mut yields = Box::pin(pool.bulk.turn(|_| ()));
    poll_fn(|cx| {
        assert!(yields.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    let work = monoio::spawn(work);
    for _ in 0..5 {
        pool.yielder().yield_now().await;
        let error = peer.read(&mut [0]).expect_err("bulk without a turn");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    drop(yields);
    let flow = work.await;
    let mut arrived = Vec::new();
    // `work` has dropped its stream, so that this reads to the end.
    peer.read_to_end(&mut arrived).unwrap();
    (flow, arrived)
}

#[test]
fn what_is_left_in_a_pipe_waits_for_the_bulk_turn() {
    with_pool(false, async |pool| {
        let ((from, mut source), (to, sink)) = (connection(), connection());
        source.write_all(&[7; 1000]).unwrap();
        let (mut flow, watch) = (
            Flow::new(&pool, Vec::new()),
            Timers::new(pool.yielder()).watch(from.socket(), Limit::new(LONG, End::Idle)),
        );
        let mut pipe = pool.pipe().expect("a pipe");
        from.socket().readable().await;
        from.socket().ensure_nonblocking().unwrap();
        to.socket().ensure_nonblocking().unwrap();
        assert_eq!(pipe.fill(from.socket(), 1000), Ok(1000));
        flow.pipe = Some(pipe);
        let work = async move {
            flow.flush(&to, &watch).await.unwrap();
            flow
        };
        let (flow, arrived) = waits_for_its_turn(&pool, work, sink).await;
        assert!(flow.pipe.is_none() && arrived == [7; 1000], "{} bytes", arrived.len());
    });
}

#[test]
fn bulk_that_may_not_be_spliced_waits_for_the_bulk_turn() {
    with_pool(false, async |pool| {
        let ((from, mut source), (to, sink)) = (connection(), connection());
        source.write_all(&[7; 1000]).unwrap();
        let (mut flow, watch) = (
            Flow::new(&pool, Vec::new()),
            Timers::new(pool.yielder()).watch(from.socket(), Limit::new(LONG, End::Idle)),
        );
        flow.mode = Mode::Copy { streak: 1 };
        flow.allow(1000);
        let work = async move {
            flow.run(&from, &to, &watch).await.unwrap();
            flow
        };
        let (flow, arrived) = waits_for_its_turn(&pool, work, sink).await;
        assert!(!flow.spliced() && arrived == [7; 1000], "{} bytes", arrived.len());
    });
}

#[test]
fn control_frames_are_coded_by_the_codecs_behind_the_websocket_encoder() {
    use crate::proto::codec::Stack;
    use crate::proto::{obfs, websocket};

    with_pool(false, async |pool| {
        let frames = websocket::ControlFrames::default();
        let records = obfs::Encoder::new(&[1; 32], 0, &[2; 28]);
        let codecs = Stack::new(websocket::Encoder).then(records);
        let to_client = control::Control::ToClient(frames.clone());
        let mut flow = Flow::with_control(&pool, codecs, Some(to_client));
        assert!(!flow.push_control_frames());
        frames.schedule_ping();
        assert!(flow.push_control_frames());
        // Two records precede the first payload of simple-obfs.
        assert_eq!(flow.sender.waiting()[96 + 6..], [0x16, 3, 3, 0, 2, 0x89, 0]);

        let headroom = flow.headroom();
        let mut buffer = [&vec![0; headroom][..], b"payload"].concat();
        let frame = flow.code(&mut buffer, headroom..headroom + 7);
        assert_eq!(buffer[frame], *b"\x17\x03\x03\x00\x09\x82\x07payload");
        assert!(!flow.ended());
    });
}

#[test]
fn bytes_behind_the_end_of_a_coded_source_count_in_the_budget() {
    with_pool(false, async |pool| {
        let mut flow = Flow::coded(&pool, Stack::new(Rechunk::default()));
        flow.begin_with(b"0\r\n\r\nGET /next HTTP/1.1\r\n");
        assert_eq!(pool.memory().kept(), "0\r\n\r\n".len() + "GET /next HTTP/1.1\r\n".len());
        assert_eq!(flow.take_behind(), b"GET /next HTTP/1.1\r\n");
        assert_eq!(pool.memory().kept(), "0\r\n\r\n".len());
    });
}
