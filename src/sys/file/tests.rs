//! Files of a real directory: what is opened, what is refused, what is in the page cache.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{FileType, Mode, mknodat};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;

use super::*;

const BOTH: [Lookup; 2] = [Lookup::Cached, Lookup::Blocking];

fn root() -> (TempDir, Directory) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("root")).unwrap();
    let directory = Directory::open(&place.path().join("root"), Lookup::Blocking).unwrap();
    (place, directory)
}

fn bytes(opened: Opened) -> Vec<u8> {
    let Opened::File(file, metadata) = opened else { panic!("{opened:?}") };
    let mut bytes = vec![0; 100];
    let read = file.read(&mut bytes, 0).unwrap();
    assert_eq!(read as u64, metadata.size);
    bytes.truncate(read);
    bytes
}

/// The kernel may have to wait for a directory that was just made elsewhere; then there is nothing
/// to see.
fn open(
    directory: &Directory,
    path: &str,
    symlinks: bool,
    lookup: Lookup,
) -> Result<Opened, Errno> {
    match directory.open_below(path.as_bytes(), symlinks, lookup) {
        Err(Errno::AGAIN) => directory.open_below(path.as_bytes(), symlinks, Lookup::Blocking),
        opened => opened,
    }
}

#[test]
fn a_regular_file_and_a_directory_are_told_apart() {
    let (place, directory) = root();
    fs::create_dir(place.path().join("root/a")).unwrap();
    fs::write(place.path().join("root/a/file"), "content").unwrap();
    for lookup in BOTH {
        assert_eq!(bytes(open(&directory, "a/file", false, lookup).unwrap()), b"content");
        for path in ["a", "a/", "", "."] {
            let opened = open(&directory, path, false, lookup).unwrap();
            assert!(matches!(opened, Opened::Directory), "{path}: {opened:?}");
        }
        for (path, errno) in [("b", Errno::NOENT), ("a/file/b", Errno::NOTDIR)] {
            assert_eq!(open(&directory, path, false, lookup).unwrap_err(), errno, "{path}");
        }
    }
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let (place, directory) = root();
    fs::write(place.path().join("secret"), "secret").unwrap();
    fs::create_dir(place.path().join("root/a")).unwrap();
    let link = |to: &str, name: &str| symlink(to, place.path().join("root").join(name)).unwrap();
    link("../secret", "out");
    link(place.path().join("secret").to_str().unwrap(), "absolute");
    link("..", "up");
    link("/proc/self/root", "magic");
    let secret = place.path().join("secret");
    for lookup in BOTH {
        for path in ["../secret", "a/../../secret", "/etc/passwd", secret.to_str().unwrap(), ".."] {
            for symlinks in [false, true] {
                let errno = open(&directory, path, symlinks, lookup).unwrap_err();
                assert_eq!(errno, Errno::XDEV, "{path}");
            }
        }
        for path in ["out", "absolute", "up/secret", "magic/etc/passwd", "a/../out"] {
            let errno = open(&directory, path, false, lookup).unwrap_err();
            assert_eq!(errno, Errno::LOOP, "{path}");
            let errno = open(&directory, path, true, lookup).unwrap_err();
            assert_eq!(errno, Errno::XDEV, "{path}, symbolic links allowed");
        }
    }
}

#[test]
fn a_symbolic_link_inside_is_followed_if_it_is_allowed() {
    let (place, directory) = root();
    fs::write(place.path().join("root/file"), "content").unwrap();
    symlink("file", place.path().join("root/link")).unwrap();
    symlink(".", place.path().join("root/here")).unwrap();
    for lookup in BOTH {
        for path in ["link", "here/file"] {
            assert_eq!(bytes(open(&directory, path, true, lookup).unwrap()), b"content", "{path}");
            assert_eq!(open(&directory, path, false, lookup).unwrap_err(), Errno::LOOP, "{path}");
        }
    }
}

/// Without O_NONBLOCK the pipe would wait for a writer without end.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let (place, directory) = root();
    let make = |name: &str, kind, device| {
        let path = place.path().join("root").join(name);
        mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device)
    };
    make("pipe", FileType::Fifo, 0).unwrap();
    let _listener = UnixListener::bind(place.path().join("root/socket")).unwrap();
    let has_device = make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_ok();
    for lookup in BOTH {
        let opened = open(&directory, "pipe", false, lookup).unwrap();
        assert!(matches!(opened, Opened::Other), "{opened:?}");
        assert_eq!(open(&directory, "socket", false, lookup).unwrap_err(), Errno::NXIO);
        match open(&directory, "null", false, lookup) {
            _ if !has_device => eprintln!("not tested: a device may not be made here"),
            // On a file system that is mounted with nodev.
            Err(errno) => assert_eq!(errno, Errno::ACCESS),
            Ok(opened) => assert!(matches!(opened, Opened::Other), "{opened:?}"),
        }
    }
}

/// Takes the right of this thread to read any file, in case the tests run as root.
fn obey_permissions() {
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(None, sets).unwrap();
}

