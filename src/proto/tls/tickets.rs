//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): the state of a session, encrypted, that its
//! client brings back to resume it.
//!
//! All workers have the same keys, so each resumes what another one has begun. A ticket is bound to
//! a scope, so that it resumes a session only where it was issued: under the same rule, with the
//! same demands on client certificates.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::server::ProducesTickets;

/// How long a ticket is accepted. RFC 8446 allows 7 days; a shorter time bounds what a stolen key
/// reveals.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a random key makes tickets, until [`TicketKeys::rotated`] adds another one.
pub const ROTATION: Duration = Duration::from_secs(6 * 3600);
/// The most keys of a file.
pub(super) const MAX_KEYS: usize = 16;

const KEY: usize = 32;
const NAME: usize = 16;
const NONCE: usize = 12;
/// Seconds since 1970, in front of the state.
const ISSUED: usize = 8;

/// The keys of tickets: the first one encrypts, all decrypt.
#[derive(Clone)]
pub struct TicketKeys(Vec<Arc<Key>>);

struct Key {
    name: [u8; NAME],
    bytes: [u8; KEY],
    aead: RandomizedNonceKey,
    /// On the monotonic clock, because the time of day may be set. `None` for a key of a file.
    made: Option<Instant>,
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFault {
    /// The file has no key.
    Empty,
    /// The file has more than 16 keys.
    TooMany,
    /// This line, from 1, is not the base64 of 32 bytes.
    Line(usize),
}

impl Key {
    fn new(bytes: &[u8; KEY], made: Option<Instant>) -> Arc<Key> {
        // The name must not reveal the key, and must be the same wherever the key is used.
        let name = digest(&SHA256, &[&b"ringgate ticket key"[..], bytes].concat());
        let aead = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).expect("a key of 32 bytes");
        let name = name.as_ref()[..NAME].try_into().expect("SHA-256 has 32 bytes");
        Arc::new(Key { name, bytes: *bytes, aead, made })
    }

    fn random() -> Arc<Key> {
        let mut bytes = [0; KEY];
        aws_lc_rs::rand::fill(&mut bytes).expect("random bytes of the kernel");
        Key::new(&bytes, Some(Instant::now()))
    }
}

impl TicketKeys {
    /// Makes one random key.
    pub fn random() -> TicketKeys {
        TicketKeys(vec![Key::random()])
    }

    /// Adds a random key in front, and drops keys whose tickets are not accepted any more.
    #[must_use]
    pub fn rotated(&self) -> TicketKeys {
        let mut keys = vec![Key::random()];
        let is_used =
            |key: &&Arc<Key>| key.made.is_some_and(|made| made.elapsed() < ROTATION + LIFETIME);
        keys.extend(self.0.iter().filter(is_used).take(MAX_KEYS).cloned());
        TicketKeys(keys)
    }

    /// Writes keys for another process: a line for each, with its age in seconds.
    pub fn to_text(&self) -> String {
        let age = |key: &Key| key.made.map_or(0, |made| made.elapsed().as_secs());
        let line = |key: &Arc<Key>| format!("{} {}\n", STANDARD.encode(key.bytes), age(key));
        self.0.iter().map(line).collect()
    }

    /// Reads what [`TicketKeys::to_text`] has written. `None` if it is something else.
    pub fn from_text(text: &str) -> Option<TicketKeys> {
        let key = |line: &str| {
            let (key, age) = line.split_once(' ')?;
            let bytes: [u8; KEY] = STANDARD.decode(key).ok()?.try_into().ok()?;
            let age = Duration::from_secs(age.parse().ok()?);
            // A key from before the last boot would be older than any key in use.
            Some(Key::new(&bytes, Some(Instant::now().checked_sub(age)?)))
        };
        let keys = text.lines().map(key).collect::<Option<Vec<_>>>()?;
        (!keys.is_empty()).then_some(TicketKeys(keys))
    }

    /// Reads keys: one line with the base64 of 32 bytes for each. Empty lines and those that begin
    /// with `#` are skipped.
    ///
    /// # Errors
    /// There is no key, or a line is something else.
    pub fn parse(text: &str) -> Result<TicketKeys, KeysFault> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
            let bytes: [u8; KEY] = bytes.ok_or(KeysFault::Line(at + 1))?;
            keys.push(Key::new(&bytes, None));
        }
        match keys.len() {
            0 => Err(KeysFault::Empty),
            count if count > MAX_KEYS => Err(KeysFault::TooMany),
            _ => Ok(TicketKeys(keys)),
        }
    }
}

/// Two sets of keys are equal if their names are, which come from the keys.
impl PartialEq for TicketKeys {
    fn eq(&self, other: &TicketKeys) -> bool {
        self.0.iter().map(|key| key.name).eq(other.0.iter().map(|key| key.name))
    }
}

impl Eq for TicketKeys {}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

/// Makes and reads the tickets of one scope.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    scope: Vec<u8>,
}

