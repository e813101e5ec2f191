//! Advice for words that other programs use but ringgate does not.

use std::collections::BTreeMap;

/// Advice for values of `protocol` from other programs. The words are in lower case.
pub(super) fn protocols() -> BTreeMap<&'static str, &'static str> {
    let mut advice = BTreeMap::new();
    for (words, note) in PROTOCOLS {
        advice.extend(words.iter().map(|word| (*word, *note)));
    }
    advice
}

const PROTOCOLS: &[(&[&str], &str)] = &[
    (
        &["https", "ssl", "tls1.2", "tls1.3", "tls_terminate", "tls-terminate", "wss"],
        "for a site write protocol = \"http\", and add [[listener.tls]] with `certificate` and \
             `key`; for other bytes write protocol = \"tls\", whose rules also have `cluster`",
    ),
    (
        &["ws", "websocket", "http_upgrade", "httpupgrade"],
        "WebSocket is a part of HTTP: write `http`, and add upgrade = \"websocket\" to a \
             [[listener.host.route]]",
    ),
    (
        &["h2", "h2c", "http2", "http/2", "grpc"],
        "an \"http\" listener supports HTTP/1.1 only: write `tcp` to relay every connection, \
             or `tls` to route by server name; alpn = [\"h2\"] restricts a rule to HTTP/2",
    ),
    (&["http1", "http1.1", "http/1.1"], "write `http`, which is HTTP/1.1"),
    (
        &["quic", "h3", "http3", "http/3", "dtls"],
        "this protocol runs over UDP: write `udp`, which relays datagrams unchanged",
    ),
    (
        &["socks", "socks4", "socks5", "shadowsocks", "ss", "obfs", "v2ray"],
        "ringgate does not implement this protocol: write `tcp` or `udp` to relay it \
             unchanged; a route of an \"http\" listener with tunnel = \"terminate\" unwraps \
             simple-obfs and WebSocket",
    ),
    (
        &["tcp4", "tcp6", "udp4", "udp6"],
        "write `tcp` or `udp`; the address in `listen` selects the family: \"0.0.0.0:80\" is \
             IPv4, \"[::]:80\" is IPv6",
    ),
    (&["stream", "l4", "raw"], "write `tcp`, or `udp` for datagrams"),
    (&["unix"], "write `tcp`, and listen = \"unix:/path\""),
];
