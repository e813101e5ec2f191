//! Why an attempt to get a certificate has failed, as text for one line of the diagnostics, and
//! when the next one may succeed.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use instant_acme::{Error, Problem};

use super::schedule::Retry;
use crate::config::printable;
use crate::error::chain;

/// The most characters of a text: much of it comes from the authority.
const MAX_TEXT: usize = 600;
/// How types of problems begin (RFC 8555 section 6.7).
const PREFIX: &str = "urn:ietf:params:acme:error:";

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    pub(super) retry: Retry,
}

/// A response of the authority with an error status.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    /// The body, if it describes the problem (RFC 7807).
    pub(super) problem: Option<Problem>,
    /// The pause that the response asks for.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), retry: Retry::Later }
    }

    /// A problem that the authority has found with a name.
    pub(super) fn of_name(name: &str, problem: &Problem) -> Failure {
        Failure { text: format!("{name}: {}", describe(problem)), retry: retry(problem) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match &error {
            Error::Api(problem) => Failure { text: describe(problem), retry: retry(problem) },
            Error::Timeout(next) => {
                let left = next.map(|next| next.saturating_duration_since(Instant::now()));
                let retry = left.map_or(Retry::Later, Retry::After);
                Failure { text: "the authority is not done in time".to_owned(), retry }
            }
            Error::Other(other) => match other.downcast_ref::<Refused>() {
                Some(refused) => refused.into(),
                None => Failure::new(chain(&**other)),
            },
            other => Failure::new(chain(other)),
        }
    }
}

impl From<&Refused> for Failure {
    fn from(refused: &Refused) -> Failure {
        let by_type = refused.problem.as_ref().map_or(Retry::Later, retry);
        Failure {
            text: refused.to_string(),
            retry: refused.retry_after.map_or(by_type, Retry::After),
        }
    }
}

impl fmt::Display for Failure {
    /// The text on one line, without characters that affect a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.char_indices().nth(MAX_TEXT) {
            None => f.write_str(&printable(Cow::Borrowed(&self.text))),
            Some((end, _)) => write!(f, "{}…", printable(Cow::Borrowed(&self.text[..end]))),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => f.write_str(&describe(problem)),
            None => write!(f, "the directory's server has responded with status {}", self.status),
        }
    }
}

impl std::error::Error for Refused {}

/// The type of a problem without its prefix.
pub(super) fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix(PREFIX).unwrap_or(kind)
}

fn retry(problem: &Problem) -> Retry {
    match kind(problem) {
        "badNonce" => Retry::Soon,
        "accountDoesNotExist" => Retry::NewAccount,
        "rateLimited" => Retry::RateLimited,
        _ => Retry::Later,
    }
}

/// A problem with those of single names, as `DETAIL (TYPE)`.
fn describe(problem: &Problem) -> String {
    let one = |detail: &Option<String>, kind: &str| {
        let detail = detail.as_deref().unwrap_or("no detail");
        if kind.is_empty() { detail.to_owned() } else { format!("{detail} ({kind})") }
    };
    let mut text = one(&problem.detail, kind(problem));
    for part in &problem.subproblems {
        let kind = part.r#type.as_deref().unwrap_or_default();
        let kind = kind.strip_prefix(PREFIX).unwrap_or(kind);
        let name = part.identifier.as_ref().map(|name| format!("{}: ", name.authorized(false)));
        text = format!("{text}; {}{}", name.unwrap_or_default(), one(&part.detail, kind));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    fn of_kind(kind: &str) -> Problem {
        problem(&format!(r#"{{"type": "{PREFIX}{kind}", "detail": "text", "status": 400}}"#))
    }

    #[test]
    fn a_problem_is_told_with_those_of_its_names() {
        let problem = problem(
            r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "some were rejected",
                "subproblems": [
                  {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "not here",
                   "identifier": {"type": "dns", "value": "a.test"}},
                  {"detail": "nor there"}]}"#,
        );
        assert_eq!(
            Failure::from(Error::Api(problem)).to_string(),
            "some were rejected (malformed); a.test: not here (rejectedIdentifier); nor there"
        );
    }

    #[test]
    fn the_type_tells_when_to_retry() {
        for (kind, expected) in [
            ("badNonce", Retry::Soon),
            ("accountDoesNotExist", Retry::NewAccount),
            ("rateLimited", Retry::RateLimited),
            ("unauthorized", Retry::Later),
        ] {
            assert_eq!(Failure::from(Error::Api(of_kind(kind))).retry, expected, "{kind}");
        }
    }

    #[test]
    fn a_time_that_the_response_names_goes_first() {
        let retry_after = Some(Duration::from_secs(90));
        let problem = Some(of_kind("rateLimited"));
        let refused = Refused { status: 429, problem, retry_after };
        let failure = Failure::from(Error::Other(Box::new(refused)));
        assert_eq!(failure.retry, Retry::After(Duration::from_secs(90)));
        assert_eq!(failure.to_string(), "text (rateLimited)");
        let refused = Refused { status: 503, problem: None, retry_after: None };
        let failure = Failure::from(Error::Other(Box::new(refused)));
        assert_eq!(failure.retry, Retry::Later);
        assert!(failure.to_string().ends_with("status 503"));
    }

    #[test]
    fn a_text_is_bounded_and_affects_no_terminal() {
        let text = Failure::new("a\nb\x1b[31m\u{202e}\u{7f}\"c\"").to_string();
        assert_eq!(text, "a\\nb\\u{1b}[31m\\u{202e}\\u{7f}\"c\"");
        let text = Failure::new("ü".repeat(100_000)).to_string();
        assert_eq!(text.chars().count(), MAX_TEXT + 1);
    }
}
