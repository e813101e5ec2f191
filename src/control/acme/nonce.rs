//! Requests whose nonces the authority refuses. Every request has a nonce that is good for once
//! (RFC 8555 section 6.5); one that is refused has done nothing and may be sent again. instant-acme
//! sends a request three times.

use std::time::Duration;

/// How often a request is repeated beyond that.
pub(super) const RETRIES: u32 = 30;
/// The pause before each repetition.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Runs a request, and again while its nonces are refused. A macro, because the future borrows what
/// the next one borrows again.
macro_rules! with_nonce {
    ($request:expr) => {{
        use $crate::control::acme::{failure::Failure, nonce, schedule::Retry};
        let mut left = nonce::RETRIES;
        loop {
            match $request.await.map_err(Failure::from) {
                Err(failure) if left > 0 && failure.retry == Retry::Soon => left -= 1,
                result => break result,
            }
            tokio::time::sleep(nonce::PAUSE).await;
        }
    }};
}
pub(super) use with_nonce;
