//! A queue whose reader stands still, and lines that are lost.

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;

use super::*;

/// Diagnostics that are written to a pipe. The report of dropped lines is `N lost`.
fn piped() -> (PipeReader, Diagnostics) {
    let (reader, writer) = io::pipe().unwrap();
    let (give_queue, queue) = channel::<Arc<Queue>>();
    let own = std::sync::OnceLock::new();
    let report = move |lost| {
        let queue = own.get_or_init(|| queue.recv().unwrap());
        writeln!(&**queue, "{lost} lost").unwrap();
    };
    let diagnostics = Diagnostics::over(OwnedFd::from(writer).into(), report).unwrap();
    give_queue.send(Arc::clone(diagnostics.queue())).unwrap();
    (reader, diagnostics)
}

fn say(diagnostics: &Diagnostics, line: &str) {
    (&**diagnostics.queue()).write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Reads up to and including this line.
fn read_to(reader: &mut impl Read, last: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(format!("{last}\n").as_bytes()) {
        reader.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn lines_of_a_thread_come_in_order_and_a_flush_waits_for_them() {
    let (mut reader, diagnostics) = piped();
    (0..100).for_each(|number| say(&diagnostics, &number.to_string()));
    diagnostics.flush();
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    let mut text = vec![0; expected.len()];
    // They are in the pipe already.
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    reader.read_exact(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_reader_that_stands_still_costs_lines_that_are_counted_and_bounded_memory() {
    let (mut reader, diagnostics) = piped();
    let dropped = || diagnostics.queue().dropped.load(Ordering::Relaxed);
    let mut said = 0;
    // Far more than the pipe, the write in progress and the queue hold together.
    while dropped() < 1000 {
        say(&diagnostics, &format!("{said:0>999}"));
        said += 1;
        assert!(said < 10_000, "the queue grows on and on");
    }
    assert!(diagnostics.queue().queued_bytes.load(Ordering::Relaxed) <= LIMIT);
    let start = Instant::now();
    diagnostics.flush();
    assert!(start.elapsed() >= FLUSH_LIMIT, "it waits a while");
    assert!(start.elapsed() < 10 * FLUSH_LIMIT, "but not for long");

    let lost = dropped();
    let text = thread::spawn(move || {
        // The report may come in parts: it fits into the queue after the first write.
        let mut text = String::new();
        let told = |text: &str| -> u64 {
            let lines = text.lines().filter_map(|line| line.strip_suffix(" lost"));
            lines.map(|count| count.parse::<u64>().unwrap()).sum()
        };
        while told(&text) < lost {
            text += &read_to(&mut reader, " lost");
        }
        assert_eq!(told(&text), lost);
        text
    });
    let text = text.join().unwrap();
    let lines = text.lines().filter(|line| !line.ends_with(" lost"));
    let numbers: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert!(numbers.len() as u64 + lost <= said, "{} and {lost} of {said}", numbers.len());
}

#[test]
fn lines_that_a_full_disk_did_not_take_are_counted_without_an_end() {
    let file = File::options().write(true).open("/dev/full").unwrap();
    let reported = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reported);
    let report = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let diagnostics = Diagnostics::over(file, report).unwrap();
    say(&diagnostics, "lost");
    diagnostics.flush();
    say(&diagnostics, "lost, too");
    diagnostics.flush();
    assert_eq!(reported.load(Ordering::Relaxed), 0, "a report would fail, too");
}

#[test]
fn one_message_a_second_passes_and_says_how_many_did_not() {
    let throttle = Throttle::default();
    let start = Instant::now();
    let passes = |millis| throttle.pass_at(start + Duration::from_millis(millis));
    assert_eq!([0, 1, 500, 999].map(passes), [Some(0), None, None, None]);
    assert_eq!([1000, 1999, 2000].map(passes), [Some(3), None, Some(1)]);
}
