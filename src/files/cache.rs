//! Small files in memory, so that a request for one of them takes no system call.
//!
//! An entry is valid for [`FRESH`]. After that the file is looked up again, and if it has not
//! changed the entry goes on. The number of entries and their bytes are bounded. When there is no
//! room, a hand goes round over the entries and removes the first one that was not used since its
//! last visit, so that files that are asked for once do not displace others.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::response::Info;
use super::rules::FoundFile;
use crate::proto::http::Codings;
use crate::sched::Charge;
use crate::sys::Metadata;

/// How long a file is served from memory before it is looked up again.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// The longest content that is kept in memory.
pub(super) const MAX_CONTENT: u64 = 64 * 1024;
/// Bytes that the cache of one worker keeps at most.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Entries of the cache of one worker at most.
pub(super) const MAX_ENTRIES: usize = 1024;

/// The content of a small file, or of a part of one. Clones share it. It counts against the
/// worker's budget until the last of them is dropped.
#[derive(Clone)]
pub struct Bytes(Rc<(Vec<u8>, Charge)>);

impl Bytes {
    /// Counts these bytes by a charge.
    pub fn new(bytes: Vec<u8>, mut charge: Charge) -> Bytes {
        charge.set(bytes.capacity());
        Bytes(Rc::new((bytes, charge)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.0
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes", self.len())
    }
}

/// Which part of a site a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// The file that was asked for.
    Own,
    /// The page in place of one that was not found.
    Fallback,
    /// The page that says that nothing was found.
    NotFound,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    /// The number of the site.
    pub(super) site: usize,
    pub(super) role: Role,
    /// The path of the request as sent; empty for other roles.
    pub(super) path: &'a str,
    /// The codings that the client takes, and that the site has.
    pub(super) codings: Codings,
}

/// A small file.
pub(super) struct Hot {
    site: usize,
    pub(super) role: Role,
    path: Box<str>,
    codings: Codings,
    /// The version of the root in which it was found.
    pub(super) version: u64,
    metadata: Metadata,
    pub(super) info: Info,
    pub(super) content: Bytes,
    /// When it was last known to be unchanged.
    pub(super) checked: Cell<Instant>,
    is_used: Cell<bool>,
}

impl Hot {
    pub(super) fn new(
        key: Key<'_>,
        version: u64,
        metadata: Metadata,
        info: Info,
        content: Bytes,
        now: Instant,
    ) -> Hot {
        Hot {
            site: key.site,
            role: key.role,
            path: key.path.into(),
            codings: key.codings,
            version,
            metadata,
            info,
            content,
            checked: Cell::new(now),
            is_used: Cell::new(false),
        }
    }

    /// Returns true if it has the bytes of this file.
    pub(super) fn is_same(&self, found: &FoundFile, version: u64) -> bool {
        self.version == version
            && self.metadata == found.metadata
            && self.info.coding == found.coding
    }

    fn key(&self) -> Key<'_> {
        let Hot { site, role, codings, .. } = *self;
        Key { site, role, path: &self.path, codings }
    }

    fn bytes(&self) -> usize {
        size_of::<Hot>() + self.path.len() + self.content.len()
    }
}

/// The small files of one worker.
pub(super) struct Cache {
    hasher: RandomState,
    /// The place of each entry, by the hash of its key.
    index: HashMap<u64, usize>,
    entries: Slab<Rc<Hot>>,
    bytes: usize,
    /// The place that the hand visits next.
    hand: usize,
    max_bytes: usize,
    max_entries: usize,
}

impl Cache {
    pub(super) fn new(max_bytes: usize, max_entries: usize) -> Cache {
        Cache {
            hasher: RandomState::new(),
            index: HashMap::new(),
            entries: Slab::new(),
            bytes: 0,
            hand: 0,
            max_bytes,
            max_entries,
        }
    }

    /// The entry for this key, however old it is.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<&Rc<Hot>> {
        let place = *self.index.get(&self.hasher.hash_one(key))?;
        let hot = self.entries.get(place).filter(|hot| hot.key() == *key)?;
        hot.is_used.set(true);
        Some(hot)
    }

    /// Adds an entry in place of an older one, if it fits at all.
    pub(super) fn insert(&mut self, hot: Rc<Hot>) {
        let hash = self.hasher.hash_one(hot.key());
        if let Some(place) = self.index.get(&hash) {
            self.remove(*place);
        }
        let bytes = hot.bytes();
        if bytes > self.max_bytes {
            return;
        }
        while self.bytes + bytes > self.max_bytes || self.entries.len() >= self.max_entries {
            self.evict();
        }
        self.bytes += bytes;
        self.index.insert(hash, self.entries.insert(hot));
    }

    /// Removes one entry. There must be one.
    fn evict(&mut self) {
        loop {
            let place = self.hand;
            // Places of removed entries are used again, so there are not many more than entries.
            self.hand = (self.hand + 1) % self.entries.capacity().max(1);
            let Some(hot) = self.entries.get(place) else { continue };
            if !hot.is_used.replace(false) {
                return self.remove(place);
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let hot = self.entries.remove(place);
        self.bytes -= hot.bytes();
        self.index.remove(&self.hasher.hash_one(hot.key()));
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
