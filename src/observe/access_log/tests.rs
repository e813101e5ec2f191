//! Recorders and the writer together, on real files and pipes.
//!
//! Properties of a single part are tested beside that part. The tests here check the properties of
//! the whole: order, bounds on memory and time, and that every record is either written or counted.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::recorder::LIMIT;
use super::writer::QUEUE;
use super::*;
use crate::observe::outcome::{End, Relay};
use crate::sys::Address;

/// Far longer than any test here needs.
const DEADLINE: Duration = Duration::from_secs(20);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

pub(super) fn note(lane: &Lane, listener: &str, number: u64) {
    let client = Address::Ip(([192, 0, 2, 7], 51000).into());
    let record = Record {
        start: UNIX_EPOCH,
        listener,
        protocol: "tcp",
        client: &client,
        method: None,
        host: None,
        path: None,
        status: None,
        route: None,
        cluster: None,
        endpoint: None,
        attempts: None,
        failed_endpoints: &[],
        reason: None,
        duration: Duration::ZERO,
        connect: None,
        bytes_up: number,
        bytes_down: 0,
        relay: Relay::Copy,
        end: End::Client,
        upstream_status: None,
        first_byte: None,
        is_reused: None,
        retries: None,
        copied: None,
        body_bytes: 0,
        referer: None,
        user_agent: None,
        tls: None,
    };
    // A little more than 128 bytes, so that a thousand records fill several batches.
    let format = Format::template(&format!("%{{listener}} %{{bytes_up}} {:x>120}", "")).unwrap();
    lane.record(&format, &record);
}

/// The listener and the number of every line.
fn lines(text: &str) -> Vec<(&str, u64)> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let parse = |line: &'_ str| -> Option<u64> {
        let mut words = line.split(' ').skip(1);
        let number = words.next()?.parse().ok()?;
        (words.next()?.len() == 120 && words.next().is_none()).then_some(number)
    };
    let line = |line| {
        let number = parse(line).unwrap_or_else(|| panic!("not a whole line: {line}"));
        (line.split(' ').next().unwrap(), number)
    };
    text.lines().map(line).collect()
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    (directory, path)
}

/// A writer, and the recorder and the lane of one worker to a file.
fn start(path: &Path) -> (Writer, Recorder, Rc<Lane>) {
    let mut writer = Writer::start().unwrap();
    let sink = writer.open(&Target::File(path.to_owned())).unwrap();
    let recorder = Recorder::default();
    let lane = recorder.lane(&sink);
    (writer, recorder, lane)
}

#[test]
fn every_record_arrives_in_the_order_of_its_worker() {
    let (_directory, path) = temporary();
    // Two logs in one file, as two listeners may have them.
    let mut writer = Writer::start().unwrap();
    let file = Target::File(path.clone());
    let sinks = [&file, &Target::Stdout, &file].map(|target| writer.open(target).unwrap());
    assert!(Arc::ptr_eq(&sinks[0], &sinks[2]));
    let workers: Vec<_> = ["one", "two", "three"]
        .map(|name| {
            let sinks = sinks.clone();
            thread::spawn(move || {
                let recorder = Recorder::default();
                let lanes = sinks.map(|sink| recorder.lane(&sink));
                for number in 0..5000 {
                    note(&lanes[if number % 3 == 0 { 0 } else { 2 }], name, number);
                    if number % 700 == 0 {
                        recorder.flush();
                    }
                }
            })
        })
        .into();
    for worker in workers {
        worker.join().unwrap();
    }
    drop(sinks);
    assert_eq!(writer.lost(), 0);
    writer.close();

    let text = fs::read_to_string(&path).unwrap();
    let lines = lines(&text);
    assert_eq!(lines.len(), 15_000);
    for name in ["one", "two", "three"] {
        let numbers = lines.iter().filter(|line| line.0 == name).map(|line| line.1);
        assert!(numbers.eq(0..5000), "{name}");
    }
}

#[test]
fn nothing_is_written_before_the_flush_and_everything_after_it() {
    let (_directory, path) = temporary();
    let (writer, recorder, lane) = start(&path);
    note(&lane, "web", 1);
    assert_eq!(fs::read(&path).unwrap(), b"");
    recorder.flush();
    eventually("the record in the file", || fs::metadata(&path).unwrap().len() > 0);
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), [("web", 1)]);
    recorder.close();
    writer.close();
}

#[test]
fn after_a_rotation_records_go_to_the_new_file() {
    let (directory, path) = temporary();
    let rotated = directory.path().join("access.log.1");
    let (writer, recorder, lane) = start(&path);
    note(&lane, "web", 1);
    recorder.flush();
    eventually("the first record", || fs::metadata(&path).unwrap().len() > 0);

    fs::rename(&path, &rotated).unwrap();
    writer.reopen();
    eventually("the new file", || path.exists());
    note(&lane, "web", 2);
    recorder.close();
    writer.close();
    assert_eq!(lines(&fs::read_to_string(&rotated).unwrap()), [("web", 1)]);
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), [("web", 2)]);
}