impl Tickets {
    pub(super) fn new(keys: &Arc<TicketKeys>, scope: &str) -> Tickets {
        Tickets { keys: Arc::clone(keys), scope: scope.as_bytes().to_vec() }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    /// The ticket: the key's name, the nonce, and the encrypted time and state.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.0.first()?;
        let mut sealed = Vec::with_capacity(ISSUED + plain.len() + 16);
        sealed.extend_from_slice(&seconds(SystemTime::now()).to_be_bytes());
        sealed.extend_from_slice(plain);
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(&self.scope), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE + sealed.len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        // The name is public, so that the comparison need not take constant time.
        let key = self.keys.0.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.aead.open_in_place(nonce, Aad::from(&self.scope), &mut sealed).ok()?;
        let (issued, state) = plain.split_at_checked(ISSUED)?;
        let issued = u64::from_be_bytes(issued.try_into().ok()?);
        // A ticket from the future was issued before the time of day was set back. It may be one of
        // a clock that was years ahead, which would be accepted for years.
        let age = seconds(SystemTime::now()).abs_diff(issued);
        (age <= LIFETIME.as_secs()).then(|| state.to_vec())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(lines: &[u8]) -> Arc<TicketKeys> {
        let text: String = lines.iter().map(|&byte| STANDARD.encode([byte; KEY]) + "\n").collect();
        Arc::new(TicketKeys::parse(&text).unwrap())
    }

    #[test]
    fn a_ticket_is_read_with_any_of_the_keys_and_in_its_own_scope_alone() {
        let ticket = Tickets::new(&keys(&[1]), "a").encrypt(b"state").unwrap();
        let reads = |lines: &[u8], scope: &str| Tickets::new(&keys(lines), scope).decrypt(&ticket);
        assert_eq!(reads(&[1], "a"), Some(b"state".to_vec()));
        assert_eq!(reads(&[2, 1], "a"), Some(b"state".to_vec()));
        assert_eq!(reads(&[1], "b"), None);
        assert_eq!(reads(&[2], "a"), None);
    }

    #[test]
    fn another_process_reads_tickets_with_the_keys_that_it_gets() {
        let old = TicketKeys::random().rotated();
        let ticket = Tickets::new(&Arc::new(old.clone()), "a").encrypt(b"state").unwrap();
        let new = TicketKeys::from_text(&old.to_text()).unwrap();
        assert_eq!(new, old);
        // The time is kept, so that keys are dropped when they are old.
        let youngest = |keys: &TicketKeys| keys.0.iter().filter_map(|key| key.made).max().unwrap();
        // In whole seconds.
        assert!(youngest(&new).elapsed().abs_diff(youngest(&old).elapsed()).as_secs() <= 1);
        let new = Arc::new(new.rotated());
        assert_eq!(Tickets::new(&new, "a").decrypt(&ticket), Some(b"state".to_vec()));
        assert!(TicketKeys::from_text("").is_none());
        assert!(TicketKeys::from_text("short 1").is_none());
    }

    #[test]
    fn rotation_keeps_the_keys_whose_tickets_are_accepted() {
        let old = TicketKeys::random();
        let ticket = Tickets::new(&Arc::new(old.clone()), "a").encrypt(b"state").unwrap();
        let rotated = old.rotated();
        assert_eq!(rotated.0.len(), 2);
        assert_ne!(rotated, old);
        let reads = Tickets::new(&Arc::new(rotated), "a").decrypt(&ticket);
        assert_eq!(reads, Some(b"state".to_vec()));
        let age = |hours: u64| {
            let made = Instant::now() - Duration::from_secs(hours * 3600);
            TicketKeys(vec![Key::new(&[1; KEY], Some(made))]).rotated().0.len()
        };
        assert_eq!((age(17), age(19)), (2, 1));
    }

    #[test]
    fn a_ticket_expires() {
        let key = Key::new(&[1; KEY], None);
        let tickets = Tickets::new(&Arc::new(TicketKeys(vec![Arc::clone(&key)])), "a");
        let issued = |ago: i64| {
            let mut sealed = (seconds(SystemTime::now()) as i64 - ago).to_be_bytes().to_vec();
            sealed.extend_from_slice(b"state");
            let nonce = key.aead.seal_in_place_append_tag(Aad::from(b"a"), &mut sealed).unwrap();
            tickets.decrypt(&[&key.name[..], nonce.as_ref(), &sealed].concat())
        };
        let lifetime = LIFETIME.as_secs() as i64;
        for ago in [lifetime - 10, 10 - lifetime] {
            assert_eq!(issued(ago), Some(b"state".to_vec()), "{ago} s ago");
        }
        for ago in [lifetime + 10, -lifetime - 10] {
            assert_eq!(issued(ago), None, "{ago} s ago");
        }
    }

    #[test]
    fn a_file_of_keys_has_comments_and_a_bound() {
        let key = STANDARD.encode([7; KEY]);
        let parse = TicketKeys::parse;
        assert_eq!(parse(&format!("# new\n{key}\n\n  {key}  \n")).unwrap().0.len(), 2);
        assert_eq!(parse("# none\n"), Err(KeysFault::Empty));
        assert_eq!(parse(&format!("{key}\n\nAAAA\n")), Err(KeysFault::Line(3)));
        assert_eq!(parse(&format!("{key}x")), Err(KeysFault::Line(1)));
        assert_eq!(parse(&format!("{key}\n").repeat(17)), Err(KeysFault::TooMany));
    }

    proptest! {
        #[test]
        fn a_changed_ticket_is_not_read(
            state in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
            cut in any::<prop::sample::Index>(),
        ) {
            let tickets = Tickets::new(&keys(&[1]), "a");
            let mut ticket = tickets.encrypt(&state).unwrap();
            prop_assert_eq!(tickets.decrypt(&ticket), Some(state));
            prop_assert_eq!(tickets.decrypt(&ticket[..cut.index(ticket.len())]), None);
            let at = at.index(ticket.len());
            ticket[at] ^= 1 << bit;
            prop_assert_eq!(tickets.decrypt(&ticket), None);
        }

        #[test]
        fn no_ticket_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Tickets::new(&keys(&[1]), "a").decrypt(&bytes), None);
        }
    }
}
