//! Runs the ACME part of the control plane by itself, and answers challenges in place of the
//! workers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringgate::control::acme::{Acme, ChallengeKind, Challenges, Clock, Event, Names, Settings};
use ringgate::proto::client_hello::{ClientHello, HelloReader, Progress};
use ringgate::proto::tls::{Identity, Output, Server, ServerSettings, State, TicketKeys, Version};
use tokio::sync::{mpsc, oneshot, watch};

use crate::support::{LONG, PebblePlace, read_until, with_deadlines};

/// Servers that answer challenges, as workers do. They live until the test process ends.
pub(super) struct Answers {
    present: watch::Sender<Arc<Challenges>>,
    asked: Arc<AtomicUsize>,
    /// The challenges are lost while this is false.
    pub(super) are_given: AtomicBool,
}

/// ACME as one process runs it; ends with its guard.
pub(super) struct Desk {
    clock: watch::Sender<Duration>,
    /// The certificates that were there at the start.
    pub(super) stored: Vec<(Names, Identity)>,
    issued: Receiver<(Names, Identity)>,
    log: Receiver<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Answers {
    pub(super) fn start(place: &PebblePlace) -> Arc<Answers> {
        let (present, challenges) = watch::channel(Arc::default());
        let asked = Arc::new(AtomicUsize::new(0));
        serve(place.http(), &challenges, &asked, answer_http);
        serve(place.tls(), &challenges, &asked, answer_tls);
        Arc::new(Answers { present, asked, are_given: AtomicBool::new(true) })
    }

    /// How often a challenge was answered.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether challenges are published at present.
    pub(super) fn are_empty(&self) -> bool {
        self.present.borrow().is_empty()
    }
}

impl Desk {
    /// Runs ACME with one order for each list of names.
    pub(super) fn start(
        place: &PebblePlace,
        answers: &Arc<Answers>,
        storage: &Path,
        challenge: ChallengeKind,
        orders: &[&[&str]],
    ) -> Desk {
        let (clock, ahead) = watch::channel(Duration::ZERO);
        let settings = Settings {
            directory: place.url(),
            contacts: vec!["mailto:admin@example.com".to_owned()],
            storage: storage.to_owned(),
            challenge,
            authorities: Some(place.authorities()),
            orders: orders.iter().map(|names| Names::new(*names).unwrap()).collect(),
            clock: Clock::ahead(ahead),
        };
        let acme = Acme::open(settings).unwrap();
        let own = |(names, identity): (&Names, &Identity)| (names.clone(), identity.clone());
        let stored = acme.certificates().map(own).collect();
        let (sender, issued) = channel();
        let (lines, log) = channel();
        let (stop, stopped) = oneshot::channel();
        let answers = Arc::clone(answers);
        let thread = thread::spawn(move || {
            let writer = move || Lines(lines.clone());
            let format = tracing_subscriber::fmt().with_ansi(false).with_writer(writer);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            tracing::subscriber::with_default(format.finish(), || {
                runtime.unwrap().block_on(async {
                    tokio::select! {
                        () = work(acme, &answers, &sender) => {}
                        _ = stopped => {}
                    }
                });
            });
        });
        Desk { clock, stored, issued, log, stop: Some(stop), thread: Some(thread) }
    }

    /// Moves the clock forward.
    pub(super) fn advance(&self, by: Duration) {
        self.clock.send_modify(|ahead| *ahead += by);
    }

    /// Sets the clock back.
    pub(super) fn set_back(&self, by: Duration) {
        self.clock.send_modify(|ahead| *ahead -= by);
    }

    /// Waits for the next certificate.
    #[track_caller]
    pub(super) fn issued(&self) -> (Names, Identity) {
        match self.issued.recv_timeout(LONG) {
            Ok(issued) => issued,
            Err(_) => panic!("no certificate; {:#?}", self.log.try_iter().collect::<Vec<_>>()),
        }
    }

    /// Returns true if no certificate was issued beyond those that were taken.
    pub(super) fn is_idle(&self) -> bool {
        self.issued.try_recv().is_err()
    }

    /// Returns true if no attempt has failed, of those whose lines were not taken.
    pub(super) fn has_no_failure(&self) -> bool {
        !self.log.try_iter().any(|line| line.contains("cannot get a certificate"))
    }

