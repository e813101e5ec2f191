//! What a request leads to: the file, its index, its coded copies, a part of it, or a page.

use std::fs;

use super::*;
use crate::files::rules::{Found, Plan};
use crate::proto::http::{Coding, Codings, FilePath};
use crate::sys::{Directory, Lookup};

#[test]
fn a_file_is_found_with_its_type_and_validators() {
    with_site(
        |_| {},
        async |site| {
            site.write("a/page.html", "a page");
            for _ in 0..2 {
                let seen = site.get("/a/page.html").await;
                assert_eq!(
                    (seen.status, &seen.body[..], seen.length),
                    (200, &b"a page"[..], Some(6))
                );
                assert_eq!(seen.fields["Content-Type"], "text/html; charset=utf-8");
                assert_eq!(seen.fields["Accept-Ranges"], "bytes");
                assert!(seen.fields["ETag"].starts_with('"') && seen.fields["ETag"].ends_with('"'));
                assert!(seen.fields["Last-Modified"].ends_with(" GMT"));
                assert_eq!(seen.fields.len(), 4, "{seen:?}");
            }
            let head = site.ask("HEAD", "/a/page.html", &[("Range", "bytes=0-1")]).await;
            assert_eq!((head.status, head.length, head.body.len()), (200, Some(6), 0));
            let spelled = site.get("/%61/page%2ehtml").await;
            assert_eq!((spelled.status, &spelled.body[..]), (200, &b"a page"[..]));
        },
    );
}

#[test]
fn an_empty_file_and_a_large_one_are_sent_whole() {
    with_site(
        |_| {},
        async |site| {
            site.write("empty.txt", "");
            let seen = site.get("/empty.txt").await;
            assert_eq!((seen.status, seen.length), (200, Some(0)));
            let large: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
            site.write("large", &large);
            let seen = site.get("/large").await;
            assert!(seen.body == large && !seen.is_from_memory);
            assert_eq!(seen.fields["Content-Type"], "application/octet-stream");
            let part = site.ask("GET", "/large", &[("Range", "bytes=100000-199998")]).await;
            assert!(part.status == 206 && part.body == large[100_000..199_999]);
            assert_eq!(part.fields["Content-Range"], "bytes 100000-199998/200000");
        },
    );
}

#[test]
fn a_file_that_grows_while_it_is_read_is_not_taken_for_a_small_one() {
    with_site(
        |_| {},
        async |site| {
            site.write("file", [b'a'; 1000]);
            let root = site.path("");
            let directory = Directory::open(&root, Lookup::Blocking).unwrap();
            let plan = Plan::new(&rules(root.clone()));
            let path = FilePath::configured("file");
            let (codings, lookup) = (Codings::default(), Lookup::Blocking);
            let found = plan.find(&directory, path.as_ref(), codings, lookup).unwrap();
            let Found::File(mut found) = found else { panic!("{found:?}") };
            site.write("file", [b'b'; 100_000]);
            assert_eq!(found.read(Lookup::Blocking), None);
            assert_eq!(found.metadata.size, 100_000);
            site.write("file", [b'c'; 10]);
            assert_eq!(found.read(Lookup::Blocking), None, "it was large a moment ago");
        },
    );
}

#[test]
fn a_directory_leads_to_its_slash_and_then_to_its_index() {
    let two = |rules: &mut Rules| rules.index = vec!["first.html".into(), "index.html".into()];
    with_site(two, async |site| {
        site.write("index.html", "home");
        site.write("a/index.html", "index of a");
        site.write("b/first.html/file", "a directory with the name of an index");
        site.write("b/index.html", "index of b");
        site.write("c/other.html", "no index");
        assert_eq!(site.get("/").await.body, b"home");
        assert_eq!(
            (site.get("/a").await.status, site.get("/b/first.html").await.status),
            (301, 301)
        );
        assert_eq!(site.get("/a/").await.body, b"index of a");
        assert_eq!(site.get("/b/").await.body, b"index of b");
        for path in ["/c/", "/none/", "/index.html/", "/a/index.html/x"] {
            assert_eq!(site.get(path).await.status, 404, "{path}");
        }
    });
}

#[test]
fn other_methods_are_not_allowed() {
    with_site(
        |_| {},
        async |site| {
            site.write("file", "");
            if site.way == Way::Thread {
                return;
            }
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"] {
                let seen = site.ask(method, "/file", &[]).await;
                assert_eq!((seen.status, &*seen.fields["Allow"]), (405, "GET, HEAD"), "{method}");
            }
        },
    );
}

#[test]
fn a_page_stands_for_what_is_not_found() {
    let not_found = |rules: &mut Rules| rules.not_found = Some("/errors/404.html".into());
    with_site(not_found, async |site| {
        assert_eq!(site.get("/none").await.status, 404, "without its page, too");
        site.write("errors/404.html", "nothing here");
        for (path, fields) in
            [("/none", &[][..]), ("/%2e%2e/", &[("Range", "bytes=0-1"), ("If-None-Match", "*")])]
        {
            let seen = site.ask("GET", path, fields).await;
            assert_eq!((seen.status, &seen.body[..]), (404, &b"nothing here"[..]), "{path}");
            assert_eq!(seen.fields["Content-Type"], "text/html; charset=utf-8");
            assert_eq!(seen.fields.len(), 1, "no validators: {seen:?}");
        }
        assert_eq!(site.get("/errors/404.html").await.status, 200);
        let head = site.ask("HEAD", "/none", &[]).await;
        assert_eq!((head.status, head.length), (404, Some(12)));
    });
}