#[test]
fn a_file_that_may_not_be_read_is_not_opened() {
    let (place, directory) = root();
    let path = place.path().join("root/private");
    fs::write(&path, "private").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    obey_permissions();
    for lookup in BOTH {
        assert_eq!(open(&directory, "private", false, lookup).unwrap_err(), Errno::ACCESS);
    }
}

#[test]
fn an_open_file_keeps_its_bytes_when_it_is_replaced() {
    let (place, directory) = root();
    let path = place.path().join("root/file");
    fs::write(&path, "old").unwrap();
    let Opened::File(file, before) = open(&directory, "file", false, Lookup::Blocking).unwrap()
    else {
        panic!("a regular file")
    };
    fs::write(place.path().join("root/new"), "the new one").unwrap();
    fs::rename(place.path().join("root/new"), &path).unwrap();
    let mut old = [0; 3];
    assert_eq!((file.read(&mut old, 0), &old), (Ok(3), b"old"));
    let Opened::File(_, after) = open(&directory, "file", false, Lookup::Blocking).unwrap() else {
        panic!("a regular file")
    };
    assert_ne!(before.inode, after.inode);
    assert_eq!((before.size, after.size), (3, 11));
}

#[test]
fn the_same_directory_is_known_again() {
    let (place, directory) = root();
    let again = Directory::open(&place.path().join("root"), Lookup::Blocking).unwrap();
    let other = Directory::open(place.path(), Lookup::Blocking).unwrap();
    assert!(directory.is_same(&again) && !directory.is_same(&other));
    let missing = Directory::open(&place.path().join("none"), Lookup::Blocking);
    assert_eq!(missing.unwrap_err(), Errno::NOENT);
    fs::write(place.path().join("file"), "").unwrap();
    let file = Directory::open(&place.path().join("file"), Lookup::Blocking);
    assert_eq!(file.unwrap_err(), Errno::NOTDIR);
    probe_open_below().unwrap();
}

#[test]
fn bytes_that_left_the_page_cache_are_not_waited_for() {
    const SIZE: usize = 1024 * 1024;
    let (place, directory) = root();
    let path = place.path().join("root/file");
    fs::write(&path, vec![7; SIZE]).unwrap();
    let Opened::File(file, _) = open(&directory, "file", false, Lookup::Blocking).unwrap() else {
        panic!("a regular file")
    };
    let mut buffer = vec![0; SIZE];
    if file.cached(0, 1) == 0 {
        return eprintln!("not tested: the file system cannot read without waiting");
    }
    assert_eq!(file.cached(0, SIZE as u64), SIZE as u64, "it was just written");
    assert_eq!(file.read_cached(&mut buffer, 0), Ok(SIZE));
    assert_eq!(file.read_cached(&mut buffer, SIZE as u64), Ok(0), "the end");
    if directory.medium == Medium::Memory {
        return eprintln!("not tested: the file system is in memory");
    }
    // Only pages that are on the disk can leave the cache.
    fs::File::open(&path).unwrap().sync_all().unwrap();
    // A page that the kernel looks at just now stays, so that it may take another attempt.
    for _ in 0..1000 {
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        if file.cached(0, 1) == 0 {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(file.read_cached(&mut buffer, 0), Err(Errno::AGAIN));
    assert_eq!(file.cached(0, SIZE as u64), 0);
    assert_eq!((file.read(&mut buffer[..1], 0), buffer[0]), (Ok(1), 7));
    assert_eq!(file.read_cached(&mut buffer[..1], 0), Ok(1));
    // One byte brings its whole block, and of the other blocks nothing that matters.
    let (block, length) = (4 * BLOCK, BLOCK as usize);
    assert_eq!(file.read_blocks(block + 70_000, 1), Ok(vec![7]));
    assert_eq!(file.cached(block, BLOCK), BLOCK);
    assert_eq!(file.read_cached(&mut buffer[..length], block), Ok(length));
}

#[test]
fn blocks_give_the_bytes_that_were_asked_for() {
    let (place, directory) = root();
    let content: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    fs::write(place.path().join("root/file"), &content).unwrap();
    let Opened::File(file, _) = open(&directory, "file", false, Lookup::Blocking).unwrap() else {
        panic!("a regular file")
    };
    for (position, length) in
        [(0, 1), (5, 131_067), (5, 131_072), (131_071, 2), (262_144, 90_000), (299_999, 9)]
    {
        let end = (position + length).min(content.len());
        let read = file.read_blocks(position as u64, length).unwrap();
        assert!(read == content[position..end], "{length} bytes from {position} on");
        assert_eq!(file.cached(position as u64, (end - position) as u64), (end - position) as u64);
    }
    assert_eq!(file.read_blocks(300_000, 10), Ok(Vec::new()));
}

#[test]
fn a_lookup_that_may_not_wait_does_not_enter_another_file_system() {
    let top = Directory::open(Path::new("/"), Lookup::Blocking).unwrap();
    let below = |lookup| top.open_below(b"proc/version", false, lookup);
    assert!(matches!(below(Lookup::Cached), Err(Errno::AGAIN)));
    assert!(matches!(below(Lookup::Blocking), Ok(Opened::File(..))));
}
