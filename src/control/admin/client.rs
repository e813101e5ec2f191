//! Requests to the admin endpoint of a running process, for the commands of the command line.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::error::Error;
use crate::sys::Address;

/// How long a request may take: longer than an order does.
const LIMIT: Duration = Duration::from_secs(70);
/// The most bytes of a response.
const MAX_BODY: usize = 64 << 20;

/// Where an admin endpoint is, and what it needs to be shown.
pub struct Endpoint {
    /// Its address.
    pub address: Address,
    /// The token, if it needs one.
    pub token: Option<String>,
}

/// The response of an endpoint.
pub struct Reply {
    /// Whether the status is 2xx.
    pub is_success: bool,
    /// The body as text.
    pub body: String,
}

impl Endpoint {
    /// Reads the token of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(address: Address, token_file: Option<&Path>) -> Result<Endpoint, Error> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                let what = format!("cannot read the token in {}", path.display());
                Error::usage(what, error, "name the file of admin.token_file, as its user")
            })
        };
        let token = token_file.map(read).transpose()?;
        Ok(Endpoint { address, token: token.map(|text| text.trim().to_owned()) })
    }

    /// Sends a request without a body, and waits for the response. `is_order` sends a POST.
    ///
    /// # Errors
    /// There is no endpoint, or it does not respond within 70 s.
    pub fn ask(&self, path: &str, is_order: bool) -> Result<Reply, Error> {
        let failed = |error: io::Error| {
            let what = format!("cannot ask the admin endpoint {}", self.address);
            Error::usage(what, error, advice(&self.address))
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        // A time limit needs the runtime when it is made.
        let asked =
            runtime.block_on(async { timeout(LIMIT, self.connect_and_ask(path, is_order)).await });
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)
    }

    /// Sends a GET, and waits for the response for `limit` at most.
    ///
    /// # Errors
    /// There is no endpoint, or it does not respond in time.
    pub async fn get(&self, path: &str, limit: Duration) -> io::Result<Reply> {
        let asked = timeout(limit, self.connect_and_ask(path, false)).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn connect_and_ask(&self, path: &str, is_order: bool) -> io::Result<Reply> {
        match &self.address {
            Address::Ip(address) => {
                let stream = TcpStream::connect(address).await?;
                self.ask_over(stream, &address.to_string(), path, is_order).await
            }
            Address::Unix(socket) => {
                let stream = UnixStream::connect(socket).await?;
                self.ask_over(stream, "localhost", path, is_order).await
            }
        }
    }

    async fn ask_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
        path: &str,
        is_order: bool,
    ) -> io::Result<Reply> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let method = if is_order { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if is_order {
            request = request.header(CONTENT_LENGTH, 0);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status: StatusCode = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        Ok(Reply {
            is_success: status.is_success(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

fn advice(address: &Address) -> &'static str {
    match address {
        Address::Unix(_) => {
            "ringgate must run with [admin] listen = \"unix:…\" and this path, and this user must \
             be its user, in its group, or root; --admin names another address"
        }
        Address::Ip(_) => {
            "ringgate must run with [admin] and this address; --admin names another one"
        }
    }
}
