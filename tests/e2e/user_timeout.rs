//! `user_timeout` ends connections whose peer takes nothing.

use crate::support::{Setup, Upstream, expect_reset, jam, l4};

fn setup(backend: &Upstream, driver: &str) -> Setup {
    Setup {
        config: l4(backend.address(), "user_timeout = \"1s\"", ""),
        server: format!("driver = \"{driver}\""),
        ..Setup::default()
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for driver in ["io_uring", "epoll"] {
        let backend = Upstream::listen();
        let gate = setup(&backend, driver).start();
        let _client = gate.connect("ingress");
        let mut upstream = backend.accept();
        // The client does not read, so ringgate's socket to it is full.
        jam(&mut upstream);
        let record = gate.record();
        assert_eq!(record.end(), "client_reset", "{driver}");
        assert!(record.number("duration_ms") >= 1000, "{driver}: {record:?}");
        expect_reset(&mut upstream);
    }
}

#[test]
fn an_upstream_that_takes_nothing_is_given_up() {
    for driver in ["io_uring", "epoll"] {
        let backend = Upstream::listen();
        let gate = setup(&backend, driver).start();
        let mut client = gate.connect("ingress");
        let _upstream = backend.accept();
        jam(&mut client);
        let record = gate.record();
        assert_eq!(record.end(), "upstream_reset", "{driver}");
        expect_reset(&mut client);
    }
}
