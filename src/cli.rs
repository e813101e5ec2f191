//! The command line.

mod ask;
mod connections;
mod text;
mod top;

use std::error::Error as StdError;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

use self::ask::Simple;
use self::connections::{Closing, Listing};
use self::top::Top;
use crate::config::{self, Config, Errors, Form};
use crate::control::{self, Environment, Predecessor, Source};
use crate::error::Error;
use crate::sys;

/// Version and commit. The drivers are the same in every build.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("RINGGATE_COMMIT"),
    "; drivers io_uring and epoll)"
);

/// An io_uring, thread-per-core edge proxy that puts Shadowsocks behind a real website.
#[derive(Debug, Parser)]
#[command(version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM, SIGINT or SIGQUIT.
    ///
    /// SIGTERM, SIGINT or SIGQUIT: accept nothing new after server.drain_delay and let open
    /// connections end within server.drain_timeout; a second one: end at once. SIGHUP: read the
    /// configuration again and serve by it, without ending a connection. SIGUSR1: reopen log files.
    /// SIGUSR2: start this program again with the same arguments; it takes the sockets over, and
    /// this process drains.
    /// Other signals are logged and have no other effect. Exit codes: 0 ended as asked; 1 failed (a
    /// port, a log file, a ring, a worker); 2 wrong command line; 64 a configuration that is wrong
    /// or cannot be read, or a wrong value of RINGGATE_LOG.
    Run(Run),
    /// Check configuration files without binding or creating anything.
    ///
    /// Errors depend on the files alone, not on ports, CPUs or log files of this machine. Warnings
    /// are about parts that are valid but probably unintended; they also depend on this machine's
    /// limit of open files and on its addresses. Exit codes: 0 if all files are valid, 1 if stdout
    /// cannot be written, 2 wrong command line, 64 if a file is not valid or cannot be read.
    Check {
        /// TOML files; `-` is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show what a running process does: listeners, workers, certificates.
    ///
    /// Exit codes: 0 it serves; 1 it is about to end; 2 it cannot be asked, or wrong command line.
    Status(Simple),
    /// List the open connections of a running process.
    ///
    /// Exit codes: 0 done; 1 refused, with the reason; 2 it cannot be asked, or wrong command line.
    Connections(Listing),
    /// Close one connection of a running process: its client gets a reset.
    ///
    /// Exit codes as for `connections`; 1 also if there is no such connection.
    Close(Closing),
    /// Show what a running process does, in the terminal, once a second.
    ///
    /// `?` lists the keys. Without a process, and while it starts again, it waits for one. NO_COLOR
    /// is honoured. Exit codes: 0 ended by a key or a signal; 1 the terminal cannot be used; 2
    /// there is none, or wrong command line.
    Top(Top),
    /// Let a running process read its configuration again, and wait until it serves by it.
    ///
    /// Exit codes: 0 done; 1 refused, with the errors; 2 it cannot be asked, or wrong command line.
    Reload(Simple),
    /// Let a running process start its program again, which takes its sockets over.
    ///
    /// Returns when that has begun: the log of the process says how it ends. Exit codes as for
    /// `reload`.
    Upgrade(Simple),
    /// Let a running process end: as SIGTERM.
    ///
    /// Exit codes as for `reload`.
    Drain(Simple),
    /// Print what is known about configurations: schema, reference, or one with all its defaults.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the JSON Schema of the configuration, for editors and validators.
    Schema,
    /// Print the reference of all keys.
    Reference {
        /// Print the manual page ringgate.toml(5) instead of Markdown.
        #[arg(long)]
        man: bool,
    },
    /// Print a configuration with the defaults of all keys that it leaves out.
    Show {
        /// A TOML file; `-` is standard input.
        file: PathBuf,
        /// Print JSON instead of TOML.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration; `-` is standard input. Without it, an example is used that serves a page
    /// on loopback.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the example that is used without a file, and exit.
    #[arg(long)]
    print_default_config: bool,
}

/// Parses the command line.
///
/// # Errors
/// The exit code, after printing the help, the version, or the error and the correct command line.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // A failed write to stderr (a closed pipe) must not end in a panic.
        let arguments = std::env::args_os().skip(1);
        let arguments: Vec<String> =
            arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
        match correct_usage(&error, &arguments) {
            Some((what, usage)) => {
                let (what, usage) =
                    (config::printable(what.into()), config::printable(usage.into()));
                let text = control::for_stderr(&format!("error: {what}\n  = write {usage}\n"));
                let _ = std::io::stderr().write_all(text.as_bytes());
            }
            None => drop(error.print()),
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Returns the error and the correct command line, if the configuration file is named as other
/// programs or the other command do. Returns `None` for all other errors.
fn correct_usage(error: &clap::Error, arguments: &[String]) -> Option<(String, String)> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = arguments.first().map_or("", String::as_str);
    let file = named_file(arguments);
    let either = |file: &str| format!("`ringgate run -c {file}`, or `ringgate check {file}`");
    if error.kind() == ErrorKind::InvalidSubcommand {
        let file = text(ContextKind::InvalidSubcommand).filter(|word| word.contains(['/', '.']))?;
        return Some((format!("`{file}` is not a command"), either(file)));
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let argument = text(ContextKind::InvalidArg)?;
    let is_file_flag = ["-c", "--config"].contains(&argument);
    if command == "run" && !argument.starts_with('-') {
        let what = "`ringgate run` takes one configuration, after -c";
        Some((what.to_owned(), format!("`ringgate run -c {argument}`")))
    } else if command == "check" && is_file_flag {
        let what = "`ringgate check` takes its files without -c";
        Some((what.to_owned(), format!("`ringgate check {file}`")))
    } else if command == "config" && is_file_flag {
        let what = "`ringgate config show` takes its file without -c";
        Some((what.to_owned(), format!("`ringgate config show {file}`")))
    } else if command.starts_with('-') && (is_file_flag || argument == "-t") {
        Some(("the command is missing".to_owned(), either(file)))
    } else {
        None
    }
}

/// The configuration file in the arguments: after -c or joined to `--config=`. `FILE` if there is
/// none.
fn named_file(arguments: &[String]) -> &str {
    let is_flag = |argument: &&String| ["-c", "--config"].contains(&argument.as_str());
    let after_flag = arguments.iter().skip_while(|argument| !is_flag(argument)).nth(1);
    let joined = arguments.iter().find_map(|argument| argument.strip_prefix("--config="));
    after_flag.map(String::as_str).or(joined).unwrap_or("FILE")
}

/// Runs the command of the command line.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(run) if run.print_default_config => print(config::DEFAULT),
        Command::Run(run) => {
            sys::set_up_allocator();
            // Reading the configuration may take a while. Signals arrive when they can be
            // handled.
            sys::hold_signals();
            // Before anything opens a file or starts a thread.
            let environment = Environment::take();
            let predecessor = Predecessor::of_this_process();
            match read(run.config.as_deref()) {
                Ok(config) => return serve(config, run.config, environment, predecessor),
                Err(error) => Err(error),
            }
        }
        Command::Check { files } => check(&files),
        Command::Status(simple) => ask::status(&simple),
        Command::Connections(listing) => connections::list(&listing),
        Command::Close(closing) => connections::close(&closing),
        Command::Top(top) => top::run(&top),
        Command::Reload(Simple { asked, json }) => ask::order(&asked, "/reload", json),
        Command::Upgrade(Simple { asked, json }) => ask::order(&asked, "/upgrade", json),
        Command::Drain(Simple { asked, json }) => ask::order(&asked, "/drain", json),
        Command::Config(ConfigCommand::Schema) => print(&config::schema()),
        Command::Config(ConfigCommand::Reference { man: false }) => print(&config::reference()),
        Command::Config(ConfigCommand::Reference { man: true }) => print(&config::man()),
        Command::Config(ConfigCommand::Show { file, json }) => show(&file, json),
    };
    exit_code(result, false, std::io::stderr())
}

