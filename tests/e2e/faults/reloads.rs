//! Reloads that need descriptors: there are enough for all of the new configuration, or nothing
//! changes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::{DRIVERS, limit_descriptors};
use crate::reload::{cluster, page, start, tcp};
use crate::support::{Echo, HttpClient, UdpEcho, free_port};
use crate::udp::{ask, client};

/// So many below what is open that not even the file of the configuration can be read, wherever
/// there are gaps in the numbers that are in use.
const FEWER: u64 = 12;
/// More descriptors than the new configuration needs.
const ENOUGH: u64 = 100;

fn get(client: &mut HttpClient) -> String {
    client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    String::from_utf8(client.response().body).unwrap()
}

#[test]
fn a_reload_without_descriptors_changes_nothing_and_a_later_one_everything() {
    let (echo, udp_echo) = (Echo::start(), UdpEcho::start(""));
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file"), "from the disk").unwrap();
    for driver in DRIVERS {
        let [web, raw, dns] = [(); 3].map(|()| free_port().address());
        let before = page("web", web, "from memory");
        // The first files, the first UDP, and a further TCP listener.
        let after = before
            .replace("respond = { body = \"from memory\" }", &format!("root = {:?}", files.path()))
            + &tcp("raw", raw, "c")
            + &cluster("c", echo.address())
            + &tcp("dns", dns, "d").replace("\"tcp\"", "\"udp\"")
            + &cluster("d", udp_echo.address());
        let gate = start(&before, driver);
        let mut refused = 0;
        let mut clients: Vec<HttpClient> = (0..4).map(|_| HttpClient::connect(web)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(get(client), "from memory"));
        let least = gate.descriptors() as u64 - FEWER;
        for more in 0.. {
            assert!(more < ENOUGH, "{driver}: refused with {more} descriptors");
            let before = gate.lines().len();
            limit_descriptors(&gate, Some(least + more));
            let line = gate.try_reload(&after);
            limit_descriptors(&gate, None);
            if line.contains("reloaded") {
                break;
            }
            refused += 1;
            // What is wrong with a configuration is said in lines of its own.
            let said = gate.lines().split_off(before).join("\n");
            assert!(said.contains("LimitNOFILE"), "{driver}, {more}: {said}");
            clients.iter_mut().for_each(|client| assert_eq!(get(client), "from memory"));
            assert!(TcpStream::connect(raw).is_err(), "{driver}, {more}: {line}");
        }
        // Every worker serves everything.
        clients.iter_mut().for_each(|client| assert_eq!(get(client), "from the disk"));
        for _ in 0..8 {
            let mut stream = TcpStream::connect(raw).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            assert_eq!(ask(&client(dns), b"here"), b"here", "{driver}");
        }
        let failed: Vec<String> = gate.lines();
        let failed: Vec<_> =
            failed.iter().filter(|line| line.contains("a worker cannot")).collect();
        assert!(failed.is_empty(), "{driver}: {failed:?}");
        assert!(refused > 0, "{driver}: it needs no descriptors");
    }
}
