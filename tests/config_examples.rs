//! Every example configuration is valid, and every mistake gets the message it should.
//!
//! `tests/config/bad` holds one broken file per rule and beside each the text an operator sees.
//! `RINGGATE_BLESS=1 cargo test --test config_examples` writes these texts anew: read the
//! difference, each must say what is wrong and how to mend it. `tests/config/odd` is the same for
//! files that are valid and get warnings.

#[path = "config/certificates.rs"]
mod certificates;
#[path = "config/documentation.rs"]
mod documentation;

use std::fs;
use std::path::{Path, PathBuf};

use ringgate::config::{
    self, Action, Coding, Discovery, HostName, PathRewrite, Protocol, TunnelKind,
};

/// The `.toml` files of a directory of the crate, by name.
fn toml_files(directory: &str) -> Vec<PathBuf> {
    files_with(directory, "toml")
}

/// The files of a directory of the crate that have this extension, by name.
fn files_with(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).expect("the directory can be listed");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|has| has == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no .{extension} files", directory.display());
    files
}

#[test]
fn every_example_is_valid() {
    for path in toml_files("config") {
        if let Err(errors) = config::load(&path) {
            panic!("{errors}");
        }
        // Those that are not about this machine.
        let text = fs::read_to_string(&path).expect("it was read just now");
        let base = path.parent().expect("a file has a directory");
        let warnings = config::parse("example", &text, base).expect("it is valid").warnings;
        assert!(warnings.is_empty(), "{}: {warnings}", path.display());
    }
}

#[test]
fn the_embedded_example_listens_on_loopback_only() {
    let config = config::parse("default.toml", config::DEFAULT, Path::new("")).expect("valid");
    for address in config.listeners.iter().flat_map(|listener| &listener.addresses) {
        assert_eq!(address.to_string(), "127.0.0.1:8080");
    }
}

#[test]
fn every_toml_block_of_the_documentation_is_valid() {
    let base = certificates::base();
    let mut pages = files_with("docs", "md");
    pages.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let mut count = 0;
    for path in pages {
        let page = path.display().to_string();
        let text = fs::read_to_string(&path).expect("the page can be read");
        for block in documentation::blocks(&text) {
            count += 1;
            let text = documentation::completed(block, &base);
            let said = match config::parse(&page, &text, &base) {
                Ok(config) if config.warnings.is_empty() => continue,
                Ok(config) => config.warnings.to_string(),
                Err(errors) => errors.to_string(),
            };
            panic!("{said}\n\nin this block of {page}:\n\n{text}");
        }
    }
    assert!(count >= 20, "only {count} blocks are left");
}

#[test]
fn every_mistake_gets_the_message_it_should() {
    let bless = std::env::var_os("RINGGATE_BLESS").is_some();
    let files = toml_files("tests/config/bad");
    let mut different = Vec::new();
    for path in &files {
        let name = path.file_name().expect("a file has a name").to_string_lossy();
        let text = fs::read_to_string(path).expect("a case can be read");
        let shown = match config::parse(&name, &text, &certificates::base()) {
            Ok(_) => panic!("{name} is valid, but stands among the bad ones"),
            Err(errors) => format!("{errors}\n"),
        };
        let beside = path.with_extension("txt");
        if bless {
            fs::write(&beside, &shown).expect("the expected text can be written");
        } else if fs::read_to_string(&beside).unwrap_or_default() != shown {
            different.push(format!("{}:\n{shown}", beside.display()));
        }
    }
    assert!(files.len() >= 35, "only {} cases are left", files.len());
    assert!(different.is_empty(), "not what is expected in\n\n{}", different.join("\n"));
}

#[test]
fn a_page_of_more_than_a_mebibyte_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let page = "x".repeat((1 << 20) + 1);
    let respond = |respond: &str| {
        let text = format!(
            "[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nprotocol = \"http\"\n\
             [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\nrespond = {respond}\n"
        );
        config::parse("edge.toml", &text, directory.path())
            .map_or_else(|e| e.to_string(), |_| String::new())
    };
    for (length, refused) in [(page.len() - 1, false), (page.len(), true)] {
        fs::write(directory.path().join("page"), &page[..length]).expect("the page");
        for (way, key) in [
            (format!("{{ body = \"{}\" }}", &page[..length]), "body"),
            ("{ file = \"page\" }".to_owned(), "file"),
        ] {
            assert_eq!(
                respond(&way).contains("is longer than 1 MiB"),
                refused,
                "{key} of {length}"
            );
        }
    }
}

