//! Links in the documentation lead to files of this repository and to headings that exist there.
//! Links to other sites are checked for their form only.

mod markdown;

use std::fs;
use std::path::{Component, Path, PathBuf};

use markdown::{anchors, links, web_addresses};

/// The pages, as paths from the root of the repository.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let mut pending = vec![PathBuf::from("docs"), PathBuf::from(".github")];
    while let Some(path) = pending.pop() {
        let Ok(entries) = fs::read_dir(root.join(&path)) else { continue };
        for entry in entries {
            let entry = entry.expect("an entry can be read");
            let name = path.join(entry.file_name());
            if entry.path().is_dir() {
                pending.push(name);
            } else if name.extension().is_some_and(|extension| extension == "md") {
                pages.push(name);
            }
        }
    }
    pages
}

/// What is wrong with the links of a page.
fn faults(root: &Path, page: &Path) -> Vec<String> {
    let path = root.join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut faults = Vec::new();
    let mut judge = |line: usize, link: &str, fault: Option<String>| {
        faults.extend(fault.map(|fault| format!("{}:{line}: {link}: {fault}", page.display())));
    };
    for (line, link) in links(&text) {
        if !is_web(link) {
            judge(line, link, inside(root, page, link));
        }
    }
    for (line, address) in web_addresses(&text) {
        judge(line, address, outside(root, address));
    }
    faults
}

fn is_web(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:")
}

/// What is wrong with a link within the repository.
fn inside(root: &Path, page: &Path, link: &str) -> Option<String> {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    if file.starts_with('/') || link.contains([' ', '%', '?', '\\']) {
        return Some("is no plain relative path".to_owned());
    }
    let target = if file.is_empty() {
        page.to_owned()
    } else {
        match normal(&page.parent().expect("a page is in a directory").join(file)) {
            Some(target) => target,
            None => return Some("leads out of the repository".to_owned()),
        }
    };
    exists(root, &target, anchor)
}

/// The path without `.` and `..`. None if it leads out of the root.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir if normal.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(normal)
}

/// What is wrong with this target: a path from the root, and a heading or a line in it.
fn exists(root: &Path, target: &Path, anchor: Option<&str>) -> Option<String> {
    let path = root.join(target);
    if !path.exists() {
        return Some(format!("there is no {}", target.display()));
    }
    let anchor = anchor?;
    let Ok(text) = fs::read_to_string(&path) else {
        return Some("an anchor in what is no text".to_owned());
    };
    let found = if target.extension().is_some_and(|extension| extension == "md") {
        anchors(&text).iter().any(|known| known == anchor)
    } else {
        // Lines of a source file: #L12 and #L12-L20.
        let numbers = anchor.split('-').map(|part| part.strip_prefix('L')?.parse::<usize>().ok());
        numbers
            .into_iter()
            .all(|number| number.is_some_and(|number| (1..=text.lines().count()).contains(&number)))
    };
    (!found).then(|| format!("there is no #{anchor} in {}", target.display()))
}

/// What is wrong with an address of the web: its form, or, where it leads to a file of this
/// project, that there is none.
fn outside(root: &Path, address: &str) -> Option<String> {
    let Some(rest) = address.strip_prefix("https://") else {
        return Some("is not https".to_owned());
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if !host.contains('.') || !host.split('.').all(label) {
        return Some("has no name of a host".to_owned());
    }
    let (path, anchor) = match path.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (path, None),
    };
    // OWNER/ringgate/blob/BRANCH/FILE, or OWNER/ringgate/BRANCH/FILE on the host of raw files.
    let (_, own) = path.split_once("/ringgate/")?;
    let (kind, rest) = own.split_once('/')?;
    let file = match kind {
        "blob" | "tree" | "edit" | "raw" => rest.split_once('/')?.1,
        _ if host.starts_with("raw.") => rest,
        _ => return None,
    };
    exists(root, Path::new(file), anchor)
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let faults: Vec<String> = pages(root).iter().flat_map(|page| faults(root, page)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn what_leads_nowhere_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    fs::create_dir(root.join("docs")).expect("a directory");
    fs::write(root.join("a.rs"), "1\n2\n").expect("a file");
    let good = "# One\n# `two` [and](../a.rs) three_four, …!\n# One\n\
                [a](#one) [b](#one-1) [c](good.md#two-and-three_four-) [d](../a.rs#L1-L2) [e](.)\n\
                https://example.com/x, <https://a.example/ringgate/issues>.\n\
                [f](https://github.com/x/ringgate/blob/main/docs/good.md#one \"title\") [g][h]\n\
                `[code](nowhere)` ``[`](nowhere)`` <!-- [comment](nowhere) -->\n\
                ```sh\n[code](nowhere)\n# no heading\n```\n\n[h]: ../a.rs\n";
    fs::write(root.join("docs/good.md"), good).expect("a page");
    let bad = [
        "[a](nowhere.md)",
        "[a](good.md#three)",
        "[a](good.md#no-heading)",
        "[a](#one-2)",
        "[a](../a.rs#L3)",
        "[a](../../a.rs)",
        "[a](/a.rs)",
        "![a](a.png)",
        "[a](good.md 'title') [a](bad.md#x)",
        "[a][c]",
        "[b]: nowhere.md",
        "https://nowhere/x",
        "http://example.com/",
        "https://github.com/x/ringgate/blob/main/nowhere.md",
        "https://raw.githubusercontent.com/x/ringgate/main/nowhere.md",
        "`a` [a](nowhere.md) `b`",
    ];
    fs::write(root.join("docs/bad.md"), format!("# One\n{}\n", bad.join("\n\n"))).expect("a page");
    assert_eq!(faults(root, Path::new("docs/good.md")), [""; 0]);
    let found = faults(root, Path::new("docs/bad.md"));
    for (number, link) in bad.iter().enumerate() {
        let place = format!("docs/bad.md:{}: ", 2 * number + 2);
        let faults: Vec<&String> = found.iter().filter(|one| one.starts_with(&place)).collect();
        assert_eq!(faults.len(), 1, "{link}: {found:#?}");
    }
    assert_eq!(found.len(), bad.len(), "{found:#?}");
}
