//! What a client accepts and shows.

use super::*;

#[test]
fn a_server_is_verified_by_its_authority_and_its_name() {
    let site = site();
    let mut pair = connect(&client(), &server());
    assert_eq!(pair.states(), (State::Open, State::Open));
    assert_eq!(pair.server.take_server_name().as_deref(), Some(NAME));

    let other = Authority::new().certificates();
    let stranger =
        Client::new(&ClientSettings { authorities: Some(&other), ..client_settings() }).unwrap();
    let refused = |pair: Pair| {
        assert_eq!(pair.server.state(), State::Failed(Error::Alert));
        pair.client.state()
    };
    let state = refused(connect(&stranger, &server()));
    assert_eq!(state, State::Failed(Error::CertificateIssuer));
    let state = refused(connect_to(&client(), &server(), "a.other.test"));
    assert_eq!(state, State::Failed(Error::CertificateName));

    let mut old = CertificateParams::new([NAME.to_owned()]).unwrap();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old = [site.authority.issue_with(old, &PKCS_ECDSA_P256_SHA256)];
    let old = Server::new(&ServerSettings { identities: &old, ..server_settings() }).unwrap();
    let state = refused(connect(&client(), &old));
    assert_eq!(state, State::Failed(Error::CertificateExpired));

    // Without verification, all of these are accepted.
    let careless = Client::new(&ClientSettings { authorities: None, ..client_settings() }).unwrap();
    for pair in [connect(&careless, &old), connect_to(&careless, &server(), "a.other.test")] {
        assert_eq!(pair.states(), (State::Open, State::Open));
    }
}

#[test]
fn a_self_signed_certificate_is_accepted_where_it_is_named() {
    let make = |name: &str, year: i32| {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        (Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap(), pem)
    };
    let (own, pem) = make(NAME, 4000);
    let named = Authorities::parse(pem.as_bytes()).unwrap();
    let client_of = |authorities: &Authorities| {
        Client::new(&ClientSettings { authorities: Some(authorities), ..client_settings() })
            .unwrap()
    };
    let server_of = |identity: Identity| {
        Server::new(&ServerSettings { identities: &[identity], ..server_settings() }).unwrap()
    };
    let server = server_of(own);
    assert_eq!(connect(&client_of(&named), &server).states(), (State::Open, State::Open));
    let pair = connect_to(&client_of(&named), &server, "a.other.test");
    assert_eq!(pair.client.state(), State::Failed(Error::CertificateName));
    // Another one of the same name is not it.
    let pair = connect(&client_of(&named), &server_of(make(NAME, 4000).0));
    assert!(matches!(pair.client.state(), State::Failed(_)));
    let (old, pem) = make(NAME, 2020);
    let named = Authorities::parse(pem.as_bytes()).unwrap();
    let pair = connect(&client_of(&named), &server_of(old));
    assert_eq!(pair.client.state(), State::Failed(Error::CertificateExpired));
}

#[test]
fn an_ip_address_is_verified_and_not_sent() {
    let names = ["192.0.2.1", "2001:db8::1"];
    let identity = [site().authority.issue(&names, &PKCS_ECDSA_P256_SHA256)];
    let server = ServerSettings { identities: &identity, ..server_settings() };
    let server = Server::new(&server).unwrap();
    for name in names {
        let mut pair = connect_to(&client(), &server, name);
        assert_eq!(pair.states(), (State::Open, State::Open));
        assert_eq!(
            (pair.client.take_server_name().as_deref(), pair.server.take_server_name().as_deref()),
            (None, None)
        );
    }
    let pair = connect_to(&client(), &server, "192.0.2.2");
    assert_eq!(pair.client.state(), State::Failed(Error::CertificateName));
}

#[test]
fn a_name_that_no_certificate_can_have_is_refused() {
    for name in ["", "a b", "a..b", "[::1]", "site.test:443", "*.site.test"] {
        let mut output = Vec::new();
        let result = client().session(name, &mut output);
        assert_eq!(result.err(), Some(Error::ServerName), "{name}");
        assert!(output.is_empty() && !is_server_name(name));
    }
    assert!(is_server_name("a_b.test") && is_server_name("::1"));
}

#[test]
fn the_oldest_version_holds_on_both_sides() {
    let new = Version::Tls13;
    let new_client = Client::new(&ClientSettings { min_version: new, ..client_settings() });
    let new_server = Server::new(&ServerSettings { min_version: new, ..server_settings() });
    let pair = connect(&new_client.unwrap(), &new_server.unwrap());
    assert_eq!((pair.client.version(), pair.server.version()), (Some("1.3"), Some("1.3")));
}

#[test]
fn tickets_of_many_servers_replace_each_other() {
    let (client, server) = (client(), server());
    let resumes = |name: &str| connect_to(&client, &server, name).is_resumed();
    assert!(!resumes("first.example.test") && resumes("first.example.test"));
    for at in 0..TICKETS_SERVERS {
        assert!(!resumes(&format!("{at}.example.test")));
    }
    assert!(!resumes("first.example.test"));
}

/// Server names whose tickets a client keeps.
const TICKETS_SERVERS: usize = 32;
