//! What Prometheus makes of the metrics: its own tool takes them, and every expression of the alert
//! rules and of the dashboard has a value where a loaded ringgate is scraped.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::admin::{admin, asks};
use crate::reload::{cluster, echoes, page, tcp, udp};
use crate::support::{
    Authority, Echo, HttpClient, LONG, Named, Process, Setup, UdpEcho, curl, free_port, require,
    run, wait_for, with_deadlines,
};
use crate::udp::{ask, client};

fn in_config(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).join(file)
}

/// Runs promtool with an input. Fails if it finds a fault, or says anything about a style.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) {
    let mut command = require("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
}

/// What the dashboard asks for: the title of each panel, and an expression of it.
fn of_the_dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(in_config("grafana/ringgate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression =
                expression.replace("$instance", ".*").replace("$__rate_interval", "10s");
            all.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    all
}

/// Asks the API of a Prometheus.
#[track_caller]
fn api(prometheus: SocketAddr, path: &str, parameter: &str) -> Value {
    let mut curl = require("curl");
    curl.args(["-q", "-sS", "-m", "30", "-G", &format!("http://{prometheus}/api/v1/{path}")]);
    curl.args(["--data-urlencode", parameter]);
    let answer: Value = serde_json::from_slice(&run(&mut curl).stdout).unwrap();
    assert_eq!(answer["status"], "success", "{parameter}: {answer:#}");
    answer
}

/// The expressions of the alert rules.
fn of_the_rules(prometheus: SocketAddr) -> Vec<(String, String)> {
    let answer = api(prometheus, "rules", "");
    let rules = answer["data"]["groups"][0]["rules"].as_array().unwrap();
    let pair = |rule: &Value| {
        (rule["name"].as_str().unwrap().to_owned(), rule["query"].as_str().unwrap().to_owned())
    };
    rules.iter().map(pair).collect()
}

/// The number of series that an expression has now.
#[track_caller]
fn series(prometheus: SocketAddr, expression: &str) -> usize {
    let answer = api(prometheus, "query", &format!("query={expression}"));
    answer["data"]["result"].as_array().unwrap().len()
}

/// A Prometheus that scrapes an endpoint each second.
fn start_prometheus(target: SocketAddr, directory: &Path) -> (Process, SocketAddr) {
    let port = free_port();
    let config = directory.join("prometheus.yml");
    let rules = in_config("prometheus/ringgate.rules.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [{rules:?}]\n\
         scrape_configs:\n  - job_name: ringgate\n    \
         static_configs: [{{ targets: [\"{target}\"] }}]\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = require("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={}", port.address()));
    let process = Process::spawn(command);
    process.line_with("Server is ready", LONG);
    (process, port.address())
}

/// Clients of all kinds, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[test]
fn promtool_takes_the_metrics_and_the_rules() {
    let rules = in_config("prometheus/ringgate.rules.yml");
    let checked = run(require("promtool").args(["check", "rules"]).arg(rules));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/prometheus_rules.yml");
    let tested = run(require("promtool").args(["test", "rules", cases]));
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    let (echo, authority) = (Echo::start(), Authority::new("authority"));
    let pair = authority.signs(&["a.test"]);
    let [own, web, raw] = [(); 3].map(|()| free_port().address());
    let config = admin(own)
        + &page("web", web, "hello").replace(
            "[[listener.host]]",
            &format!("{}[[listener.host]]\nnames = [\"a.test\"]", pair.rule(&[], "")),
        )
        + &tcp("raw", raw, "c")
        + &cluster("c", echo.address());
    let _gate = Setup { config, ..Setup::default() }.start();
    assert_eq!(curl(web, &authority, &["https://a.test/"]).stdout, b"hello");
    let mut tunnel = with_deadlines(TcpStream::connect(raw).unwrap());
    echoes(&mut tunnel, 1);
    let (status, text) = asks(own, "GET /metrics", "");
    assert_eq!(status, 200);
    promtool(&["check", "metrics"], &text);
    // The text says of each name what it is, once.
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let documented =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    for name in names {
        let (name, _) = name.split_once(' ').unwrap();
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
}

#[test]
fn every_expression_of_the_dashboard_and_of_the_rules_has_a_value() {
    let (echo, udp_echo, authority) =
        (Echo::start(), UdpEcho::start(""), Authority::new("authority"));
    let (named, dead) = (Named::start("x"), free_port());
    let pair = authority.signs(&["a.test"]);
    let [own, web, raw, dns, proxy] = [(); 5].map(|()| free_port().address());
    let tls = format!("{}[[listener.host]]\nnames = [\"a.test\"]", pair.rule(&[], ""));
    let both = format!("endpoints = [\"{}\", \"{}\"]", echo.address(), dead.address());
    let one = format!("endpoints = [\"{}\"]", echo.address());
    let backend = free_port();
    let backend_page = page("backend", backend.address(), "backend");
    let config = admin(own)
        + &page("web", web, "hello").replace("[[listener.host]]", &tls)
        + &tcp("raw", raw, "c")
        + &udp("dns", dns, "d")
        + &page("proxy", proxy, "").replace("respond = { body = \"\" }", "cluster = \"e\"")
        + &backend_page
        + &cluster("c", echo.address()).replace(&one, &both)
        + &cluster("d", udp_echo.address())
        + &format!(
            "[cluster.e]\ndiscovery = \"strict_dns\"\nendpoints = [\"localhost:{}\"]\n\
             dns_family = \"ipv4\"\n",
            backend.number()
        )
        + &cluster("unused", named.address());
    let _gate = Setup { config, ..Setup::default() }.start();
    let directory = tempfile::tempdir().unwrap();
    let (_prometheus, prometheus) = start_prometheus(own, directory.path());
    let stop = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            assert_eq!(curl(web, &authority, &["https://a.test/"]).stdout, b"hello");
            let mut tunnel = with_deadlines(TcpStream::connect(raw).unwrap());
            echoes(&mut tunnel, 1);
            assert_eq!(ask(&client(dns), b"x"), b"x");
            let mut visitor = HttpClient::connect(proxy);
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(visitor.response().body, b"backend");
        }
    });
    let load = Load { stop, thread: Some(thread) };

    // Rates need two scrapes with the series, and the first one of a kind counts from nothing.
    let mut expressions = of_the_dashboard();
    assert!(expressions.len() > 30);
    wait_for("each expression of the dashboard has a value", LONG, || {
        expressions.retain(|(_, expression)| series(prometheus, expression) == 0);
        expressions.is_empty().then_some(())
    });
    // An alert has none while all is well: the sides of its comparison must.
    let rules = of_the_rules(prometheus);
    assert!(rules.len() >= 15);
    for (name, expression) in rules {
        series(prometheus, &expression);
        let metrics: Vec<&str> = expression
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("ringgate_") || word.starts_with("process_"))
            .collect();
        for metric in metrics {
            assert!(series(prometheus, metric) > 0, "{name} asks for {metric}, which is not there");
        }
    }
    let is_firing = "ALERTS{alertname=\"RinggateEndpointFailing\",cluster=\"c\"}";
    wait_for("the dead endpoint is found", Duration::from_secs(20), || {
        (series(prometheus, is_firing) > 0).then_some(())
    });
    drop(load);
}
