//! Files of certificates that are replaced while clients connect: the new pair is served within
//! seconds, a bad one changes nothing, and no handshake fails meanwhile.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use tempfile::TempDir;

use crate::support::{
    Authority, Echo, Kind, Pair, Ringgate, SHORT, Setup, TlsClient, VERSIONS, curl, tls_settings,
    wait_for,
};

const NAME: &str = "site.test";

/// A listener `edge` that reads a certificate and its key from a directory.
struct Place {
    authority: Authority,
    dir: TempDir,
    settings: Arc<ClientConfig>,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new("authority");
        let mut settings = tls_settings(&authority, VERSIONS[1]);
        // A resumed session has the certificate of the first one.
        settings.resumption = Resumption::disabled();
        Place { authority, dir: tempfile::tempdir().unwrap(), settings: Arc::new(settings) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn new_pair(&self) -> Pair {
        self.authority.signs(&[NAME])
    }

    /// A rule that reads `live/cert.pem` and `live/key.pem` below the directory.
    fn config(&self, to: SocketAddr) -> String {
        format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
             [[listener.tls]]\ncertificate = {:?}\nkey = {:?}\ncluster = \"echo\"\n\
             [cluster.echo]\nendpoints = [\"{to}\"]\n",
            self.path("live/cert.pem"),
            self.path("live/key.pem")
        )
    }

    fn start(&self, to: SocketAddr, driver: &str) -> Ringgate {
        let config = self.config(to);
        Setup { config, server: format!("driver = \"{driver}\""), ..Setup::default() }.start()
    }

    /// The files of `pair` in a directory of this name.
    fn put(&self, name: &str, pair: &Pair) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::copy(&pair.certificate, self.path(name).join("cert.pem")).unwrap();
        fs::copy(&pair.key, self.path(name).join("key.pem")).unwrap();
    }

    /// Replaces a file by one with this content, in one step.
    fn replace(&self, name: &str, by: &Path) {
        let new = self.path("new");
        fs::copy(by, &new).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Whether a client is shown this certificate. Its handshake must not fail.
    #[track_caller]
    fn serves(&self, gate: &Ringgate, pair: &Pair) -> bool {
        let client = TlsClient::connect(gate.address("edge"), &self.settings, NAME);
        client.session.peer_certificates().unwrap() == [pair.der.clone()]
    }

    #[track_caller]
    fn wait_until_it_serves(&self, gate: &Ringgate, pair: &Pair) {
        wait_for("the new certificate", SHORT, || self.serves(gate, pair).then_some(()));
    }
}

#[test]
fn a_pair_that_is_replaced_by_renames_is_served_and_connections_go_on() {
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let place = Place::new();
        let first = place.new_pair();
        place.put("live", &first);
        let gate = place.start(echo.address(), driver);
        assert!(place.serves(&gate, &first));
        let mut earlier = TlsClient::connect(gate.address("edge"), &place.settings, NAME);
        // Twice: what watches the files must not stop at the first change.
        for _ in 0..2 {
            let next = place.new_pair();
            place.replace("live/key.pem", &next.key);
            place.replace("live/cert.pem", &next.certificate);
            place.wait_until_it_serves(&gate, &next);
            earlier.send(b"still there");
            earlier.expect(b"still there");
        }
        gate.line_with("a certificate was read again and is in use");
    }
}

#[test]
fn a_pair_behind_symbolic_links_is_followed() {
    let (echo, place) = (Echo::start(), Place::new());
    let pairs = [place.new_pair(), place.new_pair(), place.new_pair()];
    // As Kubernetes mounts a secret: one link is swapped, and the files are links through it.
    place.put("0", &pairs[0]);
    symlink(place.path("0"), place.path("data")).unwrap();
    fs::create_dir(place.path("live")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        symlink(place.path("data").join(name), place.path("live").join(name)).unwrap();
    }
    let gate = place.start(echo.address(), "io_uring");
    assert!(place.serves(&gate, &pairs[0]));
    for (number, pair) in pairs.iter().enumerate().skip(1) {
        place.put(&number.to_string(), pair);
        symlink(place.path(&number.to_string()), place.path("data.new")).unwrap();
        fs::rename(place.path("data.new"), place.path("data")).unwrap();
        fs::remove_dir_all(place.path(&(number - 1).to_string())).unwrap();
        place.wait_until_it_serves(&gate, pair);
    }
}

