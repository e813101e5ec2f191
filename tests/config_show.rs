//! The effective configuration means the same as the file, and equal means the same.

#[path = "config/certificates.rs"]
mod certificates;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ringgate::config::{self, Config, Form, Protocol};

fn parse(text: &str) -> Config {
    config::parse("edge.toml", text, &certificates::base())
        .unwrap_or_else(|e| panic!("{e}\n\n{text}"))
}

/// The effective configuration of a text. Relative paths start where the files of the examples and
/// certificates are.
fn shown(text: &str, form: Form) -> String {
    config::effective("edge.toml", text, &certificates::base(), form).expect("it is valid")
}

fn toml_files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory can be listed");
    let files = entries.map(|entry| entry.expect("an entry can be read").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[test]
fn the_effective_form_of_every_example_means_the_same() {
    for path in toml_files("config").into_iter().chain(toml_files("tests/config/odd")) {
        let text = fs::read_to_string(&path).expect("an example can be read");
        let effective = shown(&text, Form::Toml);
        assert!(parse(&text) == parse(&effective), "{}:\n{effective}", path.display());
        // Nothing is left to be filled in.
        assert_eq!(shown(&effective, Form::Toml), effective, "{}", path.display());
        let json: serde_json::Value =
            serde_json::from_str(&shown(&text, Form::Json)).expect("it is JSON");
        let toml: toml::Table = effective.parse().expect("it is TOML");
        assert_eq!(serde_json::to_value(toml).expect("plain values"), json, "{}", path.display());
    }
}

/// `RINGGATE_BLESS=1` writes the expected text anew.
#[test]
fn the_effective_form_has_every_default_that_applies() {
    let text = fs::read_to_string("config/shadowsocks-all.toml").expect("an example can be read");
    let effective = shown(&text, Form::Toml);
    let path = Path::new("tests/config/shown.toml");
    if std::env::var_os("RINGGATE_BLESS").is_some() {
        fs::write(path, &effective).expect("the expected text can be written");
    }
    assert_eq!(effective, fs::read_to_string(path).unwrap_or_default());
}

#[test]
fn a_file_with_errors_has_no_effective_form() {
    let errors = config::effective("edge.toml", "[log]\nlevel = 1", Path::new(""), Form::Toml);
    assert!(errors.expect_err("a number is no level").to_string().contains("`level` must be"));
}

/// Lines for keys that a table may have, one value each.
type Lines = &'static [&'static str];

const COMMON: Lines = &[
    "access_log = { path = \"stderr\" }",
    "access_log = { path = \"off\" }",
    "access_log = { format = \"json\" }",
];
const CONNECTIONS: Lines = &[
    "backlog = 0x10",
    "nodelay = false",
    "keepalive = \"off\"",
    "fast_open = true",
    "max_connections = 1_000",
    "half_closed_timeout = \"90s\"",
    "user_timeout = \"2m\"",
];
const HTTP: Lines = &[
    "server_header = \"nginx\"",
    "error_pages = { 404 = \"pages/index.html\", 502 = \"pages/index.html\" }",
    "trusted_proxies = [\"2001:DB8::/32\", \"10.0.0.1\"]",
    "response_fields = { set = { X-B = \"1\", x-a = \"a, \\\"b\\\"\" } }",
    "head_timeout = \"250ms\"",
    "keepalive_timeout = \"1d\"",
    "max_head = \"1024B\"",
    "max_headers = 1",
];
const ROUTES: Lines = &[
    "cluster = \"a\"",
    "cluster = \"b\"\nrewrite = { path = \"/b\", host = \"B.test:8080\" }\ntimeout = \"5m\"",
    "cluster = \"b\"\nidle_timeout = \"5s\"\nmax_body = \"64KiB\"",
    "cluster = \"a\"\nrequest_fields = { set = { x-env = \"\" }, remove = [\"Cookie\", \"b\"] }",
    "cluster = \"a\"\nresponse_fields = { remove = [\"server\"] }",
    "root = \"pages\"\nnot_found = \"/index.html\"",
    "root = \"pages\"\nindex = [\"a.html\", \"index.html\"]\nfallback = \"/index.html\"",
    "root = \"pages\"\ncache_control = \"no-cache\"\nprecompressed = [\"zstd\", \"br\"]",
    "root = \"pages\"\ndot_files = true\nsymlinks = true",
    "respond = {}\nresponse_fields = { set = { \"x.y\" = \"1\" }, remove = [\"x\"] }",
    "redirect = { scheme = \"https\", strip_query = true }",
    "redirect = { host = \"Www.Example.com\", port = 8443, status = 308 }",
    "respond = {}",
    "respond = { status = 204 }",
    "respond = { body = \"a\\nb \\\"c\\\" ü\", content_type = \"text/html\" }",
    "respond = { file = \"pages/index.html\" }",
    "upgrade = \"websocket\"\ncluster = \"a\"",
    "upgrade = \"websocket\"\ncluster = \"b\"\nearly_data = true\nidle_timeout = \"5s\"",
    "upgrade = \"websocket\"\ncluster = \"b\"\ntunnel = \"terminate\"",
    "upgrade = \"websocket\"\ncluster = \"a\"\ntunnel = \"terminate\"\naccept = [\"obfs\"]",
];
const CLUSTER: Lines = &[
    "dns_refresh = \"1m\"",
    "dns_family = \"ipv6\"",
    "balance = \"round_robin\"",
    "connect_timeout = \"250ms\"",
    "connect_attempts = 16",
    "keepalive_connections = \"off\"",
    "keepalive_connections = 10_000\nkeepalive_timeout = \"55s\"",
    "tls = {}",
    "tls = { server_name = \"Node.test\", ca = \"clients.pem\", alpn = [\"http/1.1\"] }",
    "tls = { certificate = \"ecdsa.pem\", key = \"ecdsa.key\", min_version = \"1.3\" }",
    "tls = { verify = false }",
];
const TOP: Lines = &[
    "[server]\nworkers = [0, 3]",
    "[server]\ndrain_delay = \"5s\"",
    "[server]\nworkers = 5\ndriver = \"epoll\"\ndrain_timeout = \"1m\"",
    "[log]\nlevel = \"off\"\nformat = \"json\"",
    "[access_log]\npath = \"./records\"\nformat = \"%{client} %{path}\"",
    "[access_log]\npath = \"off\"",
    "[tls]\nmin_version = \"1.3\"",
    "[tls]\nticket_keys = \"tickets\"",
    "[acme]\ndirectory = \"https://ca.test/\"\ncontact = \"mailto:a@b.test\"\nstorage = \"acme\"\n\
     challenge = \"http-01\"\nca = \"clients.pem\"\nterms_agreed = true",
];
const RULES: Lines = &[
    "names = [\"A.test\", \"*.b.test\"]\ncluster = \"a\"",
    "alpn = [\"h2\"]\ncluster = \"a\"",
    "simple_obfs = true\ncluster = \"a\"",
    "certificate = \"chain.pem\"\nkey = [\"ecdsa.key\"]\ncluster = \"b\"\nalpn = [\"h2\", \"a\"]",
    "certificate = [\"ecdsa.pem\", \"rsa.pem\"]\nkey = [\"ecdsa.key\", \"rsa.key\"]\n\
     client_ca = \"clients.pem\"\nmin_version = \"1.3\"\ncluster = \"a\"",
];

