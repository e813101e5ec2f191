//! The account at the ACME directory: registered once, then kept in the storage.

use instant_acme::{Account, AccountCredentials, NewAccount};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::https::Https;
use super::nonce::with_nonce;
use super::storage::Storage;

/// The content of the account's file.
#[derive(Serialize, Deserialize)]
struct Stored {
    contacts: Vec<String>,
    credentials: AccountCredentials,
}

/// Returns the account, and registers it if there is none yet. To use a directory means to agree to
/// its terms of service.
///
/// # Errors
/// The directory cannot be reached or refuses, or the credentials cannot be read or stored.
pub(super) async fn open(
    storage: &Storage,
    https: &Https,
    directory: &str,
    contacts: &[String],
) -> Result<Account, Failure> {
    if let Some(account) = existing(storage, https, contacts).await? {
        return Ok(account);
    }
    let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) =
        with_nonce!(Account::builder_with_http(Box::new(https.clone())).create(
            &new,
            directory.to_owned(),
            None
        ))?;
    tracing::info!(directory, account = account.id(), "registered an ACME account");
    store(storage, contacts, credentials)?;
    Ok(account)
}

/// Returns the account whose credentials are stored.
///
/// # Errors
/// As [`open`].
pub(super) async fn existing(
    storage: &Storage,
    https: &Https,
    contacts: &[String],
) -> Result<Option<Account>, Failure> {
    let Some(mut stored) = read(storage)? else { return Ok(None) };
    let are_equal = stored.contacts == contacts;
    let builder = Account::builder_with_http(Box::new(https.clone()));
    let account = builder.from_credentials(stored.credentials).await?;
    if !are_equal {
        let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
        with_nonce!(account.update_contacts(&contact))?;
        // The credentials were consumed.
        if let Some(again) = read(storage)? {
            stored = again;
            store(storage, contacts, stored.credentials)?;
        }
    }
    Ok(Some(account))
}

fn read(storage: &Storage) -> Result<Option<Stored>, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot read the account in acme.storage: {error}"))
    };
    let Some(text) = storage.account().map_err(|error| fail(&error))? else { return Ok(None) };
    match serde_json::from_slice(&text) {
        Ok(stored) => Ok(Some(stored)),
        // Renewals go on with a new account: it has the same rights to the names.
        Err(error) => {
            tracing::warn!(
                file = %storage.account_file().display(),
                %error,
                "the file of the ACME account is damaged: it is set aside"
            );
            storage.set_account_aside().map_err(|error| fail(&error))?;
            Ok(None)
        }
    }
}

fn store(
    storage: &Storage,
    contacts: &[String],
    credentials: AccountCredentials,
) -> Result<(), Failure> {
    let stored = Stored { contacts: contacts.to_vec(), credentials };
    let text = serde_json::to_vec(&stored).map_err(|error| Failure::new(error.to_string()))?;
    storage
        .store_account(&text)
        .map_err(|error| Failure::new(format!("cannot store the account: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_account_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme");
        let storage = Storage::open(&path, "https://acme.test/directory").unwrap();
        storage.store_account(b"{\"contacts\": [").unwrap();
        assert!(read(&storage).unwrap().is_none());
        assert!(storage.account().unwrap().is_none(), "it is not read again");
    }
}
