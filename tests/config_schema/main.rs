//! The JSON Schema of the configuration, tried with a validator of another project.
//!
//! The schema accepts every file that `ringgate check` accepts. It refuses what a schema can
//! refuse; `BEYOND` lists the files of `tests/config/bad` that it accepts, each with the reason.

mod cases;
#[path = "../config/certificates.rs"]
mod certificates;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::string::string_regex;
use ringgate::config;
use serde_json::Value;

use self::cases::file;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&config::schema()).expect("the schema is JSON"));

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&SCHEMA).expect("the schema can be compiled"));

/// What the schema says about a file. `None` if it is not TOML.
fn faults(text: &str) -> Option<Vec<String>> {
    let table: toml::Table = text.parse().ok()?;
    let file = serde_json::to_value(table).expect("keys of tables are strings");
    let fault =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    Some(VALIDATOR.iter_errors(&file).map(fault).collect())
}

/// What `ringgate check` says about a file beside those of the examples and certificates.
fn errors(text: &str) -> String {
    let parsed = config::parse("edge.toml", text, &certificates::base());
    parsed.err().map_or_else(String::new, |errors| errors.to_string())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a directory of the crate that end in `.toml`, with their texts.
fn files(directory: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join(directory)).expect("the directory can be listed");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut files: Vec<(PathBuf, String)> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).expect("a file can be read")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} has no .toml files");
    files
}

#[test]
fn it_is_a_schema_of_draft_2020_12() {
    assert_eq!(SCHEMA["$schema"], "https://json-schema.org/draft/2020-12/schema");
    if let Err(error) = jsonschema::draft202012::meta::validate(&SCHEMA) {
        panic!("{}: {error}", error.instance_path());
    }
}

#[test]
fn every_valid_file_passes() {
    for (path, text) in files("config").into_iter().chain(files("tests/config/odd")) {
        assert_eq!(faults(&text), Some(Vec::new()), "{}", path.display());
    }
    assert_eq!(faults(config::DEFAULT), Some(Vec::new()));
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    for block in readme.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        assert_eq!(faults(text), Some(Vec::new()), "{text}");
    }
}

/// The bad files that the schema accepts, and why.
const BEYOND: &[(&str, &str)] = &[
    ("admin_open_to_others.toml", "which addresses are of the loopback interface"),
    ("admin_same_address.toml", SAME_ADDRESS),
    ("admin_token_file.toml", "what is in other files"),
    ("cluster_none.toml", REFERENCE),
    ("cluster_unknown.toml", REFERENCE),
    ("cluster_unknown_of_many.toml", REFERENCE),
    ("cluster_twice.toml", SAME_ADDRESS),
    ("listen_twice.toml", SAME_ADDRESS),
    ("listen_overlaps.toml", SAME_ADDRESS),
    ("loops.toml", SAME_ADDRESS),
    ("loops_proxied.toml", SAME_ADDRESS),
    ("acme_none.toml", REFERENCE),
    ("route_root.toml", "what is in other files"),
    ("fields_twice.toml", "names that mean the same"),
    ("server_header.toml", "names that mean the same"),
    ("tls_files.toml", "what is in other files"),
    ("host_nameless_twice.toml", "several tables of one list"),
    ("route_scheme.toml", ORDER),
    ("route_shadowed.toml", ORDER),
    ("route_tunnel_shadowed.toml", ORDER),
    ("route_proxy_shadowed.toml", ORDER),
    ("redirect_loop_answered.toml", ORDER),
    ("route_dot_segments.toml", "segments of a path, and what the route does"),
    ("list_too_late.toml", SYNTAX),
    ("syntax.toml", SYNTAX),
    ("syntax_control.toml", SYNTAX),
    ("syntax_duplicate_key.toml", SYNTAX),
];

const REFERENCE: &str = "a reference to another table";
const SAME_ADDRESS: &str = "addresses that mean the same";
const ORDER: &str = "the order of routes";
const SYNTAX: &str = "a syntax error, so that it has no value to check";

#[test]
fn every_bad_file_is_refused_that_a_schema_can_refuse() {
    let mut unlisted = Vec::new();
    for (path, text) in files("tests/config/bad") {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let passes = faults(&text).is_none_or(|faults| faults.is_empty());
        match BEYOND.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => assert!(passes, "{name} is refused after all, in spite of: {why}"),
            None if passes => unlisted.push(name),
            None => {}
        }
    }
    assert!(unlisted.is_empty(), "the schema accepts {unlisted:?}");
    for (name, _) in BEYOND {
        assert!(root().join("tests/config/bad").join(name).exists(), "there is no {name}");
    }
}

#[test]
fn valid_values_pass() {
    cases::each(cases::VALID, |text| {
        assert_eq!(errors(text), "", "{text}");
        assert_eq!(faults(text), Some(Vec::new()), "{text}");
    });
}

#[test]
fn invalid_values_are_refused() {
    cases::each(cases::INVALID, |text| {
        assert_ne!(errors(text), "", "{text}");
        assert_ne!(faults(text), Some(Vec::new()), "the schema accepts\n{text}");
    });
}

/// Calls a function with each property of the schema, its name and its pointer.
fn each_property(schema: &Value, pointer: &str, see: &mut impl FnMut(&str, &str, &Value)) {
    let definitions = schema["$defs"].as_object().into_iter().flatten();
    for (name, definition) in definitions {
        each_property(definition, &format!("{pointer}/$defs/{name}"), see);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        see(name, &format!("{pointer}/properties/{name}"), property);
    }
}

