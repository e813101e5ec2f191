//! What is kept over restarts: the account's credentials, and each certificate with its key.
//!
//! All of it belongs to one ACME directory and lies in a folder for it, so that certificates of a
//! directory for tests do not pass for those of another one. A certificate and its key share a
//! file: they are replaced together. A file is written next to its place and renamed, so that it is
//! complete at any time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::names::{Names, short_digest};
use crate::error::Error;

const ACCOUNT: &str = "account.json";
const UNKNOWN_ACCOUNT: &str = "account.json.unknown";
const LOCK: &str = "lock";
/// Permission of group and others to write.
const SHARED_WRITE: u32 = 0o022;
/// No file here is longer: a certificate with its chain has some kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// The folder of one ACME directory.
#[derive(Debug)]
pub(super) struct Storage {
    folder: PathBuf,
}

/// While this lives, no other process orders certificates with the same storage.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file unlocks it")] File);

impl Storage {
    /// Opens the folder of an ACME directory in `path`, and makes it if it is missing.
    ///
    /// # Errors
    /// It cannot be made or read, or others may write to it.
    pub(super) fn open(path: &Path, directory: &str) -> Result<Storage, Error> {
        let shown = path.display();
        let fail = |error| {
            let advice = "ringgate's user must be able to read and write acme.storage; a directory \
                          of its own, with mode 0700, is best";
            Error::start(
                format!("cannot open {shown}, where ACME certificates are stored"),
                error,
                advice,
            )
        };
        make_folder(path).map_err(fail)?;
        if fs::metadata(path).map_err(fail)?.mode() & SHARED_WRITE != 0 {
            return Err(Error::start(
                format!("cannot store keys in {shown}"),
                "other users may write to it",
                format!("chmod go-w {shown}, or choose another directory for acme.storage"),
            ));
        }
        let folder = path.join(folder_name(directory));
        make_folder(&folder).map_err(fail)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(fail)?;
        Ok(Storage { folder })
    }

    /// The PEM text of a stored certificate with its key. `None` if there is none yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn certificate(&self, names: &Names) -> io::Result<Option<Vec<u8>>> {
        self.read(&names.file_name())
    }

    /// The file of a certificate with its key.
    pub(super) fn certificate_file(&self, names: &Names) -> PathBuf {
        self.folder.join(names.file_name())
    }

    /// The file of the account.
    pub(super) fn account_file(&self) -> PathBuf {
        self.folder.join(ACCOUNT)
    }

    /// Stores a certificate with its key.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn store_certificate(&self, names: &Names, pem: &str) -> io::Result<()> {
        self.write(&names.file_name(), pem.as_bytes())
    }

    /// The account's credentials. `None` if there is no account yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn account(&self) -> io::Result<Option<Vec<u8>>> {
        self.read(ACCOUNT)
    }

    /// Stores the account's credentials.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn store_account(&self, credentials: &[u8]) -> io::Result<()> {
        self.write(ACCOUNT, credentials)
    }

    /// Renames the account's file, so that there is no account. The key is kept, for an authority
    /// that has denied the account by mistake.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub(super) fn set_account_aside(&self) -> io::Result<()> {
        fs::rename(self.folder.join(ACCOUNT), self.folder.join(UNKNOWN_ACCOUNT))
    }

    /// Locks the storage. `None` if another process has it locked.
    ///
    /// # Errors
    /// The lock's file cannot be opened.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.folder.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that a certificate could be stored now: one that cannot be kept counts against the
    /// authority's limits all the same.
    ///
    /// # Errors
    /// No file can be written.
    pub(super) fn check(&self) -> io::Result<()> {
        let (probe, _) = self.create("probe")?;
        remove(&probe)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_FILE => Err(ErrorKind::FileTooLarge.into()),
            Ok(_) => fs::read(&path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (path, mut file) = self.create(name)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&path, self.folder.join(name)));
        if renamed.is_err() {
            let _ = remove(&path);
        }
        renamed?;
        // The new name must be on the disk, too.
        File::open(&self.folder)?.sync_all()
    }

    /// Makes the file that will be renamed to `name`. One that a killed process has left behind is
    /// replaced.
    fn create(&self, name: &str) -> io::Result<(PathBuf, File)> {
        let path = self.folder.join(format!("{name}.new"));
        remove(&path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((path, file))
    }
}

