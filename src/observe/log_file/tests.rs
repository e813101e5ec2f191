//! Writes that fail, in the middle of a line and between lines.

use std::error::Error as _;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn open(target: Target) -> LogFile {
    let file = target.open().unwrap();
    LogFile::new(target, file, Arc::default())
}

fn lost(log_file: &LogFile) -> u64 {
    log_file.counts.lost.load(Ordering::Acquire)
}

#[test]
fn a_line_ends_where_its_line_feed_is() {
    let lines = b"ab\ncd\n";
    let ends: Vec<usize> = (0..=6).map(|written| end_of_line(lines, written)).collect();
    assert_eq!(ends, [0, 3, 3, 3, 6, 6, 6]);
}

#[test]
fn a_new_file_is_not_for_everyone_and_an_old_one_is_continued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    open(Target::File(path.clone())).write(b"first\n");
    open(Target::File(path.clone())).write(b"second\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "mode {mode:o}");
}

#[test]
fn an_open_that_fails_names_the_path_and_advises() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/access.log");
    let error = Target::File(missing.clone()).open().unwrap_err();
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(cause.map(io::Error::kind), Some(ErrorKind::NotFound));
    let error = error.to_text();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    let advice = format!("create the directory {}/no", directory.path().display());
    assert!(error.contains(&advice), "{error}");

    let error = Target::File(directory.path().to_owned()).open().unwrap_err().to_text();
    assert!(error.contains("name a file inside the directory"), "{error}");
}

#[test]
fn a_full_disk_costs_records_and_a_later_success_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut log_file = open(Target::File(path.clone()));
    log_file.write(b"one\ntwo\n");
    assert_eq!(lost(&log_file), 2);
    let errno = log_file.counts.errno.load(Ordering::Relaxed);
    assert_eq!(errno, rustix::io::Errno::NOSPC.raw_os_error());

    fs::remove_file(&path).unwrap();
    log_file.reopen();
    log_file.write(b"three\n");
    assert_eq!(lost(&log_file), 2);
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
}

#[test]
fn a_torn_line_is_completed_before_anything_else_is_written() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut log_file = open(Target::Stdout);
    log_file.file = File::from(OwnedFd::from(writer));
    // More than a pipe holds, so the write is in progress when the reader closes.
    let line = |number: usize| format!("{number:0>999}\n");
    let lines: String = (0..1000).map(line).collect();

    let reading = std::thread::spawn(move || {
        let mut taken = vec![0; 1500];
        reader.read_exact(&mut taken).unwrap();
        taken
    });
    log_file.write(lines.as_bytes());
    reading.join().unwrap();
    assert!((1..1000).contains(&lost(&log_file)));
    // A pipe takes whole pages, and a line has a thousand bytes.
    let torn = String::from_utf8(log_file.torn.clone()).unwrap();
    assert!(torn.ends_with('\n') && torn.len() < 1000, "{torn}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    log_file.file = Target::File(path.clone()).open().unwrap();
    log_file.write(b"next\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), torn + "next\n");
    assert!(log_file.torn.is_empty());
}

#[test]
fn the_end_of_a_torn_line_never_starts_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut log_file = open(Target::File(path.clone()));
    log_file.torn = b"end of a line\n".to_vec();
    fs::rename(&path, directory.path().join("access.log.1")).unwrap();
    log_file.reopen();
    log_file.write(b"next\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
    let old = fs::read_to_string(directory.path().join("access.log.1")).unwrap();
    assert_eq!(old, "end of a line\n");
    assert_eq!(lost(&log_file), 0);
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let mut log_file = open(Target::File(logs.join("access.log")));
    let moved = directory.path().join("moved");
    fs::rename(&logs, &moved).unwrap();
    log_file.reopen();
    log_file.write(b"line\n");
    assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "line\n");
    assert_eq!(lost(&log_file), 0);
}

#[test]
fn a_pipe_made_non_blocking_is_waited_for() {
    let (mut reader, writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let lines = b"0123456\n".repeat(100_000);
    let expected = lines.clone();
    let writing =
        std::thread::spawn(move || write_accepted(&File::from(OwnedFd::from(writer)), &lines));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    let (written, stopped) = writing.join().unwrap();
    assert!(stopped.is_none());
    assert_eq!(written, expected.len());
    assert!(read == expected);
}
