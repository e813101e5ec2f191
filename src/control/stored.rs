//! Stores a configuration that a client of the admin endpoint has sent, in the file that the
//! configuration comes from. The file is replaced as a whole (rename(2)), so that it is the old one
//! or the new one, whatever happens meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::once;
use super::serving::{Prepared, Serving};
use crate::error::Error;

impl Serving {
    /// Prepares the configuration that the file has now, or this `text`, which is then stored in
    /// the file. Changes nothing that is served.
    ///
    /// # Errors
    /// As [`Serving::prepare`], or the file cannot be replaced: it stays as it is.
    pub(super) async fn prepare_and_store(
        &mut self,
        text: Option<Arc<str>>,
    ) -> Result<Prepared, Error> {
        let prepared = self.prepare(text.clone()).await?;
        // Last, so that a text which is refused for any reason leaves the file as it is.
        if let Some(text) = text {
            let path = self.source.file()?.to_owned();
            let (_, stored) = once::run("store", move || replace(&path, &text))?;
            stored.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(|error| {
                let advice = "its user must be allowed to write to the directory of the file";
                Error::start("cannot store the configuration", error, advice)
            })?;
        }
        Ok(prepared)
    }
}

/// Replaces a file by another one with this text and the same mode. A link is followed.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let (new, directory) = (beside(&path)?, path.parent().unwrap_or(Path::new("/")));
    // What an attempt that was cut off has left.
    let _ = fs::remove_file(&new);
    let result = write(&new, text, metadata.permissions().mode()).and_then(|()| {
        fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()
    });
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}

/// A hidden name in the same directory, which is on the same file system.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(".new");
    Ok(path.with_file_name(new))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(PermissionsExt::from_mode(mode & 0o7777))?;
    file.sync_all()
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
        replace(&link, "new").expect("it can be replaced");
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2);
        assert!(replace(directory.path(), "new").is_err());
    }
}
