//! Large files and files with many errors take linear time.
//!
//! The limits are for a build without optimisation. They are times of the CPU, which a busy machine
//! hardly changes; `--nocapture` shows them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ringgate::config;
use rustix::time::{ClockId, clock_gettime};

/// Far above what is measured, far below what a comparison of all pairs would take.
const LIMIT: Duration = Duration::from_secs(10);

/// The time that the CPU has spent on this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("the clock begins at 0")
}

/// Times the parsing of a text.
fn timed(what: &str, text: &str) -> Result<config::Config, config::Errors> {
    let start = cpu_time();
    let result = config::parse("large.toml", text, Path::new(""));
    let time = cpu_time() - start;
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
fn prefixes_of_many_lengths_are_read() {
    let mut text = routes(0);
    for at in 0..2_000 {
        let path = format!("/{at}/{}", "x".repeat(at));
        let _ = writeln!(text, "[[listener.host.route]]\nprefix = \"{path}\"\nrespond = {{}}");
    }
    for at in 0..2_000 {
        let path = format!("/long/{at}/{}", "y".repeat(2_000));
        let _ = writeln!(text, "[[listener.host.route]]\npath = \"{path}\"\nrespond = {{}}");
    }
    timed("2,000 prefixes of different lengths", &text).expect("valid");
}

#[test]
fn a_rule_with_many_names_and_protocols_is_read() {
    let list = |start: &str| {
        let items: Vec<String> = (0..4_000).map(|at| format!("\"{start}{at}\"")).collect();
        items.join(", ")
    };
    let text = format!(
        "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:443\"\nprotocol = \"tls\"\n\
         [[listener.tls]]\nnames = [{}]\nalpn = [{}]\ncluster = \"a\"\n\
         [cluster.a]\nendpoints = [\"127.0.0.1:1\"]\n",
        list("n"),
        list("p")
    );
    timed("4,000 names and 4,000 protocols", &text).expect("valid");
}

#[test]
fn a_chain_of_listeners_is_read_and_a_ring_is_found() {
    let chain = |to_first: bool| {
        let mut text = String::new();
        for at in 0..8_000 {
            let port = at + 2;
            let to = if to_first && at == 7_999 { 1 } else { port };
            let _ = writeln!(
                text,
                "[[listener]]\nname = \"l{at}\"\nlisten = \"127.0.0.1:{}\"\nprotocol = \"tcp\"\n\
                 cluster = \"c{at}\"\n[cluster.c{at}]\nendpoints = [\"127.0.0.1:{to}\"]",
                at + 1
            );
        }
        text
    };
    timed("a chain of 8,000 listeners", &chain(false)).expect("valid");
    let short = chain(true).replace("127.0.0.1:101\"]", "127.0.0.1:1\"]");
    let errors = timed("a ring of 100 listeners", &short).expect_err("a ring");
    assert_eq!(errors.count(), 100);
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
fn the_same_route_many_times_is_an_error_each_time() {
    let route = "[[listener.host.route]]\nprefix = \"/\"\nrespond = {}\n";
    let text = format!("{}{}", routes(0), route.repeat(12_000));
    // More than are kept in memory; the others are counted.
    let errors = timed("12,000 equal routes", &text).expect_err("they can never match");
    assert_eq!(errors.count(), 11_999);
}
