//! Advice for words that other programs use but ringgate does not.

/// The advice for a value of `protocol` from another program; `word` is in lower case.
pub(super) fn protocol(word: &str) -> Option<&'static str> {
    Some(match word {
        "https" | "ssl" | "tls1.2" | "tls1.3" | "tls_terminate" | "tls-terminate" | "wss" => {
            "this version ends no TLS: \"tls\" passes it on by its name (SNI) to a server that has \
             the certificate, and so does [[listener.tls]] of an \"http\" listener, beside plain \
             HTTP on one port"
        }
        "ws" | "websocket" | "http_upgrade" | "httpupgrade" => {
            "a WebSocket is a request of an \"http\" listener: a [[listener.host.route]] with \
             upgrade = \"websocket\""
        }
        "h2" | "h2c" | "http2" | "http/2" | "grpc" => {
            "an \"http\" listener has HTTP/1.1: \"tcp\" passes everything on as it is, and \"tls\" \
             by its name, where alpn = [\"h2\"] makes a rule one for HTTP/2"
        }
        "http1" | "http1.1" | "http/1.1" => "write `http`, which is HTTP/1.1",
        "quic" | "h3" | "http3" | "http/3" | "dtls" => {
            "that goes over UDP: \"udp\" passes datagrams on as they are"
        }
        "socks" | "socks4" | "socks5" | "shadowsocks" | "ss" | "obfs" | "v2ray" => {
            "ringgate is no server of it: \"tcp\" and \"udp\" pass it on as it is, and an \"http\" \
             listener takes it out of simple-obfs or WebSocket with tunnel = \"terminate\""
        }
        "tcp4" | "tcp6" | "udp4" | "udp6" => {
            "the address in `listen` says which family: \"0.0.0.0:80\" is IPv4, \"[::]:80\" IPv6; \
             write `tcp` or `udp`"
        }
        "stream" | "l4" | "raw" => "write `tcp`, or `udp` for datagrams",
        "unix" => "write `tcp`, and listen = \"unix:/path\"",
        _ => return None,
    })
}
