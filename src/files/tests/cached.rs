//! Files in memory: how long they are valid, and what makes room for others.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const ALMOST: Duration = Duration::from_millis(999);
const REST: Duration = Duration::from_millis(1);

/// A site whose connections ask in the usual way. The first request opens the root by a thread.
fn with_usual(change: impl Fn(&mut Rules), test: impl AsyncFn(&Tested)) {
    with_site(change, async |site| {
        if site.way == Way::Usual {
            test(site).await;
        }
    });
}

#[test]
fn a_small_file_is_served_from_memory_for_a_second() {
    with_usual(
        |_| {},
        async |site| {
            site.write("file", "content");
            assert!(site.get("/file").await.is_from_memory);
            fs::remove_file(site.path("file")).unwrap();
            site.later(ALMOST);
            assert_eq!(site.get("/file").await.body, b"content", "without a look at the directory");
            site.later(REST);
            assert_eq!(site.get("/file").await.status, 404);
        },
    );
}

#[test]
fn a_file_that_has_changed_is_read_again() {
    with_usual(
        |_| {},
        async |site| {
            site.write("file", "old");
            let old = site.get("/file").await;
            site.write("new", "new");
            fs::rename(site.path("new"), site.path("file")).unwrap();
            site.later(ALMOST + REST);
            let new = site.get("/file").await;
            assert_eq!(new.body, b"new");
            assert_ne!(old.fields["ETag"], new.fields["ETag"]);
            site.later(ALMOST);
            let fields = [("If-None-Match", &*new.fields["ETag"])];
            assert_eq!(site.ask("GET", "/file", &fields).await.status, 304, "from memory");
        },
    );
}

#[test]
fn a_file_that_has_not_changed_stays_in_memory() {
    with_usual(
        |_| {},
        async |site| {
            site.write("file", "content");
            site.get("/file").await;
            let bytes = async || {
                let conditions = Conditions::default();
                let request = Request { method: "GET", path: "/file", conditions: &conditions };
                match site.site.lookup_now(&request, site.now.get()).unwrap().content {
                    Content::Bytes(bytes, _) => bytes.as_ptr(),
                    content => panic!("{content:?}"),
                }
            };
            let before = bytes().await;
            site.later(2 * ALMOST);
            assert_eq!(bytes().await, before, "it was not read again");
        },
    );
}

#[test]
fn a_root_that_is_replaced_is_used_within_a_second() {
    let link = |rules: &mut Rules| {
        let release = rules.root.with_file_name("release-1");
        fs::create_dir(&release).unwrap();
        fs::write(release.join("file"), "first").unwrap();
        fs::remove_dir(&rules.root).unwrap();
        symlink("release-1", &rules.root).unwrap();
    };
    with_site(link, async |site| {
        assert_eq!(site.get("/file").await.body, b"first");
        let root = site.place.path().join("root");
        let next = site.place.path().join("release-2");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("file"), "second").unwrap();
        symlink("release-2", site.place.path().join("new")).unwrap();
        fs::rename(site.place.path().join("new"), &root).unwrap();
        site.later(ALMOST);
        assert_eq!(site.get("/file").await.body, b"first");
        site.later(REST);
        assert_eq!(site.get("/file").await.body, b"second");
        // Without a root for a moment.
        fs::remove_file(&root).unwrap();
        site.later(ALMOST + REST);
        assert_eq!(site.get("/file").await.body, b"second");
    });
}

#[test]
fn a_root_may_be_made_later() {
    let missing = |rules: &mut Rules| fs::remove_dir(&rules.root).unwrap();
    with_site(missing, async |site| {
        assert_eq!(site.get("/file").await.status, 404);
        site.write("file", "content");
        site.later(ALMOST + REST);
        assert_eq!(site.get("/file").await.body, b"content");
    });
}

#[test]
fn a_file_that_is_asked_for_once_displaces_no_other() {
    use crate::files::cache::{MAX_BYTES, MAX_CONTENT};
    with_usual(
        |_| {},
        async |site| {
            let content = vec![0; MAX_CONTENT as usize];
            site.write("hot", &content);
            site.get("/hot").await;
            for number in 0..2 * MAX_BYTES / content.len() {
                let name = format!("once-{number}");
                site.write(&name, &content);
                assert_eq!(site.get(&format!("/{name}")).await.status, 200);
                assert!(site.store.kept() <= MAX_BYTES);
                site.get("/hot").await;
            }
            fs::remove_file(site.path("hot")).unwrap();
            assert_eq!(site.get("/hot").await.status, 200, "it is still in memory");
            fs::remove_file(site.path("once-0")).unwrap();
            assert_eq!(site.get("/once-0").await.status, 404, "it is not");
        },
    );
}

#[test]
fn what_is_kept_counts_in_the_budget_and_a_spent_budget_keeps_nothing() {
    with_site(
        |_| {},
        async |site| {
            site.write("file", vec![1; 5000]);
            site.write("other", vec![2; 5000]);
            let memory = site.store.memory();
            assert_eq!(memory.kept(), 0);
            site.get("/file").await;
            assert_eq!(memory.kept(), 5000);
            memory.keep(BUDGET);
            let seen = site.get("/other").await;
            assert!(!seen.is_from_memory && seen.body == [2; 5000]);
            memory.release(BUDGET);
        },
    );
}