#[test]
fn a_key_that_everyone_can_read_and_a_file_that_is_gone_are_reported() {
    let (echo, place) = (Echo::start(), Place::new());
    place.put("live", &place.new_pair());
    let key = place.path("live/key.pem");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let gate = place.start(echo.address(), "io_uring");
    // The files are looked at for the first time before a change can be seen.
    place.replace("live/cert.pem", &place.new_pair().certificate);
    gate.line_with("does not belong to the certificate");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let line = gate.line_with("every user of this machine can read this file");
    assert!(line.contains("key.pem") && line.contains("chmod o-rwx"), "{line}");
    fs::remove_file(place.path("live/cert.pem")).unwrap();
    let line = gate.line_with("No such file");
    assert!(line.contains("put the file there"), "{line}");
}

#[test]
fn half_of_a_file_changes_nothing() {
    let (echo, place) = (Echo::start(), Place::new());
    let (first, next) = (place.new_pair(), place.new_pair());
    place.put("live", &first);
    let gate = place.start(echo.address(), "io_uring");
    let whole = fs::read(&next.certificate).unwrap();
    fs::write(place.path("live/cert.pem"), &whole[..whole.len() / 2]).unwrap();
    wait_for("a warning", SHORT, || {
        assert!(place.serves(&gate, &first), "half of a file is in use");
        let lines = gate.lines();
        lines.into_iter().find(|line| line.contains("the one before stays in use"))
    });
    place.replace("live/key.pem", &next.key);
    fs::write(place.path("live/cert.pem"), &whole).unwrap();
    place.wait_until_it_serves(&gate, &next);
}

#[test]
fn a_key_that_comes_before_its_certificate_waits_for_it() {
    let (echo, place) = (Echo::start(), Place::new());
    let (first, next) = (place.new_pair(), place.new_pair());
    place.put("live", &first);
    let gate = place.start(echo.address(), "epoll");
    place.replace("live/key.pem", &next.key);
    wait_for("a warning", SHORT, || {
        assert!(place.serves(&gate, &first), "a certificate with the key of another is in use");
        let lines = gate.lines();
        lines.into_iter().find(|line| line.contains(" WARN ") && line.contains("key.pem"))
    });
    place.replace("live/cert.pem", &next.certificate);
    place.wait_until_it_serves(&gate, &next);
}

#[test]
fn files_that_are_gone_leave_what_was_read() {
    let (echo, place) = (Echo::start(), Place::new());
    let (first, next) = (place.new_pair(), place.new_pair());
    place.put("live", &first);
    let gate = place.start(echo.address(), "io_uring");
    fs::rename(place.path("live"), place.path("away")).unwrap();
    let line = gate.line_with("the one before stays in use");
    assert!(line.contains(" WARN ") && line.contains("live/"), "{line}");
    assert!(place.serves(&gate, &first));
    place.put("live", &next);
    place.wait_until_it_serves(&gate, &next);
}

#[test]
fn a_new_certificate_for_other_names_is_used_with_a_warning() {
    let (echo, place) = (Echo::start(), Place::new());
    place.put("live", &place.new_pair());
    let config = place.config(echo.address()).replacen(
        "certificate",
        "names = [\"site.test\"]\ncertificate",
        1,
    );
    let gate = Setup { config, ..Setup::default() }.start();
    let other = place.authority.signs(&["other.test"]);
    place.replace("live/key.pem", &other.key);
    place.replace("live/cert.pem", &other.certificate);
    let line = gate.line_with("is not for a name of its rule");
    assert!(line.contains(" WARN ") && line.contains("site.test"), "{line}");
}

#[test]
fn an_expired_certificate_is_a_warning_here_and_an_alert_from_the_client() {
    let (echo, place) = (Echo::start(), Place::new());
    place.put("live", &place.authority.signs_as(Kind::Expired, &[NAME]));
    let gate = place.start(echo.address(), "io_uring");
    let line = gate.line_with("cert.pem");
    assert!(line.contains(" WARN ") && line.contains("expired"), "{line}");
    let output = curl(gate.address("edge"), &place.authority, &["https://site.test/"]);
    // "Peer certificate cannot be authenticated with known CA certificates", curl(1).
    assert_eq!(output.status.code(), Some(60));
    let record = gate.record();
    assert_eq!((record.end(), record.tls().text("error")), ("tls_failed", "alert"));
    // Its successor needs no restart.
    let next = place.new_pair();
    place.replace("live/key.pem", &next.key);
    place.replace("live/cert.pem", &next.certificate);
    wait_for("the new certificate", SHORT, || {
        TlsClient::try_connect(gate.address("edge"), &place.settings, NAME).ok()
    });
}
