//! Requests to the servers of an ACME directory: HTTP/1.1 over TLS, a connection for each one.
//! There are about ten of them in two months.
//!
//! instant-acme's own client has no limits and hides the fields of error responses. This one limits
//! the time and the size of a response, and makes a [`Refused`] of an error response, which keeps
//! its Retry-After. It takes addresses from the look-ups of the control plane.

use std::error::Error as StdError;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::failure::{Failure, Refused, kind};
use crate::control::dns::HostLookup;

/// How long a request may take, from the look-up of the name to the last byte.
const LIMIT: Duration = Duration::from_secs(30);
/// How long connecting to one address may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The most bytes of a response. A chain of certificates has some kilobytes.
const MAX_BODY: usize = 1 << 20;
/// The longest Retry-After of a good response that instant-acme gets to see: it adds any number of
/// seconds to the time of day, which panics if the sum is too large.
const MAX_RETRY_AFTER: u64 = 24 * 3600;

/// Sends requests. Clones share everything.
#[derive(Clone)]
pub(super) struct Https {
    tls: TlsConnector,
    hosts: HostLookup,
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let https = self.clone();
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            match timeout(LIMIT, https.send(request)).await {
                Ok(result) => result,
                Err(_) => Err(other(format!("{host} has not responded within {LIMIT:?}"))),
            }
        })
    }
}

impl Https {
    /// Makes a client that trusts the certificates in `authorities`, or those that the system
    /// trusts.
    ///
    /// # Errors
    /// The certificates cannot be read, or there is none.
    pub(super) fn new(authorities: Option<&Path>, hosts: HostLookup) -> Result<Https, Failure> {
        let (mut roots, mut cause) = (RootCertStore::empty(), None);
        if let Some(path) = authorities {
            let fail = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(fail)? {
                let added = roots.add(certificate.map_err(fail)?);
                added.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            }
        } else {
            let mut found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            cause = found.errors.pop();
        }
        if roots.is_empty() {
            let text = "there is no certificate to check the directory's server with";
            let cause = cause.map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Failure::new(format!("{text}{cause}")));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Https { tls: Arc::new(config).into(), hosts })
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        // 1. Connect.
        let uri = request.uri().clone();
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(other(format!("{uri} is no https URL")));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(other)?;
        let stream = self.connect(host, uri.port_u16().unwrap_or(443)).await?;
        let describe = |error| other(format!("cannot open TLS to {host}: {error}"));
        let stream = self.tls.connect(name, stream).await.map_err(describe)?;

        // 2. Exchange. The connection must be driven meanwhile.
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        let exchange = async {
            let request = in_origin_form(request, &uri)?;
            let response = sender.send_request(request).await.map_err(other)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(Error::Other)?;
            Ok::<_, Error>((parts, body.to_bytes()))
        };
        tokio::pin!(exchange, connection);
        let result = tokio::select! {
            result = &mut exchange => result,
            // The server may close before all that it has sent is processed.
            _ = &mut connection => exchange.await,
        };

        // 3. Make an error of an error response.
        let (mut parts, body) = result?;
        if let Some(refused) = refused(parts.status, &parts.headers, &body) {
            return Err(other(refused));
        }
        limit_retry_after(&mut parts.headers);
        Ok(BytesResponse { parts, body: Box::new(body) })
    }

    /// Connects to the first address that accepts.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let addresses = self.hosts.addresses(host).await;
        let addresses =
            addresses.map_err(|error| other(format!("cannot look {host} up: {error}")))?;
        let mut last = format!("{host} has no address");
        for ip in addresses {
            last = match timeout(CONNECT, TcpStream::connect((ip, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => format!("cannot connect to {host} ({ip}, port {port}): {error}"),
                Err(_) => format!("cannot connect to {host} ({ip}, port {port}): no answer"),
            };
        }
        Err(other(last))
    }
}

/// The request as an HTTP/1.1 server takes it (RFC 9112 section 3.2.1).
fn in_origin_form(
    mut request: Request<BodyWrapper<Bytes>>,
    uri: &Uri,
) -> Result<Request<BodyWrapper<Bytes>>, Error> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(other)?;
    request.headers_mut().insert(HOST, host);
    let agent = HeaderValue::from_static(concat!("ringgate/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, agent);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse()?;
    Ok(request)
}

/// The error that a response is. `None` for a good response, and for refused nonces: instant-acme
/// sends that request again.
fn refused(status: StatusCode, fields: &HeaderMap, body: &[u8]) -> Option<Refused> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    if status == StatusCode::BAD_REQUEST
        && problem.as_ref().is_some_and(|problem| kind(problem) == "badNonce")
    {
        return None;
    }
    let retry_after = fields.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
    Some(Refused { status: status.as_u16(), problem, retry_after })
}

/// A Retry-After: seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn limit_retry_after(fields: &mut HeaderMap) {
    let seconds =
        fields.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if seconds.is_some_and(|seconds: u64| seconds > MAX_RETRY_AFTER) {
        fields.insert(RETRY_AFTER, MAX_RETRY_AFTER.into());
    }
}

fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(retry_after: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, retry_after.parse().unwrap())])
    }

    #[test]
    fn an_error_response_keeps_its_problem_and_its_time() {
        let body = br#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "slow down"}"#;
        let found = refused(StatusCode::TOO_MANY_REQUESTS, &fields("120"), body).unwrap();
        assert_eq!((found.status, found.to_string()), (429, "slow down (rateLimited)".to_owned()));
        assert_eq!(found.retry_after, Some(Duration::from_secs(120)));
        let page = refused(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>").unwrap();
        assert!(page.problem.is_none() && page.retry_after.is_none());
        assert!(refused(StatusCode::CREATED, &fields("1"), b"{}").is_none());
    }

    #[test]
    fn refused_nonces_are_left_to_the_sender_of_the_request() {
        let body = br#"{"type": "urn:ietf:params:acme:error:badNonce"}"#;
        assert!(refused(StatusCode::BAD_REQUEST, &HeaderMap::new(), body).is_none());
        assert!(refused(StatusCode::FORBIDDEN, &HeaderMap::new(), body).is_some());
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let minute = SystemTime::now() + Duration::from_secs(60);
        let left = retry_after(&httpdate::fmt_http_date(minute)).unwrap();
        assert!((50..=60).contains(&left.as_secs()), "{left:?}");
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn a_time_that_cannot_be_added_is_limited() {
        for (given, kept) in [("5", "5"), ("86401", "86400"), ("18446744073709551615", "86400")] {
            let mut fields = fields(given);
            limit_retry_after(&mut fields);
            assert_eq!(fields[RETRY_AFTER], kept);
        }
    }
}
