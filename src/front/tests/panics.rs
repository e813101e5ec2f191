//! What is left of a connection whose task has panicked, and what goes on. The task does what that
//! of an L4 connection does, and panics in its relay.

use super::*;
use crate::sched::spawn_isolated;
use crate::timers::Limit;

const L4: &str = "protocol = \"tcp\"\ncluster = \"c\"\nmax_connections = 2";

/// Relays bytes to the upstream, with the guards of a connection, until the client sends a `!`.
async fn relay_until_a_panic(conn: Accepted) {
    let cluster = Rc::clone(conn.listener.service().unwrap().cluster("c"));
    let lease = conn.connect(&cluster).await.unwrap_or_else(|_| panic!("the upstream listens"));
    let watch = conn.context.timers.watch(conn.client.socket(), Limit::new(TICK * 100, End::Idle));
    watch.set_upstream(Some(lease.upstream.socket()));
    let _tunnel = conn.listener.counters.tunnels.guard();
    let mut charge = conn.context.pool.charge();
    loop {
        watch.readable(&conn.client).await.unwrap();
        let mut buffer = conn.context.pool.buffer();
        let read = conn.client.recv(&mut buffer[..]).unwrap();
        charge.set(read);
        lease.upstream.send(&buffer[..read]).unwrap();
        assert!(!buffer[..read].contains(&b'!'), "a panic of this test");
    }
}

/// The kind of error that a read ends with.
async fn read_error(bench: &Bench, stream: &mut TcpStream) -> ErrorKind {
    bench
        .wait_for(|| match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error.kind()),
            Ok(0) => panic!("a clean end"),
            Ok(_) => None,
        })
        .await
}

async fn one_of_two_panics(bench: Bench) {
    let context = &bench.context;
    let listener = Rc::clone(context.generation.borrow().listener("a").unwrap());
    let mut other = bench.client();
    let mut other_upstream = bench.accept().await;
    for round in 1..=3u64 {
        let mut client = bench.client_of(|conn| spawn_isolated(relay_until_a_panic(conn)));
        let mut upstream = bench.accept().await;
        client.write_all(b"some bytes").unwrap();
        bench.read_until(&mut upstream, "some bytes").await;
        assert_eq!((context.load.open(), listener.counters.open().tunnels), (2, 2));
        client.write_all(b"!").unwrap();

        // Both peers see a reset, and nothing of the connection is left.
        assert_eq!(read_error(&bench, &mut client).await, ErrorKind::ConnectionReset);
        assert_eq!(read_error(&bench, &mut upstream).await, ErrorKind::ConnectionReset);
        assert_eq!((context.load.open(), context.pool.memory().kept()), (1, 0));
        assert_eq!(listener.counters.open(), Open { tunnels: 1, ..Open::default() });
        assert_eq!(listener.counters.connections.begun(), 1 + round);
        assert_eq!(listener.service().unwrap().cluster("c").in_use(), 1);
        context.timers.tick();

        // The other connection goes on.
        other.write_all(b"still").unwrap();
        assert_eq!(bench.read_until(&mut other_upstream, "still").await, "still");
    }
}

#[test]
fn a_panic_of_one_connection_leaves_nothing_of_it_and_the_others_alone() {
    bench(L4, one_of_two_panics);
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring);
    match runtime.enable_timer().build() {
        Ok(mut ring) => ring.block_on(serve(L4, BUDGET, one_of_two_panics)),
        Err(error) => eprintln!("not tested through a ring: {error}"),
    }
}
