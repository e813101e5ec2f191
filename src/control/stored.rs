//! Stores a configuration that a client of the admin endpoint has sent, in the file that the
//! configuration comes from. The file is replaced as a whole (rename(2)), so that it is the old one
//! or the new one, whatever happens meanwhile.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::once;
use super::serving::{Prepared, Serving};
use crate::error::Error;

/// How long a file system may take to replace the file.
const STORE_WITHIN: Duration = Duration::from_secs(30);

impl Serving {
    /// Prepares the configuration that the file has now, or this `text`, which is then stored in
    /// the file. Changes nothing that is served.
    ///
    /// # Errors
    /// As [`Serving::prepare`], or the file cannot be replaced: it stays as it is. Or the one
    /// before is still being stored: a thread waits for each, and there may be no end to it.
    pub(super) async fn prepare_and_store(
        &mut self,
        text: Option<Arc<str>>,
    ) -> Result<Prepared, Error> {
        let Some(text) = text else { return self.prepare(None).await };
        if self.storing.as_ref().is_some_and(|storing| !storing.is_finished()) {
            let cause = "an earlier one is still being stored";
            return Err(refused(io::Error::new(ErrorKind::TimedOut, cause)));
        }
        let prepared = self.prepare(Some(Arc::clone(&text))).await?;
        // Last, so that a text which is refused for any reason leaves the file as it is.
        let path = self.source.file()?.to_owned();
        let turn = Arc::new(Turn::default());
        let own = Arc::clone(&turn);
        let (thread, stored) = once::run("store", move || replace(&path, &text, &own))?;
        self.storing = Some(thread);
        let Ok(stored) = tokio::time::timeout(STORE_WITHIN, stored).await else {
            // It is in use only when it is known to be stored.
            let cause = if turn.take() {
                "it takes longer than 30 s: the file stays as it is"
            } else {
                "it takes longer than 30 s: the file may have the new configuration or the old one"
            };
            return Err(refused(io::Error::new(ErrorKind::TimedOut, cause)));
        };
        // The thread is about to end, and does not hold up the next one until it has.
        self.storing = None;
        stored.unwrap_or_else(|_| Err(ErrorKind::Other.into())).map_err(refused)?;
        Ok(prepared)
    }
}

/// The decision whether the file is replaced or the time is over. The first to take it decides.
#[derive(Default)]
struct Turn(AtomicBool);

impl Turn {
    /// Returns true for the first caller alone.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

fn refused(error: io::Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            "its user must be allowed to write to the directory of the file. A systemd unit with \
             ProtectSystem=strict needs ReadWritePaths= with the directory, too"
        }
        ErrorKind::TimedOut => "a file system or a disk does not answer: look at the file",
        _ => "look at the file system and at the directory of the file",
    };
    Error::start("cannot store the configuration", error, advice)
}

/// Replaces a file by another one with this text, and with the same owner, group and mode as far as
/// that is allowed. A link is followed.
fn replace(path: &Path, text: &str, turn: &Turn) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let new = beside(&path)?;
    // Before anything changes: it may be refused, too.
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    // What an attempt that was cut off has left.
    let _ = fs::remove_file(&new);
    let result = write(&new, text, &metadata).and_then(|()| {
        if !turn.take() {
            return Err(ErrorKind::TimedOut.into());
        }
        fs::rename(&new, &path)
    });
    if result.is_err() {
        let _ = fs::remove_file(&new);
        return result;
    }
    // The file is replaced, and what is served is to be the same.
    if let Err(error) = directory.sync_all() {
        tracing::warn!(
            file = %path.display(), %error,
            "a configuration is stored, but a loss of power may bring the old one back"
        );
    }
    Ok(())
}

/// A hidden name in the same directory, which is on the same file system.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(".new");
    Ok(path.with_file_name(new))
}

fn write(path: &Path, text: &str, old: &Metadata) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    let new = file.metadata()?;
    // A sandbox may refuse these calls even if they change nothing: there is none without need.
    let has_group = new.gid() == old.gid() || fchown(&file, None, Some(old.gid())).is_ok();
    file.set_permissions(PermissionsExt::from_mode(mode(old, has_group)))?;
    if new.uid() != old.uid() {
        // Only root may do this. The file otherwise belongs to the user of this process.
        let _ = fchown(&file, Some(old.uid()), None);
    }
    file.sync_all()
}

/// The mode of a new file: another group than the old one's gets no rights.
fn mode(old: &Metadata, has_group: bool) -> u32 {
    let mode = old.permissions().mode() & 0o7777;
    if has_group { mode } else { mode & !0o070 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_through_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("a.toml"), directory.path().join("link"));
        fs::write(&file, "old").expect("a file");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("a mode");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        fs::write(directory.path().join(".a.toml.new"), "left over").expect("a file");
        replace(&link, "new", &Turn::default()).expect("it can be replaced");
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2);
        assert!(replace(directory.path(), "new", &Turn::default()).is_err());
    }

    #[test]
    fn its_owner_and_its_group_stay_or_another_group_gets_no_rights() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.toml");
        fs::write(&file, "old").expect("a file");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o664)).expect("a mode");
        // Only root can give a file away.
        let is_root = std::os::unix::fs::chown(&file, Some(12345), Some(12346)).is_ok();
        let old = fs::metadata(&file).expect("it is there");
        replace(&file, "new", &Turn::default()).expect("it can be replaced");
        let new = fs::metadata(&file).expect("it is there");
        assert_eq!((new.uid(), new.gid(), new.mode()), (old.uid(), old.gid(), old.mode()));
        assert!(!is_root || (new.uid(), new.gid()) == (12345, 12346));
        assert_eq!((mode(&old, true), mode(&old, false)), (0o664, 0o604));
    }

    #[test]
    fn a_file_is_not_replaced_when_the_time_is_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.toml");
        fs::write(&file, "old").expect("a file");
        let turn = Turn::default();
        assert!(turn.take());
        let error = replace(&file, "new", &turn).expect_err("it is too late");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "old");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn the_advice_names_what_a_unit_needs() {
        for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied] {
            assert!(refused(kind.into()).to_text().contains("ReadWritePaths="), "{kind}");
        }
    }
}