    /// Waits for a line of the diagnostics with this part.
    #[track_caller]
    pub(super) fn line_with(&self, part: &str) -> String {
        let (deadline, mut seen) = (Instant::now() + LONG, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with {part:?} in {seen:#?}"),
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// What the rest of the control plane does with the events.
async fn work(acme: Acme, answers: &Answers, issued: &Sender<(Names, Identity)>) {
    let (sender, mut events) = mpsc::channel(1);
    // `spawn` needs a future that can be sent.
    let (_changes, changes) = mpsc::unbounded_channel();
    let task = tokio::spawn(acme.run(sender, changes));
    while let Some(event) = events.recv().await {
        match event {
            Event::Challenges { challenges, published } => {
                let given = if answers.are_given.load(Ordering::Relaxed) {
                    challenges
                } else {
                    Arc::default()
                };
                answers.present.send_replace(given);
                let _ = published.send(());
            }
            // An error means that the test has ended.
            Event::Issued { names, identity } => drop(issued.send((names, identity))),
        }
    }
    task.await.unwrap();
}

type Answer = fn(TcpStream, &Challenges) -> io::Result<()>;

fn serve(
    address: SocketAddr,
    challenges: &watch::Receiver<Arc<Challenges>>,
    asked: &Arc<AtomicUsize>,
    answer: Answer,
) {
    let listener = TcpListener::bind(address).unwrap();
    let (challenges, asked) = (challenges.clone(), Arc::clone(asked));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let challenges = Arc::clone(&challenges.borrow());
            // An error is about an authority that has seen enough.
            if answer(with_deadlines(stream), &challenges).is_ok() {
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

/// Answers http-01 (RFC 8555 section 8.3).
fn answer_http(mut stream: TcpStream, challenges: &Challenges) -> io::Result<()> {
    let head = read_until(&mut stream, b"\r\n\r\n");
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
    let (status, body) = match challenges.http.get(token) {
        Some(body) => ("200 OK", &**body),
        None => ("404 Not Found", ""),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Answers tls-alpn-01 (RFC 8737 section 3): the handshake alone is the answer.
fn answer_tls(mut stream: TcpStream, challenges: &Challenges) -> io::Result<()> {
    // 1. The certificate is chosen by the server name.
    let (mut hello, mut wire) = (HelloReader::default(), Vec::new());
    loop {
        let new = read(&mut stream)?;
        wire.extend_from_slice(&new);
        match hello.advance(&new) {
            Progress::Complete => break,
            Progress::Incomplete => {}
            Progress::Refused => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let hello = ClientHello::parse(hello.message()).unwrap();
    assert!(hello.offers(b"acme-tls/1"));
    let name = hello.server_name.unwrap_or_default();
    let identity = challenges.tls.get(name).ok_or(io::ErrorKind::NotFound)?;

    // 2. The handshake, as workers make it.
    let mut session = server(identity, &["acme-tls/1".to_owned()]).session().unwrap();
    loop {
        let start = session.headroom();
        let mut buffer = vec![0; start];
        buffer.extend_from_slice(&wire);
        let (end, mut output) = (buffer.len(), Output::default());
        session.receive(&mut buffer, start..end, &mut output);
        stream.write_all(&output)?;
        match session.state() {
            State::Handshake => wire = read(&mut stream)?,
            State::Open | State::PeerClosed => return Ok(()),
            State::Failed(error) => return Err(io::Error::other(error.reason())),
        }
    }
}

/// A TLS server with one certificate.
pub(super) fn server(identity: &Identity, protocols: &[String]) -> Server {
    let settings = ServerSettings {
        identities: std::slice::from_ref(identity),
        protocols,
        client_authorities: None,
        min_version: Version::Tls12,
        ticket_keys: &Arc::new(TicketKeys::random()),
        scope: "acme",
    };
    Server::new(&settings).unwrap()
}

/// Reads what has come; at least a byte.
pub(super) fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 16 * 1024];
    let length = stream.read(&mut buffer)?;
    buffer.truncate(length);
    if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) }
}

/// Sends each line of the diagnostics.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error means that the test has ended.
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
