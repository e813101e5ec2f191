//! Descriptors that are made ahead of their use, because later there may be none left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A second descriptor of a socket, for the runtime of a worker, which closes it. Clones share it.
#[derive(Clone, Default)]
pub struct SpareDescriptor(Option<Arc<OwnedFd>>);

impl SpareDescriptor {
    /// Makes one for a socket.
    ///
    /// # Errors
    /// As dup(2): EMFILE.
    pub fn of(socket: &impl AsFd) -> io::Result<SpareDescriptor> {
        let fd = socket.as_fd().try_clone_to_owned()?;
        Ok(SpareDescriptor(Some(Arc::new(fd))))
    }

    /// Takes the descriptor. One that is empty, or that a clone has, makes another one.
    ///
    /// # Errors
    /// As dup(2), only if it makes another one.
    pub fn take(self, socket: &impl AsFd) -> io::Result<OwnedFd> {
        match self.0.and_then(Arc::into_inner) {
            Some(fd) => Ok(fd),
            None => socket.as_fd().try_clone_to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_last_clone_takes_the_descriptor() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let spare = SpareDescriptor::of(&socket).unwrap();
        let made = spare.0.as_ref().unwrap().as_raw_fd();
        let clone = spare.clone();
        assert_ne!(clone.take(&socket).unwrap().as_raw_fd(), made);
        assert_eq!(spare.take(&socket).unwrap().as_raw_fd(), made);
        assert!(SpareDescriptor::default().take(&socket).is_ok());
    }
}
