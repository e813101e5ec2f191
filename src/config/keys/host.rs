//! `[[listener.host]]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::Route;
use super::patterns::HOST_NAME;
use crate::config::types::{Field, List, Place, Tables};

/// A host of an http listener. The most specific name wins: exact, then the longest `*.suffix`,
/// then the longest `prefix.*`, then the host without names. The port in the Host field does not
/// matter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "domains": "names",
    "domain": "names",
    "server_name": "names",
    "routes": "route",
    "location": "route",
}))]
pub(in crate::config) struct Host {
    #[schemars(skip)]
    pub(in crate::config) place: Place,
    /// Names: a name or an IP address, `"*.example.com"` for all its subdomains, or `"example.*"`.
    /// Left out: every other host. One host of a listener may have no names.
    #[schemars(
        inner(regex(pattern = HOST_NAME)),
        example = ["live.example.com", "*.example.org"],
        extend(
            "uniqueItems" = true,
            "x-empty" = "no request can match the host; leave `names` out to match \
                         every other name"
        )
    )]
    pub(in crate::config) names: Field<List<String>>,
    /// What is done with requests. Routes are tried in order, and the first one that matches wins.
    /// Without a match the response is a 404.
    #[schemars(extend(
        "x-required" = "add a [[listener.host.route]] with path or prefix, and an action"
    ))]
    pub(in crate::config) route: Tables<Route>,
}
