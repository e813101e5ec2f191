//! docs/configuration.md is what the declarations of the keys say.

use std::fs;
use std::path::Path;

use ringgate::config;

#[test]
fn the_committed_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = config::reference();
    if std::env::var_os("RINGGATE_BLESS").is_some() {
        fs::write(&path, &reference).expect("the reference can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference,
        "docs/configuration.md is stale: run `ringgate config reference > docs/configuration.md`"
    );
}

#[test]
fn every_key_has_its_facts() {
    let reference = config::reference();
    let entries: Vec<&str> = reference.split("\n### ").skip(1).collect();
    assert!(entries.len() > 50, "only {} keys", entries.len());
    for entry in entries {
        let name = entry.lines().next().unwrap_or_default();
        let meaning = entry.lines().nth(2).unwrap_or_default();
        assert!(meaning.ends_with('.'), "{name} has no sentence: {meaning:?}");
        for label in ["type", "default", "since"] {
            assert!(entry.contains(&format!("| {label} | ")), "{name} has no {label}");
        }
        // The type of a table shows how it is written.
        let is_table = ["| type | table", "| type | list of tables"];
        let is_table = is_table.iter().any(|form| entry.contains(form));
        assert!(is_table || entry.contains("| example | "), "{name} has no example");
    }
}

/// Each example is a valid value of its key: the only error is that other keys are missing.
#[test]
fn every_example_of_a_key_is_valid() {
    let reference = config::reference();
    let mut examples = 0;
    for section in reference.split("\n## ").skip(1) {
        let header = section.lines().next().unwrap_or_default().trim_matches('`');
        for entry in section.split("\n### ").skip(1) {
            let Some(line) = entry.lines().find(|line| line.starts_with("| example | ")) else {
                continue;
            };
            let all = line.trim_start_matches("| example | ").trim_end_matches(" |");
            for example in all.trim_matches('`').split("`, `") {
                examples += 1;
                let text = in_table(header, example);
                let shown = config::parse("edge.toml", &text, Path::new("config"))
                    .map_or_else(|errors| errors.to_string(), |_| String::new());
                let line = text.lines().position(|line| line.contains(example)).unwrap_or(0) + 1;
                // Other keys are missing; that is said at the header of the table.
                let at_example = format!("edge.toml:{line}:");
                for error in shown.split("\n\n").filter(|error| error.contains(&at_example)) {
                    let first = error.lines().next().unwrap_or_default();
                    let allowed = [
                        " belongs to ",
                        " needs ",
                        "no cluster",
                        " is a name",
                        "leads back",
                        // Files in /etc.
                        " cannot be read: No such file",
                    ];
                    let is_allowed = allowed.iter().any(|part| first.contains(part));
                    assert!(is_allowed, "{example} in {header}:\n{error}");
                }
            }
        }
    }
    assert!(examples > 25, "only {examples} examples");
}

/// An example within its table and the tables around it.
fn in_table(header: &str, example: &str) -> String {
    match header {
        "redirect" | "respond" | "rewrite" | "response_fields" => format!(
            "[[listener]]\n[[listener.host]]\n[[listener.host.route]]\n{header} = {{ {example} }}\n"
        ),
        "[cluster.NAME]" => format!("[cluster.a]\n{example}\n"),
        "tls" => format!("[cluster.a]\ntls = {{ {example} }}\n"),
        _ => {
            let path = header.trim_matches(['[', ']']);
            let mut text = String::new();
            for (at, _) in path.match_indices('.') {
                text += &format!("[[{}]]\n", &path[..at]);
            }
            text + &format!("{header}\n{example}\n")
        }
    }
}

#[test]
fn every_planned_key_and_word_says_that_a_later_version_brings_it() {
    let reference = config::reference();
    let mut planned = 0;
    let refused = |text: &str, name: &str| {
        let errors = config::parse("edge.toml", text, Path::new("")).expect_err("it is planned");
        let shown = errors.to_string();
        let about = shown.split("\n\n").find(|error| {
            let first = error.lines().next().unwrap_or_default();
            first.contains(name) && first.contains("is not available in this version")
        });
        let about = about.unwrap_or_else(|| panic!("{name} in\n{text}\n{shown}"));
        assert!(about.contains("a later version brings it"), "{about}");
    };
    for section in reference.split("\n## ") {
        let header = section.lines().next().unwrap_or_default().trim_matches('`');
        let is_file = header.starts_with("<!--");
        let of_table =
            section.lines().find_map(|line| line.strip_prefix("Planned for a later version: "));
        for name in of_table.unwrap_or_default().split('`').skip(1).step_by(2) {
            let line = format!("{name} = 1");
            let text = if is_file { line } else { in_table(header, &line) };
            refused(&text, &format!("`{name}`"));
            planned += 1;
        }
        for entry in section.split("\n### ").skip(1) {
            let key = entry.split('`').nth(1).unwrap_or_default();
            let words = entry.lines().find_map(|line| line.strip_prefix("| planned | "));
            let is_list = entry.contains("| type | list of words |");
            for word in words.unwrap_or_default().split('"').skip(1).step_by(2) {
                let value = if is_list { format!("[\"{word}\"]") } else { format!("\"{word}\"") };
                refused(&in_table(header, &format!("{key} = {value}")), &format!("\"{word}\""));
                planned += 1;
            }
        }
    }
    assert!(planned > 25, "only {planned} planned keys and words");
}

#[test]
fn the_manual_page_has_the_same_text() {
    let page = config::man();
    assert!(page.contains(".TH ringgate.toml 5"), "{page}");
    assert!(page.is_ascii(), "roff reads ASCII alone");
    let keys = config::reference().matches("\n### ").count();
    // Each key is a tagged paragraph; the page also has the tables of the file.
    assert_eq!(page.matches("\n.TP").count(), keys + 8);
    assert!(page.contains("How long open connections may continue after SIGTERM"));
}
