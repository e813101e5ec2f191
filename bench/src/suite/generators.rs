//! Loads that programs of others make. A claim counts when two generators agree.
//!
//! CPU time is taken around the whole run of the program, and so is what it counts.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::contender::Programs;
use super::results::{Generator, Workload};
use super::servers::ARRIVED;
use crate::certificate::HOST;
use crate::load::Outcome;
use crate::load::dial::{STEP_TIMEOUT, Target};
use crate::{usage, while_doing};

/// Runs the generator of a workload: against `small`, where a request ends a connection, or against
/// the site.
pub(super) fn run(
    programs: &Programs,
    small: &Target,
    web: &Target,
    workload: Workload,
    seconds: Duration,
) -> io::Result<Outcome> {
    // All of them take whole seconds.
    let seconds = seconds.as_secs_f64().ceil() as u64;
    let time = seconds.to_string();
    let site = format!("https://{}/", web.connect);
    let connect = small.connect.to_string();
    match (workload.generator(), workload) {
        (Generator::STime, _) => {
            let resumed = matches!(workload, Workload::Resumptions { .. });
            let kind = if resumed { "-reuse" } else { "-new" };
            // Without a request it never reads the tickets that come behind a handshake.
            let arguments = ["s_time", "-connect", &connect, "-tls1_3", "-ciphersuites"];
            let arguments = [&arguments[..], &[SUITE, kind, "-www", "/", "-time", &time]].concat();
            measure(&programs.openssl, &arguments, small, seconds, |said| s_time(said, resumed))
        }
        (Generator::Hey, Workload::Handshakes { connections, .. }) => {
            let (time, connections) = (format!("{time}s"), connections.to_string());
            let arguments = ["-z", &time, "-c", &connections, "-disable-keepalive"];
            let arguments = [&arguments[..], &["-disable-redirects", "-host", HOST, &site]];
            measure(&programs.hey, &arguments.concat(), web, seconds, hey)
        }
        (Generator::Wrk, Workload::TlsRedirects { connections, .. }) => {
            let (time, connections) = (format!("-d{time}s"), format!("-c{connections}"));
            let host = format!("Host: {HOST}");
            let arguments = ["-t1", &time, &connections, "-H", &host, &site];
            measure(&programs.wrk, &arguments, web, seconds, wrk)
        }
        (_, workload) => Err(io::Error::other(format!("nothing makes the load of {workload}"))),
    }
}

const SUITE: &str = "TLS_AES_128_GCM_SHA256";
/// What OpenSSL's library offers in a program that has no options for it: the suite and the group
/// of the other rows.
const OPENSSL_CONF: &str = "\
openssl_conf = all
[all]
ssl_conf = defaults
[defaults]
system_default = client
[client]
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
";

/// Runs the generator of a workload of the site against one path of it.
pub(super) fn site(
    programs: &Programs,
    target: &Target,
    path: &str,
    workload: Workload,
    seconds: Duration,
) -> io::Result<Outcome> {
    let seconds = seconds.as_secs_f64().ceil() as u64;
    let (time, host) = (format!("-d{seconds}s"), format!("Host: {HOST}"));
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", target.connect);
    let by_wrk = |connections: u16, more: &[&str], count: &dyn Fn(&str) -> io::Result<u64>| {
        let connections = format!("-c{connections}");
        let arguments = ["-t1", &time, &connections, "-H", &host, &url];
        measure(&programs.wrk, &[&arguments[..], more].concat(), target, seconds, count)
    };
    match workload {
        Workload::SiteAnswers { connections, size, .. }
        | Workload::SiteFiles { connections, size, .. } => {
            let count = |said: &str| wrk_bodies(said, size, workload.is_bulk());
            by_wrk(connections, &[], &count)
        }
        Workload::SiteUploads { connections, size, .. } => {
            let mut script = tempfile::NamedTempFile::new()?;
            let lines = ["wrk.method = \"POST\"", "wrk.body = string.rep(\"Z\", SIZE)"].join("\n");
            script.write_all(lines.replace("SIZE", &size.to_string()).as_bytes())?;
            let script = script.path().display().to_string();
            let before = ARRIVED.load(Ordering::Relaxed);
            // With what was on the way when it ended.
            let count = |said: &str| wrk(said).map(|_| ARRIVED.load(Ordering::Relaxed) - before);
            by_wrk(connections, &["-s", &script], &count)
        }
        Workload::SiteStreams { connections, streams, by: Generator::H2load } => {
            let (connections, streams) = (connections.to_string(), streams.to_string());
            let to = format!("--connect-to={}", target.connect);
            let url = format!("https://{HOST}:{}{path}", target.connect.port());
            let suite = format!("--tls13-ciphers={SUITE}");
            let time = seconds.to_string();
            let arguments = ["-t1", "-c", &connections, "-m", &streams, "-D", &time];
            let arguments = [&arguments[..], &[&suite, "--groups=X25519", &to, &url]].concat();
            measure(&programs.h2load, &arguments, target, seconds, h2load)
        }
        Workload::SiteStreams { streams, .. } => {
            // It has one connection, and a stream of it for each of its workers.
            let (time, streams) = (format!("{seconds}s"), streams.to_string());
            let arguments = ["-h2", "-z", &time, "-c", &streams, "-disable-redirects"];
            let arguments = [&arguments[..], &["-host", HOST, &url]].concat();
            measure(&programs.hey, &arguments, target, seconds, hey)
        }
        workload => Err(io::Error::other(format!("nothing makes the load of {workload}"))),
    }
}

