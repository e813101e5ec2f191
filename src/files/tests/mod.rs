//! Sites of real directories: what a request leads to, from memory, from the kernel's caches and by
//! a thread.

mod cached;
mod corpus;
mod found;
mod threads;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::observe::outcome::End;
use crate::proto::http::Conditions;
use crate::sched::{BUDGET, Memory, Yielder};
use crate::sys::Stream;
use crate::timers::{Fired, Limit, Timers, Watch};

const LONG: Duration = Duration::from_secs(3600);

/// Runs the test over epoll, and over a ring like a worker's if the kernel has one.
fn on_each_driver(test: impl AsyncFn()) {
    let mut epoll =
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
    epoll.block_on(test());
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    let runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring).enable_timer();
    match runtime.build() {
        Ok(mut ring) => ring.block_on(test()),
        Err(error) => eprintln!("not tested through a ring: {error}"),
    }
}

/// How the test looks for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As a connection does.
    Usual,
    /// By a thread, also if nothing would have to wait.
    Thread,
}

/// A site, and a directory for its root and for what is outside of it.
struct Tested {
    place: TempDir,
    site: Site,
    store: Rc<Store>,
    timers: Rc<Timers>,
    watch: Watch,
    way: Way,
    now: Cell<Instant>,
    _client: UnixStream,
}

/// A response as a client would see it.
#[derive(Debug)]
struct Seen {
    status: u16,
    fields: HashMap<&'static str, String>,
    length: Option<u64>,
    body: Vec<u8>,
    is_from_memory: bool,
}

/// Runs the test with a site of these rules, once for each way, on each driver.
fn with_site(change: impl Fn(&mut Rules), test: impl AsyncFn(&Tested)) {
    for way in [Way::Usual, Way::Thread] {
        on_each_driver(async || {
            let threads = Threads::with(2, 8).unwrap();
            test(&Tested::new(&change, way, &threads)).await;
        });
    }
}

impl Tested {
    fn new(change: impl Fn(&mut Rules), way: Way, threads: &Threads) -> Tested {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut rules = rules(root);
        change(&mut rules);
        let store = Store::eager(threads, &Memory::new(BUDGET));
        let (client, theirs) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let client = Rc::new(Stream::from_fd(client.into()).unwrap());
        let timers = Timers::new(&Yielder::start().unwrap());
        let watch = timers.watch(&client, Limit::new(LONG, End::Idle));
        let site = Site::new(&store, &rules);
        let now = Cell::new(Instant::now());
        Tested { place, site, store, timers, watch, way, now, _client: theirs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join("root").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Lets time pass.
    fn later(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Seen {
        let mut conditions = Conditions::default();
        fields.iter().for_each(|(name, value)| conditions.add(name, value.as_bytes()));
        let request = Request { method, path, conditions: &conditions };
        let at_once = match self.way {
            Way::Usual => self.site.lookup_now(&request, self.now.get()),
            Way::Thread => None,
        };
        let response = match at_once {
            Some(response) => response,
            None => self.site.find(&request, self.now.get(), &self.watch).await.unwrap(),
        };
        self.see(response).await
    }

    async fn get(&self, path: &str) -> Seen {
        self.ask("GET", path, &[]).await
    }

    async fn see(&self, response: Response) -> Seen {
        let mut fields = HashMap::new();
        response.for_each_field(|name, value| {
            let value = String::from_utf8(value.to_vec()).unwrap();
            assert_eq!(fields.insert(name, value), None, "{name} twice");
        });
        let length = response.length();
        let (status, is_from_memory) =
            (response.status, matches!(response.content, Content::Bytes(..)));
        let body = match response.content {
            Content::None | Content::Error | Content::Announced(_) => Vec::new(),
            Content::Bytes(bytes, range) => bytes[range].to_vec(),
            Content::File(mut body) => {
                let mut all = Vec::new();
                loop {
                    let piece = body.read(10_000, self.store.disk(), &self.watch).await.unwrap();
                    if piece.is_empty() {
                        break all;
                    }
                    all.extend_from_slice(&piece);
                }
            }
        };
        Seen { status, fields, length, body, is_from_memory }
    }
}

fn rules(root: PathBuf) -> Rules {
    Rules {
        root,
        index: vec!["index.html".into()],
        not_found: None,
        fallback: None,
        precompressed: Vec::new(),
        dot_files: false,
        symlinks: false,
    }
}
