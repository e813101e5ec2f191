//! Datagrams over loopback, and the errors that the network reports about them.

use socket2::SockRef;

use super::*;

fn run(test: impl AsyncFnOnce()) {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
    runtime.block_on(test());
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn address_of(socket: &UdpSocket) -> SocketAddr {
    SockRef::from(&socket.stream).local_addr().unwrap().as_socket().unwrap()
}

/// Receives `count` datagrams and checks the address that each of them was sent to.
async fn datagrams(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let (mut batch, mut all) = (Batch::new(), Vec::new());
    while all.len() < count {
        socket.readable().await;
        match socket.receive(&mut batch) {
            Ok(_) => {}
            Err(Errno::AGAIN) => continue,
            Err(errno) => panic!("{errno}"),
        }
        for received in batch.iter() {
            assert_eq!(received.to, Some([127, 0, 0, 1].into()));
            match received.bytes {
                [] => all.push(Vec::new()),
                bytes => all.extend(bytes.chunks(received.segment).map(<[u8]>::to_vec)),
            }
        }
    }
    all
}

fn bound(socket: StdSocket) -> UdpSocket {
    let offload = Offload::of(&socket).unwrap();
    UdpSocket::bound(socket, offload).unwrap()
}

#[test]
fn datagrams_keep_their_boundaries_in_whatever_calls_they_travel() {
    run(async || {
        let to = bound(bind_udp(local(), true).unwrap());
        let address = address_of(&to);
        let from = UdpSocket::connected(address, &Connected::start().unwrap()).unwrap();
        let many: Vec<u8> = (0..10_000).map(|index| index as u8).collect();
        assert_eq!(from.send(address, None, &many, 300), (0, None));
        assert_eq!(from.send(address, None, b"", 0), (0, None));
        assert_eq!(from.send(address, None, &[7; MAX_PAYLOAD], MAX_PAYLOAD), (0, None));
        assert_eq!(from.send(address, None, b"last", 4), (0, None));
        let received = datagrams(&to, 34 + 3).await;
        let expected: Vec<Vec<u8>> = many.chunks(300).map(<[u8]>::to_vec).collect();
        assert!(received[..34] == expected);
        assert!(received[34].is_empty() && received[35] == [7; MAX_PAYLOAD]);
        assert_eq!(received[36], b"last");
    });
}

#[test]
fn more_than_segments_allow_goes_one_by_one() {
    run(async || {
        let to = bound(bind_udp(local(), false).unwrap());
        let address = address_of(&to);
        let from = UdpSocket::connected(address, &Connected::start().unwrap()).unwrap();
        assert_eq!(from.send(address, None, &[1; 100], 1), (0, None));
        assert_eq!(datagrams(&to, 100).await.len(), 100);
    });
}

/// A bound socket that accepts datagrams from one other address only, so the kernel responds to all
/// others with "port unreachable".
fn refusing() -> (StdSocket, SocketAddr) {
    let socket = StdSocket::bind(local()).unwrap();
    socket.connect(("127.0.0.1", 9)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Lets the socket accept datagrams from this sender.
fn open(socket: StdSocket, sender: &UdpSocket) -> UdpSocket {
    socket.connect(address_of(sender)).unwrap();
    bound(socket)
}

#[test]
fn a_datagram_that_meets_the_error_of_an_earlier_one_is_given_back() {
    run(async || {
        let (_refusing, address) = refusing();
        let from = UdpSocket::connected(address, &Connected::start().unwrap()).unwrap();
        assert!(matches!(from.try_send(address, None, b"refused", 7), Ok(0)));
        let refusal = from.try_send(address, None, b"one two three", 4).err().unwrap();
        assert_eq!((refusal.errno, refusal.lost), (Errno::CONNREFUSED, 0));
        assert_eq!(refusal.rest, b"one two three");
        // The kernel returns each error only once.
        assert!(matches!(from.receive(&mut Batch::new()), Err(Errno::AGAIN)));
    });
}

#[test]
fn a_datagram_that_meets_the_error_of_an_earlier_one_is_sent_again() {
    for (bytes, segment) in [(&b"once more"[..], 9), (b"three at a time", 5), (b"", 0)] {
        run(async || {
            let (socket, address) = refusing();
            let from = UdpSocket::connected(address, &Connected::start().unwrap()).unwrap();
            assert_eq!(from.send(address, None, b"refused", 7), (0, None));
            let to = open(socket, &from);
            let sent = from.send(address, None, bytes, segment);
            assert_eq!(sent, (0, Some(Errno::CONNREFUSED)));
            let count = bytes.len().div_ceil(segment.max(1)).max(1);
            assert_eq!(datagrams(&to, count).await.concat(), bytes);
        });
    }
}

#[test]
fn datagrams_to_a_socket_that_refuses_them_all_are_tried_twice_at_most() {
    run(async || {
        let (_refusing, address) = refusing();
        // More than fit one call are sent one by one; each leaves an error for the next.
        let from = UdpSocket::connected(address, &Connected::start().unwrap()).unwrap();
        let many = [7; 100];
        assert_eq!(from.send(address, None, &many, 1), (0, Some(Errno::CONNREFUSED)));
    });
}

#[test]
fn a_socket_of_many_peers_has_no_errors_of_theirs() {
    run(async || {
        let listener = bound(bind_udp(local(), false).unwrap());
        let (_refusing, gone) = refusing();
        let there = StdSocket::bind(local()).unwrap();
        let client = there.local_addr().unwrap();
        for _ in 0..3 {
            assert!(matches!(listener.try_send(gone, None, b"gone", 4), Ok(0)));
            assert!(matches!(listener.try_send(client, None, b"there", 5), Ok(0)));
            assert_eq!(there.recv(&mut [0; 10]).unwrap(), 5);
        }
        assert!(matches!(listener.receive(&mut Batch::new()), Err(Errno::AGAIN)));
    });
}

#[test]
fn an_error_of_an_earlier_datagram_wakes_the_reader() {
    run(async || {
        let (_refusing, address) = refusing();
        let shared = Connected::start().unwrap();
        let mut batch = Batch::new();
        for _ in 0..3 {
            let from = UdpSocket::connected(address, &shared).unwrap();
            for _ in 0..3 {
                assert_eq!(from.send(address, None, b"refused", 7), (0, None));
                from.readable().await;
                assert_eq!(from.receive(&mut batch), Err(Errno::CONNREFUSED));
            }
        }
    });
}

#[test]
fn whoever_waits_hears_of_the_end() {
    run(async || {
        let (to, shared) = ("127.0.0.1:9".parse().unwrap(), Connected::start().unwrap());
        let waits = Rc::new(UdpSocket::connected(to, &shared).unwrap());
        let waiting = monoio::spawn({
            let waits = Rc::clone(&waits);
            async move { waits.readable().await }
        });
        waits.end();
        waiting.await;
    });
}
