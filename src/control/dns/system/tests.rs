//! Files that name servers, domains and options, and files that do not.

use super::*;

fn ordered(host: &str, ndots: usize) -> Vec<String> {
    let search = ["a.test", "b.test"].map(|domain| Name::from_utf8(domain).unwrap());
    let names = candidates(host, &search, ndots).unwrap();
    names.iter().map(Name::to_string).collect()
}

#[test]
fn the_search_list_comes_first_for_names_with_few_dots() {
    assert_eq!(ordered("node", 1), ["node.a.test.", "node.b.test.", "node."]);
    assert_eq!(ordered("x.y", 1), ["x.y.", "x.y.a.test.", "x.y.b.test."]);
    assert_eq!(ordered("x.y", 5), ["x.y.a.test.", "x.y.b.test.", "x.y."]);
    assert_eq!(ordered("x.y.", 5), ["x.y."]);
}

#[test]
fn names_are_asked_for_as_they_are_written() {
    for host in ["ss_server", "my_app_1.example", "_sip._tcp.x", "-a-.x", "xn--mller-kva.test"] {
        let names = candidates(host, &[], 1).unwrap();
        assert_eq!(names[0].to_ascii().replace('\\', ""), format!("{host}."));
        assert_eq!(names.len(), 1);
    }
}

#[test]
fn a_domain_that_makes_the_name_too_long_is_skipped() {
    let long = Name::from_ascii(format!("{}.", "a".repeat(63)).repeat(3)).unwrap();
    let short = Name::from_ascii("test.").unwrap();
    let names = candidates(&"b".repeat(63), &[long, short], 1).unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}

fn search(file: &str) -> Vec<String> {
    parse(file.as_bytes()).unwrap().search.iter().map(Name::to_string).collect()
}

#[test]
fn a_bad_search_domain_is_skipped() {
    let mixed = "search a_b.test a..b .c ${DOMAIN} m\u{fc}ller.test good.test\n";
    let expected = ["a_b.test", "müller.test", "good.test"];
    assert_eq!(search(mixed), expected);
    let long = format!("search {} good.test", "a".repeat(64));
    assert_eq!(search(&long), ["good.test"]);
    assert_eq!(search("search ."), ["."]);
    assert_eq!(search("search a.test\ndomain b.test"), ["b.test"]);
}

#[test]
fn the_default_name_server_is_the_local_machine() {
    let servers = |file: &[u8]| {
        Vec::from_iter(servers(file).unwrap().iter().map(|server| server.ip().to_string()))
    };
    for empty in ["", "# nameserver 10.0.0.1", "nameserver", "nameserver nonsense\n\u{0}\n"] {
        assert_eq!(servers(empty.as_bytes()), ["127.0.0.1"], "{empty:?}");
    }
    assert_eq!(servers(b"nameserver 10.0.0.1\nnameserver x\n\xff\n"), ["10.0.0.1"]);
    // A bad line does not count as one of the three.
    let five = b"nameserver x\nnameserver\t10.0.0.1 # 1\nnameserver ::2\nnameserver 10.0.0.3;\n\
        nameserver 10.0.0.4\n";
    assert_eq!(servers(five), ["10.0.0.1", "::2", "10.0.0.3"]);
}

#[test]
fn a_server_in_a_zone_is_asked_there_or_not_at_all() {
    let zones = b"nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such\n";
    let expected = ["[fe80::1%1]:53", "[fe80::2%7]:53"];
    assert_eq!(
        servers(zones).unwrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        expected
    );
    assert!(servers(b"nameserver fe80::1%no-such\n").is_err());
    assert_eq!(servers(b"nameserver 10.0.0.1%lo\n").unwrap()[0].to_string(), "127.0.0.1:53");
}

#[test]
fn a_timeout_is_1_to_30_seconds_and_attempts_are_1_to_5() {
    let options = |file: &str| {
        let Resolver { options, attempts, .. } = parse(file.as_bytes()).unwrap();
        (options.timeout.as_secs(), attempts, options.ndots)
    };
    assert_eq!(options("options timeout:0 attempts:0"), (1, 1, 1));
    assert_eq!(options("options timeout:1000000 attempts:1000000"), (30, 5, 1));
    assert_eq!(options("options timeout:3 attempts:4 ndots:5"), (3, 4, 5));
    assert_eq!(options("options timeout:-1 nonsense:7"), (5, 2, 1));
}
