//! The entry points: turn a file or a text into a [`Config`] or into a list of its errors.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::input::{self, Accept, ReadError};
use super::report::{Errors, Fault, Report, Span, printable};
use super::{Config, Form, Machine, check, contract, read, syntax};

/// The embedded example, used by `ringgate run` without a file. It listens on the loopback
/// interface only.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// The largest configuration in bytes. It is read into memory as a whole.
const LARGEST_FILE: usize = 16 << 20;

/// The name of a configuration in messages: its path, or `<stdin>` for `-`. Characters that affect
/// a terminal are escaped.
pub fn name_of(path: &Path) -> Cow<'_, str> {
    if is_stdin(path) { Cow::Borrowed("<stdin>") } else { printable(path.to_string_lossy()) }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads and checks a file, or standard input if the path is `-`. Relative paths
/// start at the directory of the file; for standard input they start at the working directory.
/// Errors depend on the file only; warnings also depend on this machine.
///
/// # Errors
/// Returns all errors of the configuration, rendered, or the reason why it cannot be read.
pub fn load(path: &Path) -> Result<Config, Errors> {
    let text = read_text(path)?;
    parse_on(&Machine::this(), &name_of(path), &text, directory_of(path))
}

/// Like [`load`], for a text that is to be stored in this file.
///
/// # Errors
/// Returns all errors of the configuration, rendered.
pub fn load_text(path: &Path, text: &str) -> Result<Config, Errors> {
    parse_on(&Machine::this(), &name_of(path), text, directory_of(path))
}

/// The effective configuration of a file: all its values, with the defaults of the keys that were
/// left out. Relative paths stay as they are.
///
/// # Errors
/// Returns all errors of the configuration, rendered, or the reason why it cannot be read.
pub fn show(path: &Path, form: Form) -> Result<String, Errors> {
    effective(&name_of(path), &read_text(path)?, directory_of(path), form)
}

/// Like [`show`], for a text. `name` is shown as the file name.
///
/// # Errors
/// Returns all errors of the configuration, rendered.
pub fn effective(name: &str, text: &str, base: &Path, form: Form) -> Result<String, Errors> {
    parse(name, text, base)?;
    let (file, _) = DeTable::parse_recoverable(text);
    Ok(contract::effective(file.get_ref(), form))
}

impl Config {
    /// The effective configuration as JSON, without what is secret. Takes a while if it is large.
    /// `None` if it has no admin endpoint.
    pub fn redacted(&self) -> Option<String> {
        let (file, _) = DeTable::parse_recoverable(self.text.as_deref()?);
        Some(contract::redacted(file.get_ref()))
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn read_text(path: &Path) -> Result<String, Errors> {
    let bytes = read_bytes(path).map_err(|cause| unreadable(path, cause))?;
    String::from_utf8(bytes).map_err(|error| not_utf8(&name_of(path), &error))
}

/// Like [`load`], for a text and independent of the machine. `name` is shown as the file name.
/// Relative paths start at `base`.
///
/// # Errors
/// Returns all errors of the configuration, rendered.
pub fn parse(name: &str, text: &str, base: &Path) -> Result<Config, Errors> {
    parse_on(&Machine::UNKNOWN, name, text, base)
}

pub(super) fn parse_on(
    machine: &Machine,
    name: &str,
    text: &str,
    base: &Path,
) -> Result<Config, Errors> {
    // Editors do not count a byte order mark as a column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let report = Report::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax::report(&report, text, errors);
        return Err(report.into_errors(name));
    }
    let span = root.span();
    let root = Spanned::new(span, DeValue::Table(root.into_inner()));
    let config = check::config(&report, base, machine, read::read(&report, &root));
    debug_assert!(config.is_some() || !report.is_empty(), "nothing is refused without a reason");
    match config {
        Some(mut config) if report.is_empty() => {
            config.warnings = report.into_warnings(name);
            config.text = config.admin.is_some().then(|| text.into());
            Ok(config)
        }
        _ => Err(report.into_errors(name)),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    if is_stdin(path) {
        input::read_stdin(LARGEST_FILE)
    } else {
        input::read(path, Accept::FilesAndPipes, LARGEST_FILE)
    }
}

/// The error that a file cannot be read.
fn unreadable(path: &Path, cause: ReadError) -> Errors {
    let note = match &cause {
        ReadError::TooLong(_) => "a configuration has at most 16 MiB: check the name of the file",
        ReadError::WrongType(_) => {
            "name a regular file, or a pipe that ends, such as `<(command)` of a shell"
        }
        ReadError::PipeTimeout => {
            "start the program that writes to the pipe, and let it close the pipe; or name a file"
        }
        ReadError::System(error) => system_advice(path, error.kind()),
    };
    let name = name_of(path);
    let what = format!("cannot read the configuration {name}");
    Errors::unreadable(&name, Fault::new(what, note), cause)
}

fn system_advice(path: &Path, kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound if path.is_relative() => {
            "relative paths start at the working directory of ringgate"
        }
        ErrorKind::NotFound => "check the spelling of the path",
        ErrorKind::PermissionDenied => {
            "the user that runs ringgate must be allowed to read the file and to enter its \
             directories"
        }
        ErrorKind::IsADirectory => "name a file in this directory",
        _ => "check that this user can read the file, for example with `cat`",
    }
}

/// Reports the first byte that is not UTF-8.
fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Errors {
    let start = error.utf8_error().valid_up_to();
    let byte = error.as_bytes()[start];
    // The offsets are the same up to this byte, which is shown as U+FFFD.
    let text = String::from_utf8_lossy(error.as_bytes());
    let report = Report::new(&text);
    let span = Span { start, end: start + '\u{fffd}'.len_utf8() };
    let what = format!("the byte 0x{byte:02x} is not UTF-8");
    report.error(
        span,
        what,
        "a configuration is UTF-8 text: check the name of the file, or save it as UTF-8",
    );
    report.into_errors(name)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_keeps_the_system_error_as_its_source() {
        let errors = load(Path::new("/no/such/file.toml")).expect_err("there is no such file");
        let cause = errors.source().expect("it has a cause");
        let system = cause.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(system.map(std::io::Error::kind), Some(ErrorKind::NotFound));
        let text = errors.to_string();
        let start = "error: cannot read the configuration /no/such/file.toml: No such file";
        assert!(text.starts_with(start), "{text}");
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
    }

    const SITE: &str = include_str!("../../config/site.toml");

    proptest! {
        /// A damaged file is either valid or refused with at least one error.
        #[test]
        fn a_damaged_file_is_read_or_refused(
            from in 0_usize..SITE.len(), length in 0_usize..40,
            typed in "[ -~\\n\"=\\[\\]{}]{0,12}",
        ) {
            let to = (from + length).min(SITE.len());
            prop_assume!(SITE.is_char_boundary(from) && SITE.is_char_boundary(to));
            let text = format!("{}{typed}{}", &SITE[..from], &SITE[to..]);
            let base = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
            if let Err(errors) = parse("site.toml", &text, base) {
                prop_assert!(errors.count() > 0);
                prop_assert!(errors.to_string().starts_with("error: "));
            }
        }
    }
}
