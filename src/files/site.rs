//! The site of one route on one worker: requests in, responses out.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::body::Body;
use super::cache::{Bytes, Cache, FRESH, Hot, Key, MAX_BYTES, MAX_CONTENT, MAX_ENTRIES, Role};
use super::response::{Content, Info, Request, Response};
use super::root::{Current, Root};
use super::rules::{Found, FoundFile, MustWait, Plan, Rules};
#[cfg(test)]
use super::threads::Threads;
use super::threads::{Disk, NoResult};
use crate::proto::http::{ByteRange, Codings, FilePath, Verdict};
use crate::sched::{Charge, Memory};
use crate::sys::{Directory, Errno, Lookup};
use crate::timers::{Fired, Watch};

/// A file that was changed less than this time ago is not kept in memory: another change may leave
/// its times as they are, because the kernel's clock for them is coarse.
const SETTLED: Duration = Duration::from_secs(1);

/// What the sites of one worker share.
pub struct Store {
    cache: RefCell<Cache>,
    pub(super) disk: Rc<Disk>,
    memory: Rc<Memory>,
    settled: Duration,
    sites: Cell<usize>,
}

impl Store {
    /// Must be called on the worker's thread, inside its runtime. What the store keeps counts in
    /// `memory`.
    ///
    /// # Errors
    /// As [`Disk::start`].
    pub fn start(memory: &Rc<Memory>) -> io::Result<Rc<Store>> {
        Ok(Rc::new(Store {
            cache: RefCell::new(Cache::new(MAX_BYTES, MAX_ENTRIES)),
            disk: Disk::start()?,
            memory: Rc::clone(memory),
            settled: SETTLED,
            sites: Cell::new(0),
        }))
    }

    /// Returns true if every change from now on will show in the times of the file.
    fn is_settled(&self, found: &FoundFile) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.as_nanos() as i128 - found.metadata.changed;
        age.unsigned_abs() >= self.settled.as_nanos()
    }

    /// A store that keeps every file at once, because a test cannot make an old one.
    #[cfg(test)]
    pub(super) fn eager(threads: &Threads, memory: &Rc<Memory>) -> Rc<Store> {
        let store = Rc::into_inner(Store::start(memory).unwrap()).unwrap();
        store.disk.use_threads(threads);
        Rc::new(Store { settled: Duration::ZERO, ..store })
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.cache.borrow().bytes()
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    /// The way to the threads that wait for disks.
    pub fn disk(&self) -> &Rc<Disk> {
        &self.disk
    }
}

/// A site on one worker.
pub struct Site {
    store: Rc<Store>,
    /// Its number in the store.
    number: usize,
    root: Root,
    plan: Arc<Plan>,
}

impl Site {
    /// Makes the site of these rules. Nothing is opened yet.
    pub fn new(store: &Rc<Store>, rules: &Rules) -> Site {
        let number = store.sites.get();
        store.sites.set(number + 1);
        Site {
            store: Rc::clone(store),
            number,
            root: Root::new(&rules.root),
            plan: Arc::new(Plan::new(rules)),
        }
    }

    /// Returns the response if it can be made without waiting. A small file that was asked for
    /// within the last second takes no system call. `now` is the time of the request.
    pub fn lookup_now(&self, request: &Request<'_>, now: Instant) -> Option<Response> {
        if !matches!(request.method, "GET" | "HEAD") {
            return Some(Response::error(405));
        }
        let base = match self.root.current(now) {
            Current::Known(base) => base,
            Current::Missing => return Some(Response::error(404)),
            Current::Unknown => return None,
        };
        let codings = self.codings(request);
        let key = Key { site: self.number, role: Role::Own, path: request.path, codings };
        let hot = self.store.cache.borrow().find(&key).map(Rc::clone);
        if let Some(hot) = hot.filter(|hot| {
            hot.version == base.version && now.saturating_duration_since(hot.checked.get()) < FRESH
        }) {
            return Some(self.hot_response(request, &hot));
        }
        let path = FilePath::decode(request.path, self.plan.dot_files);
        let lookup = Lookup::Cached;
        let found = self.plan.find(&base.directory, path.as_ref(), codings, lookup).ok()?;
        self.respond(request, found, lookup, base.version, now).ok()
    }

    /// Returns the response, after [`Site::lookup_now`] has returned none. A thread looks for the
    /// file. The future may be dropped at any time.
    ///
    /// # Errors
    /// The watch has ended the wait.
    pub async fn find(
        &self,
        request: &Request<'_>,
        now: Instant,
        watch: &Watch,
    ) -> Result<Response, Fired> {
        let is_due = matches!(self.root.current(now), Current::Unknown);
        let base = self.root.last();
        let version = base.as_ref().map_or(0, |base| base.version);
        let errand = Errand {
            root: is_due.then(|| Arc::clone(self.root.path())),
            base: base.map(|base| base.directory),
            plan: Arc::clone(&self.plan),
            path: FilePath::decode(request.path, self.plan.dot_files),
            codings: self.codings(request),
            wants_content: request.method == "GET" && !self.store.memory.is_spent(),
        };
        let result = match self.store.disk.run(watch, move || errand.run()).await {
            Ok(result) => result,
            Err(NoResult::Busy) => return Ok(Response::error(503)),
            Err(NoResult::Fired(fired)) => return Err(fired),
        };
        let version = match result.root {
            Some(opened) => self.root.install(opened, now),
            None => version,
        };
        let response = self.respond(request, result.found, Lookup::Blocking, version, now);
        Ok(response.unwrap_or_else(|MustWait| Response::error(503)))
    }