#[test]
fn an_advised_template_is_a_good_one() {
    let log = |format: &str| errors(&format!("[access_log]\nformat = \"{format}\"\n")).concat();
    let advice = log("common");
    let (_, advised) = advice.split_once("names fields: \"").expect("it advises a template");
    let advised = advised.split('"').next().expect("it is in quotes");
    assert!(advised.starts_with("%{client}"), "{advised}");
    let shown = log(advised);
    assert!(!shown.contains("template"), "{shown}");
    // As in printf(3), a letter behind a field would be a format. Here it would be printed.
    let behind = advised.split('}').skip(1).filter_map(|rest| rest.chars().next());
    assert!(behind.into_iter().all(|letter| !letter.is_alphanumeric()), "{advised}");
}

/// Every table, with the place of more of its lines.
const TABLES: [&str; 18] = [
    "@",
    "[server]\n@",
    "[log]\n@",
    "[access_log]\n@",
    "[tls]\n@",
    "[acme]\n@",
    "[[listener]]\n@",
    "[[listener]]\n[listener.access_log]\n@",
    "[[listener]]\n[[listener.tls]]\n@",
    "[[listener]]\n[[listener.host]]\n@",
    "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\n@",
    "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\n[listener.host.route.redirect]\n@",
    "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\n[listener.host.route.respond]\n@",
    "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\n[listener.host.route.rewrite]\n@",
    "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\nrequest_fields.@",
    "[[listener]]\nresponse_fields.@",
    "[cluster.a]\n@",
    "[cluster.a]\n[cluster.a.tls]\n@",
];

/// What is wrong with a text, each error by itself.
fn errors(text: &str) -> Vec<String> {
    match config::parse("edge.toml", text, Path::new("")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().split("\n\n").map(str::to_owned).collect(),
    }
}

#[test]
fn every_key_of_a_wrong_type_says_what_to_write() {
    let values = [
        "1",
        "-1",
        "1.5",
        "true",
        "\"\"",
        "\"x\"",
        "1979-05-27",
        "07:32:00",
        "[]",
        "[1]",
        "[[1]]",
        "[\"x\", 1]",
        "[{ a = 1 }]",
        "{}",
        "{ a = 1 }",
        "99999999999999999999",
        "nan",
        "0x10",
    ];
    for table in TABLES {
        // The note for an unknown key lists all known ones.
        let unknown = errors(&table.replace('@', "qqqqqqqqqqqq = 1")).concat();
        let known = unknown.split_once("= known keys: ").expect("it lists them").1;
        let known = known.split("error:").next().unwrap_or_default();
        let keys: Vec<&str> = known.split([',', '\n', ' ']).filter(|key| !key.is_empty()).collect();
        assert!(keys.len() >= 2, "{table}: {keys:?}");
        for key in keys {
            let mut refused = 0;
            for value in values {
                let errors = errors(&table.replace('@', &format!("{key} = {value}")));
                for error in &errors {
                    let remedy = error.lines().any(|line| line.trim_start().starts_with("= "));
                    assert!(remedy, "{key} = {value} in {table}:\n{error}");
                }
                let about = format!("`{key}`");
                refused += usize::from(errors.iter().any(|error| error.contains(&about)));
            }
            assert!(refused >= 8, "{key} in {table}: only {refused} values are refused");
        }
    }
}

/// `tests/config/odd`: valid, and probably not meant.
#[test]
fn every_oddity_gets_the_warning_it_should() {
    let bless = std::env::var_os("RINGGATE_BLESS").is_some();
    let mut different = Vec::new();
    for path in &toml_files("tests/config/odd") {
        let name = path.file_name().expect("a file has a name").to_string_lossy();
        let text = fs::read_to_string(path).expect("a case can be read");
        let config = config::parse(&name, &text, &certificates::base()).expect("it is valid");
        let shown = format!("{}\n", config.warnings);
        let beside = path.with_extension("txt");
        if bless {
            fs::write(&beside, &shown).expect("the expected text can be written");
        } else if fs::read_to_string(&beside).unwrap_or_default() != shown {
            different.push(format!("{}:\n{shown}", beside.display()));
        }
    }
    assert!(different.is_empty(), "not what is expected in\n\n{}", different.join("\n"));
}

#[test]
fn a_file_that_cannot_be_read_says_which_and_why() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("missing.toml");
    let shown = config::load(&missing).expect_err("there is no such file").to_string();
    let start = format!("error: cannot read the configuration {}: No such file", missing.display());
    assert!(shown.starts_with(&start), "{shown}");
    let shown = config::load(directory.path()).expect_err("that is a directory").to_string();
    assert!(shown.contains("Is a directory"), "{shown}");
}

