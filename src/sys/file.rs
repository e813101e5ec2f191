//! Files below a directory, opened and read without waiting for a disk.
//!
//! The kernel resolves a path and checks that it stays below the directory in one step
//! (openat2(2), RESOLVE_BENEATH), so no change of the tree in between leads elsewhere. With
//! [`Lookup::Cached`] the kernel fails if it would have to wait for a disk to find the file
//! (RESOLVE_CACHED), and [`File::read_cached`] fails if it would have to wait for the bytes
//! (RWF_NOWAIT). The caller then does the same on a thread that may wait.
//!
//! openat2 and preadv2 are rustix's, because the standard library has neither.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Advice, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fadvise, fstat, fstatfs, openat2,
};
use rustix::io::{IoSliceMut, ReadWriteFlags, pread, preadv2, retry_on_intr};

use super::Errno;

/// Files are read into the page cache in blocks of this many bytes: [`File::read_blocks`] reads
/// whole ones, and [`File::cached`] looks at each. The kernel reads ahead in windows of this size
/// by default (read_ahead_kb).
const BLOCK: u64 = 128 * 1024;
/// How often a lookup is tried again that met a change of the tree (openat2(2), EAGAIN).
const RETRIES: usize = 16;

/// File systems of this machine (linux/magic.h): a lookup in their caches waits for nothing.
const LOCAL: &[u64] = &[
    TMPFS,
    RAMFS,
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x794c_7630, // overlayfs
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
    0x9660,      // ISO 9660
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// What a lookup may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Cached,
    /// A disk or a network. For threads that may wait only.
    Blocking,
}

/// What one file has in common with no other, and what changes with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The device of the file system.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// When the bytes were modified, in nanoseconds since 1970.
    pub modified: i128,
    /// When the inode was changed, in nanoseconds since 1970.
    pub changed: i128,
}

/// Where the bytes of a file system are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    /// In memory, apart from swap.
    Memory,
    /// On a disk of this machine.
    Disk,
    /// Behind a network or a process, or not known.
    Remote,
}

/// A directory that files are opened below.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// Of the directory itself.
    device: u64,
    inode: u64,
    medium: Medium,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Opened {
    /// A regular file.
    File(File, Metadata),
    /// A directory.
    Directory,
    /// A device, a pipe or a socket, which is closed again.
    Other,
}

/// A regular file that is open for reading. Threads may share it: reads name their position.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
    /// Whether all bytes are in memory.
    is_memory: bool,
}

impl Directory {
    /// Opens a directory. Symbolic links in its path are followed.
    ///
    /// # Errors
    /// As openat2(2). `AGAIN` if a lookup that may not wait would have to.
    pub fn open(path: &Path, lookup: Lookup) -> Result<Directory, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(CWD, path.as_os_str(), flags, ResolveFlags::empty(), lookup)?;
        let stat = fstat(&fd)?;
        let medium = match fstatfs(&fd)?.f_type as u64 {
            TMPFS | RAMFS => Medium::Memory,
            local if LOCAL.contains(&local) => Medium::Disk,
            _ => Medium::Remote,
        };
        Ok(Directory { fd, device: stat.st_dev, inode: stat.st_ino, medium })
    }

    /// Returns true if a lookup below this directory can do without waiting at all.
    pub fn is_local(&self) -> bool {
        self.medium != Medium::Remote
    }

    /// Returns true if both are the same directory.
    pub fn is_same(&self, other: &Directory) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Opens the file with this relative path. The path must not lead out of the directory. If
    /// `symlinks` is false it must have no symbolic link. Nothing waits for a pipe's writer or a
    /// device (O_NONBLOCK).
    ///
    /// # Errors
    /// As openat2(2): `XDEV` if the path leads out, `LOOP` if it has a symbolic link that is not
    /// allowed, `NXIO` for a socket. `AGAIN` if a lookup that may not wait would have to.
    pub fn open_below(&self, path: &[u8], symlinks: bool, lookup: Lookup) -> Result<Opened, Errno> {
        if lookup == Lookup::Cached && !self.is_local() {
            return Err(Errno::AGAIN);
        }
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if !symlinks {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        if lookup == Lookup::Cached {
            // A file system that is mounted below may be one that waits, even for fstat(2).
            resolve |= ResolveFlags::NO_XDEV;
        }
        let fd = match open(self.fd.as_fd(), path, flags, resolve, lookup) {
            Err(Errno::XDEV) if lookup == Lookup::Cached => return Err(Errno::AGAIN),
            fd => fd?,
        };
        let stat = fstat(&fd)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let is_memory = self.medium == Medium::Memory && stat.st_dev == self.device;
                Opened::File(File { fd, is_memory }, Metadata::of(&stat))
            }
            FileType::Directory => Opened::Directory,
            _ => Opened::Other,
        })
    }
}

