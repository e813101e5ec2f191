//! One order from beginning to end (RFC 8555 section 7.4): the authority names the challenges, the
//! workers answer them, the authority checks, and issues.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::challenges::{ChallengeKind, Challenges, Event};
use super::failure::Failure;
use super::names::Names;
use super::nonce::with_nonce;

/// How long the authority may check the challenges, and how long it may take to issue.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));
/// How long the workers may take to confirm new challenges.
const PUBLISHED: Duration = Duration::from_secs(30);
const INVALID: &str = "the authority has found the order invalid and names no problem";

/// A certificate chain and its key, both as PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Gets a certificate for these names. The caller withdraws the challenges afterwards, whatever the
/// result is.
///
/// # Errors
/// The authority refuses, cannot be reached, or has not finished in time.
pub(super) async fn order(
    account: &Account,
    names: &Names,
    kind: ChallengeKind,
    replaces: Option<CertificateIdentifier<'static>>,
    events: &mpsc::Sender<Event>,
) -> Result<Issued, Failure> {
    // 1. Order. The names of an earlier proof may need none now.
    let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.to_owned())).collect();
    let mut new = NewOrder::new(&identifiers);
    if let Some(replaced) = replaces {
        new = new.replaces(replaced);
    }
    let mut order = with_nonce!(account.new_order(&new))?;
    let challenges = with_nonce!(challenges(&mut order, kind))?;

    // 2. Answer the challenges, then tell the authority.
    if !challenges.is_empty() {
        publish(events, challenges).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(to_type(kind))
            {
                with_nonce!(challenge.set_ready())?;
            }
        }
    }
    let ready = with_nonce!(order.poll_ready(&POLL));
    if order.state().status == OrderStatus::Invalid {
        // What the order itself says, if anything, may leave out the name.
        let found = with_nonce!(why_invalid(&mut order, kind))?;
        return Err(found.or(ready.err()).unwrap_or_else(|| Failure::new(INVALID)));
    }
    ready?;

    // 3. Make a key and let the authority certify it.
    let key = with_nonce!(order.finalize())?;
    let chain = with_nonce!(order.poll_certificate(&POLL))?;
    Ok(Issued { chain, key })
}

/// Sends the challenges to the workers and waits until all have them.
///
/// # Errors
/// They are not confirmed in time.
pub(super) async fn publish(
    events: &mpsc::Sender<Event>,
    challenges: Challenges,
) -> Result<(), Failure> {
    let (published, confirmed) = oneshot::channel();
    let event = Event::Challenges { challenges: Arc::new(challenges), published };
    let confirmed = async { events.send(event).await.is_ok() && confirmed.await.is_ok() };
    match timeout(PUBLISHED, confirmed).await {
        Ok(true) => Ok(()),
        _ => Err(Failure::new("the workers have not confirmed the challenges in time")),
    }
}

/// The answers to the open challenges of an order.
async fn challenges(order: &mut Order, kind: ChallengeKind) -> Result<Challenges, Failure> {
    let mut challenges = Challenges::default();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(Failure::new(format!("{name}: authorization is {status:?}"))),
        }
        let Some(challenge) = authorization.challenge(to_type(kind)) else {
            let text = format!("{name}: the authority does not offer the challenge {kind}");
            return Err(Failure::new(text));
        };
        challenges.add(kind, &name, &challenge.token, &challenge.key_authorization())?;
    }
    Ok(challenges)
}

/// What the authority has found when it checked the challenges.
async fn why_invalid(order: &mut Order, kind: ChallengeKind) -> Result<Option<Failure>, Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        authorization.refresh().await?;
        let name = authorization.identifier().to_string();
        let challenges = authorization.challenges.iter();
        let mut problems = challenges.filter(|challenge| challenge.r#type == to_type(kind));
        if let Some(problem) = problems.find_map(|challenge| challenge.error.as_ref()) {
            return Ok(Some(Failure::of_name(&name, problem)));
        }
    }
    Ok(None)
}

fn to_type(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}
