//! The disk of a log is full: service goes on, losses are counted and reported, and writing goes on
//! when there is room.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use super::DRIVERS;
use crate::support::{
    HttpClient, LONG, Ringgate, SHORT, Setup, as_ordinary_user, free_port, inside_namespace,
    require, run, stream_site, wait_for,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: live.example.test\r\n\r\n";
const LOST: &str = "access log: records lost in writing";

/// A site whose listener `web` has a log of its own.
fn start(driver: &str, log: &Path) -> Ringgate {
    let site = stream_site(free_port().address(), "");
    let log = format!("access_log = {{ path = {log:?}, format = \"json\" }}\nprotocol");
    let config = site.replacen("protocol", &log, 1);
    let server = format!("driver = \"{driver}\"");
    Setup { config, server, ..Setup::default() }.start()
}

/// Requests over one connection.
#[track_caller]
fn serves(client: &mut HttpClient, count: usize) {
    for _ in 0..count {
        client.send(GET);
        assert_eq!(client.response().status, 301);
    }
}

/// The records that were reported as lost, and in how many lines.
fn lost(gate: &Ringgate) -> (usize, usize) {
    let lines = gate.lines();
    let numbers = lines.iter().filter(|line| line.contains(LOST)).map(|line| {
        let number = line.split("records=").nth(1).and_then(|rest| rest.split(' ').next());
        number.unwrap().parse::<usize>().unwrap()
    });
    (numbers.clone().sum(), numbers.count())
}

#[test]
fn records_that_do_not_fit_the_disk_are_counted_until_there_is_room() {
    if !inside_namespace(
        "faults::disks::records_that_do_not_fit_the_disk_are_counted_until_there_is_room",
    ) {
        return;
    }
    for driver in DRIVERS {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = require("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(dir.path());
        assert!(run(&mut mount).status.success());
        let (log, filler) = (dir.path().join("access.log"), dir.path().join("filler"));
        fs::write(&filler, [0; 128 * 1024]).unwrap();
        let mut gate = start(driver, &log);
        let mut client = HttpClient::connect(gate.address("web"));

        let (begin, mut requests) = (Instant::now(), 0);
        wait_for("losses are reported three times", SHORT, || {
            serves(&mut client, 20);
            requests += 20;
            (lost(&gate).1 >= 3).then_some(())
        });
        let most = begin.elapsed().as_secs() as usize + 2;
        assert!(lost(&gate).1 <= most, "{} lines, {most} at most, over {driver}", lost(&gate).1);
        let line = gate.line_with(LOST);
        assert!(line.contains("No space left on device"), "{line}");
        assert!(line.contains(log.to_str().unwrap()), "{line}");

        let written = fs::metadata(&log).unwrap().len();
        fs::remove_file(&filler).unwrap();
        serves(&mut client, 20);
        requests += 20;
        wait_for("it is written again", SHORT, || {
            (fs::metadata(&log).unwrap().len() > written).then_some(())
        });
        drop(client);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        // Every record is a whole line of the file or reported as lost.
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len() + lost(&gate).0, requests, "over {driver}");
        assert!(run(require("umount").arg(dir.path())).status.success());
    }
}

#[test]
fn a_log_that_takes_nothing_loses_every_record_and_says_so() {
    for driver in DRIVERS {
        let mut gate = start(driver, Path::new("/dev/full"));
        let mut client = HttpClient::connect(gate.address("web"));
        serves(&mut client, 50);
        gate.line_with(LOST);
        drop(client);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0));
        assert_eq!(lost(&gate).0, 50, "over {driver}");
    }
}

#[test]
fn diagnostics_that_cannot_be_written_hold_nothing_up() {
    for driver in DRIVERS {
        let dir = tempfile::tempdir().unwrap();
        // An ordinary user makes the path.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let path = dir.path().join("listen.sock");
        let config = stream_site(free_port().address(), "");
        let config = config.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
        let server = format!("driver = \"{driver}\"");
        let through = Some(as_ordinary_user("exec 2>/dev/full"));
        let mut gate = Setup { config, server, through, ..Setup::default() }.spawn();
        let stream = wait_for("it listens", LONG, || UnixStream::connect(&path).ok());
        stream.set_read_timeout(Some(SHORT)).unwrap();
        let mut client = HttpClient::over(stream);
        // Each of these would be a line of diagnostics.
        (0..20).for_each(|_| gate.signal(Signal::ALARM));
        client.send(GET);
        assert_eq!(client.response().status, 301, "over {driver}");
        drop(client);
        gate.signal(Signal::TERM);
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "over {driver}");
    }
}
