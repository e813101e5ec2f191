//! Limits that a reload lowers or removes while something is within the old ones.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::reload::{page, start};
use crate::support::{
    HttpClient, LONG, bytes, free_port, holds_for, inside_namespace, slow_reader,
};

const BOTH: [&str; 2] = ["io_uring", "epoll"];
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_response_is_sent_to_its_end_long_after_its_listener_was_removed() {
    let name = "reload_limits::a_response_is_sent_to_its_end_long_after_its_listener_was_removed";
    if !inside_namespace(name) {
        return;
    }
    // A response that the client does not read waits in the process, not in the kernel.
    fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 32768").unwrap();
    for driver in BOTH {
        let (one, two) = (free_port().address(), free_port().address());
        let directory = tempfile::tempdir().unwrap();
        let (file, sent) = (directory.path().join("body.txt"), bytes(1, 1 << 20));
        fs::write(&file, &sent).unwrap();
        let stays = page("stays", one, "stays");
        let goes =
            page("goes", two, "goes").replace("body = \"goes\"", &format!("file = {file:?}"));
        let gate = start(&(stays.clone() + &goes), driver);
        let mut idle = HttpClient::connect(two);
        idle.send(GET);
        assert!(idle.response().body == sent);
        let mut slow = slow_reader(two);
        slow.write_all(GET.as_bytes()).unwrap();
        let mut slow = HttpClient::over(slow);
        slow.head_only();
        gate.reload(&stays);
        // The service ends with its idle connections.
        idle.stream.set_read_timeout(Some(LONG)).unwrap();
        idle.expect_end();
        // Each pause of the client is longer than a limit of 0 would be.
        for piece in sent.chunks(sent.len() / 4) {
            assert!(slow.take(piece.len()) == piece, "{driver}");
            let is_open = || slow.stream.take_error().unwrap().is_none();
            holds_for("the response goes on", Duration::from_millis(300), is_open);
        }
        slow.expect_end();
    }
}