/// Some of these lines, at most one for each key.
fn some(lines: Lines) -> impl Strategy<Value = String> {
    subsequence(lines, 0..=lines.len()).prop_map(|lines| {
        let mut keys = Vec::new();
        let first = lines.into_iter().filter(|line| {
            let key = line.split(['=', '\n']).next().unwrap_or_default();
            let new = !keys.contains(&key);
            keys.push(key);
            new
        });
        first.map(|line| format!("{line}\n")).collect()
    })
}

fn listener(protocol: &'static str) -> BoxedStrategy<String> {
    let idle = select(&["", "idle_timeout = \"7m\"\n"][..]);
    let head = (some(COMMON), idle)
        .prop_map(move |(common, idle)| format!("protocol = \"{protocol}\"\n{common}{idle}"));
    match protocol {
        "tcp" => (head, some(CONNECTIONS))
            .prop_map(|(head, keys)| format!("{head}{keys}cluster = \"a\"\n"))
            .boxed(),
        "udp" => (head, select(&["", "max_sessions = 9\n"][..]))
            .prop_map(|(head, keys)| format!("{head}{keys}cluster = \"a\"\n"))
            .boxed(),
        "tls" => (head, some(CONNECTIONS), rules())
            .prop_map(|(head, keys, rules)| format!("{head}{keys}{rules}"))
            .boxed(),
        _ => (
            head,
            some(CONNECTIONS),
            some(HTTP),
            hosts(),
            prop_oneof![Just(String::new()), rules()],
        )
            .prop_map(|(head, keys, http, hosts, rules)| {
                // `hello_timeout` comes first: it is a key of the listener.
                format!("{head}{keys}{http}{rules}{hosts}")
            })
            .boxed(),
    }
}

fn rules() -> impl Strategy<Value = String> {
    (select(&["", "hello_timeout = \"1s\"\n"][..]), select(RULES))
        .prop_map(|(hello, rule)| format!("{hello}[[listener.tls]]\n{rule}\n"))
}

fn hosts() -> impl Strategy<Value = String> {
    vec(vec(select(ROUTES), 1..4), 1..3).prop_map(|hosts| {
        let host = |(at, routes): (usize, Vec<&str>)| {
            let routes = routes
                .into_iter()
                .enumerate()
                .map(|(at, route)| format!("[[listener.host.route]]\npath = \"/{at}\"\n{route}\n"));
            format!("[[listener.host]]\nnames = [\"h{at}.test\"]\n{}", routes.collect::<String>())
        };
        hosts.into_iter().enumerate().map(host).collect()
    })
}

