//! An ACME directory of the tests' own, for what pebble does not do: it suggests when to renew, and
//! refuses orders as a test wants.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};

use super::desk::{read, server};
use crate::support::{LONG, PebblePlace, with_deadlines};
use ringgate::proto::tls::{Output, Server};

/// A window for renewals that has passed.
const PAST: (&str, &str) = ("2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z");

/// A running directory. Lives until the test process ends.
pub(super) struct Directory {
    orders: Receiver<Value>,
}

/// How an order is refused: the status, the Retry-After, the problem.
pub(super) type Refusal = (&'static str, u32, Value);

impl Directory {
    /// Stands in for pebble in its place. Refuses orders in these ways, one after the other.
    pub(super) fn start(place: &PebblePlace, refusals: Vec<Refusal>) -> Directory {
        let listener = TcpListener::bind(place.directory()).unwrap();
        let server = server(&place.identity(), &[]);
        let base = place.url().strip_suffix("/dir").unwrap().to_owned();
        let (sender, orders) = channel();
        thread::spawn(move || {
            let mut refusals = refusals.into_iter();
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = |request: &str| {
                    let (head, body) = request.split_once("\r\n\r\n").unwrap();
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    if path != "/order" {
                        return respond("200 OK", 21_600, &resource(path, &base));
                    }
                    // An error means that the test has ended.
                    let _ = sender.send(payload(body));
                    let (status, retry_after, problem) =
                        refusals.next().expect("a refusal is left");
                    respond(status, retry_after, &problem.to_string())
                };
                // An error is about a client that has gone.
                let _ = exchange(with_deadlines(stream), &server, answer);
            }
        });
        Directory { orders }
    }

    /// The content of the next order.
    #[track_caller]
    pub(super) fn order(&self) -> Value {
        self.orders.recv_timeout(LONG).expect("an order")
    }
}

/// What is at a path.
fn resource(path: &str, base: &str) -> String {
    match path {
        "/dir" => json!({
            "newNonce": format!("{base}/nonce"),
            "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"),
            "renewalInfo": format!("{base}/renewal"),
        })
        .to_string(),
        _ if path.starts_with("/renewal/") => {
            json!({"suggestedWindow": {"start": PAST.0, "end": PAST.1}}).to_string()
        }
        _ => String::new(),
    }
}

fn respond(status: &str, retry_after: u32, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nreplay-nonce: abc\r\nretry-after: {retry_after}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The payload of a signed request (RFC 7515 section 7.2.2).
fn payload(body: &str) -> Value {
    let signed: Value = serde_json::from_str(body).unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// Reads one request over TLS and sends the response.
fn exchange(
    mut stream: TcpStream,
    server: &Server,
    answer: impl FnOnce(&str) -> String,
) -> io::Result<()> {
    let mut session = server.session().unwrap();
    let mut request = Vec::new();
    let request = loop {
        let wire = read(&mut stream)?;
        let start = session.headroom();
        let mut buffer = vec![0; start];
        buffer.extend_from_slice(&wire);
        let (end, mut output) = (buffer.len(), Output::default());
        let plaintext = session.receive(&mut buffer, start..end, &mut output);
        stream.write_all(&output)?;
        request.extend_from_slice(&buffer[plaintext]);
        let text = String::from_utf8_lossy(&request);
        if is_complete(&text) {
            break text;
        }
    };
    let mut output = Output::default();
    session.encrypt(answer(&request).as_bytes(), &mut output).unwrap();
    session.close(&mut output);
    stream.write_all(&output)
}

fn is_complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    body.len() >= length.parse().unwrap()
}