#[test]
fn a_full_disk_loses_records_and_counts_each() {
    let (writer, recorder, lane) = start(Path::new("/dev/full"));
    for number in 0..2000 {
        note(&lane, "web", number);
    }
    recorder.flush();
    eventually("all counted as lost", || writer.lost() == 2000);
    recorder.close();
    writer.close();
}

#[test]
fn starting_fails_with_the_path_in_the_message() {
    let target = Target::File("/nowhere/at/all/access.log".into());
    let error = Writer::start().unwrap().open(&target).err().unwrap().to_string();
    assert!(error.contains("/nowhere/at/all/access.log"), "{error}");
}

/// A path that opens as a FIFO while the reader exists.
fn fifo() -> (File, PathBuf) {
    let (reader, _) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    (File::from(OwnedFd::from(reader)), path.into())
}

#[test]
fn a_reader_that_stands_still_costs_records_but_neither_memory_nor_the_worker() {
    let (mut reader, fifo) = fifo();
    let (_directory, other) = temporary();
    let (mut writer, recorder, lane) = start(&fifo);
    let other_lane = recorder.lane(&writer.open(&Target::File(other.clone())).unwrap());

    // More than the pipe, the queue and the batch hold together.
    let mut recorded = 0;
    while writer.lost() < 1000 {
        note(&lane, "web", recorded);
        recorded += 1;
        let held = recorded * 125;
        assert!(held < ((QUEUE + 2) * 64 * 1024 + LIMIT + 2_000_000) as u64, "grows on and on");
    }
    // The other file has its own thread and does not wait.
    note(&other_lane, "other", 7);
    recorder.flush();
    eventually("the other file", || fs::metadata(&other).unwrap().len() > 0);

    // The reader continues: the records that were kept arrive whole and in order, and only the
    // counted ones are missing.
    let (sender, received) = channel();
    let reading = thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut text = Vec::new();
        // The writer's own end of the FIFO keeps it open, so a last line marks the end of the data.
        let is_last = |line: &[u8]| line.starts_with(b"last ");
        while !(text.ends_with(b"\n")
            && text.rsplit(|byte| *byte == b'\n').nth(1).is_some_and(is_last))
        {
            let count = reader.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
        }
        sender.send(String::from_utf8(text).unwrap()).unwrap();
    });
    eventually("room for another record", || {
        recorder.flush();
        let lost = writer.lost();
        note(&lane, "web", recorded);
        recorded += 1;
        writer.lost() == lost
    });
    note(&lane, "last", recorded);
    let mut text = String::new();
    eventually("the last record", || {
        recorder.flush();
        received.try_recv().map(|read| text = read).is_ok()
    });
    let lost = writer.lost();
    recorder.close();
    reading.join().unwrap();
    writer.close();

    let lines = lines(&text);
    assert!(lines.is_sorted_by(|one, next| one.1 < next.1));
    assert_eq!(lines.len() as u64 + lost, recorded + 1);
    assert!(lost >= 1000);
}

#[test]
fn closing_gives_up_on_a_file_that_takes_nothing() {
    let (_reader, path) = fifo();
    let (writer, recorder, lane) = start(&path);
    for number in 0..5000 {
        note(&lane, "web", number);
    }
    recorder.close();
    let start = Instant::now();
    writer.close();
    assert!(start.elapsed() > Duration::from_secs(1), "it waits a while");
    assert!(start.elapsed() < Duration::from_secs(10), "but not for long");
}

#[test]
fn a_file_is_kept_open_while_others_are_opened_but_not_by_an_opening_that_hangs() {
    let (_directory, path) = temporary();
    let (mut writer, recorder, lane) = start(&path);
    let target = Target::File(path);
    let (mut opening, kept) = (writer.opening(), writer.keep());
    recorder.close();
    drop((lane, recorder));
    opening.open(&target).unwrap();
    drop(writer.sink(&target, &mut opening).unwrap());
    assert_eq!(writer.closed(), 0);
    drop(kept);
    eventually("the thread to end", || writer.closed() == 1);
    assert!(writer.sink(&target, &mut opening).is_err());
}

#[test]
fn a_file_that_is_not_used_any_more_is_closed_and_can_be_opened_again() {
    let (_directory, path) = temporary();
    let (mut writer, recorder, lane) = start(&path);
    note(&lane, "web", 1);
    drop(lane);
    // The lane still has a record, so the first flush keeps it.
    recorder.flush();
    recorder.flush();
    eventually("the thread to end", || writer.closed() == 1);
    let sink = writer.open(&Target::File(path.clone())).unwrap();
    let lane = recorder.lane(&sink);
    drop(sink);
    note(&lane, "web", 2);
    recorder.close();
    // A task that was abandoned still has its lane.
    note(&lane, "web", 3);
    writer.close();
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), [("web", 1), ("web", 2)]);
}
