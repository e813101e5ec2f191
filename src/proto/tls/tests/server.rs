//! What a server chooses, and which clients it accepts.

use super::*;

fn is_rsa(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    matches!(
        scheme,
        S::RSA_PSS_SHA256
            | S::RSA_PSS_SHA384
            | S::RSA_PSS_SHA512
            | S::RSA_PKCS1_SHA256
            | S::RSA_PKCS1_SHA384
            | S::RSA_PKCS1_SHA512
    )
}

#[test]
fn a_client_gets_the_certificate_whose_signatures_it_accepts() {
    let Site { ecdsa, rsa, .. } = site();
    for identities in [[rsa.clone(), ecdsa.clone()], [ecdsa.clone(), rsa.clone()]] {
        let server = ServerSettings { identities: &identities, ..server_settings() };
        let server = Server::new(&server).unwrap();
        for version in VERSIONS {
            let shown = |accepts: fn(SignatureScheme) -> bool| {
                let pair = connect_raw(&raw_client(version, accepts, None), &server);
                assert_eq!(pair.states(), (State::Open, State::Open));
                pair.client.rustls().peer_certificates().unwrap()[0].clone()
            };
            assert_eq!(shown(|_| true), ecdsa.certified_key().cert[0]);
            // The signature of the authority is ECDSA, which `all` accepts in any case.
            assert_eq!(shown(is_rsa), rsa.certified_key().cert[0]);
        }
    }
}

#[test]
fn a_client_that_accepts_no_certificate_gets_an_alert() {
    for version in VERSIONS {
        let pair = connect_raw(&raw_client(version, is_rsa, None), &server());
        let expected = (State::Failed(Error::Alert), State::Failed(Error::Incompatible));
        assert_eq!(pair.states(), expected);
    }
}

#[test]
fn a_version_below_the_oldest_gets_an_alert() {
    let server = ServerSettings { min_version: Version::Tls13, ..server_settings() };
    let server = Server::new(&server).unwrap();
    let old = raw_client(&version::TLS12, |_| true, None);
    let expected = (State::Failed(Error::Alert), State::Failed(Error::Incompatible));
    assert_eq!(connect_raw(&old, &server).states(), expected);
    let new = raw_client(&version::TLS13, |_| true, None);
    assert_eq!(connect_raw(&new, &server).states(), (State::Open, State::Open));
}

#[test]
fn the_server_prefers_protocols_in_its_own_order() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let agreed = |offered: &[&str], known: &[&str]| {
        let (offered, known) = (names(offered), names(known));
        let client = ClientSettings { protocols: &offered, ..client_settings() };
        let server = ServerSettings { protocols: &known, ..server_settings() };
        let pair = connect(&Client::new(&client).unwrap(), &Server::new(&server).unwrap());
        let protocol = pair.server.protocol().map(|name| String::from_utf8_lossy(name).to_string());
        (pair.states(), protocol)
    };
    let open = (State::Open, State::Open);
    let h2 = (open, Some("h2".to_owned()));
    assert_eq!(agreed(&["http/1.1", "h2"], &["h2", "http/1.1"]), h2);
    assert_eq!(agreed(&["h2"], &[]), (open, None));
    assert_eq!(agreed(&[], &["h2"]), (open, None));
    let failed = (State::Failed(Error::Alert), State::Failed(Error::Incompatible));
    assert_eq!(agreed(&["http/1.1"], &["h2"]), (failed, None));
}

#[test]
fn clients_show_a_certificate_where_it_is_demanded() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let authorities = trusted.certificates();
    let server = ServerSettings { client_authorities: Some(&authorities), ..server_settings() };
    let server = Server::new(&server).unwrap();
    for version in VERSIONS {
        let shows = |identity: Option<&Identity>| {
            let pair = connect_raw(&raw_client(version, |_| true, identity), &server);
            let shown = pair.server.rustls().peer_certificates().map(|chain| chain[0].clone());
            (pair.states(), shown)
        };
        let good = trusted.issue(&["client.test"], &PKCS_ECDSA_P256_SHA256);
        let own = good.certified_key().cert[0].clone();
        assert_eq!(shows(Some(&good)), ((State::Open, State::Open), Some(own)));
        let bad = other.issue(&["client.test"], &PKCS_ECDSA_P256_SHA256);
        for (identity, error) in
            [(None, Error::CertificateMissing), (Some(&bad), Error::CertificateIssuer)]
        {
            let (states, shown) = shows(identity);
            assert_eq!(states, (State::Failed(Error::Alert), State::Failed(error)));
            assert_eq!(shown, None);
        }
    }
}