/// A valid file with some of all keys.
fn files() -> impl Strategy<Value = String> {
    let listeners = vec(select(&["tcp", "udp", "tls", "http"][..]).prop_flat_map(listener), 1..4);
    (subsequence(TOP, 0..=TOP.len()), listeners, some(CLUSTER)).prop_map(
        |(top, listeners, cluster)| {
            let mut tables = Vec::new();
            let mut text = String::new();
            for table in top {
                let header = table.lines().next().expect("a header");
                if !tables.contains(&header) {
                    tables.push(header);
                    text += &format!("{table}\n");
                }
            }
            for (at, listener) in listeners.iter().enumerate() {
                text +=
                    &format!("[[listener]]\nname = \"l{at}\"\nlisten = \"127.0.0.1:{}\"\n", at + 1);
                text += listener;
            }
            text + "[cluster.a]\nendpoints = [\"192.0.2.1:80\", \"[2001:db8::1]:80\"]\n"
                + "[cluster.b]\ndiscovery = \"strict_dns\"\nendpoints = [\"node.test:80\"]\n"
                + &cluster
        },
    )
}

proptest! {
    #[test]
    fn the_effective_form_means_the_same(text in files()) {
        let effective = shown(&text, Form::Toml);
        prop_assert!(parse(&text) == parse(&effective), "{text}\n\n{effective}");
        prop_assert_eq!(&shown(&effective, Form::Toml), &effective);
    }
}

/// A small file with a hook for one change.
fn site(change: &str) -> String {
    let text = r#"
        [[listener]]
        name = "web"
        listen = ["127.0.0.1:80", "[::1]:80"]
        protocol = "http"
        idle_timeout = "1m"
        [[listener.host]]
        names = ["one.test", "*.two.test"]
        [[listener.host.route]]
        path = "/stream"
        upgrade = "websocket"
        cluster = "a"
        [[listener.host.route]]
        prefix = "/"
        respond = { body = "x" }
        [[listener.host]]
        [[listener.host.route]]
        prefix = "/"
        redirect = { host = "one.test" }
        [[listener]]
        name = "raw"
        listen = "127.0.0.1:81"
        protocol = "tcp"
        cluster = "a"
        [cluster.a]
        endpoints = ["192.0.2.1:80", "192.0.2.2:80"]
    "#;
    let Some((from, to)) = change.split_once(" -> ") else { return text.to_owned() };
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

#[test]
fn the_same_meaning_in_other_words_is_equal() {
    for change in [
        "\"1m\" -> \"60s\"",
        "\"1m\" -> \"60000ms\"\nbacklog = 4096",
        "path = \"/stream\" -> idle_timeout = \"60s\"\npath = \"/stream\"",
        "[\"one.test\", \"*.two.test\"] -> [\"*.TWO.test\", \"One.Test\"]",
        "[\"127.0.0.1:80\", \"[::1]:80\"] -> [\"[0:0::1]:80\", \"127.0.0.1:80\"]",
        "{ body = \"x\" } -> { body = \"\\u0078\", status = 200 }",
        "{ host = \"one.test\" } -> { status = 301, host = \"ONE.test\" }",
        "\"192.0.2.1:80\" -> '192.0.2.1:80'",
        "[cluster.a] -> [log]\nlevel = \"info\"\n[cluster.a]\ndiscovery = \"static\"",
    ] {
        assert!(parse(&site("")) == parse(&site(change)), "{change}");
    }
}

#[test]
fn a_change_makes_its_own_part_different_and_no_other() {
    let differences = |change: &str| {
        let (old, new) = (parse(&site("")), parse(&site(change)));
        assert!(old != new, "{change}");
        let listeners = old.listeners.iter().zip(&new.listeners);
        let mut parts: Vec<String> = listeners
            .filter(|(old, new)| old != new)
            .map(|(old, _)| old.name.to_string())
            .collect();
        if let (Protocol::Http(old), Protocol::Http(new)) =
            (&old.listeners[0].protocol, &new.listeners[0].protocol)
        {
            for (at, (old, new)) in old.hosts.iter().zip(&new.hosts).enumerate() {
                parts.extend((old != new).then(|| format!("host {at}")));
                let routes = old.routes.iter().zip(&new.routes).filter(|(old, new)| old != new);
                parts.extend(routes.map(|(old, _)| old.name.clone()));
            }
        }
        let clusters = old.clusters.iter().zip(&new.clusters).filter(|(old, new)| old != new);
        parts.extend(clusters.map(|(old, _)| format!("cluster {}", old.name)));
        parts.join(", ")
    };
    assert_eq!(differences("\"x\" -> \"y\""), "web, host 0, /*");
    assert_eq!(differences("\"one.test\" } -> \"two.test\" }"), "web, host 1, /*");
    assert_eq!(differences("192.0.2.2:80 -> 192.0.2.3:80"), "cluster a");
    assert_eq!(differences("127.0.0.1:81 -> 127.0.0.1:82"), "raw");
    assert_eq!(differences("\"1m\" -> \"2m\""), "web, host 0, /stream");
    assert_eq!(differences("[cluster.a] -> [server]\nworkers = 2\n[cluster.a]"), "");
}
