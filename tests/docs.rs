//! What README and docs/ say agrees with the program: words of records, messages.
//!
//! docs/configuration.md is generated and has checks of its own.

use std::fs;
use std::path::{Path, PathBuf};

const OPERATIONS: &str = "docs/operations.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn text_of(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory and of those in it that have this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory can be listed");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found
}

/// The words that follow these marks in a source file, each up to the next quote.
fn words(file: &str, mark: &str) -> Vec<String> {
    let text = text_of(file);
    let words: Vec<String> = text
        .split(mark)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .collect();
    assert!(!words.is_empty(), "nothing follows {mark} in {file}");
    words
}

#[test]
fn every_word_of_a_record_is_explained() {
    let page = text_of(OPERATIONS);
    let ends: Vec<String> = text_of("src/observe/outcome.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("End::")?.split_once(" => \""))
        .map(|(_, word)| word.trim_end_matches("\",").to_owned())
        .collect();
    assert!(ends.len() >= 19, "{ends:?}");
    let fields = words("src/observe/access_log/field.rs", "    (\"");
    let mut reasons = Vec::new();
    let directories = ["src/proto/http/request", "src/front/http"].map(|path| root().join(path));
    for file in directories.iter().flat_map(|directory| files(directory, "rs")) {
        let name = file.to_str().expect("a path of this repository is UTF-8");
        let text = text_of(name);
        for mark in ["bad_request(\"", "reason: \""] {
            if text.contains(mark) {
                reasons.extend(words(name, mark));
            }
        }
    }
    assert!(reasons.len() >= 28, "{reasons:?}");
    reasons.extend(words("src/proto/tls/error.rs", " => \""));
    for word in ends.into_iter().chain(fields).chain(reasons) {
        assert!(page.contains(&format!("`{word}`")), "{OPERATIONS} lacks `{word}`");
    }
}

/// The first cell of a table row that begins with a level: the messages in it.
fn messages(row: &str) -> Vec<&str> {
    let cell = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
    let is_message = ["INFO `", "WARN `", "error `", "… `"];
    if !is_message.iter().any(|start| cell.starts_with(start)) {
        return Vec::new();
    }
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_message_is_one_of_the_program() {
    // A text that is continued on the next line is one text.
    let mut sources = String::new();
    for file in files(&root().join("src"), "rs") {
        let text = text_of(&file);
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            match line.strip_suffix('\\') {
                Some(begun) if lines.peek().is_some() => sources.push_str(begun.trim_start()),
                _ => sources.push_str(line.trim_start()),
            }
        }
    }
    // These are the system's.
    let system = ["Address already in use", "Permission denied", "Cannot assign requested address"];
    let system = [&system[..], &["Connection refused", "Network is unreachable"]].concat();
    let mut checked = 0;
    for row in text_of(OPERATIONS).lines().filter(|line| line.starts_with("| ")) {
        for message in messages(row) {
            let known = system.contains(&message) || sources.contains(message);
            assert!(known, "{OPERATIONS} has a message that the program lacks: {message}");
            checked += 1;
        }
    }
    assert!(checked >= 35, "only {checked} messages");
}