#[test]
fn a_fallback_stands_for_each_page_of_a_site_and_for_no_other_path() {
    let fallback = |rules: &mut Rules| rules.fallback = Some("/app.html".into());
    with_site(fallback, async |site| {
        site.write("app.html", "the app");
        site.write("real.txt", "real");
        for path in ["/", "/users/7", "/users/"] {
            let seen = site.get(path).await;
            assert_eq!((seen.status, &seen.body[..]), (200, &b"the app"[..]), "{path}");
            let tag = seen.fields["ETag"].clone();
            assert_eq!(site.ask("GET", path, &[("If-None-Match", &tag)]).await.status, 304);
        }
        assert_eq!(site.get("/real.txt").await.body, b"real");
        for path in ["/.git/config", "/a/..%2fb", "/%00"] {
            assert_eq!(site.get(path).await.status, 404, "{path}");
        }
    });
}

#[test]
fn conditions_and_ranges_decide_what_is_sent() {
    with_site(
        |_| {},
        async |site| {
            site.write("file.txt", "0123456789");
            let first = site.get("/file.txt").await;
            let (tag, date) = (&*first.fields["ETag"], &*first.fields["Last-Modified"]);
            let ask = |fields: &[(&'static str, &str)]| {
                let fields: Vec<_> = fields.iter().map(|&(n, v)| (n, v.to_owned())).collect();
                async move {
                    let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, &**v)).collect();
                    site.ask("GET", "/file.txt", &fields).await
                }
            };
            for fields in [[("If-None-Match", tag)], [("If-Modified-Since", date)]] {
                let seen = ask(&fields).await;
                assert_eq!((seen.status, seen.length, seen.body.len()), (304, None, 0));
                assert_eq!(seen.fields["ETag"], tag);
                assert!(!seen.fields.contains_key("Content-Type"));
            }
            let failed = ask(&[("If-Match", "\"other\"")]).await;
            assert_eq!((failed.status, failed.fields.len()), (412, 0));
            let part = ask(&[("Range", "bytes=-3"), ("If-Range", tag)]).await;
            assert_eq!((part.status, &part.body[..], part.length), (206, &b"789"[..], Some(3)));
            assert_eq!(part.fields["Content-Range"], "bytes 7-9/10");
            let none = ask(&[("Range", "bytes=10-")]).await;
            assert_eq!((none.status, &*none.fields["Content-Range"]), (416, "bytes */10"));
            let several = ask(&[("Range", "bytes=0-1,3-4")]).await;
            assert_eq!((several.status, &several.body[..]), (200, &b"0123456789"[..]));
        },
    );
}

#[test]
fn a_coded_copy_is_sent_to_a_client_that_takes_it() {
    let coded = |rules: &mut Rules| rules.precompressed = vec![Coding::Br, Coding::Gzip];
    with_site(coded, async |site| {
        site.write("app.js", "plain");
        site.write("app.js.br", "with brotli");
        site.write("app.js.gz", "with gzip");
        site.write("app.js.zst", "with zstd, which is not configured");
        site.write("index.html", "home");
        site.write("index.html.gz", "home with gzip");
        let with = |path: &'static str, field: &'static str| async move {
            let seen = site.ask("GET", path, &[("Accept-Encoding", field)]).await;
            assert_eq!((seen.status, &*seen.fields["Vary"]), (200, "Accept-Encoding"));
            let type_of = if path == "/" { "text/html" } else { "text/javascript" };
            assert!(seen.fields["Content-Type"].starts_with(type_of));
            let coding = seen.fields.get("Content-Encoding").cloned();
            (String::from_utf8(seen.body).unwrap(), coding, seen.fields["ETag"].clone())
        };
        let mut tags = Vec::new();
        for (field, body, coding) in [
            ("gzip, br, zstd", "with brotli", Some("br")),
            ("gzip, br;q=0.5", "with gzip", Some("gzip")),
            ("identity", "plain", None),
        ] {
            let seen = with("/app.js", field).await;
            assert_eq!((&*seen.0, seen.1.as_deref()), (body, coding), "{field}");
            assert!(!tags.contains(&seen.2), "each coding has a tag of its own");
            tags.push(seen.2);
        }
        assert_eq!(with("/app.js", "zstd").await.0, "plain");
        assert_eq!(with("/", "br, gzip").await.0, "home with gzip", "brotli is not there");
        let other = site.ask("GET", "/app.js", &[("If-None-Match", &tags[0])]).await;
        assert_eq!(other.status, 200, "the tag of another coding");
        fs::remove_file(site.path("app.js.br")).unwrap();
        site.later(Duration::from_secs(1));
        assert_eq!(with("/app.js", "gzip, br, zstd").await.0, "with gzip");
    });
}
