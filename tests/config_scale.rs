//! Large files and files with many errors take linear time.
//!
//! The limits are for a build without optimisation on a busy machine; `--nocapture` shows the
//! times.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ringgate::config;

/// Far above what is measured, far below what a comparison of all pairs would take.
const LIMIT: Duration = Duration::from_secs(10);

/// Times the parsing of a text.
fn timed(what: &str, text: &str) -> Result<config::Config, config::Errors> {
    let start = Instant::now();
    let result = config::parse("large.toml", text, Path::new(""));
    let time = start.elapsed();
    println!("{what}: {} bytes in {time:.1?}", text.len());
    assert!(time < LIMIT, "{what} took {time:?}");
    result
}

/// An http listener with this many routes of each kind, all of them reachable.
fn routes(count: usize) -> String {
    let mut text = String::from(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:80\"\nprotocol = \"http\"\n\
         [[listener.host]]\n",
    );
    for at in 0..count {
        text.push_str("[[listener.host.route]]\n");
        let _ = match at % 4 {
            0 => writeln!(text, "path = \"/path/{at}\"\nrespond = {{ body = \"{at}\" }}"),
            1 => writeln!(text, "prefix = \"/prefix/{at}/\"\nredirect = {{ path = \"/x/{at}\" }}"),
            2 => writeln!(text, "path = \"/a/{at}\"\nredirect = {{ prefix = \"/b/{at}\" }}")
                .and_then(|()| {
                    // A route with `path` has nothing for `prefix` to replace.
                    let cut = text.rfind("redirect").expect("just written");
                    text.truncate(cut);
                    writeln!(text, "redirect = {{ host = \"www{at}.example.com\" }}")
                }),
            _ => writeln!(
                text,
                "path = \"/stream/{at}\"\nupgrade = \"websocket\"\ncluster = \"c{at}\""
            ),
        };
    }
    for at in (3..count).step_by(4) {
        let _ = writeln!(text, "[cluster.c{at}]\nendpoints = [\"192.0.2.1:{}\"]", at % 65_000 + 1);
    }
    text
}

#[test]
fn ten_thousand_routes_are_read() {
    let config = timed("10,000 routes", &routes(10_000)).expect("valid");
    assert_eq!(config.clusters.len(), 2500);
    assert!(config.warnings.is_empty(), "{}", config.warnings);
}

#[test]
fn ten_thousand_listeners_and_rules_are_read() {
    let mut text = String::new();
    for at in 0..10_000 {
        let _ = writeln!(
            text,
            "[[listener]]\nname = \"l{at}\"\nlisten = \"127.0.{}.{}:80\"\nprotocol = \"tcp\"\n\
             cluster = \"c{at}\"\n[cluster.c{at}]\nendpoints = [\"127.1.{}.{}:80\"]",
            at / 200,
            at % 200,
            at / 200,
            at % 200
        );
    }
    text.push_str("[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:443\"\nprotocol = \"tls\"\n");
    for at in 0..10_000 {
        let _ = writeln!(text, "[[listener.tls]]\nnames = [\"n{at}.test\"]\ncluster = \"c0\"");
    }
    let config = timed("10,000 listeners, clusters and rules", &text).expect("valid");
    assert_eq!(config.listeners.len(), 10_001);
}

#[test]
fn every_error_is_counted_and_the_first_ones_are_shown() {
    let wrong = routes(800).replace("upgrade = \"websocket\"", "upgrade = \"h2c\"");
    let errors = timed("200 wrong words", &wrong).expect_err("wrong words");
    assert_eq!(errors.count(), 200);
    let shown = errors.to_string();
    assert_eq!(shown.matches("error: ").count(), 100, "{shown}");
    assert!(shown.ends_with("… and 100 more errors"), "{shown}");
}

#[test]
fn misspelt_references_to_many_clusters_are_all_found() {
    let wrong = routes(10_000).replace("cluster = \"c", "cluster = \"d");
    let errors = timed("2,500 wrong names of 2,500", &wrong).expect_err("wrong names");
    assert_eq!(errors.count(), 2500);
    assert!(errors.to_string().contains("did you mean `c3`?"), "{errors}");
}

#[test]
fn the_same_route_ten_thousand_times_is_an_error_each_time() {
    let route = "[[listener.host.route]]\nprefix = \"/\"\nrespond = {}\n";
    let text = format!("{}{}", routes(0), route.repeat(10_000));
    let errors = timed("10,000 equal routes", &text).expect_err("they can never match");
    assert_eq!(errors.count(), 9999);
}
