//! The system's configuration of names as the system's own resolver reads it: `/etc/hosts`
//! (hosts(5)) and `/etc/resolv.conf` (resolv.conf(5)).
//!
//! Names are compared as text and sent as they are written, so that underscores and leading hyphens
//! are accepted. An entry that cannot be parsed is skipped; the rest of the file still counts.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::Name;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// `options timeout:` and `attempts:`: 0 means 1, and there are upper limits (resolv.conf(5)).
const TIMEOUT: (u32, u32) = (1, 30);
const ATTEMPTS: (u32, u32) = (1, 5);

/// How names are asked for.
pub(super) struct Resolver {
    pub(super) config: ResolverConfig,
    pub(super) options: ResolverOpts,
    /// Domains that complete a short name.
    pub(super) search: Vec<Name>,
}

/// The addresses of a name in the hosts file. None: it does not stand there.
pub(super) fn from_hosts(host: &str) -> Option<Vec<IpAddr>> {
    find_in_hosts(&fs::read(HOSTS).unwrap_or_default(), host)
}

fn find_in_hosts(file: &[u8], host: &str) -> Option<Vec<IpAddr>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_host = |name: &str| name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(host);
    let mut found = None;
    for line in file.split(|byte| *byte == b'\n') {
        // A comment may be in another encoding.
        let line = String::from_utf8_lossy(line);
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(IpAddr::from_str) else { continue };
        if words.any(is_host) {
            let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    found
}

/// Reads the resolver's configuration.
///
/// # Errors
/// The file is there, and this process cannot read it now: it is out of descriptors, or the disk
/// fails.
pub(super) fn resolver() -> io::Result<Resolver> {
    match fs::read(RESOLV_CONF) {
        Ok(file) => Ok(parse(&file)),
        Err(error) if is_as_good_as_empty(error.kind()) => Ok(parse(b"")),
        Err(error) => Err(error),
    }
}

/// The errors for which glibc's res_init uses its defaults.
fn is_as_good_as_empty(error: ErrorKind) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error, IsADirectory | NotADirectory | NotFound | PermissionDenied)
}

fn parse(file: &[u8]) -> Resolver {
    // Errors concern single lines and options, which are skipped.
    let (parsed, _) = resolv_conf::Config::parse_with_errors(file);
    let mut servers: Vec<IpAddr> = parsed.nameservers.iter().map(IpAddr::from).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    let domain = |text: &String| Name::from_str_relaxed(text).ok();
    let mut search: Vec<Name> = parsed.get_last_search_or_domain().filter_map(domain).collect();
    if search.is_empty() {
        search.extend(parsed.get_system_domain().as_ref().and_then(domain));
    }
    let servers = servers.into_iter().map(NameServerConfig::udp_and_tcp).collect();
    let mut options = ResolverOpts::default();
    options.ndots = parsed.ndots as usize;
    options.timeout = Duration::from_secs(parsed.timeout.clamp(TIMEOUT.0, TIMEOUT.1).into());
    options.attempts = parsed.attempts.clamp(ATTEMPTS.0, ATTEMPTS.1) as usize;
    options.edns0 = parsed.edns0;
    // No cache: followers look up when the time to live is over. The aliases (CNAME) are kept, as
    // the smallest time to live of the chain counts.
    options.cache_size = 0;
    options.preserve_intermediates = true;
    Resolver { config: ResolverConfig::from_parts(None, Vec::new(), servers), options, search }
}

/// The names to ask for, fully qualified, as resolv.conf(5) orders them.
///
/// # Errors
/// The name itself cannot be asked for: it is too long.
pub(super) fn candidates(
    host: &str,
    search: &[Name],
    ndots: usize,
) -> Result<Vec<Name>, ProtoError> {
    let labels = host.strip_suffix('.').unwrap_or(host);
    // Labels are bytes: whether a name exists is for the server to decide, not for a syntax rule.
    let mut name = Name::from_labels(labels.split('.').map(str::as_bytes))?;
    if host.ends_with('.') {
        name.set_fqdn(true);
        return Ok(vec![name]);
    }
    name.set_fqdn(false);
    let dots = host.matches('.').count();
    // A search domain that makes the name too long is skipped.
    let complete = |domain: &Name| name.clone().append_domain(domain).ok();
    let mut names: Vec<Name> = search.iter().filter_map(complete).collect();
    name.set_fqdn(true);
    names.insert(if dots >= ndots { 0 } else { names.len() }, name);
    Ok(names)
}

#[cfg(test)]
mod tests {
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
        for host in ["ss_server", "my_app_1.example", "_sip._tcp.x", "-a-.x", "xn--mller-kva.test"]
        {
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
        parse(file.as_bytes()).search.iter().map(Name::to_string).collect()
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
            let config = parse(file).config;
            Vec::from_iter(config.name_servers().iter().map(|server| server.ip.to_string()))
        };
        for empty in ["", "# nameserver 10.0.0.1", "nameserver", "nameserver nonsense\n\u{0}\n"] {
            assert_eq!(servers(empty.as_bytes()), ["127.0.0.1"], "{empty:?}");
        }
        assert_eq!(servers(b"nameserver 10.0.0.1\nnameserver x\n\xff\n"), ["10.0.0.1"]);
    }

    #[test]
    fn a_timeout_is_1_to_30_seconds_and_attempts_are_1_to_5() {
        let options = |file: &str| {
            let options = parse(file.as_bytes()).options;
            (options.timeout.as_secs(), options.attempts, options.ndots)
        };
        assert_eq!(options("options timeout:0 attempts:0"), (1, 1, 1));
        assert_eq!(options("options timeout:1000000 attempts:1000000"), (30, 5, 1));
        assert_eq!(options("options timeout:3 attempts:4 ndots:5"), (3, 4, 5));
        assert_eq!(options("options timeout:-1 nonsense:7"), (5, 2, 1));
    }

    #[test]
    fn any_name_may_stand_in_the_hosts_file() {
        let file = b"\xff\xfe\n10.0.0.1 ss_server My_App_1.example # not_this 10.9.9.9\n\
            nonsense ss_server\n::1\tss_server. -x-\r\n10.0.0.1 ss_server\n# 10.0.0.7 ss_server\n";
        let found = |host| {
            let found = find_in_hosts(file, host)?;
            Some(found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(found("ss_server").as_deref(), Some("10.0.0.1 ::1"));
        assert_eq!(found("ss_server.").as_deref(), Some("10.0.0.1 ::1"));
        assert_eq!(found("my_app_1.EXAMPLE").as_deref(), Some("10.0.0.1"));
        assert_eq!(found("-x-").as_deref(), Some("::1"));
        assert_eq!(found("not_this"), None);
    }
}
