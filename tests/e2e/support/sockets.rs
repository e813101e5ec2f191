//! TCP connections as the tests make, read and break them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::wait::let_it_be_read;
use socket2::{Domain, Socket, Type};

use super::{LONG, bytes};

/// Connects; reads and writes fail after [`LONG`] instead of hanging the test.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("connect {address}: {e}"));
    with_deadlines(stream)
}

pub(crate) fn with_deadlines(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Ends the connection with a reset (SO_LINGER of 0, socket(7)).
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The peer closes in order, with nothing more to say.
#[track_caller]
pub(crate) fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(read.is_ok() && rest.is_empty(), "instead of an end: {read:?} {rest:?}");
}

/// The peer's side was reset, and this is not told as an orderly end.
#[track_caller]
pub(crate) fn expect_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).expect_err("an orderly end instead of a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "instead of a reset: {error}");
}

/// The connection is over, in order or by a reset, and nothing came before that.
#[track_caller]
pub(crate) fn expect_closed(stream: &mut TcpStream) {
    match stream.read(&mut [0; 256]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("instead of an end: {other:?}"),
    }
}

/// Nothing arrives for `time`, and the connection stays.
#[track_caller]
pub(crate) fn expect_silence(stream: &mut TcpStream, time: Duration) {
    stream.set_read_timeout(Some(time)).unwrap();
    let mut buffer = [0; 256];
    match stream.read(&mut buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => panic!("instead of silence: {error}"),
        Ok(0) => panic!("instead of silence: the end"),
        Ok(n) => panic!("instead of silence: {:?}", String::from_utf8_lossy(&buffer[..n])),
    }
    stream.set_read_timeout(Some(LONG)).unwrap();
}

/// Everything up to and with `mark`; what came behind it is returned too.
#[track_caller]
pub(crate) fn read_until(stream: &mut TcpStream, mark: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !all.windows(mark.len()).any(|window| window == mark) {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => all.extend_from_slice(&buffer[..count]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    all
}

/// Writes the parts one by one, far enough apart that each is a segment and is read by itself.
#[track_caller]
pub(crate) fn send_slowly(stream: &mut TcpStream, parts: &[&[u8]]) {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            let_it_be_read();
        }
        stream.write_all(part).unwrap();
    }
}

/// Writes until every buffer between the two ends is full.
#[track_caller]
pub(crate) fn jam(stream: &mut TcpStream) {
    stream.write_all(&bytes(3, 1024 * 1024)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write(&[0; 64 * 1024]).is_ok() {}
    stream.set_write_timeout(Some(LONG)).unwrap();
}

/// Raises this process's soft limit, where it is lower: the tests hold the other ends.
pub(crate) fn allow_descriptors(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).unwrap();
    }
}

/// A client whose kernel takes little before it reads: what is sent to it is under way for long.
#[track_caller]
pub(crate) fn slow_reader(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    with_deadlines(socket.into())
}
