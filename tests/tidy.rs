//! Style that a reader relies on, kept by a test so that it does not decay: layers, unsafe code,
//! lengths, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_COLUMNS: usize = 100;
const MAX_LINES: usize = 500;

/// Modules from the top down. A module may name modules of later rows, and of its own row only
/// itself.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["control"],
    &["worker"],
    &["front"],
    &["upstream"],
    &["files"],
    &["route", "relay", "cluster"],
    &["handshake"],
    &["config", "timers"],
    &["transport"],
    &["sched"],
    &["observe"],
    &["proto"],
    &["sys"],
    &["error"],
];

/// Modules in which tokio has no place.
const DATA_PLANE: &[&str] = &[
    "worker",
    "front",
    "upstream",
    "files",
    "route",
    "relay",
    "cluster",
    "handshake",
    "timers",
    "transport",
    "sched",
    "proto",
    "sys",
];

/// Built in pieces, so that this file does not find itself.
fn leftovers() -> Vec<String> {
    ["dbg!", "todo!", "unimplemented!", "FIX|ME", "XX|X", "#[ign|ore", "zero_|copy("]
        .iter()
        .map(|word| word.replace('|', ""))
        .collect()
}

struct Source {
    path: PathBuf,
    text: String,
}

fn sources(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending: Vec<PathBuf> = directories.iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of this package is readable");
            pending.extend(entries.map(|entry| entry.expect("an entry is readable").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            let path = path.strip_prefix(root).expect("it is below the root").to_owned();
            found.push(Source { path, text });
        }
    }
    assert!(!found.is_empty(), "no sources in {directories:?}");
    found
}

fn check(sources: &[Source], mut fault: impl FnMut(&Source, usize, &str) -> Option<String>) {
    let mut faults = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(fault) = fault(source, number + 1, line) {
                faults.push(format!("{}:{}: {fault}", source.path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn lines_and_files_can_be_read_at_one_go() {
    check(&sources(&["src", "tests", "bench"]), |source, number, line| {
        if line.chars().count() > MAX_COLUMNS {
            return Some(format!("longer than {MAX_COLUMNS} columns"));
        }
        let long = number == MAX_LINES + 1;
        long.then(|| format!("{} has more than {MAX_LINES} lines", source.path.display()))
    });
}

#[test]
fn nothing_is_left_over() {
    let leftovers = leftovers();
    check(&sources(&["src", "tests", "bench"]), |source, _, line| {
        // This list, and the names in it.
        if source.path.ends_with("tidy.rs") && line.contains('|') {
            return None;
        }
        leftovers.iter().find(|word| line.contains(*word)).map(|word| format!("leftover {word}"))
    });
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    check(&sources(&["src"]), |source, _, line| {
        let code = line.split("//").next().unwrap_or_default();
        let found = code.contains("unsafe ") || code.contains("allow(unsafe_code)");
        (found && !source.path.starts_with("src/sys")).then(|| "unsafe outside src/sys".to_owned())
    });
}

/// A wait by itself knows no limit, and over epoll it counts against no budget: those of
/// connections go through `timers::Watch`. UDP sessions have a table in place of a watch, and the
/// task of an HTTP/2 connection polls its watch together with these waits.
#[test]
fn waits_for_connections_have_a_limit() {
    let directories = ["src/front", "src/upstream", "src/files", "src/relay", "src/cluster"];
    check(&sources(&directories), |source, _, line| {
        let waits = line.contains(".readable().await") || line.contains(".writable().await");
        let excepted = source.path.starts_with("src/front/udp")
            || source.path == Path::new("src/files/threads.rs")
            || source.path == Path::new("src/front/http2/io.rs")
            || source.path.ends_with("tests.rs");
        (waits && !excepted).then(|| "a wait without a limit".to_owned())
    });
}

#[test]
fn imports_point_downward() {
    check(&sources(&["src"]), |source, _, line| {
        let module = module_of(&source.path)?;
        let own = layer(&module)?;
        let code = line.split("//").next().unwrap_or_default();
        for name in names_after(code, "crate::").chain(names_after(code, "ringgate::")) {
            let Some(other) = layer(&name) else { continue };
            if other < own || other == own && name != module {
                return Some(format!("{module} names {name}, which is not below it"));
            }
        }
        None
    });
}

#[test]
fn the_data_plane_knows_no_tokio() {
    check(&sources(&["src"]), |source, _, line| {
        let module = module_of(&source.path)?;
        let code = line.split("//").next().unwrap_or_default();
        // The traits by which the `h2` crate reads and writes; nothing of a runtime.
        let has_traits = source.path == Path::new("src/front/http2/io.rs");
        let is_ours = DATA_PLANE.contains(&module.as_str()) && !has_traits;
        let named = is_ours && code.contains("tokio");
        named.then(|| format!("{module} names tokio"))
    });
}

#[test]
fn protocols_know_no_sockets() {
    check(&sources(&["src/proto"]), |_, _, line| {
        let code = line.split("//").next().unwrap_or_default();
        ["std::net", "monoio", "rustix", "socket2", "crate::sys"]
            .iter()
            .find(|name| code.contains(*name))
            .map(|name| format!("proto names {name}"))
    });
}

#[test]
fn rustls_is_used_by_one_module() {
    check(&sources(&["src"]), |source, _, line| {
        let code = line.split("//").next().unwrap_or_default();
        // Requests of the control plane to an ACME directory go through a client of tokio's.
        let may = source.path.starts_with("src/proto/tls")
            || source.path == Path::new("src/control/acme/https.rs");
        let is_named = code.contains("rustls::") && !may;
        is_named.then(|| "rustls outside src/proto/tls".to_owned())
    });
}

#[test]
fn diagnostics_have_fields_and_no_values_in_their_messages() {
    for source in sources(&["src"]) {
        for level in ["trace", "debug", "info", "warn", "error"] {
            for call in source.text.split(&format!("tracing::{level}!(")).skip(1) {
                let call = call.split(");").next().unwrap_or_default();
                // Every second part stands in quotes.
                let formats = call.split('"').skip(1).step_by(2).any(|text| text.contains('{'));
                assert!(!formats, "{}: {call}", source.path.display());
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for source in sources(&["src", "tests", "bench/src"]) {
        assert!(source.text.starts_with("//!"), "{} has no //! comment", source.path.display());
    }
}

/// `src/relay/flow.rs` → `relay`; none for lib.rs, which names all.
fn module_of(path: &Path) -> Option<String> {
    let mut parts = path.strip_prefix("src").ok()?.iter();
    let first = Path::new(parts.next()?).file_stem()?.to_str()?.to_owned();
    (first != "lib").then_some(first)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The identifiers that follow a prefix, also in a braced list.
fn names_after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    code.match_indices(prefix).flat_map(move |(start, _)| {
        let rest = &code[start + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        };
        list.into_iter().map(|item| {
            let name = |character: &char| character.is_alphanumeric() || *character == '_';
            item.trim().chars().take_while(name).collect()
        })
    })
}