#[test]
fn a_file_that_is_not_text_says_at_which_byte() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("latin1.toml");
    fs::write(&path, b"# one\nname = \"caf\xe9\"\n").expect("the file can be written");
    let shown = config::load(&path).expect_err("Latin 1 is not UTF-8").to_string();
    assert!(shown.starts_with("error: the byte 0xe9 is not UTF-8"), "{shown}");
    assert!(shown.contains(":2:12\n"), "{shown}");
}

#[test]
fn a_list_whose_elements_are_all_wrong_is_wrong_and_not_empty() {
    let rule = "[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nprotocol = \"tls\"\n\
                [[listener.tls]]\nnames = [3]\ncluster = \"a\"\n\
                [[listener.tls]]\ncluster = \"a\"\n\
                [cluster.a]\nendpoints = [\"127.0.0.1:2\"]\n";
    let found = errors(rule);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`names` must contain strings only"), "{found:?}");
}

#[test]
fn an_empty_list_of_tables_counts_as_left_out() {
    let site = |keys: &str| {
        errors(&format!(
            "[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nprotocol = \"http\"\n{keys}\n\
             [[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\nrespond = {{}}\n"
        ))
    };
    assert!(site("tls = []").is_empty());
    let shown = site("tls = []\nhello_timeout = \"5s\"").concat();
    assert!(shown.contains("`hello_timeout` needs [[listener.tls]]"), "{shown}");
}

#[test]
fn what_is_not_toml_says_what_to_write() {
    for (text, what, note) in [
        ("name = ingress_tcp", "a string needs quotes", "write name = \"ingress_tcp\""),
        ("name = nginx", "a string needs quotes", "write name = \"nginx\""),
        ("listen = 0.0.0.0:80", "a string needs quotes", "write listen = \"0.0.0.0:80\""),
        ("protocol = tcp # x", "a string needs quotes", "write protocol = \"tcp\""),
        ("idle_timeout = 30s", "a string needs quotes", "write idle_timeout = \"30s\""),
        ("nodelay = on", "`on` is not a value", "write nodelay = true"),
        ("nodelay = False", "`False` is not a value", "write nodelay = false"),
        ("static_resources:\n  listeners:\n  - address: a", "this is YAML, not TOML", "is TOML"),
        ("a = 1\nb = 2\na = 3", "duplicate key", "line 1 has it, too"),
        ("[log]\n[log]", "duplicate table [log]", "line 1 has it, too"),
    ] {
        let found = errors(text);
        let about = &found[0];
        assert!(about.starts_with(&format!("error: {what}\n")), "{text}:\n{about}");
        assert!(about.contains(note), "{text}:\n{about}");
        assert_eq!(found.len(), 1, "{text}:\n{found:?}");
    }
}

#[test]
fn a_key_of_another_table_or_program_says_where_or_how_it_is_written() {
    let cluster = errors("[cluster.a]\ncluster = \"b\"\nhosts = []\nlb_policy = 1\n").concat();
    assert!(cluster.contains("`cluster` is a key of [[listener]]"), "{cluster}");
    assert!(cluster.contains("write `endpoints`"), "{cluster}");
    assert!(!cluster.contains("needs `endpoints`"), "{cluster}");
    assert!(cluster.contains("write `balance`"), "{cluster}");
}

#[test]
fn a_byte_order_mark_is_no_column() {
    let shown = errors("\u{feff}typo = 1\n").concat();
    assert!(shown.contains("edge.toml:1:1\n  |\n1 | typo = 1\n  | ^^^^"), "{shown}");
}

#[test]
fn a_file_beside_the_configuration_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("page.html"), "<p>hello</p>").expect("the page");
    let path = directory.path().join("edge.toml");
    let text = r#"
        [[listener]]
        name = "web"
        listen = "127.0.0.1:0"
        protocol = "http"
        [[listener.host]]
        [[listener.host.route]]
        prefix = "/"
        respond = { file = "page.html" }
    "#;
    fs::write(&path, text).expect("the configuration");
    let config = config::load(&path).expect("valid");
    let Protocol::Http(http) = &config.listeners[0].protocol else { panic!("it is http") };
    let Action::Respond(respond) = &http.hosts[0].routes[0].action else { panic!("it responds") };
    assert_eq!(&respond.body[..], b"<p>hello</p>");
}

