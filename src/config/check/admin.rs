//! Checks `[admin]`.

use super::super::admin::admin_address;
use super::super::certificates::read_token;
use super::super::keys;
use super::super::report::{Report, Span, quoted};
use super::super::types::{At, Field};
use super::super::{Admin, Listener, Protocol, Token};
use super::Check;
use crate::sys::Address;

impl Check<'_> {
    /// Returns `Some(None)` if the table was left out, and `None` if an error was reported.
    pub(super) fn admin(&self, field: &Field<keys::Admin>) -> Option<Option<Admin>> {
        let Some(typed) = field.as_ref() else { return (!field.is_given()).then_some(None) };
        let token = match &typed.token_file.value {
            None => (!typed.token_file.is_given()).then_some(None),
            Some(at) => self.token(at).map(Some),
        };
        let listen = typed.listen.value.as_ref()?;
        let address = self.admin_address(listen)?;
        if !typed.token_file.is_given() && !is_local(&address) {
            let what = format!("{} can be reached from other machines", quoted(&listen.value));
            let note = "name a file with a token: token_file = \"/etc/ringgate/admin.token\"; or \
                        listen on a loopback address or a Unix socket";
            self.report.error(listen.span, what, note);
        }
        Some(Some(Admin { address, token: token? }))
    }

    fn admin_address(&self, at: &At<String>) -> Option<Address> {
        match admin_address(&at.value) {
            Ok(address) => Some(address),
            Err((what, note)) => {
                self.report.error(at.span, what, note);
                None
            }
        }
    }

    fn token(&self, at: &At<String>) -> Option<Token> {
        let path = self.base.join(&at.value);
        match read_token(&path) {
            Ok(token) => {
                self.is_private(&path, at.span);
                Some(token)
            }
            Err(fault) => {
                self.file_fault(at.span, &at.value, fault);
                None
            }
        }
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Ip(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

/// Where the address of the admin endpoint is in the file.
pub(super) fn place(field: &Field<keys::Admin>) -> Option<Span> {
    field.as_ref()?.listen.value.as_ref().map(|at| at.span)
}

/// Reports a listener that has the address of the admin endpoint.
pub(super) fn overlaps(
    report: &Report<'_>,
    admin: &Admin,
    place: Option<Span>,
    listeners: &[std::sync::Arc<Listener>],
) {
    let streams =
        listeners.iter().filter(|listener| !matches!(listener.protocol, Protocol::Udp(_)));
    let same = streams.filter(|listener| listener.addresses.contains(&admin.address));
    let has_port = |address: &Address| match address {
        Address::Ip(address) => address.port() != 0,
        Address::Unix(_) => true,
    };
    if let (Some(place), Some(listener)) = (place, same.into_iter().next())
        && has_port(&admin.address)
    {
        let what = format!("the listener {} has this address, too", quoted(&listener.name));
        report.error(place, what, "give the admin endpoint an address of its own");
    }
}
