//! Ways out of the root, and to what is no file. None of them may show a byte that is not served.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// In the spellings that servers have accepted by mistake.
const WAYS_OUT: &[&str] = &[
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "%2E%2E%2Fsecret",
    ".%2e/secret",
    "%2e./secret",
    "..%5csecret",
    "..\\secret",
    "%2e%2e%5csecret",
    "..%255csecret",
    "%252e%252e/secret",
    "%252e%252e%252fsecret",
    "%25252e%25252e/secret",
    "%c0%ae%c0%ae/secret",
    "%c0%ae%c0%ae%c0%afsecret",
    "%c1%9csecret",
    "..%c0%afsecret",
    "..%e0%80%afsecret",
    "%uff0e%uff0e/secret",
    "%u002e%u002e/secret",
    "..%00/secret",
    "..%00.html",
    "../secret%00.html",
    "..;/secret",
    "..;x=y/secret",
    "%2e%2e;/secret",
    "a/../../secret",
    "a/..%2f..%2fsecret",
    "a/b/../../../secret",
    "a/./../../secret",
    "a/.%2e/.%2e/secret",
    "a//../../secret",
    "./../secret",
    ".//../secret",
    "/../secret",
    "//secret",
    "/%2e%2e/secret",
    "....//secret",
    "..../secret",
    "..././secret",
    "%2e%2e",
    "..",
    "../",
    "..%2f",
    "../root/../secret",
    "../root/file",
    "..%20/secret",
    "%20../secret",
    "..%09/secret",
    "..%0d%0a/secret",
    "?/../secret",
    "#/../secret",
    "file/../secret",
    "file/../../secret",
    "file%2f..%2f..%2fsecret",
    "~/secret",
    "~root/secret",
    "etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "proc/self/environ",
    "file:///etc/passwd",
    "C:/secret",
    "C:%5csecret",
    "%5c%5chost%5csecret",
    "out",
    "out-absolute",
    "up/secret",
    "up/root/file",
    "a/up/secret",
    "magic/etc/passwd",
    "loop",
    "loop/file",
    "link",
    "here/file",
    ".env",
    "%2eenv",
    ".git/config",
    "%2egit/config",
    ".git%2fconfig",
    "a/.htaccess",
    ".well-known/../secret",
    ".well-known/.env",
    ".well-known%2f..%2fsecret",
    "pipe",
    "socket",
    "null",
    "pipe/",
    "a/",
    "a",
    "file/",
    "file/x",
    "file%00",
    "file%20",
    "file.",
    "file::$DATA",
    "FILE",
    "file%",
    "file%2",
    "file%zz",
];

#[test]
fn no_path_shows_what_is_not_to_be_served() {
    with_site(
        |_| {},
        async |site| {
            let _socket = prepare(site);
            assert_eq!(site.get("/file").await.body, b"served");
            assert_eq!(site.get("/.well-known/acme").await.body, b"served");
            for way_out in WAYS_OUT {
                for prefix in ["/", "/a/", "/%61/", "/.well-known/"] {
                    let path = format!("{prefix}{way_out}");
                    let seen = site.get(&path).await;
                    let is_directory = seen.status == 301 && path == "/a";
                    assert!(seen.status == 404 || is_directory, "{path}: {seen:?}");
                    assert!(seen.body.is_empty() && !seen.fields.contains_key("ETag"), "{path}");
                }
            }
        },
    );
}

#[test]
fn a_link_that_leads_out_is_not_followed_where_links_are_allowed() {
    let lax = |rules: &mut Rules| (rules.symlinks, rules.dot_files) = (true, true);
    with_site(lax, async |site| {
        let _socket = prepare(site);
        for path in ["/link", "/here/file", "/.env", "/a/.htaccess"] {
            assert_eq!(site.get(path).await.status, 200, "{path}");
        }
        for way_out in WAYS_OUT {
            let seen = site.get(&format!("/{way_out}")).await;
            assert_ne!(seen.body, b"secret", "{way_out}");
        }
        for path in
            ["/out", "/out-absolute", "/up/secret", "/magic/etc/passwd", "/loop", "/%2e%2e/secret"]
        {
            assert_eq!(site.get(path).await.status, 404, "{path}");
        }
    });
}

/// Makes what the corpus tries to reach. Returns what must live as long as the site.
fn prepare(site: &Tested) -> UnixListener {
    let outside = |name: &str| site.place.path().join(name);
    fs::write(outside("secret"), "secret").unwrap();
    for served in ["file", ".well-known/acme"] {
        site.write(served, "served");
    }
    for hidden in [".env", ".git/config", "a/.htaccess", ".well-known/.env"] {
        site.write(hidden, "secret, but inside");
    }
    for (to, name) in [
        ("../secret", "out"),
        ("..", "up"),
        ("../..", "a/up"),
        ("/proc/self/root", "magic"),
        ("loop", "loop"),
        ("file", "link"),
        (".", "here"),
    ] {
        symlink(to, site.path(name)).unwrap();
    }
    symlink(outside("secret"), site.path("out-absolute")).unwrap();
    let (owner, device) = (Mode::RUSR | Mode::WUSR, rustix::fs::makedev(1, 3));
    mknodat(CWD, site.path("pipe"), FileType::Fifo, owner, 0).unwrap();
    if mknodat(CWD, site.path("null"), FileType::CharacterDevice, owner, device).is_err() {
        eprintln!("not tested: a device may not be made here");
    }
    UnixListener::bind(site.path("socket")).unwrap()
}
