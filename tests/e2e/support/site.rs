//! Configurations that many tests share. What a test is about stands in the test.

use std::net::SocketAddr;

use super::{Ringgate, Setup};

/// A listener `ingress` that gives every byte to `upstream`; `listener` and `cluster` are more
/// lines of these tables.
pub(crate) fn l4(upstream: SocketAddr, listener: &str, cluster: &str) -> String {
    format!(
        r#"
        [[listener]]
        name = "ingress"
        listen = "127.0.0.1:0"
        protocol = "tcp"
        cluster = "backend"
        {listener}

        [cluster.backend]
        endpoints = ["{upstream}"]
        {cluster}
        "#
    )
}

/// A listener `web`: WebSocket upgrades of `/stream` go to `upstream`, everything else is sent to
/// `https://www.example.test`. `route` is more lines of the `/stream` route.
pub(crate) fn stream_site(upstream: SocketAddr, route: &str) -> String {
    site(&format!("\"{upstream}\""), "", &format!("path = \"/stream\"\n{route}"), "")
}

/// [`stream_site`] with every part open: the cluster's endpoints, more lines of the listener, the
/// lines that say which paths the upgrade route takes and how, more lines of the cluster.
pub(crate) fn site(endpoints: &str, listener: &str, route: &str, cluster: &str) -> String {
    format!(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        {listener}

          [[listener.host]]

            [[listener.host.route]]
            upgrade = "websocket"
            cluster = "shadowsocks"
            {route}

            [[listener.host.route]]
            prefix = "/"
            redirect = {{ scheme = "https", host = "www.example.test", status = 301 }}

        [cluster.shadowsocks]
        endpoints = [{endpoints}]
        {cluster}
        "#
    )
}

/// A listener `web`: `/moved` is a redirect, every other request goes on to the cluster `app` with
/// these endpoints. The others are more lines of the listener, the route and the cluster.
pub(crate) fn proxied(endpoints: &str, listener: &str, route: &str, cluster: &str) -> String {
    format!(
        r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        {listener}

          [[listener.host]]

            [[listener.host.route]]
            path = "/moved"
            redirect = {{ scheme = "https", host = "www.example.test", status = 301 }}

            [[listener.host.route]]
            prefix = "/"
            cluster = "app"
            {route}

        [cluster.app]
        endpoints = [{endpoints}]
        {cluster}
        "#
    )
}

/// Tests the same configuration over each driver, with one worker.
#[track_caller]
pub(crate) fn over_each_driver(config: &str, test: impl Fn(Ringgate)) {
    for driver in ["io_uring", "epoll"] {
        eprintln!("driver: {driver}");
        let server = format!("workers = 1\ndriver = \"{driver}\"");
        test(Setup { config: config.to_owned(), server, ..Setup::default() }.start());
    }
}
