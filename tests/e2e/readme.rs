//! The examples of README, docs/ and config/ and their clients work with each other as they stand
//! there.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use crate::chains::MIB;
use crate::support::{
    Application, Authority, Echo, HttpClient, Pair, Ringgate, Socks, TlsSite, UdpEcho, Web, bytes,
    curl, curl_trusting, obfs_server, openssl_client, run, ss_server, ss_server_with_udp,
    ss_tunnel, sum,
};
use crate::udp::{ask, client};

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
    with_endpoint(&on_own_ports(config), "127.0.0.1:8388", upstream)
}

/// A configuration on ports of the test's own.
#[track_caller]
fn on_own_ports(config: &str) -> String {
    let lines = config.lines().map(|line| {
        let is_listen = line.trim_start().starts_with("listen = ");
        if is_listen { "listen = \"127.0.0.1:0\"" } else { line }
    });
    let config = lines.collect::<Vec<&str>>().join("\n");
    assert!(!config.contains("0.0.0.0"), "a port of this machine is left in\n{config}");
    config
}

/// A configuration with this endpoint in place of its own.
#[track_caller]
fn with_endpoint(config: &str, of_example: &str, endpoint: SocketAddr) -> String {
    let own = format!("endpoints = [\"{of_example}\"]");
    assert!(config.contains(&own), "no {own} in\n{config}");
    config.replace(&own, &format!("endpoints = [\"{endpoint}\"]"))
}

/// A configuration with the site that stands beside the examples.
fn with_site(config: &str) -> String {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/www").display().to_string();
    // One of them has a relative path.
    let config = config.replace("\"www\"", &format!("\"{site}\""));
    config.replace("\"www/", &format!("\"{site}/")).replace("/var/www/example", &site)
}

/// A configuration with these files in place of certificates by ACME.
#[track_caller]
fn with_certificate(config: &str, pair: &Pair) -> String {
    // An empty line ends the table.
    let (mut is_table, mut own) = (false, String::new());
    for line in config.lines() {
        is_table = line.starts_with("[acme]") || is_table && !line.is_empty();
        let is_key = line.split('#').next().unwrap().trim() == "acme = true";
        if !is_table {
            own += &if is_key { pair.lines() } else { line.to_owned() };
            own.push('\n');
        }
    }
    assert!(own.contains(&pair.lines()), "no rule has `acme` in\n{config}");
    own
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
    let section = section(README, "### A stock obfs-server behind `/stream` of a site");
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

/// The names of the TLS rules in the examples that end TLS.
const TLS_NAMES: [&str; 3] = ["www.example.com", "example.com", "cdn.example.com"];

/// A configuration that ends TLS, with a certificate of this authority, and its clients.
struct OverTls<'a> {
    authority: &'a Authority,
    gate: &'a Ringgate,
    listener: &'a str,
}

