//! The end of listeners that a reload removes: their service, their clients and their logs.

use std::fs;

use crate::reload::{page, start};
use crate::support::{HttpClient, LONG, free_port, wait_for};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_log_of_a_removed_listener_is_closed_without_another_reload() {
    for driver in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("goes.log");
        let (one, two) = (free_port().address(), free_port().address());
        let stays = page("stays", one, "stays");
        let key = format!("access_log = {{ path = {log:?} }}\nprotocol");
        let goes = page("goes", two, "goes").replace("protocol", &key);
        let gate = start(&(stays.clone() + &goes), driver);
        let is_open = || {
            let files = format!("/proc/{}/fd", gate.pid().as_raw_nonzero());
            let files = fs::read_dir(files).unwrap().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == log)
        };
        let mut client = HttpClient::connect(two);
        client.send(GET);
        client.response();
        assert!(is_open());
        gate.reload(&stays);
        // Its service ends after 5 s.
        wait_for(&format!("the log is closed over {driver}"), LONG, || (!is_open()).then_some(()));
        client.expect_end();
    }
}
