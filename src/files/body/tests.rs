//! Bodies on sockets of the test: spliced, copied, cold, and with clients that do not take them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tempfile::TempDir;

use super::*;
use crate::files::Threads;
use crate::observe::outcome::End;
use crate::proto::tls::{
    Client, ClientSettings, Identity, Server, ServerSettings, State, TicketKeys, Version,
};
use crate::sched::{BUDGET, Yielder};
use crate::sys::{Directory, Lookup, Opened};
use crate::timers::{Limit, Timers};
use crate::transport::{TlsPool, TlsStream};

const LONG: Duration = Duration::from_secs(3600);
const SIZE: usize = 5 * 1024 * 1024 + 123;
const SOCKET_BUFFER: usize = 128 * 1024;

/// A file, and a client that it is sent to.
struct Tested {
    place: TempDir,
    pool: Rc<Pool>,
    disk: Rc<Disk>,
    timers: Rc<Timers>,
    watch: Watch,
    to: Transport,
    client: TcpStream,
    content: Vec<u8>,
}

/// Runs the test with pipes and without.
fn with_file(test: impl AsyncFn(Tested)) {
    for pipes in [4, 0] {
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async { test(Tested::new(pipes)).await });
    }
}

impl Tested {
    fn new(pipes: usize) -> Tested {
        let place = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 256) as u8).collect();
        fs::write(place.path().join("file"), &content).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        // Less than the file, so that a client that reads nothing stops it.
        SockRef::from(&client).set_recv_buffer_size(SOCKET_BUFFER).unwrap();
        SockRef::from(&ours).set_send_buffer_size(SOCKET_BUFFER).unwrap();
        let to = Transport::Plain(Rc::new(Stream::from_fd(ours.into()).unwrap()));
        let pool = Pool::new(pipes, BUDGET, None, Yielder::start().unwrap());
        let timers = Timers::new(pool.yielder());
        let watch = timers.watch(to.socket(), Limit::new(LONG, End::Idle));
        let disk = Disk::start().unwrap();
        disk.use_threads(&Threads::with(2, 8).unwrap());
        Tested { place, pool, disk, timers, watch, to, client, content }
    }

    fn body(&self, start: usize, end: usize) -> Body {
        let directory = Directory::open(self.place.path(), Lookup::Blocking).unwrap();
        match directory.open_below(b"file", false, Lookup::Blocking).unwrap() {
            Opened::File(file, _) => {
                Body::new(file, ByteRange { start: start as u64, end: end as u64 })
            }
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, body: &mut Body) -> Result<(), Broken> {
        body.send(&self.to, &self.pool, &self.disk, &self.watch).await
    }

    /// Sends the body to a client that reads at most `piece` bytes between two polls. Returns what
    /// the client has read by the end.
    async fn send_all(&self, body: &mut Body, piece: usize) -> (Result<(), Broken>, Vec<u8>) {
        let mut read = Vec::new();
        let result = {
            let mut sending = pin!(self.send(body));
            loop {
                let polled = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
                self.read(&mut read, piece);
                match polled {
                    Poll::Ready(result) => break result,
                    Poll::Pending => self.pool.yielder().yield_now().await,
                }
            }
        };
        while result.is_ok() && (read.len() as u64) < body.sent() {
            self.read(&mut read, usize::MAX);
        }
        (result, read)
    }

    fn read(&self, read: &mut Vec<u8>, most: usize) {
        match (&self.client).take(most as u64).read_to_end(read) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// Writes the file to the disk and takes it out of the page cache. Returns false if that
    /// cannot be, because the file system is in memory.
    fn make_cold(&self) -> bool {
        use rustix::fs::{Advice, fadvise};
        let file = fs::File::open(self.place.path().join("file")).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let is_cold = self.body(0, SIZE).file.cached(0, 1) == 0;
        if !is_cold {
            eprintln!("not tested: the file system keeps its files in memory");
        }
        is_cold
    }
}

#[test]
fn all_bytes_arrive_spliced_if_there_is_a_pipe() {
    with_file(async |file| {
        let mut body = file.body(0, SIZE);
        let (result, read) = file.send_all(&mut body, usize::MAX).await;
        assert_eq!((result, body.left(), body.sent()), (Ok(()), 0, SIZE as u64));
        assert!(read == file.content);
        // overlayfs cannot read without waiting, so a thread reads all of it.
        let is_seen_in_cache = body.file.cached(0, 1) > 0;
        assert_eq!(body.spliced(), file.pool.pipe().is_some() && is_seen_in_cache);
    });
}

#[test]
fn a_part_is_sent_to_a_client_that_reads_slowly() {
    with_file(async |file| {
        let (start, end) = (4097, SIZE - 4097);
        let mut body = file.body(start, end);
        let (result, read) = file.send_all(&mut body, 70_000).await;
        assert_eq!(result, Ok(()));
        assert!(read == file.content[start..end]);
    });
}

#[test]
fn bytes_that_are_not_in_the_page_cache_are_read_by_a_thread() {
    with_file(async |file| {
        for piece in [usize::MAX, 70_000] {
            if !file.make_cold() {
                return;
            }
            let (result, read) = file.send_all(&mut file.body(1, SIZE), piece).await;
            assert_eq!(result, Ok(()));
            assert!(read == file.content[1..]);
        }
    });
}

#[test]
fn a_send_that_is_given_up_goes_on_where_it_was() {
    with_file(async |file| {
        file.make_cold();
        let mut body = file.body(0, SIZE);
        let mut read = Vec::new();
        let mut rounds = 0;
        while body.sent() < SIZE as u64 || body.pipe.is_some() {
            {
                let mut sending = pin!(file.send(&mut body));
                // More and more polls, so that a thread has time to read.
                for _ in 0..=rounds {
                    let polled = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
                    if let Poll::Ready(result) = polled {
                        assert_eq!(result, Ok(()));
                        break;
                    }
                    file.pool.yielder().yield_now().await;
                }
            }
            rounds += 1;
            file.read(&mut read, 500_000);
        }
        assert_eq!(file.send(&mut body).await, Ok(()));
        while read.len() < SIZE {
            file.read(&mut read, usize::MAX);
        }
        assert!(rounds > 3 && read == file.content, "{} bytes", read.len());
    });
}

#[test]
fn a_file_that_becomes_shorter_ends_in_a_reset() {
    with_file(async |file| {
        let mut body = file.body(0, SIZE);
        {
            // The client takes nothing until the file is shorter.
            let mut sending = pin!(file.send(&mut body));
            let mut context = Context::from_waker(Waker::noop());
            assert!(sending.as_mut().poll(&mut context).is_pending());
        }
        let path = file.place.path().join("file");
        fs::File::options().write(true).open(path).unwrap().set_len(100).unwrap();
        let (result, read) = file.send_all(&mut body, usize::MAX).await;
        assert_eq!(result, Err(Broken::File(Errno::NODATA)));
        assert!(read.len() < SIZE, "nothing is made up");
        // The kernel overwrites the end of the last page, which a spliced byte is still a part of.
        assert!(body.spliced() || file.content.starts_with(&read));
        let Tested { to, watch, client, .. } = file;
        drop((watch, to));
        client.set_nonblocking(false).unwrap();
        let error = (&client).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up_by_its_limit() {
    with_file(async |file| {
        let mut body = file.body(0, SIZE);
        let mut sending = pin!(file.send(&mut body));
        let mut context = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut context).is_pending());
        file.timers.end_all();
        assert_eq!(sending.await, Err(Broken::Fired(Fired::Drained)));
    });
}

#[test]
fn a_client_that_is_gone_ends_the_body() {
    with_file(async |file| {
        let mut body = file.body(0, SIZE);
        SockRef::from(&file.client).set_linger(Some(Duration::ZERO)).unwrap();
        let Tested { pool, disk, watch, to, client, .. } = &file;
        let _ = client.shutdown(std::net::Shutdown::Both);
        let result = body.send(to, pool, disk, watch).await;
        assert!(matches!(result, Err(Broken::Client(_))), "{result:?}");
    });
}

/// Makes a TLS session over loopback: the server's end and the client's end.
fn over_tls(file: &Tested) -> (Transport, Transport) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["site.example.test".to_owned()];
    let pem = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    let identity = Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let settings = ServerSettings {
        identities: &[identity],
        protocols: &[],
        client_authorities: None,
        min_version: Version::Tls13,
        ticket_keys: &Arc::new(TicketKeys::random()),
        scope: "",
    };
    let server = Server::new(&settings).unwrap().session().unwrap();
    let settings = ClientSettings {
        authorities: None,
        identity: None,
        protocols: &[],
        min_version: Version::Tls13,
    };
    let mut hello = Vec::new();
    let client = Client::new(&settings).unwrap().session("site.example.test", &mut hello).unwrap();
    let pool = TlsPool::new(file.pool.memory(), file.pool.yielder(), None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    let stream = |socket: TcpStream| {
        socket.set_nonblocking(true).unwrap();
        Rc::new(Stream::from_fd(socket.into()).unwrap())
    };
    let ours = Rc::new(TlsStream::new(&stream(ours), server, Vec::new(), &pool));
    let theirs = Rc::new(TlsStream::new(&stream(theirs), client, hello, &pool));
    while ours.state() != State::Open || theirs.state() != State::Open {
        for stream in [&theirs, &ours] {
            stream.flush().unwrap();
            assert!(matches!(stream.advance(), Ok(()) | Err(Errno::AGAIN)));
        }
    }
    (Transport::Tls(ours), Transport::Tls(theirs))
}

#[test]
fn all_bytes_arrive_over_tls_from_the_page_cache_and_from_the_disk() {
    with_file(async |file| {
        for is_cold in [false, true] {
            if is_cold && !file.make_cold() {
                return;
            }
            let (to, client) = over_tls(&file);
            let mut body = file.body(5, SIZE);
            let mut read = Vec::new();
            let mut buffer = vec![0; 300_000];
            let mut take = |read: &mut Vec<u8>| match client.recv(&mut buffer) {
                Ok(more) => read.extend_from_slice(&buffer[..more]),
                Err(errno) => assert_eq!(errno, Errno::AGAIN),
            };
            {
                let mut sending = pin!(body.send(&to, &file.pool, &file.disk, &file.watch));
                loop {
                    let polled = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
                    take(&mut read);
                    match polled {
                        Poll::Ready(result) => break assert_eq!(result, Ok(())),
                        Poll::Pending => file.pool.yielder().yield_now().await,
                    }
                }
            }
            while read.len() < SIZE - 5 {
                take(&mut read);
            }
            assert!(read == file.content[5..] && to.unsent() == 0 && !body.spliced());
        }
    });
}

#[test]
fn another_sender_reads_the_bytes_in_pieces() {
    with_file(async |file| {
        file.make_cold();
        let mut body = file.body(10, SIZE);
        let mut read = Vec::new();
        loop {
            let piece = body.read(100_000, &file.disk, &file.watch).await.unwrap();
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(&piece);
        }
        assert!(read == file.content[10..] && body.left() == 0);
        let mut cut = file.body(0, SIZE + 1);
        cut.position = SIZE as u64;
        let result = cut.read(1, &file.disk, &file.watch).await;
        assert_eq!(result, Err(Broken::File(Errno::NODATA)));
    });
}

#[test]
fn what_waits_for_the_client_counts_in_the_budget() {
    with_file(async |file| {
        if !file.make_cold() {
            return;
        }
        let memory = file.pool.memory();
        let mut body = file.body(0, SIZE);
        let mut most = 0;
        {
            let mut sending = pin!(file.send(&mut body));
            // The client takes nothing, so that the bytes of a thread wait in the end.
            for _ in 0..100 {
                let polled = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
                most = most.max(memory.kept());
                file.pool.yielder().yield_now().await;
            }
        }
        assert!(most <= COLD_READ, "{most}");
        drop(body);
        assert_eq!(memory.kept(), 0);
    });
}
