//! What a site serves, and how a path leads to a file of it. The functions here run on a worker,
//! where nothing may wait, and on threads that may.

use std::path::PathBuf;

use super::cache::{MAX_CONTENT, Role};
use crate::config;
use crate::proto::http::{Coding, Codings, FilePath, media_type};
use crate::sys::{Directory, Errno, File, Lookup, Metadata, Opened};

/// How often a small file is read again that changes while it is read.
const RETRIES: usize = 3;

/// What a site serves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The directory.
    pub root: PathBuf,
    /// The names of the files that stand for their directory, the first one first.
    pub index: Vec<String>,
    /// The page of a 404, below the root.
    pub not_found: Option<String>,
    /// The page that is sent in place of a file that is not there, below the root.
    pub fallback: Option<String>,
    /// The codings in which files may have a copy beside them, the preferred one first.
    pub precompressed: Vec<Coding>,
    /// Whether files whose path has a name that begins with a dot are served.
    pub dot_files: bool,
    /// Whether symbolic links are followed that stay below the root.
    pub symlinks: bool,
}

impl From<&config::Files> for Rules {
    fn from(files: &config::Files) -> Rules {
        let coding = |coding: &config::Coding| match coding {
            config::Coding::Brotli => Coding::Br,
            config::Coding::Zstandard => Coding::Zstd,
            config::Coding::Gzip => Coding::Gzip,
        };
        Rules {
            root: files.root.clone(),
            index: files.index.clone(),
            not_found: files.not_found.clone(),
            fallback: files.fallback.clone(),
            precompressed: files.precompressed.iter().map(coding).collect(),
            dot_files: files.dot_files,
            symlinks: files.symlinks,
        }
    }
}

/// The rules as lookups need them.
#[derive(Debug)]
pub(super) struct Plan {
    index: Vec<String>,
    not_found: Option<FilePath>,
    fallback: Option<FilePath>,
    pub(super) precompressed: Vec<Coding>,
    pub(super) dot_files: bool,
    symlinks: bool,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    File(Box<FoundFile>),
    /// A directory without the slash at the end of its path.
    Directory,
    Missing,
    /// The process or the system has no descriptors or no memory left.
    Unavailable,
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) role: Role,
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) coding: Option<Coding>,
    pub(super) media_type: &'static str,
    /// All of its bytes, if they were read.
    pub(super) content: Option<Vec<u8>>,
}

impl Plan {
    pub(super) fn new(rules: &Rules) -> Plan {
        // A page with a path that cannot be is a page that is missing.
        let page = |path: &Option<String>| path.as_deref().and_then(FilePath::configured);
        Plan {
            index: rules.index.clone(),
            not_found: page(&rules.not_found),
            fallback: page(&rules.fallback),
            precompressed: rules.precompressed.clone(),
            dot_files: rules.dot_files,
            symlinks: rules.symlinks,
        }
    }

    /// Finds the file of a path, or the page in place of it. `path` is `None` if it names no file
    /// that may be served. Then there is no fallback, because such a path is no page of the site.
    ///
    /// # Errors
    /// The lookup would have to wait, and may not.
    pub(super) fn find(
        &self,
        base: &Directory,
        path: Option<&FilePath>,
        codings: Codings,
        lookup: Lookup,
    ) -> Result<Found, MustWait> {
        let search = Search { plan: self, base, codings, lookup };
        if let Some(path) = path {
            let found = search.file(path)?;
            if !matches!(found, Found::Missing) {
                return Ok(found);
            }
        }
        let pages = [
            (Role::Fallback, self.fallback.as_ref().filter(|_| path.is_some())),
            (Role::NotFound, self.not_found.as_ref()),
        ];
        for (role, page) in pages {
            if let Some(page) = page
                && let Found::File(mut file) = search.one(page)?
            {
                file.role = role;
                return Ok(Found::File(file));
            }
        }
        Ok(Found::Missing)
    }
}

/// The lookup would have to wait for a disk.
#[derive(Debug)]
pub(super) struct MustWait;

struct Search<'s> {
    plan: &'s Plan,
    base: &'s Directory,
    codings: Codings,
    lookup: Lookup,
}

impl Search<'_> {
    /// The file of a path: itself, or the index of the directory.
    fn file(&self, path: &FilePath) -> Result<Found, MustWait> {
        if !path.is_directory() {
            return self.one(path);
        }
        for name in &self.plan.index {
            match self.one(&path.join(name))? {
                Found::Missing | Found::Directory => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Missing)
    }

    /// The file with exactly this path, in the best coding that there is.
    fn one(&self, path: &FilePath) -> Result<Found, MustWait> {
        let mut name = path.as_bytes().to_vec();
        let length = name.len();
        for coding in self.codings.iter().map(Some).chain([None]) {
            name.truncate(length);
            name.extend_from_slice(coding.map_or("", Coding::suffix).as_bytes());
            let found = match self.base.open_below(&name, self.plan.symlinks, self.lookup) {
                Ok(Opened::File(file, metadata)) => {
                    let media_type = media_type(path.as_bytes());
                    let (role, content) = (Role::Own, None);
                    let found = FoundFile { role, file, metadata, coding, media_type, content };
                    return Ok(Found::File(Box::new(found)));
                }
                Ok(Opened::Directory) => Found::Directory,
                Ok(Opened::Other) => Found::Missing,
                Err(Errno::AGAIN) if self.lookup == Lookup::Cached => return Err(MustWait),
                Err(
                    Errno::MFILE
                    | Errno::NFILE
                    | Errno::NOMEM
                    | Errno::AGAIN
                    | Errno::IO
                    | Errno::INTR,
                ) => return Ok(Found::Unavailable),
                // Whatever may not be served looks like a file that is not there.
                Err(_) => Found::Missing,
            };
            if coding.is_none() {
                return Ok(found);
            }
        }
        Ok(Found::Missing)
    }
}

impl FoundFile {
    /// Reads all of a small file, without waiting if the lookup may not. `None` if it would have to
    /// wait, if the file is no longer small or changes all the time, or if it cannot be read. The
    /// metadata is that of the bytes.
    pub(super) fn read(&mut self, lookup: Lookup) -> Option<Vec<u8>> {
        for _ in 0..RETRIES {
            // It may have grown since it was opened.
            let size = self.metadata.size;
            let size = usize::try_from(size).ok().filter(|_| size <= MAX_CONTENT)?;
            let mut bytes = vec![0; size];
            let mut read = 0;
            while read < size {
                let rest = &mut bytes[read..];
                let more = match lookup {
                    Lookup::Cached => self.file.read_cached(rest, read as u64),
                    Lookup::Blocking => self.file.read(rest, read as u64),
                };
                match more {
                    Ok(0) => break,
                    Ok(more) => read += more,
                    Err(_) => return None,
                }
            }
            let metadata = self.file.metadata().ok()?;
            if read == size && metadata == self.metadata {
                return Some(bytes);
            }
            self.metadata = metadata;
        }
        None
    }
}
