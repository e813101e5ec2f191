//! Files that hold an identity, and files that hold something else.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};

use super::*;

fn leaf(names: &[&str], key: &KeyPair) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap().self_signed(key).unwrap().pem()
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn a_certificate_and_its_key_are_an_identity() {
    let key = p256();
    let pem = leaf(&["Site.test", "*.example.test", "192.0.2.1", "2001:db8::1"], &key);
    let identity = Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(identity.names(), ["site.test", "*.example.test", "192.0.2.1", "2001:db8::1"]);
    assert_eq!(identity.key(), KeyKind::Ecdsa);
    assert!(identity.not_before() < identity.not_after());
    let covers = |name: &str| identity.covers(name);
    assert!(covers("SITE.test") && covers("a.example.test"));
    assert!(!covers("example.test") && !covers("a.b.example.test") && !covers("test"));
    let again = Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(identity, again);
    let other = leaf(&["site.test"], &key);
    assert_ne!(
        identity,
        Identity::parse(other.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    );
}

#[test]
fn text_around_the_sections_is_ignored_and_both_may_be_in_one_file() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pem = format!("subject: site\n{}\n{}", key.serialize_pem(), leaf(&["a.test"], &key));
    let identity = Identity::parse(pem.as_bytes(), pem.as_bytes()).unwrap();
    assert_eq!((identity.key(), identity.names()), (KeyKind::Ed25519, &["a.test".to_owned()][..]));
}

#[test]
fn the_certificate_of_a_challenge_is_an_identity() {
    let key = p256();
    let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let pem = params.self_signed(&key).unwrap().pem();
    let parse = |key: &KeyPair| Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes());
    assert_eq!(parse(&key).unwrap().names(), ["a.test"]);
    assert_eq!(parse(&p256()), Err(IdentityError::Mismatch));
}

#[test]
fn each_fault_is_named() {
    let key = p256();
    let (pem, key_pem) = (leaf(&["a.test"], &key), key.serialize_pem());
    let fault = |chain: &str, key: &str| {
        Identity::parse(chain.as_bytes(), key.as_bytes()).expect_err("a fault")
    };
    use IdentityError::{Certificate, Key, Mismatch};
    assert_eq!(fault("", &key_pem), Certificate(PemFault::Blank));
    assert_eq!(fault(&key_pem, &key_pem), Certificate(PemFault::HasKeyOnly));
    assert_eq!(fault(&pem, "\n"), Key(PemFault::Blank));
    assert_eq!(fault(&pem, "a text"), Key(PemFault::Empty));
    assert_eq!(fault(&pem, &pem), Key(PemFault::HasCertificateOnly));
    assert_eq!(fault(&pem, &p256().serialize_pem()), Mismatch);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    assert_eq!(fault(&pem, encrypted), Key(PemFault::Encrypted));
    assert_eq!(fault(encrypted, &key_pem), Certificate(PemFault::HasKeyOnly));
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
               DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(fault(&pem, old), Key(PemFault::Encrypted));
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    assert_eq!(fault(request, &key_pem), Certificate(PemFault::Request));
    let cut = &pem[..pem.len() / 2];
    assert_eq!(fault(cut, &key_pem), Certificate(PemFault::Cut));
    assert_eq!(fault(&pem, &key_pem[..key_pem.len() / 2]), Key(PemFault::Cut));
    let wrong = pem.replacen("M", "?", 1);
    assert_eq!(fault(&wrong, &key_pem), Certificate(PemFault::Malformed));
    assert_eq!(fault(&format!("\u{feff}{pem}"), &key_pem), Certificate(PemFault::ByteOrderMark));
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let binary = Identity::parse(&der, key_pem.as_bytes()).unwrap_err();
    assert_eq!(binary, Certificate(PemFault::Binary));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let second = Certificate(PemFault::MalformedCertificate(2));
    assert_eq!(fault(&format!("{pem}{garbage}"), &key_pem), second);
    // A certificate of the openssl command: rcgen makes no key as small.
    let small = include_str!("../../../../tests/config/rsa_1024.pem");
    assert_eq!(fault(small, &key_pem), IdentityError::SmallRsa(1024));
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(fault(&pem, no_key), Key(PemFault::UnsupportedKey));
}

#[test]
fn a_chain_begins_with_the_certificate_of_the_server() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the issuer");
    let issuer = CertifiedIssuer::self_signed(params, p256()).unwrap();
    let key = p256();
    let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    let (right, wrong) = (format!("{leaf}{}", issuer.pem()), format!("{}{leaf}", issuer.pem()));
    let key_pem = key.serialize_pem();
    assert!(Identity::parse(right.as_bytes(), key_pem.as_bytes()).is_ok());
    let error = Identity::parse(wrong.as_bytes(), key_pem.as_bytes()).unwrap_err();
    assert_eq!(error, IdentityError::Order { position: 2 });
}

#[test]
fn times_are_those_of_the_certificate() {
    let key = p256();
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 2);
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let pem = params.self_signed(&key).unwrap().pem();
    let identity = Identity::parse(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(since(identity.not_before()), Duration::from_secs(1_577_923_200));
    assert_eq!(since(identity.not_after()), Duration::from_secs(1_893_542_400));
}
