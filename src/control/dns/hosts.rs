//! `/etc/hosts` (hosts(5)). It may be a block list of many megabytes. So it is parsed again only
//! after a change, and only the names that are looked up are kept.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use super::error::LookupError;

const HOSTS: &str = "/etc/hosts";
/// A file that is read within this time after its last change counts as young. A file system may
/// give two writes within some milliseconds the same time.
const YOUNG: Duration = Duration::from_secs(2);
/// A file that was young when it was read is read again after this time, changed or not.
const YOUNG_FOR: Duration = Duration::from_secs(1);

/// The file's entries for the names that are looked up.
pub(super) struct Hosts {
    wanted: HashSet<String>,
    read: Option<Snapshot>,
}

/// What was read from the file.
struct Snapshot {
    stamp: Stamp,
    at: Instant,
    was_young: bool,
    entries: Entries,
}

type Entries = HashMap<String, Vec<IpAddr>>;

/// Metadata that differs when the content differs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Hosts {
    /// Keeps the entries of these names, and of names that are looked up later.
    pub(super) fn new<'a>(wanted: impl IntoIterator<Item = &'a str>) -> Hosts {
        Hosts { wanted: wanted.into_iter().map(key).collect(), read: None }
    }

    /// The addresses of a name. `None` if the file does not have the name, or there is no file.
    ///
    /// # Errors
    /// The file cannot be read now, so it is not known whether it has the name.
    pub(super) fn find(&mut self, host: &str) -> Result<Option<Vec<IpAddr>>, LookupError> {
        // The entries of a new name were not kept, so the file must be read again.
        if self.wanted.insert(key(host)) {
            self.read = None;
        }
        match self.entries() {
            Ok(entries) => Ok(entries.get(&key(host)).cloned()),
            Err(error) if is_missing(error.kind()) => Ok(None),
            Err(source) => Err(LookupError::File { path: HOSTS, source }),
        }
    }

    fn entries(&mut self) -> io::Result<&Entries> {
        let stamp = Stamp::of(&fs::metadata(HOSTS)?);
        let is_current = |read: &Snapshot| {
            read.stamp == stamp && !(read.was_young && read.at.elapsed() >= YOUNG_FOR)
        };
        let read = match self.read.take().filter(is_current) {
            Some(read) => read,
            None => Snapshot::read(&self.wanted)?,
        };
        Ok(&self.read.insert(read).entries)
    }
}

impl Snapshot {
    fn read(wanted: &HashSet<String>) -> io::Result<Snapshot> {
        let mut file = File::open(HOSTS)?;
        let metadata = file.metadata()?;
        let stamp = Stamp::of(&metadata);
        let changed = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or_default());
        // A time in the future counts as young.
        let was_young = changed.elapsed().map_or(true, |age| age <= YOUNG);
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let entries = parse(&text, wanted);
        Ok(Snapshot { stamp, at: Instant::now(), was_young, entries })
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            file: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Returns true for the errors that mean that there is no such file.
fn is_missing(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// Names are compared without case, and without a dot at the end.
fn key(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn parse(file: &[u8], wanted: &HashSet<String>) -> Entries {
    let mut entries = Entries::new();
    for line in file.split(|byte| *byte == b'\n') {
        // A comment may have another encoding.
        let line = String::from_utf8_lossy(line);
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        for name in words.filter_map(|name| find(wanted, name)) {
            let Ok(address) = IpAddr::from_str(address) else { break };
            let addresses = entries.entry(name.to_owned()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    entries
}

/// The key of a name in the file. Most names are written like the key and need no allocation.
fn find<'a>(wanted: &'a HashSet<String>, name: &str) -> Option<&'a String> {
    let is_key = |byte: u8| !byte.is_ascii_uppercase();
    if name.bytes().all(is_key) && !name.ends_with('.') {
        return wanted.get(name);
    }
    wanted.get(&key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_may_stand_in_the_hosts_file() {
        let file = b"\xff\xfe\n10.0.0.1 ss_server My_App_1.example # not_this 10.9.9.9\n\
            nonsense ss_server\n::1\tss_server. -x-\r\n10.0.0.1 ss_server\n# 10.0.0.7 ss_server\n";
        let wanted = ["ss_server", "my_app_1.EXAMPLE.", "-x-", "not_this"].map(key);
        let entries = parse(file, &wanted.into());
        let found = |host| {
            let found = entries.get(&key(host))?;
            Some(found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(found("ss_server").as_deref(), Some("10.0.0.1 ::1"));
        assert_eq!(found("ss_server.").as_deref(), Some("10.0.0.1 ::1"));
        assert_eq!(found("my_app_1.EXAMPLE").as_deref(), Some("10.0.0.1"));
        assert_eq!(found("-x-").as_deref(), Some("::1"));
        assert_eq!(found("not_this"), None);
    }

    #[test]
    fn names_that_are_not_looked_up_are_not_kept() {
        let entries = parse(b"10.0.0.1 a b\n10.0.0.2 c\n", &[key("b")].into());
        assert_eq!(entries, HashMap::from([(key("b"), vec!["10.0.0.1".parse().unwrap()])]));
    }
}
