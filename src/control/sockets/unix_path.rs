//! Paths of Unix sockets: bound, taken over from a process that died, and removed at the end.
//!
//! Several processes may want the same path: a new one beside one that drains, or two that start at
//! once. A path is bound under a lock, and removed only while it is still the file that was bound.

use std::fs::{self, File, Metadata};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::net::UnixStream;

use crate::sys::{self, Address, SocketOptions};

/// The path of a socket that this process removes when it ends. Dropping it removes the path, which
/// must happen while the socket still listens: another process may take over a path that does not
/// answer.
pub(in crate::control) struct OwnPath {
    path: PathBuf,
    file: Option<FileId>,
}

/// Distinguishes a file from its replacement, even if the replacement has the same inode number.
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

/// Binds and listens. Takes the path over if its socket no longer listens.
///
/// # Errors
/// As bind(2) and listen(2). Also EADDRINUSE while another process binds in the same directory,
/// unless this is the last try.
pub(in crate::control) async fn bind(
    path: &Path,
    options: &SocketOptions,
    is_last: bool,
) -> io::Result<(TcpListener, OwnPath)> {
    let _lock = lock(path, is_last)?;
    let address = Address::Unix(path.to_owned());
    let socket = match sys::listen(&address, options, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_abandoned(path, error).await?;
            sys::listen(&address, options, false)?
        }
        result => result?,
    };
    Ok((socket, OwnPath { path: path.to_owned(), file: FileId::at(path) }))
}

/// Locks the directory, so that a socket that is bound but does not listen yet is not taken for an
/// abandoned one. Returns `None` if the directory does not support such locks. The last try goes on
/// without the lock, because any process that can read the directory can hold it.
fn lock(path: &Path, is_last: bool) -> io::Result<Option<File>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(directory) = File::open(parent.unwrap_or(Path::new("."))) else { return Ok(None) };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) if !is_last => Err(Errno::ADDRINUSE.into()),
        Err(_) => Ok(None),
    }
}

/// Removes the socket of a process that died: connects to it are refused. Connects to a file that
/// is not a socket are refused, too, so the file type is checked first.
async fn remove_abandoned(path: &Path, in_use: io::Error) -> io::Result<()> {
    // If the path is gone by now, the next try can bind it.
    let Ok(found) = fs::symlink_metadata(path) else { return Err(in_use) };
    let abandoned = found.file_type().is_socket()
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    // A process without the lock may have replaced the file meanwhile.
    if !abandoned || FileId::at(path) != Some(FileId::of(&found)) {
        return Err(in_use);
    }
    fs::remove_file(path)
}

/// Returns true if there is a socket at the path. Otherwise no client can reach one that was bound
/// there.
pub(in crate::control) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

impl FileId {
    /// `None` if there is no file.
    fn at(path: &Path) -> Option<FileId> {
        fs::symlink_metadata(path).ok().map(|file| FileId::of(&file))
    }

    fn of(file: &Metadata) -> FileId {
        FileId { device: file.dev(), inode: file.ino(), created: file.created().ok() }
    }
}

impl OwnPath {
    /// The path of a socket that another process has bound, and that it leaves to this one.
    pub(super) fn adopt(path: &Path) -> OwnPath {
        OwnPath { path: path.to_owned(), file: FileId::at(path) }
    }

    /// Returns true if the path leads clients to this socket no more: it is gone, or another file
    /// has replaced it.
    pub(super) fn is_lost(&self) -> bool {
        self.file.is_some() && FileId::at(&self.path) != self.file
    }

    /// Does not remove the path, because another process does.
    pub(super) fn leave(mut self) {
        self.file = None;
    }
}

impl Drop for OwnPath {
    /// Removes the path, unless another file has replaced it.
    fn drop(&mut self) {
        let found = FileId::at(&self.path);
        if found.is_some() && found == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}