/// `HOST+DIGEST` of the URL of an ACME directory.
fn folder_name(directory: &str) -> String {
    let host = directory.split("://").nth(1).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let host = host.split(|c| !is_plain(c)).next().unwrap_or_default().trim_start_matches('.');
    format!("{}+{}", &host[..host.len().min(100)], short_digest(directory))
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const DIRECTORY: &str = "https://acme.example/directory";

    fn storage() -> (TempDir, Storage) {
        let place = tempfile::tempdir().unwrap();
        let storage = Storage::open(&place.path().join("a/b"), DIRECTORY).unwrap();
        (place, storage)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_the_owner_can_read_it() {
        let (place, storage) = storage();
        let names = Names::new(["a.test"]).unwrap();
        storage.store_certificate(&names, "both").unwrap();
        storage.store_account(b"{}").unwrap();
        let _lock = storage.lock().unwrap().unwrap();
        assert_eq!(mode(&place.path().join("a/b")), 0o700);
        assert_eq!(mode(&storage.folder), 0o700);
        let files = fs::read_dir(&storage.folder).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["a.test.pem", "account.json", "lock"]);
        assert!(files.iter().all(|file| mode(file) == 0o600));
    }

    #[test]
    fn what_was_stored_is_read_and_replaced() {
        let (_place, storage) = storage();
        let names = Names::new(["a.test", "b.test"]).unwrap();
        assert_eq!(storage.certificate(&names).unwrap(), None);
        assert_eq!(storage.account().unwrap(), None);
        for text in ["longer text", "text"] {
            storage.store_certificate(&names, text).unwrap();
            assert_eq!(storage.certificate(&names).unwrap().unwrap(), text.as_bytes());
        }
        storage.store_account(b"account").unwrap();
        assert_eq!(storage.account().unwrap().unwrap(), b"account");
        storage.set_account_aside().unwrap();
        assert_eq!(storage.account().unwrap(), None);
        assert_eq!(storage.read(UNKNOWN_ACCOUNT).unwrap().unwrap(), b"account");
    }

    #[test]
    fn a_file_left_by_a_killed_process_is_no_obstacle_and_a_link_is_not_followed() {
        let (place, storage) = storage();
        let other = place.path().join("other");
        fs::write(&other, "untouched").unwrap();
        symlink(&other, storage.folder.join("account.json.new")).unwrap();
        storage.store_account(b"account").unwrap();
        assert_eq!(storage.account().unwrap().unwrap(), b"account");
        assert_eq!(fs::read(&other).unwrap(), b"untouched");
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let (_place, storage) = storage();
        let names = Names::new(["a.test"]).unwrap();
        storage.store_certificate(&names, "old").unwrap();
        // Stands in the way of the new file, also for root.
        let blocker = storage.folder.join("a.test.pem.new");
        fs::create_dir(&blocker).unwrap();
        storage.store_certificate(&names, "new").unwrap_err();
        assert_eq!(storage.certificate(&names).unwrap().unwrap(), b"old");
        fs::create_dir(storage.folder.join("probe.new")).unwrap();
        storage.check().unwrap_err();
    }

    #[test]
    fn one_process_orders_at_a_time() {
        let (place, storage) = storage();
        let other = Storage::open(&place.path().join("a/b"), DIRECTORY).unwrap();
        let lock = storage.lock().unwrap().unwrap();
        assert!(other.lock().unwrap().is_none());
        drop(lock);
        assert!(other.lock().unwrap().is_some());
    }

    #[test]
    fn directories_have_folders_of_their_own() {
        let names = ["https://a.test/x", "https://a.test/y", "https://../..", "", "https://.x:1/"]
            .map(folder_name);
        assert!(names[0].starts_with("a.test+") && names[4].starts_with("x+"), "{names:?}");
        assert_ne!(names[0], names[1]);
        for name in names {
            assert!(!name.starts_with('.') && !name.contains('/'), "{name}");
        }
    }

    #[test]
    fn a_place_where_others_may_write_is_refused() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = Storage::open(place.path(), DIRECTORY).unwrap_err();
        assert!(error.to_text().contains("other users may write"), "{}", error.to_text());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        Storage::open(place.path(), DIRECTORY).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_made_is_an_error_with_advice() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Storage::open(&file, DIRECTORY).unwrap_err();
        assert!(error.advice().unwrap().contains("acme.storage"));
    }
}
