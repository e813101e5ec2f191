//! A name server that does what a test tells it to, also what dnsmasq would not.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

/// What a [`NameServer`] does with a question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// To a question for IPv4 addresses this one, for an hour; to others that there is none.
    Address(Ipv4Addr),
    /// An alias that lasts for a second, of a name that has this address for an hour.
    Alias(Ipv4Addr),
    /// The name is there, and has no such address.
    Nothing,
    /// A response code without records: 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    Code(u8),
    Silence,
}

/// DNS over UDP on port 53, until the end of the test.
pub(crate) struct NameServer {
    received: Receiver<String>,
    asked: RefCell<Vec<String>>,
}

/// The type of a question for IPv4 addresses (RFC 1035 section 3.2.2).
const A: u16 = 1;

impl NameServer {
    /// Replies to a name (without the last dot) and a type of record.
    pub(crate) fn on(
        ip: impl Into<IpAddr>,
        reply: impl Fn(&str, u16) -> Reply + Send + 'static,
    ) -> Self {
        Self::on_socket(UdpSocket::bind((ip.into(), 53)).unwrap(), reply)
    }

    /// [`NameServer::on`] a socket that is bound already.
    pub(crate) fn on_socket(
        socket: UdpSocket,
        reply: impl Fn(&str, u16) -> Reply + Send + 'static,
    ) -> Self {
        let (questions, received) = channel();
        std::thread::spawn(move || {
            let mut message = [0; 2048];
            while let Ok((length, client)) = socket.recv_from(&mut message) {
                let (name, kind, end) = question(&message[..length]);
                let _ = questions.send(name.clone());
                if let Some(answer) = answer(&message[..end], kind, reply(&name, kind)) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        NameServer { received, asked: RefCell::default() }
    }

    /// The names of all questions so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.borrow_mut();
        asked.extend(self.received.try_iter());
        asked.clone()
    }
}

/// The name and the type of the first question, and where it ends.
fn question(message: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (labels.join("."), kind, at + 5)
}

/// The header and the question come back, with records behind them.
fn answer(question: &[u8], kind: u16, reply: Reply) -> Option<Vec<u8>> {
    let (code, address) = match reply {
        Reply::Address(ip) | Reply::Alias(ip) => (0, Some(ip).filter(|_| kind == A)),
        Reply::Nothing => (0, None),
        Reply::Code(code) => (code, None),
        Reply::Silence => return None,
    };
    let is_alias = matches!(reply, Reply::Alias(_)) && address.is_some();
    let denies = address.is_none() && matches!(code, 0 | 3);
    let mut answer = question.to_vec();
    // A response with recursion (RFC 1035 section 4.1.1), one question, and the counts of records.
    let records = u8::from(address.is_some()) + u8::from(is_alias);
    let counts = [0, 1, 0, records, 0, denies.into(), 0, 0];
    answer.splice(2..12, [0x81, 0x80 | code].into_iter().chain(counts));
    let owner_of_question = [0xc0, 12];
    let mut owner = owner_of_question;
    if is_alias {
        answer.extend(owner_of_question);
        answer.extend([0, 5, 0, 1, 0, 0, 0, 1, 0, 4]);
        // The name `x` at the place where it is written.
        owner = [0xc0, answer.len() as u8];
        answer.extend([1, b'x', 0xc0, 12]);
    }
    if let Some(ip) = address {
        answer.extend(owner);
        answer.extend([0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
        answer.extend(ip.octets());
    }
    if denies {
        // SOA: its data are two root names and five numbers (section 3.3.13).
        answer.extend(owner_of_question);
        answer.extend([0, 6, 0, 1, 0, 0, 0, 1, 0, 22, 0, 0]);
        answer.extend([0, 0, 0, 1].repeat(5));
    }
    Some(answer)
}