/// Runs a program and reads from its output how much it did.
fn measure(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    target: &Target,
    seconds: u64,
    count: impl Fn(&str) -> io::Result<u64>,
) -> io::Result<Outcome> {
    let mut output = tempfile::tempfile()?;
    let mut settings = tempfile::NamedTempFile::new()?;
    settings.write_all(OPENSSL_CONF.as_bytes())?;
    let before = usage::cpu_seconds_of(&target.pids)?;
    let (own, start) = (usage::own_cpu_seconds(), Instant::now());
    let mut child = spawn(program, arguments, settings.path(), &output)?;
    let ended = wait(&mut child, Duration::from_secs(seconds) + STEP_TIMEOUT);
    let elapsed = start.elapsed().as_secs_f64();
    let after = usage::cpu_seconds_of(&target.pids)?;
    let (status, spent) = ended.map_err(while_doing(program.display()))?;
    let mut said = String::new();
    output.rewind()?;
    output.read_to_string(&mut said)?;
    let units = count(&said).and_then(|units| match units {
        0 => Err(io::Error::other("it did nothing")),
        units => Ok(units),
    });
    let units = units.map_err(while_doing(format!("{}, {status}", program.display())))?;
    Ok(Outcome {
        units,
        seconds: elapsed,
        cpu_seconds: after.zip(before).map(|(after, before)| after - before),
        load_cpu_seconds: usage::own_cpu_seconds() - own + spent,
        latency: None,
    })
}

/// It has the CPU of this thread, and ends with this process.
fn spawn(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    settings: &Path,
    output: &File,
) -> io::Result<Child> {
    let mut command = vec![OsString::from("--pdeathsig"), "TERM".into(), program.into()];
    command.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
    Command::new("setpriv")
        .args(command)
        .env("OPENSSL_CONF", settings)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
        .map_err(while_doing(format!("cannot run {}", program.display())))
}

/// Waits for the end of a program and returns the CPU seconds that it used.
fn wait(child: &mut Child, limit: Duration) -> io::Result<(ExitStatus, f64)> {
    let pid = Pid::from_child(child);
    // What has ended can be asked for its usage until it is waited for.
    let kept = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let ended =
        usage::wait_until(limit, || Ok(rustix::process::waitid(WaitId::Pid(pid), kept)?.is_some()));
    if !matches!(ended, Ok(true)) {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other("it did not end in time"));
    }
    let spent = usage::cpu_seconds_in_ticks(child.id())?;
    Ok((child.wait()?, spent))
}

/// The connections of `openssl s_time`, which writes `*` for a full handshake and `r` for a resumed
/// one, all in one line.
fn s_time(said: &str, resumed: bool) -> io::Result<u64> {
    let is_marks =
        |line: &&str| line.starts_with(['*', 'r']) && line.trim_matches(['*', 'r']).is_empty();
    let marks = said.lines().find(is_marks).unwrap_or_default();
    let count = |mark| marks.chars().filter(|&found| found == mark).count() as u64;
    let (full, reused) = (count('*'), count('r'));
    // Only behind the first of its connections has s_time a ticket.
    let other = if resumed { full.saturating_sub(1) } else { reused };
    if other > 0 {
        return Err(io::Error::other(format!("{full} full and {reused} resumed handshakes")));
    }
    Ok(full + reused)
}

/// The answers that `hey` counted, none of which may be anything but a 301.
fn hey(said: &str) -> io::Result<u64> {
    let unwanted = said.contains("Error distribution:");
    let mut statuses = said.lines().filter_map(|line| line.trim().strip_prefix('['));
    let first = statuses.next().and_then(|line| line.strip_prefix("301]"));
    let count = first.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match (unwanted, count, statuses.next()) {
        (false, Some(count), None) => Ok(count),
        _ => Err(io::Error::other(format!("other answers than 301s:\n{said}"))),
    }
}

/// The answers that `wrk` counted.
fn wrk(said: &str) -> io::Result<u64> {
    let unwanted = said.contains("Socket errors") || said.contains("Non-2xx or 3xx");
    let line = said.lines().find(|line| line.contains(" requests in "));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    count
        .filter(|_| !unwanted)
        .ok_or_else(|| io::Error::other(format!("errors, or another output:\n{said}")))
}