#[test]
fn defaults_and_references_are_filled_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/shadowsocks-stream.toml");
    let config = config::load(&path).expect("valid");
    let listener = &config.listeners[0];
    assert_eq!(listener.socket.backlog, 4096);
    assert!(listener.access_log.is_some());
    let Protocol::Http(http) = &listener.protocol else { panic!("it is http") };
    assert_eq!(http.hosts[0].names, [HostName::Exact(String::from("live.example.com"))]);
    assert!(http.hosts[1].names.is_empty());
    let Action::Tunnel(tunnel) = &http.hosts[0].routes[0].action else { panic!("a tunnel") };
    assert_eq!(tunnel.kind, TunnelKind::Forward { early_data: true });
    assert_eq!(tunnel.timeouts.half_closed.as_secs(), 60);
    let cluster = config.clusters.iter().find(|one| one.name == tunnel.cluster).unwrap();
    assert_eq!((&*cluster.name, cluster.connect_attempts), ("shadowsocks", 2));
    let Discovery::Static(endpoints) = &cluster.discovery else { panic!("it is static") };
    assert_eq!(endpoints[0].to_string(), "127.0.0.1:8388");
}

#[test]
fn an_example_with_a_backend_and_files_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/backend.toml");
    let config = config::load(&path).expect("valid");
    let Protocol::Http(http) = &config.listeners[0].protocol else { panic!("it is http") };
    let page = http.error_pages.get(404).expect("the page");
    assert!(page.body.starts_with(b"<!doctype html>"));
    assert_eq!(page.content_type, "text/html; charset=utf-8");
    assert!(http.error_pages.get(502).is_none());
    let trusted = |address: &str| {
        let address = address.parse().expect("an address");
        http.trusted_proxies.iter().any(|network| network.contains(address))
    };
    assert!(trusted("10.1.2.3") && trusted("2001:db8::1") && !trusted("192.0.2.1"));
    let routes = &http.hosts[0].routes;

    let Action::Proxy(proxy) = &routes[0].action else { panic!("it goes to a cluster") };
    assert_eq!(proxy.rewrite.path, PathRewrite::Prefix(String::from("/")));
    assert_eq!(proxy.rewrite.host.as_deref(), Some("api.internal"));
    assert!(proxy.request_fields.drops("Cookie") && proxy.request_fields.drops("x-env"));
    assert_eq!(proxy.response_timeout.as_secs(), 30);
    assert_eq!(proxy.idle_timeout.as_secs(), 120);
    assert_eq!(proxy.upgrades.timeouts.idle.as_secs(), 120);
    assert_eq!(proxy.max_body, Some(64 << 20));
    assert!(routes[0].response_fields.drops("X-Powered-By"));
    let cluster = config.clusters.iter().find(|one| one.name == proxy.cluster).expect("api");
    assert_eq!((cluster.keepalive_connections, cluster.keepalive_timeout.as_secs()), (16, 20));

    let Action::Files(app) = &routes[1].action else { panic!("it serves files") };
    assert_eq!(app.root, path.parent().expect("a directory").join("pages"));
    assert_eq!(
        (app.fallback.as_deref(), &app.index[..]),
        (Some("index.html"), &["index.html".into()][..])
    );
    let Action::Files(files) = &routes[2].action else { panic!("it serves files") };
    assert_eq!(files.not_found.as_deref(), Some("404.html"));
    assert_eq!(files.precompressed, [Coding::Brotli, Coding::Gzip]);
}

#[test]
fn requests_to_a_cluster_have_limits_of_their_own() {
    let text = "[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nprotocol = \"http\"\n\
                idle_timeout = \"7m\"\n[[listener.host]]\n[[listener.host.route]]\nprefix = \"/\"\n\
                cluster = \"c\"\n[cluster.c]\nendpoints = [\"127.0.0.1:2\"]\n";
    let config = config::parse("edge.toml", text, Path::new("")).expect("valid");
    let Protocol::Http(http) = &config.listeners[0].protocol else { panic!("it is http") };
    let Action::Proxy(proxy) = &http.hosts[0].routes[0].action else { panic!("a cluster") };
    let limits = (proxy.idle_timeout.as_secs(), proxy.response_timeout.as_secs(), proxy.max_body);
    assert_eq!(limits, (60, 60, None));
    assert_eq!(proxy.upgrades.timeouts.idle.as_secs(), 60);
    assert!(proxy.rewrite.is_empty() && proxy.request_fields.is_empty());
    let cluster = &config.clusters[0];
    assert_eq!((cluster.keepalive_connections, cluster.keepalive_timeout.as_secs()), (64, 30));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let off = config::parse(
        "edge.toml",
        &format!("{text}keepalive_connections = \"off\"\n"),
        Path::new(""),
    );
    assert_eq!(off.expect("valid").clusters[0].keepalive_connections, 0);
}
