//! Tests of limits, and of what else a watch does.

use super::*;
use crate::transport::Transport;
use std::collections::HashSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

const HOUR: Duration = Duration::from_secs(3600);

fn idle(time: Duration) -> Limit {
    Limit::new(time, End::Idle)
}

/// Runs the test over epoll, so that it does not depend on the memlock limit.
fn with_timers(test: impl AsyncFnOnce(Rc<Timers>)) {
    monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
        .enable_timer()
        .build()
        .unwrap()
        .block_on(async { test(Timers::new(&Yielder::start().unwrap())).await });
}

fn stream() -> (Rc<Stream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Rc::new(Stream::from_fd(OwnedFd::from(ours)).unwrap()), theirs)
}

/// Makes a TCP connection: a stream and the test's end of it.
fn connection() -> (Rc<Stream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Rc::new(Stream::from_fd(OwnedFd::from(ours)).unwrap()), theirs)
}

async fn tick_until(timers: &Timers, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "not within 10 s");
        monoio::time::sleep(TICK).await;
        timers.tick();
    }
}

/// Ticks as if the process had been stopped for `stop` before.
fn tick_after(timers: &Timers, stop: Duration) {
    timers.ticked.set(timers.ticked.get().checked_sub(stop).unwrap());
    timers.tick();
}

#[test]
fn a_limit_is_never_early_and_can_be_renewed() {
    with_timers(async |timers| {
        let (client, _peer) = stream();
        let watch = timers.watch(&client, idle(Duration::from_millis(120)));
        for _ in 0..2 {
            let begun = Instant::now();
            assert_eq!(watch.fired(), None);
            tick_until(&timers, || watch.fired() == Some(Fired::TimedOut(End::Idle))).await;
            assert!(begun.elapsed() >= Duration::from_millis(120));
            watch.renew(idle(Duration::from_millis(120)));
        }
    });
}

