//! Reads which endpoints of which cluster a client wants to change.

use std::net::SocketAddr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::view::View;
use crate::control::roster::MOST_STEERED;

/// A cluster of the configuration, by its name as a path has it.
pub(super) fn cluster(view: &View, encoded: &str) -> Option<String> {
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    view.config.cluster(&name).map(|_| name.into_owned())
}

/// An endpoint of a cluster, by its address as a path has it.
pub(super) fn endpoint(view: &View, cluster: &str, encoded: &str) -> Option<String> {
    let text = percent_decode_str(encoded).decode_utf8().ok()?;
    // An IPv6 address has several spellings.
    let address = match text.parse::<SocketAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => text.into_owned(),
    };
    view.facts.roster.has(cluster, &address).then_some(address)
}

/// What `POST /clusters/NAME/endpoints` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoints {
    endpoints: Vec<SocketAddr>,
}

/// The endpoints of a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn endpoints(body: &str) -> Result<Vec<SocketAddr>, String> {
    let Endpoints { endpoints } = serde_json::from_str(body).map_err(|error| {
        format!(
            "write {{\"endpoints\": [\"IP:PORT\", ...]}}: the body is not of this form: {error}"
        )
    })?;
    if endpoints.len() > MOST_STEERED {
        return Err(format!("at most {MOST_STEERED} endpoints can be set"));
    }
    match endpoints.iter().find(|endpoint| endpoint.port() == 0) {
        Some(endpoint) => Err(format!("{endpoint} has no port")),
        None => Ok(endpoints),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_addresses_with_ports() {
        let wanted = vec!["10.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()];
        assert_eq!(endpoints(r#"{"endpoints": ["10.0.0.1:80", "[::1]:81"]}"#), Ok(wanted));
        assert_eq!(endpoints(r#"{"endpoints": []}"#), Ok(Vec::new()));
        let many = format!("{{\"endpoints\": {:?}}}", vec!["1.1.1.1:1"; MOST_STEERED + 1]);
        for wrong in [
            "",
            "{}",
            r#"{"endpoints": ["a:80"]}"#,
            r#"{"endpoints": ["10.0.0.1"]}"#,
            r#"{"endpoints": ["10.0.0.1:0"]}"#,
            r#"{"endpoints": [], "other": 1}"#,
            &many,
        ] {
            assert!(endpoints(wrong).is_err(), "{wrong}");
        }
    }
}
