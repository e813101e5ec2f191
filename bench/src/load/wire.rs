//! What the loads need of a connection, plain or TLS.
//!
//! The loads are generic over it, so that a plain one makes the same calls as it would without TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};

use super::dial::{Target, connect};
use super::source::Source;

/// A connection to the proxy. `Read` and `Write` are for the time while it blocks, the methods here
/// for the time after that.
pub(crate) trait Wire: AsFd + Read + Write + Sized {
    /// Makes connections, and is made once for all connections of a run.
    type Dialler;
    /// Bytes that `receive` needs for what arrives.
    const SCRATCH: usize;

    fn dialler(target: &Target) -> io::Result<Self::Dialler>;

    /// Connects, with a limit on the time of each step. The connection blocks.
    fn connect(dialler: &Self::Dialler, target: &Target) -> io::Result<Self>;

    fn socket(&self) -> &TcpStream;

    /// Sends one message and returns how much of it the socket took.
    fn send(&mut self, message: &[u8]) -> io::Result<usize>;

    /// Sends up to `most` bytes of the source behind the `before` that were sent already.
    fn send_bulk(&mut self, source: &Source, most: u64, before: u64) -> io::Result<usize>;

    /// Returns true while bytes that were sent are not yet in the socket.
    fn is_sending(&self) -> bool;

    /// Receives into `buffer`; 0 at the end of the stream.
    fn receive(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<usize>;

    /// Receives bytes only to count them; 0 at the end of the stream.
    fn discard(&mut self, scratch: &mut [u8], flags: RecvFlags) -> io::Result<usize>;

    /// Ends the way to the proxy. The connection blocks.
    fn end(&mut self) -> io::Result<()>;
}

impl Wire for TcpStream {
    type Dialler = ();
    const SCRATCH: usize = 0;

    fn dialler(_: &Target) -> io::Result<()> {
        Ok(())
    }

    fn connect((): &(), target: &Target) -> io::Result<Self> {
        connect(target.connect)
    }

    fn socket(&self) -> &TcpStream {
        self
    }

    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, message, SendFlags::NOSIGNAL)?)
    }

    fn send_bulk(&mut self, source: &Source, most: u64, before: u64) -> io::Result<usize> {
        Ok(source.send(self, most, before)?)
    }

    fn is_sending(&self) -> bool {
        false
    }

    fn receive(&mut self, buffer: &mut [u8], _: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buffer, RecvFlags::empty())?.1)
    }

    fn discard(&mut self, scratch: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        Ok(rustix::net::recv(self, scratch, flags)?.1)
    }

    fn end(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