#[test]
fn a_limit_is_not_early_where_a_tick_is_late() {
    with_timers(async |timers| {
        // Milliseconds since the last tick when the limit begins.
        for late in [40, 90, 110, 140, 190] {
            let (client, _peer) = stream();
            let ticked = Instant::now() - Duration::from_millis(late);
            timers.ticked.set(ticked);
            let begun = Instant::now();
            let watch = timers.watch(&client, idle(Duration::from_millis(100)));
            while watch.fired().is_none() {
                monoio::time::sleep(Duration::from_millis(1)).await;
                timers.tick();
            }
            assert!(begun.elapsed() >= Duration::from_millis(100), "{late}: {:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_stop_of_the_process_takes_two_ticks_of_a_limit_and_no_more() {
    with_timers(async |timers| {
        let (client, _peer) = stream();
        // The limit is four ticks: two, and the two that are added.
        let watch = timers.watch(&client, idle(TICK * 2));
        tick_after(&timers, HOUR);
        assert_eq!((timers.now(), watch.fired()), (2, None));
        tick_after(&timers, HOUR);
        assert_eq!((timers.now(), watch.fired()), (4, Some(Fired::TimedOut(End::Idle))));
        tick_after(&timers, TICK);
        assert_eq!(timers.now(), 5, "a tick in time is one tick");
    });
}

#[test]
fn a_limit_that_has_fired_is_not_forgotten_when_another_one_starts() {
    with_timers(async |timers| {
        let (client, _peer) = stream();
        let watch = timers.watch(&client, idle(Duration::from_millis(50)));
        tick_until(&timers, || watch.fired().is_some()).await;
        watch.restart(idle(HOUR));
        assert_eq!(
            watch.readable(&Transport::Plain(Rc::clone(&client))).await,
            Err(Fired::TimedOut(End::Idle))
        );
        watch.renew(idle(HOUR));
        assert_eq!(watch.fired(), None);
    });
}

#[test]
fn a_wait_fails_when_the_limit_fires_and_leaves_the_socket_as_it_is() {
    with_timers(async |timers| {
        let (client, mut peer) = stream();
        let watch = timers.watch(&client, idle(Duration::from_millis(50)));
        let result = Rc::new(Cell::new(None));
        let (waits, hears) = (Rc::clone(&client), Rc::clone(&result));
        let waiting = monoio::spawn(async move {
            hears.set(Some(watch.readable(&Transport::Plain(waits)).await));
            watch
        });
        tick_until(&timers, || result.get().is_some()).await;
        assert_eq!(result.get(), Some(Err(Fired::TimedOut(End::Idle))));
        let watch = waiting.await;
        // Both directions still work.
        peer.write_all(b"x").unwrap();
        watch.renew(idle(HOUR));
        assert_eq!(watch.readable(&Transport::Plain(Rc::clone(&client))).await, Ok(()));
        assert_eq!((client.recv(&mut [0]), client.send(b"x")), (Ok(1), Ok(1)));
    });
}

#[test]
fn a_shorter_limit_is_not_kept_waiting_by_a_longer_one() {
    with_timers(async |timers| {
        let (client, _peer) = stream();
        let watch = timers.watch(&client, idle(HOUR));
        watch.restart(idle(Duration::from_millis(100)));
        tick_until(&timers, || watch.fired() == Some(Fired::TimedOut(End::Idle))).await;
    });
}

#[test]
fn what_is_dropped_leaves_the_others_in_their_places() {
    with_timers(async |timers| {
        let (client, _peer) = stream();
        let watch = || timers.watch(&client, idle(Duration::from_millis(100)));
        let mut watches: Vec<_> = (0..50).map(|_| Some(watch())).collect();
        let stalls: Vec<_> = watches.iter().flatten().map(Watch::stall).collect();
        drop(stalls);
        for index in [0, 49, 7, 8, 25, 1] {
            watches[index] = None;
        }
        let fired = || watches.iter().flatten().all(|watch| watch.fired().is_some());
        tick_until(&timers, fired).await;
    });
}

#[test]
fn a_drain_ends_what_rests_then_what_has_said_nothing_and_a_stop_ends_everything() {
    with_timers(async |timers| {
        let all = [stream(), stream(), stream(), stream()];
        let [rests, idles, new, busy] =
            all.each_ref().map(|(client, _)| timers.watch(client, idle(HOUR)));
        rests.on_drain(OnDrain::Now);
        idles.on_drain(OnDrain::Idle);
        new.on_drain(OnDrain::Grace);
        let fired = || [&rests, &idles, &new, &busy].map(|watch| watch.fired().is_some());
        timers.drain(false, false);
        assert_eq!(fired(), [true, false, false, false]);
        timers.drain(false, true);
        assert_eq!(fired(), [true, true, false, false]);
        timers.drain(true, true);
        assert_eq!(fired(), [true, true, true, false]);
        timers.end_all();
        assert_eq!(fired(), [true, true, true, true]);
        assert_eq!(busy.fired(), Some(Fired::Drained));
    });
}

#[test]
fn a_watched_connection_takes_no_more_memory_than_it_has_to() {
    // The wheel adds 16 bytes.
    assert_eq!(size_of::<Conn>(), 88);
}

#[test]
fn a_reset_is_found_only_while_a_stream_is_not_read() {
    with_timers(async |timers| {
        let ((client, _peer), (upstream, upstream_peer)) = (connection(), connection());
        let watch = timers.watch(&client, idle(HOUR));
        watch.set_upstream(Some(&upstream));
        SockRef::from(&upstream_peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(upstream_peer);
        let until_a_check = || (0..STALL_CHECK).for_each(|_| tick_after(&timers, TICK));
        until_a_check();
        assert_eq!(watch.fired(), None, "its task waits for both streams");
        let stall = watch.stall();
        until_a_check();
        assert_eq!(watch.fired(), Some(Fired::UpstreamReset));
        drop(stall);
        assert!(!watch.is_stalled());
    });
}

#[test]
fn a_client_that_ends_while_it_waits_has_left_after_a_second_without_a_byte() {
    with_timers(async |timers| {
        let ((client, peer), (relayed, relayed_peer)) = (connection(), connection());
        let (watch, relay) =
            (timers.watch(&client, idle(HOUR)), timers.watch(&relayed, idle(HOUR)));
        let (waits, stall) = (watch.stall_while_client_waits(), relay.stall());
        for peer in [&peer, &relayed_peer] {
            peer.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let tick = || tick_after(&timers, TICK);
        for _ in 0..3 * STALL_CHECK {
            tick();
            watch.touch();
        }
        assert_eq!(watch.fired(), None, "bytes move");
        (0..STALL_CHECK - 1).for_each(|_| tick());
        assert_eq!(watch.fired(), None, "not yet a second");
        (0..STALL_CHECK).for_each(|_| tick());
        assert_eq!((watch.fired(), relay.fired()), (Some(Fired::ClientEnded), None));
        drop((waits, stall));
        // The mark ends with the wait: the next stall is one of a relay.
        watch.renew(idle(HOUR));
        let _stall = watch.stall();
        (0..3 * STALL_CHECK).for_each(|_| tick());
        assert_eq!(watch.fired(), None);
    });
}

#[test]
fn keepalive_is_set_at_the_first_visit() {
    with_timers(async |timers| {
        let ((client, _peer), (upstream, _upstream_peer)) = (stream(), connection());
        // The first visit is at the tenth tick: the limit, and the two ticks that are added.
        let watch = timers.watch(&client, idle(TICK * 8));
        watch.set_upstream(Some(&upstream));
        watch.set_tcp_keepalive(Some(Keepalive { idle: Duration::from_secs(60) }));
        let is_set = || SockRef::from(&*upstream).keepalive().unwrap();
        while timers.now() < 8 {
            assert!(!is_set());
            tick_after(&timers, TICK);
            watch.touch();
        }
        (0..2).for_each(|_| tick_after(&timers, TICK));
        assert_eq!((is_set(), watch.fired()), (true, None));
    });
}

#[test]
fn the_end_of_groups_ends_those_of_their_connections_that_wait_for_a_request() {
    with_timers(async |timers| {
        let cases = [
            (1, OnDrain::Idle, true),
            (2, OnDrain::Now, true),
            (2, OnDrain::Grace, true),
            (1, OnDrain::Wait, false),
            (3, OnDrain::Idle, false),
        ];
        let connections = cases.map(|(group, what, _)| {
            let (client, peer) = stream();
            let watch = timers.watch(&client, idle(HOUR));
            watch.join_group(group);
            watch.on_drain(what);
            (watch, client, peer)
        });
        timers.end_idle(&HashSet::new());
        let is_ended = |watch: &Watch| watch.poll_fired(Waker::noop()).is_ready();
        assert!(!connections.iter().any(|(watch, ..)| is_ended(watch)));
        timers.end_idle(&HashSet::from([1, 2]));
        for ((group, what, ends), (watch, ..)) in cases.iter().zip(&connections) {
            assert_eq!(is_ended(watch), *ends, "{what:?} in group {group}");
        }
    });
}
