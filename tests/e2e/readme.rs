//! The examples of README, docs/ and config/ and their clients work with each other as they stand
//! there.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::chains::MIB;
use crate::support::{HttpClient, Ringgate, Socks, Web, obfs_server, ss_server};

const README: &str = "README.md";
const SHADOWSOCKS: &str = "docs/shadowsocks.md";

fn text_of(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The configuration with this line on the page.
#[track_caller]
fn example(page: &str, line: &str) -> String {
    let text = text_of(page);
    let blocks = text.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let found: Vec<&str> = blocks.filter(|block| block.contains(line)).collect();
    let [block] = found[..] else { panic!("{} configurations have {line:?}", found.len()) };
    block.to_owned()
}

/// The part of the page under the heading, up to the next one.
#[track_caller]
fn section(page: &str, heading: &str) -> String {
    let text = text_of(page);
    let (_, behind) = text.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    behind.split("\n##").next().unwrap().to_owned()
}

/// A configuration on ports of the test's own and with this upstream.
#[track_caller]
fn with_own_ports(config: &str, upstream: SocketAddr) -> String {
    let mut config = config.to_owned();
    for listen in ["[\"0.0.0.0:80\", \"[::]:80\"]", "\"0.0.0.0:8389\""] {
        config = config.replace(&format!("listen = {listen}"), "listen = \"127.0.0.1:0\"");
    }
    assert!(!config.contains("0.0.0.0"), "a port of this machine is left in\n{config}");
    let endpoint = "endpoints = [\"127.0.0.1:8388\"]";
    assert!(config.contains(endpoint), "no {endpoint} in\n{config}");
    config.replace(endpoint, &format!("endpoints = [\"{upstream}\"]"))
}

/// A client as a text describes it.
#[derive(Debug)]
struct Client {
    line: String,
    plugin: String,
    options: String,
}

/// The clients with a plugin in rows of tables and lines of comments.
fn clients(text: &str) -> Vec<Client> {
    let lines = text.lines().filter(|line| line.starts_with(['|', '#']));
    let clients = lines.filter_map(|line| {
        let (plugin, options) = line.split_once("--plugin ")?.1.split_once(" --plugin-opts '")?;
        Some(Client {
            line: line.to_owned(),
            plugin: plugin.to_owned(),
            options: options.split('\'').next()?.to_owned(),
        })
    });
    clients.collect()
}

/// A page load through the listener, by a client with the plugin and options of the table.
#[track_caller]
fn transfers(gate: &Ringgate, listener: &str, plugin: Option<(&str, &str)>) {
    let web = Web::start();
    let socks = Socks::start(gate.address(listener), plugin);
    socks.downloads(&web, 1000);
    socks.downloads(&web, 2 * MIB);
    socks.uploads(&web, 300 * 1024);
}

/// A visitor sees the site, on every path.
#[track_caller]
fn is_a_site(gate: &Ringgate) {
    for path in ["/", "/stream", "/any/page"] {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: live.example.com\r\n\r\n"));
        let response = client.response();
        let location = format!("https://www.example.com{path}");
        assert_eq!(response.field("location"), Some(location.as_str()), "{}", response.head);
    }
}

#[test]
fn the_stream_example_serves_its_clients() {
    let shadowsocks = ss_server(None);
    let obfs = obfs_server(shadowsocks.address(), &[]);
    let websocket = ss_server(Some("server;path=/stream;mux=0"));
    let file = text_of("config/shadowsocks-stream.toml");
    let section = section(README, "### Shadowsocks behind `/stream` of a site");
    let sources = [(example(README, "early_data = true"), clients(&section), 3)];
    let sources = sources.into_iter().chain([(file.clone(), clients(&file), 2)]);
    for (config, clients, count) in sources {
        assert_eq!(clients.len(), count, "{clients:#?}");
        for client in clients {
            eprintln!("client: {}", client.line);
            let is_obfs = client.plugin == "obfs-local";
            let config = if is_obfs {
                with_own_ports(&config, obfs.address())
            } else {
                // As the example says itself.
                with_own_ports(&config, websocket.address()).replace("early_data = true", "")
            };
            let gate = Ringgate::start(&config);
            transfers(&gate, "web", Some((&client.plugin, &client.options)));
            is_a_site(&gate);
            let tunnels = gate.records_where(3, |record| record.number("status") == 101);
            // Debian's simple-obfs 0.0.5 asks for / whatever its options say.
            let route = if is_obfs { "/" } else { "/stream" };
            assert!(tunnels.iter().all(|tunnel| tunnel.text("route") == route), "{tunnels:#?}");
        }
    }
}

#[test]
fn the_example_for_every_client_serves_its_clients() {
    let server = ss_server(None);
    let file = text_of("config/shadowsocks-all.toml");
    let section =
        section(SHADOWSOCKS, "### Every client on one port, without plugins on the server");
    let page = example(SHADOWSOCKS, "tunnel = \"terminate\"");
    for (config, clients) in [(page, clients(&section)), (file.clone(), clients(&file))] {
        let options: Vec<&str> = clients.iter().map(|client| &*client.options).collect();
        for disguise in ["obfs=http", "obfs=tls", "path=/stream"] {
            assert!(options.iter().any(|text| text.starts_with(disguise)), "{options:?}");
        }
        let gate = Ringgate::start(&with_own_ports(&config, server.address()));
        for client in &clients {
            eprintln!("client: {}", client.line);
            transfers(&gate, "web", Some((&client.plugin, &client.options)));
        }
        transfers(&gate, "plain", None);
        is_a_site(&gate);
    }
}

#[test]
fn the_demos_start_clients_of_the_documentation() {
    let pages = text_of(README) + &text_of(SHADOWSOCKS);
    for script in ["scripts/demo", "scripts/demo-all"] {
        let text = text_of(script).replace("$HOST", "live.example.com");
        let options: Vec<&str> = text
            .split(['"', '\''])
            .filter(|part| part.starts_with("obfs=") || part.starts_with("path=/stream;host="))
            .collect();
        assert!(!options.is_empty(), "{script} has no client with a plugin");
        for options in options {
            let client = format!("--plugin-opts '{options}'");
            assert!(
                pages.contains(&client),
                "{script} starts a client that the documentation lacks: {client}"
            );
        }
    }
}
