//! Servers for the tests of the loads: the sink, a site, and nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{Target, head_end};
use super::source::Send;
use crate::ports;
use crate::sink::{self, Manner};

pub(crate) fn target(connect: SocketAddr, path: Option<&str>) -> Target {
    let path = path.map(str::to_string);
    Target {
        connect,
        path,
        framed: false,
        host: "a.test".into(),
        pid: None,
        cpu: None,
        json: false,
    }
}

/// A sink that serves until the tests are over.
pub(crate) fn sink(upgrade: bool) -> Target {
    let listener = sink::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target(listener.local_addr().unwrap(), upgrade.then_some("/stream"));
    let discard = sink::discard(!upgrade);
    let send = if upgrade { Send::File } else { Send::Copy };
    let manner = Manner { upgrade, discard, send, nice: None, discarded: None };
    let deadline = Instant::now() + Duration::from_secs(60);
    thread::spawn(move || sink::serve(vec![listener], manner, deadline));
    target
}

/// An address where nobody listens.
pub(crate) fn nobody() -> Target {
    target(([127, 0, 0, 1], ports::lend().unwrap()).into(), None)
}

/// A server that gives every request the same answer.
pub(crate) fn http(answer: &'static str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(listener.local_addr().unwrap(), None);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || answer_all(stream, answer));
        }
    });
    target
}

/// Requests come one at a time, and what is no request at all is answered, too.
fn answer_all(mut stream: TcpStream, answer: &str) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let request = &buffer[..length];
        let close = request.windows(5).any(|word| word == b"close") || head_end(request).is_none();
        if stream.write_all(answer.as_bytes()).is_err() || close {
            return;
        }
    }
}