#[test]
fn every_key_has_a_description_and_valid_examples() {
    let validators = jsonschema::validator_map_for(&SCHEMA).expect("the schema can be compiled");
    let (mut keys, mut defaults, mut examples) = (0, 0, 0);
    each_property(&SCHEMA, "#", &mut |name, pointer, property| {
        keys += 1;
        let description = property["description"].as_str().unwrap_or_default();
        assert!(description.ends_with('.'), "{name}: {description:?}");
        let validator = validators.get(pointer).expect("every property has a validator");
        let check = |value: &Value| {
            if let Err(error) = validator.validate(value) {
                panic!("{pointer}: {error}");
            }
        };
        if let Some(default) = property.get("default") {
            defaults += 1;
            check(default);
        }
        for example in property["examples"].as_array().into_iter().flatten() {
            examples += 1;
            check(example);
        }
    });
    assert!(keys >= 50 && defaults >= 25 && examples >= 35, "{keys} {defaults} {examples}");
}

/// What is accepted when the configuration is read, the schema accepts.
fn is_as_wide(text: &str) -> Result<(), TestCaseError> {
    if errors(text).is_empty() {
        prop_assert_eq!(faults(text), Some(Vec::new()), "{}", text);
    }
    Ok(())
}

const PORT: &str = "0{0,3}[0-9]{1,4}";
const IPV4: &str = "1?[0-9]{1,2}(\\.1?[0-9]{1,2}){3}";
const IPV6: &str = "(::|([0-9a-fA-F]{1,4}:){7}|([0-9a-fA-F]{1,4}:){1,6}:)[0-9a-f]{0,4}";
const NAME: &str = "(\\*\\.)?[a-cA-C0-9_-]{1,6}(\\.[a-z-]{1,4}){0,2}(\\.\\*|\\.)?";

fn matching(pattern: &str) -> impl Strategy<Value = String> {
    string_regex(pattern).expect("it is a pattern")
}

proptest! {
    #[test]
    fn a_valid_duration_passes(text in "(0{0,2}[0-9]{1,8}(000)?(ms|s|m|h|d)|off)") {
        is_as_wide(&file("tcp", &format!("idle_timeout = \"{text}\"")))?;
        is_as_wide(&file("tcp", &format!("keepalive = \"{text}\"")))?;
    }

    #[test]
    fn a_valid_size_passes(text in "0{0,2}[0-9]{1,6}(B|KiB|MiB|GiB)") {
        is_as_wide(&file("http", &format!("max_head = \"{text}\"")))?;
    }

    #[test]
    fn a_valid_address_to_listen_on_passes(
        text in matching(&format!("({IPV4}|\\[{IPV6}\\]):{PORT}(-{PORT})?|unix:/?[/a .]{{0,5}}"))
    ) {
        is_as_wide(&file("listen", &format!("\"{text}\"")))?;
        is_as_wide(&file("listen", &format!("[\"{text}\", \"0.0.0.0:0\"]")))?;
        is_as_wide(&file("udp", "").replace("127.0.0.1:1\"", &format!("{text}\"")))?;
    }

    #[test]
    fn a_valid_endpoint_passes(
        text in matching(&format!("({IPV4}|\\[{IPV6}\\]|{NAME}):{PORT}|unix:/?[/a .]{{0,5}}"))
    ) {
        let endpoints = format!("endpoints = [\"{text}\"]");
        is_as_wide(&file("cluster", &endpoints))?;
        is_as_wide(&file("cluster", &format!("{endpoints}\ndiscovery = \"strict_dns\"")))?;
    }

    #[test]
    fn a_valid_name_passes(
        text in matching(&format!("({IPV4}|\\[?{IPV6}\\]?|{NAME})"))
    ) {
        is_as_wide(&file("host", &format!("names = [\"{text}\"]")))?;
        is_as_wide(&file("redirect", &format!("host = \"{text}\"")))?;
        is_as_wide(&file("name", &format!("\"{text}\"")))?;
    }

    #[test]
    fn a_valid_text_passes(text in "[/ -~&&[^\"\\\\]]{0,3}[/a;%{}. ]{0,8}") {
        is_as_wide(&file("access_log", &format!("path = \"{text}\"")))?;
        is_as_wide(&file("access_log", &format!("format = \"{text}%{{client}}\"")))?;
        is_as_wide(&file("respond", &format!("content_type = \"{text}\"")))?;
        is_as_wide(&file("route", &format!("path = \"{text}\"\nrespond = {{}}")))?;
    }

    /// A line of the example is left out, comes twice, or changes places with another.
    #[test]
    fn a_valid_change_of_an_example_passes(
        line in 0_usize..200, other in 0_usize..200, how in 0_u8..3,
    ) {
        let text = fs::read_to_string(root().join("config/site.toml")).expect("an example");
        let mut lines: Vec<&str> = text.lines().collect();
        let (line, other) = (line % lines.len(), other % lines.len());
        match how {
            0 => drop(lines.remove(line)),
            1 => lines.insert(other, lines[line]),
            _ => lines.swap(line, other),
        }
        is_as_wide(&lines.join("\n"))?;
    }
}
