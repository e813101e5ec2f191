//! Files of a site, with curl and with raw requests: which are served, which never are, and how.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{Mode, mkfifoat};
use tempfile::TempDir;

use crate::support::{
    Authority, HttpClient, Ringgate, SHORT, Setup, bytes, curl, require, run, wait_for,
};

/// A site with a directory of its own.
struct Place {
    dir: TempDir,
    gate: Ringgate,
}

impl Place {
    /// `keys` are more keys of the route. The files are there before the start.
    fn start(keys: &str, driver: &str, fill: impl FnOnce(&Path)) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www");
        fs::create_dir(&root).unwrap();
        fill(&root);
        let config = format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [[listener.host]]\nroute = [{{ prefix = \"/\", root = {root:?}{keys} }}]\n"
        );
        let server = format!("driver = \"{driver}\"");
        let gate = Setup { config, server, ..Setup::default() }.start();
        Place { dir, gate }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("www").join(name)
    }

    fn client(&self) -> HttpClient {
        HttpClient::connect(self.gate.address("web"))
    }

    /// The status and the body of a GET with these fields.
    fn get(&self, target: &str, fields: &str) -> (u16, Vec<u8>, String) {
        let mut client = self.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let response = client.response();
        (response.status, response.body.clone(), response.head.clone())
    }
}

const BOTH: [&str; 2] = ["io_uring", "epoll"];

#[test]
fn a_directory_is_its_index_and_a_path_without_the_slash_leads_to_it() {
    let place = Place::start("", "io_uring", |root| {
        fs::write(root.join("index.html"), "top").unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/index.html"), "below").unwrap();
        fs::create_dir(root.join("empty")).unwrap();
    });
    assert_eq!(place.get("/", "").1, b"top");
    assert_eq!(place.get("/sub/?x", "").1, b"below");
    let (status, _, head) = place.get("/sub?x=y", "");
    assert!(status == 301 && head.contains("\r\nLocation: /sub/?x=y\r\n"), "{head}");
    assert_eq!((place.get("/empty/", "").0, place.get("/none", "").0), (404, 404));
}

#[test]
fn another_spelling_of_a_path_takes_the_same_route() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("private")).unwrap();
    fs::write(dir.path().join("private/secret.txt"), "secret").unwrap();
    fs::write(dir.path().join("open.txt"), "open").unwrap();
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[listener.host]]\nroute = [\n\
         {{ prefix = \"/private/\", respond = {{ status = 403 }} }},\n\
         {{ prefix = \"/old/\", redirect = {{ prefix = \"/new/\" }} }},\n\
         {{ prefix = \"/\", root = {:?} }}]\n",
        dir.path()
    );
    let gate = Setup { config, ..Setup::default() }.start();
    let get = |path: &str| {
        let mut client = HttpClient::connect(gate.address("web"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response()
    };
    assert_eq!(get("/%6fpen.txt").body, b"open");
    for path in ["/private/secret.txt", "/%70rivate/secret.txt", "/privat%65/%73ecret.txt"] {
        assert_eq!(get(path).status, 403, "{path}");
    }
    let moved = get("/o%6Cd/a%20b?c=%20");
    assert!(moved.head.contains("\r\nLocation: http://a/new/a%20b?c=%20\r\n"), "{}", moved.head);
}

#[test]
fn a_root_that_is_gone_is_logged_until_it_is_back() {
    let place = Place::start("", "io_uring", |root| fs::write(root.join("a.txt"), "a").unwrap());
    let (root, away) = (place.file(""), place.dir.path().join("away"));
    fs::rename(&root, &away).unwrap();
    wait_for("the warning", SHORT, || {
        // What it led to stays in use, on a worker that has opened it.
        place.get("/a.txt", "");
        let is_warned = |line: &String| line.contains("the root of a site cannot be opened");
        place.gate.lines().iter().any(is_warned).then_some(())
    });
    fs::rename(&away, &root).unwrap();
    wait_for("the end of it", SHORT, || {
        place.get("/a.txt", "");
        let is_back = |line: &String| line.contains("the root of a site can be opened again");
        place.gate.lines().iter().any(is_back).then_some(())
    });
    // The other worker finds out by itself.
    wait_for("the file", SHORT, || (place.get("/a.txt", "").1 == b"a").then_some(()));
}

#[test]
fn a_page_of_a_404_is_not_kept_like_a_file() {
    let keys = ", not_found = \"/404.html\", cache_control = \"max-age=31536000\"";
    let place = Place::start(keys, "io_uring", |root| {
        fs::write(root.join("404.html"), "nothing here").unwrap();
        fs::write(root.join("file.txt"), "a file").unwrap();
    });
    let (status, body, head) = place.get("/none", "");
    assert_eq!((status, &body[..]), (404, &b"nothing here"[..]));
    assert!(
        !head.contains("Cache-Control") && head.contains("\r\nX-Content-Type-Options: nosniff")
    );
    assert!(place.get("/file.txt", "").2.contains("\r\nCache-Control: max-age=31536000\r\n"));
}

#[test]
fn conditions_and_ranges_are_answered_as_asked() {
    let content = bytes(7, 100_000);
    let place = Place::start("", "epoll", |root| fs::write(root.join("f.bin"), &content).unwrap());
    let (status, whole, head) = place.get("/f.bin", "");
    assert!(status == 200 && whole == content && head.contains("\r\nAccept-Ranges: bytes\r\n"));
    let field = |name: &str| {
        let line = head.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    let (tag, date) = (field("ETag"), field("Last-Modified"));
    for (fields, expected) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {date}\r\n"), 200),
        ("If-Match: \"other\"\r\n".to_owned(), 412),
        ("Range: bytes=100000-\r\n".to_owned(), 416),
        ("Range: bytes=0-1,5-6\r\n".to_owned(), 200),
        ("Range: lines=1-2\r\n".to_owned(), 200),
    ] {
        assert_eq!(place.get("/f.bin", &fields).0, expected, "{fields}");
    }
    for (range, part) in
        [("5-9", &content[5..10]), ("-3", &content[99_997..]), ("99999-200000", &content[99_999..])]
    {
        let (status, body, head) = place.get("/f.bin", &format!("Range: bytes={range}\r\n"));
        assert!(status == 206 && body == part, "{range}: {head}");
    }
    let old = format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n");
    assert_eq!(place.get("/f.bin", &old).0, 206);
    assert_eq!(place.get("/f.bin", "Range: bytes=0-0\r\nIf-Range: \"x\"\r\n").0, 200);
}

#[test]
fn nothing_outside_of_the_root_and_nothing_special_is_served() {
    let place = Place::start("", "io_uring", |root| {
        fs::write(root.parent().unwrap().join("secret"), "secret").unwrap();
        fs::write(root.join(".env"), "secret").unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/ok"), "ok").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("a/ok", root.join("in")).unwrap();
        mkfifoat(rustix::fs::CWD, root.join("fifo"), Mode::RUSR).unwrap();
    });
    assert_eq!(place.get("/a/ok", "").1, b"ok");
    for target in [
        "/../secret",
        "/a/../../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2fsecret",
        "/..%2fsecret",
        "/..%5csecret",
        "/a/..%252f..%252fsecret",
        "/.env",
        "/%2eenv",
        "/out",
        "/in",
        "/fifo",
        "/a/ok/",
        "/a//ok",
        "/a/ok%00",
        "/a/ok%",
        "//a/ok",
        "/a/./ok",
    ] {
        let (status, body, _) = place.get(target, "");
        assert!(status == 404 && !body.starts_with(b"secret"), "{target}: {status}");
    }
}

#[test]
fn other_methods_than_get_and_head_are_refused_and_head_has_no_body() {
    let place = Place::start("", "io_uring", |root| fs::write(root.join("f.txt"), "text").unwrap());
    let mut client = place.client();
    client.send("HEAD /f.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head_only();
    assert_eq!(head.field("content-length"), Some("4"), "{}", head.head);
    client.send("POST /f.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let refused = client.response();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn coded_copies_pages_and_fields_are_those_of_the_route() {
    let keys = ", precompressed = [\"br\", \"gzip\"], cache_control = \"max-age=60\", \
                not_found = \"/404.html\"";
    let place = Place::start(keys, "io_uring", |root| {
        fs::write(root.join("f.css"), "plain").unwrap();
        fs::write(root.join("f.css.gz"), "gzipped").unwrap();
        fs::write(root.join("404.html"), "nothing here").unwrap();
    });
    let (_, body, head) = place.get("/f.css", "Accept-Encoding: br, gzip;q=0.5\r\n");
    assert!(body == b"gzipped" && head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/css"), "{head}");
    let (_, body, head) = place.get("/f.css", "Accept-Encoding: gzip;q=0\r\n");
    assert!(body == b"plain" && head.contains("\r\nVary: Accept-Encoding\r\n"), "{head}");
    assert!(head.contains("\r\nCache-Control: max-age=60\r\n"), "{head}");
    assert!(head.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{head}");
    let (status, body, _) = place.get("/none", "");
    assert_eq!((status, &*body), (404, &b"nothing here"[..]));
    let single = Place::start(", fallback = \"/index.html\"", "epoll", |root| {
        fs::write(root.join("index.html"), "app").unwrap();
    });
    let (status, body, _) = single.get("/any/page", "");
    assert_eq!((status, &*body), (200, &b"app"[..]));
}

#[test]
fn a_replaced_file_is_served_within_seconds() {
    for driver in BOTH {
        let place = Place::start("", driver, |root| fs::write(root.join("f.txt"), "old").unwrap());
        assert_eq!(place.get("/f.txt", "").1, b"old");
        fs::write(place.file("new"), "new").unwrap();
        fs::rename(place.file("new"), place.file("f.txt")).unwrap();
        wait_for("the new file", SHORT, || (place.get("/f.txt", "").1 == b"new").then_some(()));
    }
}

#[test]
fn pipelined_requests_for_small_and_large_files_are_answered_in_order() {
    for driver in BOTH {
        let (small, large) = (bytes(1, 500), bytes(2, 900_000));
        let place = Place::start("", driver, |root| {
            fs::write(root.join("small"), &small).unwrap();
            fs::write(root.join("large"), &large).unwrap();
        });
        let mut client = place.client();
        let names = ["small", "large", "small", "none", "large", "small"];
        let requests: Vec<String> =
            names.iter().map(|name| format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(requests.concat());
        for name in names {
            let response = client.response();
            match name {
                "small" => assert!(response.body == small),
                "large" => assert!(response.body == large),
                _ => assert_eq!(response.status, 404),
            }
        }
    }
}

#[test]
fn a_large_file_arrives_whole_spliced_or_in_records() {
    let content = bytes(3, 60_000_000);
    let place = Place::start("", "io_uring", |root| fs::write(root.join("big"), &content).unwrap());
    let into = place.file("got");
    let mut plain = require("curl");
    plain.args(["-sS", "-o"]).arg(&into).arg(format!("http://{}/big", place.gate.address("web")));
    assert!(run(&mut plain).status.success() && fs::read(&into).unwrap() == content);
    let record = place.gate.record();
    assert_eq!((record.text("relay"), record.end()), ("splice", "done"));

    let authority = Authority::new("authority");
    let pair = authority.signs(&["site.test"]);
    let root = place.file("");
    let config = format!(
        "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}\n\
         [[listener.host]]\nroute = [{{ prefix = \"/\", root = {root:?} }}]\n",
        pair.rule(&["site.test"], "")
    );
    let gate = Ringgate::start(&config);
    let target = into.display().to_string();
    let arguments = ["--http1.1", "-o", &target, "https://site.test/big"];
    let output = curl(gate.address("web"), &authority, &arguments);
    assert!(output.status.success() && fs::read(&into).unwrap() == content);
    assert_eq!(gate.record().text("relay_reason"), "tls");
}