impl OverTls<'_> {
    /// Page loads by the client, which trusts the authority.
    #[track_caller]
    fn serves(&self, client: &Client) {
        eprintln!("client: {}", client.line);
        let options = self.trusting(&client.options);
        transfers(self.gate, self.listener, Some((&client.plugin, &options)));
    }

    /// The options of a client; with trust in the authority if they are about real TLS.
    fn trusting(&self, options: &str) -> String {
        let certificate = format!(";cert={}", self.authority.file().display());
        format!("{options}{}", if options.starts_with("tls;") { &certificate } else { "" })
    }

    /// What curl says of this URL, with the head of the response.
    #[track_caller]
    fn visit(&self, url: &str) -> String {
        let output = curl(self.gate.address(self.listener), self.authority, &["-i", url]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// A site for browsers, which sends those without TLS to the same URL with it.
    #[track_caller]
    fn is_a_site(&self) {
        let page = self.visit("https://www.example.com/");
        assert!(page.starts_with("HTTP/2 200 ") && page.ends_with("<h1>It works</h1>"), "{page}");
        let moved = self.visit("http://www.example.com/stream?a=b");
        assert!(moved.starts_with("HTTP/1.1 301 "), "{moved}");
        assert!(moved.contains("\nLocation: https://www.example.com/stream?a=b\r"), "{moved}");
        let unknown = self.visit("https://other.example.net/");
        assert!(unknown.contains("unrecognized name"), "{unknown}");
    }
}

#[test]
fn the_examples_of_a_whole_machine_serve_everyone() {
    let (server, mail) = (ss_server_with_udp(), TlsSite::start("mail.example.com", "mail"));
    let (application, echo) = (Application::start(), UdpEcho::start(""));
    let authority = Authority::new("authority");
    let pair = authority.signs(&["www.example.com"]);
    let file = text_of("config/box.toml");
    let section = section(README, "### A site with Shadowsocks behind it");
    for (config, clients) in
        [(example(README, "acme = true"), clients(&section)), (file.clone(), clients(&file))]
    {
        let config = with_certificate(&with_own_ports(&config, server.address()), &pair);
        let config = with_endpoint(&config, "10.0.0.7:443", mail.address());
        let config = with_endpoint(&config, "127.0.0.1:3000", application.address());
        let gate = Ringgate::start(&with_site(&config));
        let over_tls = OverTls { authority: &authority, gate: &gate, listener: "web" };

        // 1. Shadowsocks.
        assert_eq!(clients.len(), 2, "{clients:#?}");
        clients.iter().for_each(|client| over_tls.serves(client));
        let tunnel = ss_tunnel(gate.address("datagrams"), echo.address());
        let sent = bytes(1, 1350);
        assert!(ask(&client(tunnel.address()), &sent) == sent, "the datagram has changed");

        // 2. The site.
        let hsts = "\nstrict-transport-security: max-age=31536000\r";
        let page = over_tls.visit("https://www.example.com/");
        assert!(page.starts_with("HTTP/2 200 ") && page.contains(hsts), "{page}");
        assert!(page.contains("<h1>Harbour notes</h1>"), "{page}");
        let answer = over_tls.visit("https://www.example.com/api/clock");
        assert!(answer.starts_with("HTTP/2 200 ") && answer.ends_with(&sum(b"")), "{answer}");
        for path in ["/missing", "/stream-7f3a9c", "/stream-7f3a9c/"] {
            let missing = over_tls.visit(&format!("https://www.example.com{path}"));
            assert!(missing.starts_with("HTTP/2 404 "), "{missing}");
            assert!(missing.ends_with(&text_of("config/www/404.html")), "{missing}");
        }
        let moved = over_tls.visit("http://www.example.com/stream-7f3a9c?a=b");
        let location = "\nLocation: https://www.example.com/stream-7f3a9c?a=b\r";
        assert!(moved.starts_with("HTTP/1.1 301 ") && moved.contains(location), "{moved}");
        assert!(!moved.to_ascii_lowercase().contains("strict-transport"), "{moved}");

        // 3. The other server.
        let url = "https://mail.example.com/";
        let passed_on = curl_trusting(gate.address("web"), &mail.certificate(), &[url]);
        assert_eq!(String::from_utf8_lossy(&passed_on.stdout), "mail", "{passed_on:?}");
    }
}

#[test]
fn the_https_example_serves_its_clients() {
    let (server, mail) = (ss_server(None), TlsSite::start("mail.example.com", "mail"));
    let (authority, file) = (Authority::new("authority"), text_of("config/https.toml"));
    let pair = authority.signs(&TLS_NAMES);
    let config = with_certificate(&with_own_ports(&file, server.address()), &pair);
    let gate = Ringgate::start(&with_endpoint(&config, "10.0.0.7:443", mail.address()));
    let over_tls = OverTls { authority: &authority, gate: &gate, listener: "https" };
    let clients = clients(&file);
    assert_eq!(clients.len(), 2, "{clients:#?}");
    clients.iter().for_each(|client| over_tls.serves(client));
    over_tls.is_a_site();

    let url = "https://mail.example.com/";
    let passed_on = curl_trusting(gate.address("https"), &mail.certificate(), &[url]);
    assert_eq!(String::from_utf8_lossy(&passed_on.stdout), "mail", "{passed_on:?}");
    let cover = over_tls.visit("https://cdn.example.com/a");
    let location = "\nlocation: https://www.example.com/a\r";
    assert!(cover.to_ascii_lowercase().contains(location), "{cover}");
    let mut plain = HttpClient::connect(gate.address("http"));
    plain.send("GET /b HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let response = plain.response();
    assert_eq!(response.field("location"), Some("https://www.example.com/b"));
}

#[test]
fn the_clients_over_tls_in_the_documentation_work() {
    let server = ss_server(None);
    let (authority, file) = (Authority::new("authority"), text_of("config/https.toml"));
    let pair = authority.signs(&TLS_NAMES);
    let gate = Ringgate::start(&with_certificate(&with_own_ports(&file, server.address()), &pair));
    let over_tls = OverTls { authority: &authority, gate: &gate, listener: "https" };
    let section = section(SHADOWSOCKS, "## Over TLS");
    let clients = clients(&section);
    assert_eq!(clients.len(), 3, "{clients:#?}");
    clients.iter().for_each(|client| over_tls.serves(client));

    let (_, row) = section.split_once("\n| sing-box |").expect("the row of sing-box");
    let (_, options) = row.split_once("\"plugin_opts\": \"").expect("its options");
    let options = over_tls.trusting(options.split('"').next().unwrap());
    let socks = Socks::of_sing_box(gate.address("https"), ("v2ray-plugin", &options));
    let web = Web::start();
    socks.downloads(&web, 2 * MIB);
    socks.uploads(&web, 300 * 1024);
}

#[test]
fn the_example_before_a_server_that_speaks_tls_serves_its_clients() {
    let (authority, far) = (Authority::new("authority"), Authority::new("another authority"));
    let section = section(SHADOWSOCKS, "### Servers that speak TLS themselves");
    let (_, options) = section.split_once("--plugin-opts '").expect("the server has a plugin");
    let own = far.signs(&["ss.example.net"]);
    let options = options
        .split('\'')
        .next()
        .unwrap()
        .replace("/etc/ss/fullchain.pem", own.certificate.to_str().unwrap())
        .replace("/etc/ss/privkey.pem", own.key.to_str().unwrap());
    let server = ss_server(Some(&options));

    // The name is that of the example. Its address is one of this machine.
    let config =
        example(SHADOWSOCKS, "tls = {}").replace("discovery = \"strict_dns\"", "").replace(
            "tls = {}",
            &format!("tls = {{ server_name = \"ss.example.net\", ca = {:?} }}", far.file()),
        );
    let config = with_endpoint(&on_own_ports(&config), "ss.example.net:8443", server.address());
    let pair = authority.signs(&["www.example.com"]);
    let gate = Ringgate::start(&with_certificate(&config, &pair));
    let over_tls = OverTls { authority: &authority, gate: &gate, listener: "web" };
    let options = over_tls.trusting("tls;host=www.example.com;path=/stream;mux=0");
    transfers(&gate, "web", Some(("ss-v2ray-plugin", &options)));
    let tunnels = gate.records_where(3, |record| record.number("status") == 101);
    assert!(tunnels.iter().all(|tunnel| tunnel.text("cluster") == "far"), "{tunnels:#?}");
}

#[test]
fn the_example_that_strips_tls_carries_bytes_both_ways() {
    let (authority, echo) = (Authority::new("authority"), Echo::start());
    let file = on_own_ports(&text_of("config/tls-strip.toml"));
    let file = with_certificate(&file, &authority.signs(&["mqtt.example.com"]));
    let broker = Ringgate::start(&with_endpoint(&file, "127.0.0.1:1883", echo.address()));

    // The other broker is the first one of this example.
    let trust =
        format!("tls = {{ server_name = \"mqtt.example.com\", ca = {:?} }}", authority.file());
    let config = file.replace("discovery = \"strict_dns\"", "").replace("tls = {}", &trust);
    let elsewhere = "broker.example.net:8883";
    let uplink = Ringgate::start(&with_endpoint(&config, elsewhere, broker.address("mqtts")));
    let mut program = uplink.connect("uplink");
    program.write_all(b"over TLS and back").unwrap();
    let mut echoed = [0; 17];
    program.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"over TLS and back");
    drop(program);
    let record = broker.record();
    assert_eq!((record.text("cluster"), record.tls().text("version")), ("broker", "1.3"));

    // As the example says.
    let address = broker.address("mqtts");
    let old = run(&mut openssl_client(address, &authority, "mqtt.example.com", &["-tls1_2"]));
    assert!(!old.status.success(), "{old:?}");
}

#[test]
fn the_demo_starts_the_clients_of_its_example() {
    // The certificate of the demo comes from no authority that a machine knows.
    let script = text_of("scripts/demo").replace("$HOST", "www.example.com");
    let script = script.replace(";cert=$work/ca.pem", "");
    let clients = clients(&text_of("config/box.toml"));
    assert_eq!(clients.len(), 2, "{clients:#?}");
    for Client { plugin, options, .. } in clients {
        assert!(script.contains(&format!("--plugin {plugin} ")), "no {plugin}");
        assert!(script.contains(&format!("--plugin-opts \"{options}\"")), "no {options}");
    }
}
