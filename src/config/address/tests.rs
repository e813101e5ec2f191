//! Addresses and names in every form that is accepted, and in others.

use proptest::prelude::*;

use super::*;
use crate::config::HostName;

fn listening(text: &str) -> Vec<String> {
    let addresses = listen(text).expect("a valid address");
    addresses.iter().map(Address::to_string).collect()
}

#[test]
fn every_form_of_listen_is_understood() {
    assert_eq!(listening("0.0.0.0:80"), ["0.0.0.0:80"]);
    assert_eq!(listening("[::]:80"), ["[::]:80"]);
    assert_eq!(listening("127.0.0.1:0"), ["127.0.0.1:0"]);
    assert_eq!(listening("127.0.0.1:80-82"), ["127.0.0.1:80", "127.0.0.1:81", "127.0.0.1:82"]);
    assert_eq!(listening("unix:/run/web.sock"), ["unix:/run/web.sock"]);
    assert_eq!(listening("0.0.0.0:1-1024").len(), 1024);
}

#[test]
fn every_other_form_of_listen_is_refused() {
    for text in [
        "",
        "80",
        ":80",
        "*:80",
        "localhost:80",
        "::1:80",
        "[::1]",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2:3",
        "1.2.3.4:65536",
        "1.2.3.4:+80",
        "1.2.3.4:82-80",
        "1.2.3.4:80-80-80",
        "1.2.3.4:0-5",
        "1.2.3.4:1-1025",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[ff02::1]:80",
        "[fe80::1]:80",
        "[::ffff:127.0.0.1]:80",
        "unix:",
        "unix:web.sock",
        "unix:/a\0b",
        "unix:/run/",
    ] {
        assert!(listen(text).is_err(), "{text:?}");
    }
}

#[test]
fn endpoints_are_addresses_or_names_with_ports() {
    assert_eq!(
        static_endpoint("[::1]:80").map(|address| address.to_string()),
        Ok(String::from("[::1]:80"))
    );
    let name = DnsName { host: String::from("node.internal."), port: 31509 };
    assert_eq!(dns_endpoint("Node.Internal.:31509"), Ok(name));
    let name = DnsName { host: String::from("my_app_1.example"), port: 80 };
    assert_eq!(dns_endpoint("My_App_1.example:80"), Ok(name));
    let address = DnsName { host: String::from("::1"), port: 80 };
    assert_eq!(dns_endpoint("[::1]:80"), Ok(address));
    for text in [
        "",
        "a",
        ":80",
        "a:0",
        "a:b",
        "::1",
        "::1:80",
        "http://a:80",
        "a b:80",
        "unix:/a",
        "10.0.0.256:80",
        "a..b:80",
        "[a]:80",
        ".:80",
        "224.0.0.1:80",
        "[fe80::1]:80",
    ] {
        assert!(dns_endpoint(text).is_err(), "{text:?}");
    }
    assert!(static_endpoint("node.internal:80").is_err());
}

#[test]
fn host_names_are_kept_in_lower_case() {
    let exact = |name: &str| Ok(HostName::Exact(name.to_owned()));
    assert_eq!(host_name("Live.Example.COM"), exact("live.example.com"));
    assert_eq!(host_name("a_b-c"), exact("a_b-c"));
    assert_eq!(host_name("127.0.0.1"), exact("127.0.0.1"));
    assert_eq!(host_name("::1"), exact("[::1]"));
    assert_eq!(host_name("[2001:DB8::1]"), exact("[2001:db8::1]"));
    assert_eq!(host_name("*.Example.com"), Ok(HostName::Suffix(String::from(".example.com"))));
    assert_eq!(host_name("Example.*"), Ok(HostName::Prefix(String::from("example."))));
}

#[test]
fn what_cannot_be_a_host_is_refused() {
    for text in [
        "",
        "*",
        "*.",
        ".*",
        "*.a.*",
        "a.*.b",
        "a*",
        "a:80",
        "[::1]:80",
        "http://a",
        "a/b",
        "a b",
        "a.",
        ".a",
        "a..b",
        "bücher.de",
        "a\r\nb",
        "1.2.3",
        "1.2.3.256",
    ] {
        assert!(host_name(text).is_err(), "{text:?}");
    }
    assert!(host_name(&"a".repeat(64)).is_err());
    assert!(host_name(&["a"; 128].join(".")).is_err());
}

proptest! {
    #[test]
    fn any_text_is_understood_or_refused(text in "\\PC{0,24}") {
        let _ = (listen(&text), static_endpoint(&text), dns_endpoint(&text), host_name(&text));
    }

    #[test]
    fn an_accepted_host_is_safe_in_a_header(text in "[ -~]{1,16}|(?s).{1,8}") {
        if let Ok(host) = exact_host(&text) {
            prop_assert!(host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
        }
    }
}
