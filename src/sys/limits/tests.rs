//! Shares that stay within the limit, whatever is needed.

use super::*;
use proptest::prelude::*;

const BOTH: Needs = Needs {
    workers: 2,
    stream_sockets: 1,
    udp_sockets: 1,
    surplus_sockets: 0,
    max_sessions: 65_536,
    idle: 0,
    names: 1,
    roots: 0,
    has_admin: false,
};

/// The most descriptors that can be open with these shares.
fn most(needs: &Needs, shares: &Shares) -> u64 {
    let waiting = shares.accepts * needs.stream_sockets;
    let streams = 2 * shares.connections + waiting;
    let worker = WORKER_DESCRIPTORS as usize + 2 * (needs.stream_sockets + needs.udp_sockets);
    let worker = worker + 2 * shares.pipes + streams + shares.idle + shares.sessions;
    CONTROL_DESCRIPTORS + (shares.reserve + needs.workers * worker) as u64
}

#[test]
fn few_descriptors_are_enough_for_both_protocols() {
    let shares = Shares::of(512, &BOTH);
    assert_eq!(shares.reserve, 64);
    assert!(shares.connections >= 50, "{shares:?}");
    assert!(shares.sessions >= 50, "{shares:?}");
}

#[test]
fn clients_of_the_admin_endpoint_have_descriptors_and_leave_half_of_the_reserve() {
    let with = |limit| Shares::of(limit, &Needs { has_admin: true, ..BOTH });
    let without = Shares::of(1 << 20, &BOTH);
    assert_eq!((with(1 << 20).reserve - without.reserve, with(1 << 20).admin), (64, 64));
    assert_eq!((with(512).reserve, with(512).admin), (64, 32));
    assert_eq!((with(8).admin, without.admin), (1, 0));
}

#[test]
fn a_protocol_without_listeners_has_no_share() {
    let tcp = Shares::of(1024, &Needs { udp_sockets: 0, ..BOTH });
    assert_eq!(tcp.sessions, 0);
    assert!(tcp.connections > Shares::of(1024, &BOTH).connections);
    let udp = Shares::of(1024, &Needs { stream_sockets: 0, ..BOTH });
    assert_eq!(udp.pipes, 0);
    assert!(udp.sessions > 2 * Shares::of(1024, &BOTH).sessions, "{udp:?}");
}

#[test]
fn sessions_get_no_more_than_they_may_be() {
    let shares = Shares::of(1 << 20, &Needs { max_sessions: 1000, ..BOTH });
    assert_eq!(shares.sessions, 500 + CLOSING_SESSIONS);
    assert!(Shares::of(u64::MAX, &BOTH).connections > 1_000_000);
}

#[test]
fn idle_connections_have_what_they_need_and_at_most_an_eighth() {
    let idle = |idle, limit| Shares::of(limit, &Needs { idle, ..BOTH }).idle;
    assert_eq!((idle(0, 4096), idle(64, 4096)), (0, 64));
    assert!((200..256).contains(&idle(10_000, 4096)), "{}", idle(10_000, 4096));
    let without = Shares::of(4096, &BOTH);
    let with = Shares::of(4096, &Needs { idle: 64, ..BOTH });
    assert!(with.connections < without.connections && with.pipes == without.pipes, "{with:?}");
}

proptest! {
    #[test]
    fn all_shares_together_are_within_the_limit(
        limit in 0u64..100_000,
        workers in 1usize..65,
        stream_sockets in 0usize..60,
        udp_sockets in 0usize..60,
        max_sessions in 1usize..100_000,
        idle in 0usize..10_000,
        names in 0usize..100,
        has_admin: bool,
    ) {
        let needs = Needs {
            workers,
            stream_sockets,
            udp_sockets,
            surplus_sockets: 0,
            max_sessions,
            idle,
            names,
            roots: 0,
            has_admin,
        };
        let shares = Shares::of(limit, &needs);
        prop_assert!(stream_sockets == 0 || shares.connections > 0 && shares.accepts > 0);
        prop_assert!(udp_sockets == 0 || shares.sessions > 0);
        // One of each kind is allowed whatever the limit is. So a limit that is less than about
        // twice the necessary minimum may be exceeded.
        let connections = stream_sockets / 2 + 4;
        let least = Shares {
            reserve: 0,
            admin: 0,
            pipes: 0,
            connections,
            accepts: 1,
            idle: 0,
            sessions: 1,
        };
        if limit >= most(&needs, &least) * 8 / 7 {
            prop_assert!(most(&needs, &shares) <= limit, "{:?}", shares);
        }
    }
}
