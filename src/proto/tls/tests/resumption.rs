//! Which server resumes which session. Every other one makes a full handshake.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn server_with(keys: &Arc<TicketKeys>, scope: &str) -> Server {
    Server::new(&ServerSettings { ticket_keys: keys, scope, ..server_settings() }).unwrap()
}

/// Keys from a file that has these lines.
fn keys(lines: &[u8]) -> Arc<TicketKeys> {
    let text: String = lines.iter().map(|&byte| STANDARD.encode([byte; 32]) + "\n").collect();
    Arc::new(TicketKeys::parse(&text).unwrap())
}

/// Returns true if `second` resumes what a client began at `first`, in both versions.
fn resumes(first: &Server, second: &Server, identity: Option<&Identity>) -> bool {
    let [tls12, tls13] = VERSIONS.map(|version| {
        let client = raw_client(version, |_| true, identity);
        assert!(!connect_raw(&client, first).is_resumed());
        connect_raw(&client, second).is_resumed()
    });
    assert_eq!(tls12, tls13);
    tls12
}

#[test]
fn each_worker_resumes_the_sessions_of_the_others() {
    let keys = Arc::new(TicketKeys::random());
    assert!(resumes(&server_with(&keys, "rule"), &server_with(&keys, "rule"), None));
}

#[test]
fn a_restart_with_the_same_file_resumes() {
    let before = server_with(&keys(&[1, 2]), "rule");
    assert!(resumes(&before, &server_with(&keys(&[1, 2]), "rule"), None));
    // A new key stands first, and the old one is still accepted.
    assert!(resumes(&before, &server_with(&keys(&[3, 1]), "rule"), None));
    assert!(!resumes(&before, &server_with(&keys(&[2, 3]), "rule"), None));
}

#[test]
fn rotated_keys_resume_what_the_keys_before_them_began() {
    let old = Arc::new(TicketKeys::random());
    let new = Arc::new(old.rotated());
    let (old, new) = (server_with(&old, "rule"), server_with(&new, "rule"));
    assert!(resumes(&old, &new, None));
    // A worker that has not got the new keys yet.
    assert!(!resumes(&new, &old, None));
    let other = server_with(&Arc::new(TicketKeys::random()), "rule");
    assert!(!resumes(&new, &other, None));
}

#[test]
fn another_rule_does_not_resume() {
    let keys = Arc::new(TicketKeys::random());
    assert!(!resumes(&server_with(&keys, "one"), &server_with(&keys, "two"), None));
}

#[test]
fn a_server_that_demands_certificates_resumes_nothing() {
    let trusted = Authority::new();
    let own = trusted.issue(&["client.test"], &PKCS_ECDSA_P256_SHA256);
    let (open, authorities) = (server(), trusted.certificates());
    let client_authorities = Some(&authorities);
    let demanding =
        Server::new(&ServerSettings { client_authorities, ..server_settings() }).unwrap();
    // A resumption would not check whether the certificate has expired since.
    assert!(!resumes(&demanding, &demanding, Some(&own)));
    assert!(!resumes(&open, &demanding, Some(&own)));
    assert!(!resumes(&demanding, &open, Some(&own)));
    assert!(resumes(&open, &open, Some(&own)));
}

#[test]
fn a_connection_brings_the_ticket_of_the_next_one() {
    let (client, server) = (client(), server());
    connect(&client, &server);
    let begin = || {
        let mut hello = Vec::new();
        let session = client.session(NAME, &mut hello).unwrap();
        (session, hello)
    };
    // Both begin before one has got its own ticket.
    let resumed = [begin(), begin()]
        .map(|(session, hello)| shake(session, hello, server.session().unwrap()).is_resumed());
    assert_eq!(resumed, [true, false]);
}
