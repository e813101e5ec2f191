//! Checks what is about all requests of an http listener: its pages for errors, the proxies in
//! front of it, and its fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::keys;
use super::super::report::quoted;
use super::super::types::{At, Entries, Field, List};
use super::super::{
    ErrorPage, ErrorPages, FieldName, FieldRules, FieldValue, Http, Network, RelayTimeouts, address,
};
use super::Check;
use super::fields::Message;

impl Check<'_> {
    pub(super) fn http(&self, typed: &keys::Listener, timeouts: RelayTimeouts) -> Option<Http> {
        let mut hosts = self.hosts(typed, timeouts);
        let error_pages = self.error_pages(&typed.error_pages);
        let trusted_proxies = self.networks(&typed.trusted_proxies);
        let response_fields = self.fields_of_responses(typed);
        let routes = hosts.iter_mut().flatten().flat_map(|host| &mut host.routes);
        // No other reference to a route exists yet.
        for route in routes.filter_map(Arc::get_mut) {
            route.response_fields = route.response_fields.followed_by(&response_fields);
        }
        let tls = if typed.tls.is_empty() { None } else { Some(self.tls(typed, timeouts)?) };
        Some(Http {
            head_timeout: typed.head_timeout.get().0,
            keepalive_timeout: typed.keepalive_timeout.get().0,
            max_head: typed.max_head.get().0 as usize,
            max_headers: typed.max_headers.get() as usize,
            error_pages,
            trusted_proxies,
            response_fields,
            hosts: hosts?,
            tls,
        })
    }

    /// The rules for all responses: `response_fields`, and Server from `server_header`.
    fn fields_of_responses(&self, typed: &keys::Listener) -> FieldRules {
        const SERVER: &str = "server";
        let rules = self.field_rules(&typed.response_fields, Message::Response);
        let value = self.some_field_value("server_header", &typed.server_header);
        let value = value.as_deref().and_then(FieldValue::new);
        let (Some(name), Some(value)) = (FieldName::new(SERVER), value) else { return rules };
        if rules.drops(SERVER)
            && let Some(key) = typed.server_header.key
        {
            let what = "`server_header` and `response_fields` are both about the field Server";
            self.report.error(key, what, "remove one of them");
        }
        rules.followed_by(&FieldRules::new(vec![(name, value)], Vec::new()))
    }

    /// Reads the pages. Those that are reported are left out.
    fn error_pages(&self, field: &Field<Entries<String>>) -> ErrorPages {
        let mut pages = BTreeMap::new();
        for (status, file) in field.as_ref().into_iter().flat_map(|entries| entries.iter()) {
            let number = status.value.parse().ok().filter(|number| (400..600).contains(number));
            if number.is_none() || status.value.len() != 3 {
                let what = format!("{} is not the status of an error", quoted(&status.value));
                let note =
                    "errors have the statuses 400 to 599: error_pages = { 404 = \"404.html\" }";
                self.report.error(status.span, what, note);
            }
            let content_type = self.type_of_file(file);
            let page = content_type
                .and_then(|content_type| Some(ErrorPage { content_type, body: self.page(file)? }));
            pages.extend(number.zip(page));
        }
        ErrorPages(pages.into_iter().collect())
    }

    /// The content type that the extension of a file says. Returns `None` if it says none, which is
    /// reported.
    fn type_of_file(&self, file: &At<String>) -> Option<String> {
        let extension = file.value.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
        let content_type = match extension.unwrap_or_default().as_str() {
            "html" | "htm" => "text/html; charset=utf-8",
            "txt" => "text/plain; charset=utf-8",
            "json" => "application/json",
            "xml" => "application/xml",
            "svg" => "image/svg+xml",
            _ => {
                let what = format!("the type of the page {} is not known", quoted(&file.value));
                let note = "the extension says it: name a file that ends in .html, .txt, .json, \
                            .xml or .svg";
                self.report.error(file.span, what, note);
                return None;
            }
        };
        Some(content_type.to_owned())
    }

    /// Reads networks. Those that are reported are left out.
    fn networks(&self, field: &Field<List<String>>) -> Vec<Network> {
        let mut networks: Vec<(Network, &At<String>)> = Vec::new();
        for text in field.as_ref().into_iter().flat_map(|texts| texts.iter()) {
            let network = match address::network(&text.value) {
                Ok(network) => network,
                Err(fault) => {
                    self.report.fault(text.span, fault);
                    continue;
                }
            };
            let wider = networks.iter().find(|(earlier, _)| earlier.includes(&network));
            let narrower = networks.iter().find(|(earlier, _)| network.includes(earlier));
            if let Some((_, earlier)) = wider.or(narrower) {
                let (one, other) =
                    if wider.is_some() { (text, *earlier) } else { (*earlier, text) };
                let what = format!("{} is a part of {}", quoted(&one.value), quoted(&other.value));
                let note = format!(
                    "line {} has {}: remove the smaller one",
                    self.report.line(earlier.span),
                    quoted(&earlier.value)
                );
                self.report.error(text.span, what, note);
            }
            if network.first().is_unspecified() && network.length() == 0 {
                let what = format!("{} is every address", quoted(&text.value));
                let note = "any client can then choose the address that clusters see: \
                            list the proxies alone";
                self.report.warning(text.span, what, note);
            }
            networks.push((network, text));
        }
        let mut networks: Vec<Network> = networks.into_iter().map(|(network, _)| network).collect();
        networks.sort_unstable();
        networks
    }
}
