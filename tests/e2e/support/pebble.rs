//! An ACME directory of this machine: pebble, and the name server that leads every name to
//! loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ringgate::proto::tls::Identity;
use tempfile::TempDir;

use super::{LentPort, Process, curl_trusting, free_port, require, wait_bound_udp, wait_listening};

/// Where pebble is, and where it sends what checks names. Outlives pebble itself.
pub(crate) struct PebblePlace {
    dir: TempDir,
    directory: LentPort,
    management: LentPort,
    http: LentPort,
    tls: LentPort,
}

/// A running pebble; ends with its guard.
pub(crate) struct Pebble {
    _names: Process,
    _process: Process,
}

impl PebblePlace {
    /// Makes the certificates of the directory's server.
    pub(crate) fn new() -> PebblePlace {
        let dir = tempfile::tempdir().unwrap();
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new([]).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name of the other one, that one would look as if it had signed itself.
        root.distinguished_name.push(DnType::CommonName, "root of the directory's server");
        let root_certificate = root.self_signed(&root_key).unwrap();
        let own = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let own = own.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        fs::write(dir.path().join("root.pem"), root_certificate.pem()).unwrap();
        fs::write(dir.path().join("own.pem"), own.pem()).unwrap();
        fs::write(dir.path().join("own.key"), key.serialize_pem()).unwrap();
        let [directory, management, http, tls] = [(); 4].map(|()| free_port());
        PebblePlace { dir, directory, management, http, tls }
    }

    /// Starts pebble, which has forgotten what it knew before. `validity` are the seconds for which
    /// certificates are valid, `rejected` the nonces that it refuses, of 100.
    pub(crate) fn start(&self, validity: u32, rejected: u32) -> Pebble {
        let (dns, control) = (free_port(), free_port());
        let mut names = require("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        // The challenges themselves are answered by the test.
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &dns.address().to_string()]);
        names.args(["-management", &control.address().to_string()]);
        let names = Process::spawn(names);
        wait_bound_udp(dns.number());

        let file = |name: &str| self.dir.path().join(name);
        let config = format!(
            r#"{{"pebble": {{
                "listenAddress": "{}", "managementListenAddress": "{}",
                "certificate": {:?}, "privateKey": {:?},
                "httpPort": {}, "tlsPort": {}, "ocspResponderURL": "",
                "externalAccountBindingRequired": false, "certificateValidityPeriod": {validity}
            }}}}"#,
            self.directory.address(),
            self.management.address(),
            file("own.pem"),
            file("own.key"),
            self.http.number(),
            self.tls.number(),
        );
        fs::write(file("pebble.json"), config).unwrap();
        let mut pebble = require("pebble");
        pebble.arg("-config").arg(file("pebble.json"));
        pebble.args(["-dnsserver", &dns.address().to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        pebble.env("PEBBLE_WFE_NONCEREJECT", rejected.to_string());
        let process = Process::spawn(pebble);
        wait_listening(self.directory.number());
        Pebble { _names: names, _process: process }
    }

    /// The URL of the directory.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.number())
    }

    /// Where the directory's server listens.
    pub(crate) fn directory(&self) -> SocketAddr {
        self.directory.address()
    }

    /// The certificate of the directory's server, with its key.
    pub(crate) fn identity(&self) -> Identity {
        let read = |name: &str| fs::read(self.dir.path().join(name)).unwrap();
        Identity::parse(&read("own.pem"), &read("own.key")).unwrap()
    }

    /// The certificate that the directory's server is checked with.
    pub(crate) fn authorities(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// Fetches the certificate that a running pebble signs with, as a file. It has another one
    /// after each start.
    pub(crate) fn issuer(&self) -> PathBuf {
        let file = self.dir.path().join("issuer.pem");
        let management = self.management.address();
        let url = "https://localhost/roots/0";
        let output = curl_trusting(management, &self.authorities(), &["-f", url]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(&file, output.stdout).unwrap();
        file
    }

    /// Where http-01 challenges are asked for.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where tls-alpn-01 challenges are asked for.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.tls.address()
    }
}