/// The answers that `wrk` counted, or with `bytes` what it read, where each answer has a body of
/// `size` bytes.
fn wrk_bodies(said: &str, size: u32, bytes: bool) -> io::Result<u64> {
    let (answers, size) = (wrk(said)?, u64::from(size));
    let line = said.lines().find(|line| line.contains(" requests in "));
    let read = line.and_then(|line| line.split_whitespace().rev().nth(1)).and_then(binary);
    let read = read.ok_or_else(|| io::Error::other(format!("not a number of bytes:\n{said}")))?;
    // It is rounded, and nothing is known of single answers.
    if read < answers * size / 100 * 99 {
        let message = format!("{answers} answers with {read} bytes, not {size} each");
        return Err(io::Error::other(message));
    }
    Ok(if bytes { read } else { answers })
}

/// A number of bytes as wrk writes it: `9.01MB`.
fn binary(text: &str) -> Option<u64> {
    let text = text.strip_suffix('B')?;
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_uppercase());
    let power = match &text[number.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * f64::from(power).exp2()) as u64)
}

/// The 301s that `h2load` counted, all of them by HTTP/2.
fn h2load(said: &str) -> io::Result<u64> {
    let field = |line: &str, name: &str| {
        let line = said.lines().find_map(|known| known.strip_prefix(line))?;
        let fields = line.split(", ").map(str::trim);
        let number = fields.filter_map(|field| field.split_once(' ')).find(|one| one.1 == name)?.0;
        number.parse::<u64>().ok()
    };
    let protocol = said.lines().any(|line| line == "Application protocol: h2");
    let none = |line, names: &[&str]| names.iter().all(|name| field(line, name) == Some(0));
    let fine = none("requests:", &["failed", "errored", "timeout"])
        && none("status codes:", &["2xx", "4xx", "5xx"]);
    field("status codes:", "3xx")
        .filter(|_| protocol && fine)
        .ok_or_else(|| io::Error::other(format!("errors, or another output:\n{said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_another_length_fail_wrk() {
        let said = "  1000 requests in 1.00s, 1.20MB read\nRequests/sec:  1000.1\n";
        assert_eq!(wrk_bodies(said, 1024, false).unwrap(), 1000);
        assert_eq!(wrk_bodies(said, 1024, true).unwrap(), 1_258_291);
        let error = wrk_bodies(said, 2048, false).err().unwrap().to_string();
        assert!(error.contains("not 2048 each"), "{error}");
        assert!(wrk_bodies(&said.replace("MB", "XB"), 1024, false).is_err());
        assert_eq!(["12.5KB", "7B", "2.00GB"].map(binary), [12_800, 7, 2 << 30].map(Some));
    }

    #[test]
    fn other_answers_another_protocol_and_errors_fail_h2load() {
        let fine = "Application protocol: h2\n\n\
            requests: 130 total, 120 done, 120 succeeded, 0 failed, 0 errored, 0 timeout\n\
            status codes: 0 2xx, 120 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(h2load(fine).unwrap(), 120);
        for (from, to) in [
            ("protocol: h2", "protocol: http/1.1"),
            ("0 failed", "1 failed"),
            ("0 4xx", "3 4xx"),
            ("status codes", "states"),
        ] {
            assert!(h2load(&fine.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn handshakes_of_the_other_kind_fail_s_time() {
        let new = "Collecting connection statistics for 1 seconds\n***\n\n3 connections in 0.51s;";
        assert_eq!(s_time(new, false).unwrap(), 3);
        assert!(s_time(new, true).is_err());
        let reuse =
            "\n\nNow timing with session id reuse.\nstarting\n*rrr\n\n4 connections in 0.1s;";
        assert_eq!(s_time(reuse, true).unwrap(), 4);
        assert!(s_time(reuse, false).is_err());
        assert!(s_time("starting\n*rr*\n", true).is_err());
    }

    #[test]
    fn answers_other_than_301_fail_hey_and_wrk() {
        let fine = "Status code distribution:\n  [301]\t1234 responses\n";
        assert_eq!(hey(fine).unwrap(), 1234);
        assert!(hey(&fine.replace("301", "502")).is_err());
        assert!(hey(&format!("{fine}  [404]\t1 responses\n")).is_err());
        assert!(hey(&format!("{fine}\nError distribution:\n  [1]\tEOF")).is_err());
        let fine = "  31234 requests in 1.00s, 9.01MB read\nRequests/sec:  31200.1\n";
        assert_eq!(wrk(fine).unwrap(), 31_234);
        assert!(wrk(&format!("{fine}  Non-2xx or 3xx responses: 4\n")).is_err());
        assert!(wrk("unable to connect").is_err());
    }

    #[test]
    fn a_program_is_measured_and_its_failure_is_told_with_its_name() {
        let target = crate::load::testing::unused_address();
        let count = |said: &str| Ok(said.lines().count() as u64);
        let outcome = measure(Path::new("seq"), &["3"], &target, 1, count).unwrap();
        assert_eq!(outcome.units, 3);
        let error = measure(Path::new("false"), &["3"], &target, 1, count).err().unwrap();
        assert!(error.to_string().contains("false"), "{error}");
    }
}