/// Reports the error, if there is one, and returns the exit code.
fn exit_code(result: Result<(), Error>, json: bool, stderr: impl Write) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    control::report_error(&error, json, stderr);
    error.exit_code()
}

/// Reads the configuration; without a file, the built-in example.
fn read(file: Option<&Path>) -> Result<Config, Error> {
    match file {
        Some(file) => config::load(file).map_err(|errors| Error::Configuration(errors.into())),
        None => config::parse("the built-in example", config::DEFAULT, Path::new("."))
            .map_err(|errors| Error::Configuration(errors.into())),
    }
}

/// Serves by a configuration that was read from `file`; without a file, it is the built-in example.
fn serve(
    config: Config,
    file: Option<PathBuf>,
    environment: Environment,
    predecessor: Option<Predecessor>,
) -> ExitCode {
    let logging = match control::start_diagnostics(&config.log) {
        Ok(logging) => logging,
        Err(error) => return exit_code(Err(error), config.log.json, std::io::stderr()),
    };
    control::warn_of(&config);
    let source = match file {
        None => {
            tracing::info!(
                "no --config is given: the built-in example is used (--print-default-config shows \
                 it)"
            );
            Source::Example
        }
        Some(file) if file.as_os_str() == "-" => Source::Stdin,
        Some(file) => Source::File(file),
    };
    let result = control::run(config, source, environment, predecessor, &logging);
    // Signals no longer end the process by default, so a direct write to a stderr that is not read
    // would block for ever. The error goes into the queue of the diagnostics instead.
    let code = exit_code(result, logging.is_json(), &**logging.queue());
    logging.flush();
    code
}

/// Prints a configuration with all defaults.
fn show(file: &Path, json: bool) -> Result<(), Error> {
    let form = if json { Form::Json } else { Form::Toml };
    match config::show(file, form) {
        Ok(text) => print(&text),
        Err(errors) => Err(Error::Configuration(errors.into())),
    }
}

/// Checks files. Prints the name of each valid one, and its warnings.
fn check(files: &[PathBuf]) -> Result<(), Error> {
    if files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        let what = "cannot read standard input twice";
        return Err(Error::start(what, "it is empty after the first time", "name `-` once"));
    }
    let mut invalid = Vec::new();
    let mut printed = Ok(());
    for file in files {
        match config::load(file) {
            Ok(config) => {
                if !config.warnings.is_empty() {
                    let text = control::for_stderr(&format!("{}\n\n", config.warnings));
                    let _ = std::io::stderr().write_all(text.as_bytes());
                }
                // A stdout that takes nothing does not keep other files from being checked.
                printed = printed.and(print(&format!("{}: ok\n", config::name_of(file))));
            }
            Err(errors) => invalid.push(errors),
        }
    }
    if invalid.is_empty() {
        printed
    } else {
        Err(Error::Configuration(InvalidFiles(invalid).into()))
    }
}

/// The errors of several configurations; never empty.
#[derive(Debug)]
struct InvalidFiles(Vec<Errors>);

impl fmt::Display for InvalidFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, errors) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n\n" } else { "" };
            write!(f, "{separator}{errors}")?;
        }
        Ok(())
    }
}

impl StdError for InvalidFiles {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.iter().find_map(StdError::source)
    }
}

/// Writes to stdout. A reader that has read enough, such as a pager or head(1), is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::start("cannot write to stdout", error, ""))
        }
        _ => Ok(()),
    }
}
