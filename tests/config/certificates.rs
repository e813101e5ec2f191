//! A directory with the files that configurations of tests name: certificates and keys, and what
//! the examples have beside them. All are made by the test, and open nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256,
    RsaKeySize, date_time_ymd,
};
use tempfile::TempDir;

/// The name, the text and the mode of a file.
type File = (&'static str, String, u32);

static FILES: LazyLock<Vec<File>> = LazyLock::new(files);

thread_local! {
    /// Removed with the thread of the test.
    static DIRECTORY: TempDir = directory();
}

/// The directory.
pub(crate) fn base() -> PathBuf {
    DIRECTORY.with(|directory| directory.path().to_owned())
}

fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = fs::read_dir(crate_root.join("config")).expect("the examples can be listed");
    let mut others: Vec<PathBuf> =
        examples.map(|entry| entry.expect("an entry can be read").path()).collect();
    others.push(crate_root.join("tests/config/bad/page.html"));
    others.push(crate_root.join("tests/config/rsa_1024.pem"));
    for other in others {
        let name = other.file_name().expect("a file has a name");
        symlink(&other, directory.path().join(name)).expect("a link can be made");
    }
    for (name, text, mode) in FILES.iter() {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("it is ours");
    }
    directory
}

fn files() -> Vec<File> {
    let (ecdsa, other, authority) = (key(), key(), key());
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key");
    let names = ["site.test", "*.site.test"];
    let site = valid(&names, 2020, 2120).self_signed(&ecdsa).expect("a certificate").pem();
    let mut authority_params = valid(&[], 2020, 2120);
    authority_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority_params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority =
        CertifiedIssuer::self_signed(authority_params, authority).expect("a certificate");
    let leaf = valid(&names, 2020, 2120).signed_by(&ecdsa, &authority).expect("a certificate");
    let pem = |from, to, key| valid(&names, from, to).self_signed(key).expect("it is valid").pem();
    let mut nameless = valid(&[], 2020, 2120);
    nameless.distinguished_name.push(DnType::CommonName, "cn.site.test");
    let nameless = nameless.self_signed(&ecdsa).expect("it is valid").pem();
    let documented = valid(&["www.example.com"], 2020, 2120);
    let documented = documented.self_signed(&ecdsa).expect("a certificate").pem();
    let section = |title: &str| format!("-----BEGIN {title}-----\nAAAA\n-----END {title}-----\n");
    let ticket_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    vec![
        ("ecdsa.pem", site.clone(), 0o644),
        ("ecdsa.key", ecdsa.serialize_pem(), 0o600),
        ("fullchain.pem", documented, 0o644),
        ("privkey.pem", ecdsa.serialize_pem(), 0o600),
        ("open.key", ecdsa.serialize_pem(), 0o604),
        ("rsa.pem", pem(2020, 2120, &rsa), 0o644),
        ("rsa.key", rsa.serialize_pem(), 0o600),
        ("other.key", other.serialize_pem(), 0o600),
        ("expired.pem", pem(2020, 2021, &ecdsa), 0o644),
        ("future.pem", pem(2120, 2121, &ecdsa), 0o644),
        ("chain.pem", format!("{}{}", leaf.pem(), authority.pem()), 0o644),
        ("wrong_order.pem", format!("{}{}", authority.pem(), leaf.pem()), 0o644),
        ("second_malformed.pem", format!("{site}{}", section("CERTIFICATE")), 0o644),
        ("cut.pem", site[..site.len() / 2].to_owned(), 0o644),
        ("clients.pem", authority.pem(), 0o644),
        ("encrypted.key", section("ENCRYPTED PRIVATE KEY"), 0o600),
        ("unsupported.key", section("PRIVATE KEY"), 0o600),
        ("nameless.pem", nameless, 0o644),
        ("request.pem", section("CERTIFICATE REQUEST"), 0o644),
        ("empty.pem", String::new(), 0o644),
        ("marked.pem", format!("\u{feff}{site}"), 0o644),
        ("neither.pem", String::from("a certificate, perhaps\n"), 0o644),
        ("tickets", format!("# first\n{ticket_key}\n"), 0o600),
        ("tickets_open", ticket_key.to_owned(), 0o644),
        ("tickets_bad", format!("# first\n{ticket_key}\n{ticket_key}A\n"), 0o600),
    ]
}

fn key() -> KeyPair {
    KeyPair::generate().expect("an ECDSA key")
}

/// A certificate for these names, from the start of one year to that of another.
fn valid(names: &[&str], from: i32, to: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are valid");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}