    fn codings(&self, request: &Request<'_>) -> Codings {
        Codings::accepted(&request.conditions.accept_encoding, &self.plan.precompressed)
    }

    fn varies(&self) -> bool {
        !self.plan.precompressed.is_empty()
    }

    /// The response with what was found.
    ///
    /// # Errors
    /// The content must be read first, and the lookup may not wait for it.
    fn respond(
        &self,
        request: &Request<'_>,
        found: Found,
        lookup: Lookup,
        version: u64,
        now: Instant,
    ) -> Result<Response, MustWait> {
        let mut found = match found {
            Found::File(found) => *found,
            Found::Directory => return Ok(Response::error(301)),
            Found::Missing => return Ok(Response::missing(self.varies())),
            Found::Unavailable => return Ok(Response::error(503)),
        };

        // 1. It is in memory, and has not changed since.
        let role = found.role;
        let path = if role == Role::Own { request.path } else { "" };
        let codings = self.codings(request);
        let key = Key { site: self.number, role, path, codings };
        let hot = self.store.cache.borrow().find(&key).map(Rc::clone);
        if let Some(hot) = hot.filter(|hot| hot.is_same(&found, version)) {
            hot.checked.set(now);
            return Ok(self.hot_response(request, &hot));
        }

        // 2. It is small, and its bytes are wanted.
        let info = Info::of(&found);
        let is_wanted = request.method == "GET"
            && matches!(verdict(request, &info, role), Verdict::Whole | Verdict::Part(_));
        if is_wanted && info.length <= MAX_CONTENT && !self.store.memory.is_spent() {
            let bytes = match (found.content.take(), lookup) {
                (None, Lookup::Cached) => Some(found.read(Lookup::Cached).ok_or(MustWait)?),
                (bytes, _) => bytes,
            };
            if let Some(bytes) = bytes {
                let content = Bytes::new(bytes, Charge::new(&self.store.memory));
                // The metadata may have changed since, together with the bytes.
                let info = Info::of(&found);
                let hot = Rc::new(Hot::new(key, version, found.metadata, info, content, now));
                if self.store.is_settled(&found) {
                    self.store.cache.borrow_mut().insert(Rc::clone(&hot));
                }
                return Ok(self.hot_response(request, &hot));
            }
        }

        // 3. It is sent from the file.
        Ok(self.response(request, info, role, |range| {
            Content::File(Box::new(Body::new(found.file, range)))
        }))
    }

    fn hot_response(&self, request: &Request<'_>, hot: &Hot) -> Response {
        self.response(request, hot.info, hot.role, |range| {
            // The range is inside of the content.
            Content::Bytes(hot.content.clone(), range.start as usize..range.end as usize)
        })
    }

    fn response(
        &self,
        request: &Request<'_>,
        info: Info,
        role: Role,
        content: impl FnOnce(ByteRange) -> Content,
    ) -> Response {
        let verdict = verdict(request, &info, role);
        let mut response = Response::file(info, verdict, self.varies(), |range| {
            if request.method == "HEAD" {
                Content::Announced(range.length())
            } else {
                content(range)
            }
        });
        if role == Role::NotFound {
            response.status = 404;
        }
        response
    }
}

/// What the conditions of a request lead to. The page of a 404 is sent whatever they are (RFC 9110
/// section 13.2.1).
fn verdict(request: &Request<'_>, info: &Info, role: Role) -> Verdict {
    if role == Role::NotFound { Verdict::Whole } else { info.verdict(request) }
}

/// A lookup by a thread that may wait.
struct Errand {
    /// The path of the root, if it is to be opened.
    root: Option<Arc<Path>>,
    /// The directory that it led to so far.
    base: Option<Arc<Directory>>,
    plan: Arc<Plan>,
    path: Option<FilePath>,
    codings: Codings,
    wants_content: bool,
}

/// What a thread has found.
struct Brought {
    /// `None` if the root was not to be opened.
    root: Option<Result<Directory, Errno>>,
    found: Found,
}

impl Errand {
    fn run(self) -> Brought {
        let root = self.root.map(|path| Directory::open(&path, Lookup::Blocking));
        let base = match &root {
            Some(Ok(opened)) => Some(opened),
            Some(Err(_)) | None => self.base.as_deref(),
        };
        let mut found = match base {
            Some(base) => self.plan.find(base, self.path.as_ref(), self.codings, Lookup::Blocking),
            None => Ok(Found::Missing),
        };
        if let Ok(Found::File(found)) = &mut found
            && self.wants_content
            && found.metadata.size <= MAX_CONTENT
        {
            found.content = found.read(Lookup::Blocking);
        }
        // A lookup that may wait has no other error.
        Brought { root, found: found.unwrap_or(Found::Unavailable) }
    }
}
