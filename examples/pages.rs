//! Writes the manual pages and the completions of shells, for packages.
//!
//! ```sh
//! cargo run --example pages -- DIRECTORY
//! ```
//!
//! They come from the declarations of the command line and of the configuration. This is an example
//! and no command of ringgate, so that the program which serves has nothing of it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::{env, fs};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use ringgate::{cli, config};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// What `ringgate(1)` says besides the commands: titles, and terms with their meanings.
const SECTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "FILES",
        &[
            ("/etc/ringgate/ringgate.toml", "The configuration of the service: ringgate.toml(5)."),
            ("/run/ringgate/admin.sock", "The admin endpoint, if the configuration has [admin]."),
            ("/var/log/ringgate", "Access logs of the service."),
            ("/var/lib/ringgate", "Certificates and accounts of ACME."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("RINGGATE_LOG", "The level of the diagnostics, in place of log.level."),
            ("RINGGATE_ADMIN", "The admin endpoint that the commands ask, in place of --admin."),
            ("RINGGATE_ADMIN_TOKEN_FILE", "The file of its token, in place of --token-file."),
            ("NO_COLOR", "Any value: diagnostics on a terminal have no colours."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done, or ended as asked."),
            ("1", "It failed."),
            ("2", "The command line is wrong."),
            ("64", "The configuration is wrong or cannot be read."),
        ],
    ),
];

fn main() -> io::Result<()> {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("write `cargo run --example pages -- DIRECTORY`"));
    };
    fs::create_dir_all(&directory)?;
    for (name, text) in pages()? {
        fs::write(directory.join(name), text)?;
    }
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command(), "ringgate", &directory)?;
    }
    Ok(())
}

/// The command line. The commit is no part of its version, so that the pages depend on the sources
/// alone.
fn command() -> Command {
    cli::Cli::command().version(env!("CARGO_PKG_VERSION"))
}

/// The manual pages, each with the name of its file.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    pages.push((String::from("ringgate.toml.5"), config::man().into_bytes()));
    Ok(pages)
}

/// The pages of a command and of those below it.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let source = concat!("ringgate ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("ringgate");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let is_top = command.get_name() == "ringgate";
    if is_top {
        sections(&mut page)?;
    }
    see_also(is_top, &mut page)?;
    pages.push((man.get_filename(), page));
    let mut visible = command.get_subcommands().filter(|one| !one.is_hide_set());
    visible.try_for_each(|one| collect(one, pages))
}

fn sections(page: &mut impl Write) -> io::Result<()> {
    let mut text = Roff::new();
    for (title, terms) in SECTIONS {
        text.control("SH", [title]);
        for (term, meaning) in terms {
            text.control("TP", []);
            text.text([bold(*term)]);
            text.text([roman(*meaning)]);
        }
    }
    page.write_all(text.to_roff().as_bytes())
}

fn see_also(is_top: bool, page: &mut impl Write) -> io::Result<()> {
    let mut text = Roff::new();
    text.control("SH", ["SEE ALSO"]);
    let mut names: Vec<Inline> = Vec::new();
    if !is_top {
        names.extend([bold("ringgate"), roman("(1), ")]);
    }
    names.extend([bold("ringgate.toml"), roman("(5), "), bold("systemd.service"), roman("(5)")]);
    text.text(names);
    page.write_all(text.to_roff().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command as Process;

    use serde_json::Value;

    use super::*;

    /// Each command with the words that lead to it, and its options.
    fn commands() -> Vec<(Vec<String>, Vec<String>)> {
        fn below(command: &Command, words: &[String], all: &mut Vec<(Vec<String>, Vec<String>)>) {
            let words = [words, &[command.get_name().to_owned()]].concat();
            let options = command.get_arguments().filter_map(|one| one.get_long());
            all.push((words.clone(), options.map(|name| format!("--{name}")).collect()));
            command.get_subcommands().for_each(|one| below(one, &words, all));
        }
        let mut all = Vec::new();
        below(&cli::Cli::command(), &[], &mut all);
        assert!(all.len() > 8, "{all:?}");
        all
    }

    fn text_of(pages: &[(String, Vec<u8>)], name: &str) -> String {
        let page = pages.iter().find(|(page, _)| page == name);
        let (_, text) = page.unwrap_or_else(|| panic!("there is no page {name}"));
        // A hyphen that is no line break is escaped.
        String::from_utf8(text.clone()).expect("pages are text").replace("\\-", "-")
    }

    #[test]
    fn every_command_has_a_page_with_its_options_and_is_named_above() {
        let pages = pages().expect("they can be written to memory");
        for (words, options) in commands() {
            let name = words.join("-");
            let page = text_of(&pages, &format!("{name}.1"));
            for option in options {
                assert!(page.contains(&option), "{name}.1 has no {option}");
            }
            if let [above @ .., _] = &words[..]
                && !above.is_empty()
            {
                let above = text_of(&pages, &format!("{}.1", above.join("-")));
                assert!(above.contains(&format!("{name}(1)")), "{name} is not named above");
            }
        }
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_page_of_the_configuration() {
        /// The names of all properties.
        fn keys(schema: &Value, found: &mut BTreeSet<String>) {
            match schema {
                Value::Object(object) => {
                    if let Some(Value::Object(properties)) = object.get("properties") {
                        found.extend(properties.keys().cloned());
                    }
                    object.values().for_each(|inner| keys(inner, found));
                }
                Value::Array(list) => list.iter().for_each(|inner| keys(inner, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        keys(&serde_json::from_str(&config::schema()).expect("it is JSON"), &mut found);
        assert!(found.len() > 50, "only {} keys", found.len());
        let page = text_of(&pages().expect("pages"), "ringgate.toml.5");
        for key in found {
            assert!(page.contains(&format!("\\fB{key}\\fR\n")), "ringgate.toml.5 has no {key}");
        }
    }

    #[test]
    fn completions_name_every_command_and_option() {
        for shell in SHELLS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command(), "ringgate", &mut text);
            let text = String::from_utf8(text).expect("completions are text");
            for (words, options) in commands() {
                let name = words.last().expect("a command has a name");
                assert!(text.contains(name.as_str()), "{shell} does not know {words:?}");
                for option in options {
                    // fish declares an option without its dashes.
                    let fish = format!("-l {}", option.trim_start_matches('-'));
                    let known = text.contains(&option) || text.contains(&fish);
                    assert!(known, "{shell} does not know {option} of {words:?}");
                }
            }
        }
    }

    #[test]
    fn bash_completes_a_command_and_its_options() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path =
            clap_complete::generate_to(Shell::Bash, &mut command(), "ringgate", directory.path());
        let complete = |words: &str| {
            let script = format!(
                "source \"$1\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                 _ringgate ringgate \"${{COMP_WORDS[COMP_CWORD]}}\" \
                 \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\""
            );
            let path: &Path = path.as_deref().expect("the file can be written");
            let mut bash = Process::new("bash");
            let run = bash.args(["--norc", "-c", &script, "bash"]).arg(path).output();
            String::from_utf8(run.expect("bash runs").stdout).expect("it is text")
        };
        assert_eq!(complete("ringgate rel").trim(), "reload");
        assert_eq!(complete("ringgate config sho").trim(), "show");
        assert_eq!(complete("ringgate status --js").trim(), "--json");
    }
}