fn open(
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
    lookup: Lookup,
) -> Result<OwnedFd, Errno> {
    let open = |resolve| openat2(directory, path, flags, Mode::empty(), resolve);
    if lookup == Lookup::Cached {
        return match open(resolve | ResolveFlags::CACHED) {
            // Linux before 5.12 has no such lookup.
            Err(Errno::INVAL | Errno::INTR) => Err(Errno::AGAIN),
            opened => opened,
        };
    }
    let mut result = Err(Errno::AGAIN);
    for _ in 0..RETRIES {
        result = retry_on_intr(|| open(resolve));
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

/// Checks that the kernel can open files below a directory.
///
/// # Errors
/// `NOSYS` before Linux 5.6; `PERM` or another error if a filter refuses the call.
pub fn probe_open_below() -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map(drop)
}

impl Metadata {
    fn of(stat: &Stat) -> Metadata {
        let nanoseconds = |seconds, part| i128::from(seconds) * 1_000_000_000 + i128::from(part);
        Metadata {
            device: stat.st_dev,
            inode: stat.st_ino,
            // Never negative.
            size: stat.st_size as u64,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl File {
    /// What the file is now.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn metadata(&self) -> Result<Metadata, Errno> {
        Ok(Metadata::of(&fstat(&self.fd)?))
    }

    /// Reads bytes that are in the page cache; 0 is the end of the file.
    ///
    /// # Errors
    /// `AGAIN` if the first of them is not there; otherwise as preadv2(2).
    pub fn read_cached(&self, buffer: &mut [u8], position: u64) -> Result<usize, Errno> {
        if self.is_memory {
            return self.read(buffer, position);
        }
        let read = || {
            let mut slices = [IoSliceMut::new(&mut *buffer)];
            preadv2(&self.fd, &mut slices, position, ReadWriteFlags::NOWAIT)
        };
        match retry_on_intr(read) {
            // The file system cannot read without waiting.
            Err(Errno::OPNOTSUPP) => Err(Errno::AGAIN),
            read => read,
        }
    }

    /// Returns how many of the bytes from `position` on are in the page cache, at most `length`.
    /// Looks at the first byte and at the last one of each block, because [`File::read_blocks`]
    /// reads whole blocks. Single pages may be missing still if the kernel has dropped them, or if
    /// another program has read a part of a block.
    pub fn cached(&self, position: u64, length: u64) -> u64 {
        if self.is_memory {
            return length;
        }
        let (mut at, end) = (position, position + length);
        while at < end {
            let next = ((at / BLOCK + 1) * BLOCK).min(end);
            let is_first = at == position;
            if is_first && self.read_cached(&mut [0], at) != Ok(1)
                || self.read_cached(&mut [0], next - 1) != Ok(1)
            {
                break;
            }
            at = next;
        }
        at - position
    }

    /// Reads bytes, and waits for them; 0 is the end of the file. For threads that may wait, and
    /// for files in memory.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read(&self, buffer: &mut [u8], position: u64) -> Result<usize, Errno> {
        retry_on_intr(|| pread(&self.fd, &mut *buffer, position))
    }

    /// Reads up to `length` bytes, and waits for them, together with the rest of the blocks that
    /// they are in: after that [`File::cached`] is right about these. Returns no bytes at the end
    /// of the file.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_blocks(&self, position: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let start = position / BLOCK * BLOCK;
        let end = (position + length as u64).next_multiple_of(BLOCK);
        // The caller asks for a few blocks.
        let mut bytes = vec![0; (end - start) as usize];
        let mut read = 0;
        while read < bytes.len() {
            match self.read(&mut bytes[read..], start + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        let before = (position - start) as usize;
        bytes.truncate(read.min(before + length));
        bytes.drain(..before.min(bytes.len()));
        Ok(bytes)
    }

    /// Lets the kernel begin to read these bytes into the page cache (posix_fadvise(2)). May wait
    /// for a disk itself.
    pub fn prefetch(&self, position: u64, length: u64) {
        // Only advice: without it the bytes are read later.
        let _ = fadvise(&self.fd, position, NonZeroU64::new(length), Advice::WillNeed);
    }
}

#[cfg(test)]
mod tests;
