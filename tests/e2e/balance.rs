//! Connections that last are spread evenly over the workers, wherever the kernel puts them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::support::{Echo, Ringgate, SHORT, Setup, l4};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 50;

fn start(echo: &Echo, driver: &str) -> Ringgate {
    let server = format!("workers = {WORKERS}\ndriver = \"{driver}\"");
    Setup { config: l4(echo.address(), "", ""), server, ..Setup::default() }.start()
}

fn open(gate: &Ringgate) -> TcpStream {
    let mut client = gate.connect("ingress");
    client.write_all(b"are you there").unwrap();
    client.read_exact(&mut [0; 13]).unwrap();
    client
}

#[test]
fn every_worker_has_its_share_of_what_lasts() {
    let echo = Echo::start();
    let gate = start(&echo, "epoll");
    let before = watched(&gate);
    let _clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open(&gate)).collect();
    let shares: Vec<usize> =
        watched(&gate).iter().zip(&before).map(|(now, before)| (now - before) / 2).collect();
    assert_eq!(shares.iter().sum::<usize>(), CONNECTIONS, "{shares:?}");
    // Twelve or thirteen each; a worker keeps what it accepts while another has three fewer.
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 4, "{shares:?}");
}

/// The sockets that each worker's epoll instance watches: those that a descriptor of the process
/// has the most of, as the control plane has an instance, too.
fn watched(gate: &Ringgate) -> Vec<usize> {
    let directory = format!("/proc/{}/fdinfo", gate.pid().as_raw_nonzero());
    let watched_by = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("tfd:")).count()
    };
    let mut counts: Vec<usize> = fs::read_dir(directory).unwrap().map(watched_by).collect();
    counts.sort_unstable();
    counts.split_off(counts.len() - WORKERS)
}

#[test]
fn what_was_handed_over_is_served_drained_and_recorded() {
    let echo = Echo::start();
    for driver in ["io_uring", "epoll"] {
        let mut gate = start(&echo, driver);
        // Bursts, in which workers hand over to each other while they accept.
        for _ in 0..4 {
            let mut clients: Vec<TcpStream> =
                (0..CONNECTIONS).map(|_| gate.connect("ingress")).collect();
            for client in &mut clients {
                client.write_all(b"all at once").unwrap();
            }
            for client in &mut clients {
                client.read_exact(&mut [0; 11]).unwrap();
            }
        }
        let lasting: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open(&gate)).collect();
        let records = 4 * CONNECTIONS;
        assert_eq!(gate.records(records).len(), records, "{driver}");

        // Those that are left may go on, on whichever worker they are.
        gate.signal(Signal::TERM);
        for mut client in lasting {
            client.write_all(b"still there").unwrap();
            client.read_exact(&mut [0; 11]).unwrap();
        }
        assert_eq!(gate.wait_exit(SHORT).code(), Some(0), "{driver}");
        assert_eq!(gate.records(records + CONNECTIONS).len(), records + CONNECTIONS, "{driver}");
    }
}
