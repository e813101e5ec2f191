//! What the workers run on: io_uring where the kernel allows it and has memory for all of them,
//! epoll else; and a ring that fails later.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Instant;

use crate::support::{
    Echo, IO_URING_ENTER, IO_URING_REGISTER, IO_URING_SETUP, LONG, Ringgate, SHORT, SOON, Setup,
    as_ordinary_user, as_user, expect_closed, killing_at, l4, new_user, refusing, refusing_from,
    refusing_where, wait_for,
};

fn setup(echo: &Echo, server: &str, through: Command) -> Setup {
    let (config, server) = (l4(echo.address(), "", ""), server.to_owned());
    // "auto" is what the kernel allows, also where the tests are run over epoll.
    let env = vec![("MONOIO_FORCE_LEGACY_DRIVER", "0".to_owned())];
    Setup { config, server, env, through: Some(through) }
}

#[track_caller]
fn echoes(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// How many lines it has said with this in them.
fn lines_with(gate: &Ringgate, part: &str) -> usize {
    gate.lines().iter().filter(|line| line.contains(part)).count()
}

/// How many rings it has open.
fn rings(gate: &Ringgate) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", gate.pid().as_raw_nonzero())).unwrap();
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("[io_uring]")).count()
}

#[test]
fn where_a_call_of_io_uring_is_refused_it_serves_over_epoll_and_says_why() {
    let echo = Echo::start();
    for (call, error) in [
        (IO_URING_ENTER, libc::EPERM),
        (IO_URING_ENTER, libc::ENOSYS),
        (IO_URING_SETUP, libc::EPERM),
        (IO_URING_SETUP, libc::ENOSYS),
        (IO_URING_REGISTER, libc::EPERM),
        (IO_URING_REGISTER, libc::ENOSYS),
    ] {
        let gate = setup(&echo, "workers = 3", refusing(call, error)).start();
        gate.line_with("ready workers=3 driver=epoll");
        (0..10).for_each(|_| echoes(&mut gate.connect("ingress")));
        let name = match call {
            IO_URING_ENTER => "io_uring_enter",
            IO_URING_REGISTER => "io_uring_register",
            _ => "io_uring_setup",
        };
        assert_eq!(lines_with(&gate, &format!(" call={name} ")), 1);
        if call != IO_URING_SETUP || error == libc::EPERM {
            assert_eq!(lines_with(&gate, "seccomp filter"), 1);
        }
    }
}

#[test]
fn a_ring_that_is_insisted_on_and_cannot_be_entered_is_an_error() {
    let echo = Echo::start();
    for error in [libc::EPERM, libc::ENOSYS] {
        let through = refusing(IO_URING_ENTER, error);
        let mut gate = setup(&echo, "driver = \"io_uring\"", through).spawn();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
        gate.line_with("error: cannot use io_uring (io_uring_enter)");
        gate.line_with("seccomp filter");
    }
}

#[test]
fn a_ring_that_can_be_entered_no_more_ends_the_process() {
    let echo = Echo::start();
    for error in [libc::EPERM, libc::ENOSYS] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("from-now-on");
        let through = refusing_from(IO_URING_ENTER, error, &file);
        let mut gate = setup(&echo, "driver = \"io_uring\"", through).start();
        echoes(&mut gate.connect("ingress"));
        fs::write(&file, "").unwrap();
        assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
        let line = gate.line_with("io_uring_enter is refused");
        assert!(line.starts_with("error: worker "), "{line}");
    }
}

#[test]
fn a_worker_whose_own_ring_is_refused_ends_the_process() {
    let echo = Echo::start();
    // It waits for events with a timeout (IORING_ENTER_GETEVENTS and IORING_ENTER_EXT_ARG), and the
    // probes of the control plane without one.
    let through = refusing_where(IO_URING_ENTER, libc::EBADFD, 3, 9);
    let mut gate = setup(&echo, "workers = 1\ndriver = \"io_uring\"", through).start();
    assert_eq!(gate.wait_exit(LONG).code(), Some(1));
    gate.line_with("error: worker 0 has stopped: its event loop makes no progress");
}

#[test]
fn a_worker_whose_thread_is_killed_ends_the_process() {
    let echo = Echo::start();
    // Over epoll a worker accepts by this call, and no other thread makes it.
    let through = killing_at(libc::SYS_accept4 as u32);
    let mut gate = setup(&echo, "workers = 1\ndriver = \"epoll\"", through).start();
    let mut client = gate.connect("ingress");
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
    let line = gate.line_with("error: worker 0 has stopped: its thread was killed");
    assert!(gate.lines().iter().any(|line| line.contains("restart ringgate")), "{line}");
    expect_closed(&mut client);
}

#[test]
fn a_panic_that_is_none_of_a_connection_ends_the_process_with_a_line_that_says_so() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("from-now-on");
    // The runtime of the control plane panics if it cannot wait for events.
    #[cfg(target_arch = "x86_64")]
    let waits = libc::SYS_epoll_wait;
    #[cfg(not(target_arch = "x86_64"))]
    let waits = libc::SYS_epoll_pwait;
    let through = refusing_from(waits as u32, libc::EBADF, &file);
    let mut gate = setup(&echo, "workers = 1\ndriver = \"io_uring\"", through).start();
    let mut client = gate.connect("ingress");
    echoes(&mut client);
    fs::write(&file, "").unwrap();
    assert_eq!(gate.wait_exit(SHORT).signal(), Some(libc::SIGABRT));
    let line = gate.line_with("panicked: the process ends");
    for part in
        ["ERROR", " thread=main ", " location=", " panic=", " advice=", "Restart=on-failure"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    expect_closed(&mut client);
}

#[test]
fn a_ring_that_the_kernel_has_no_memory_for_is_not_taken_for_a_refusal() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("from-now-on");
    let through = refusing_from(IO_URING_ENTER, libc::EAGAIN, &file);
    let mut gate = setup(&echo, "driver = \"io_uring\"", through).start();
    fs::write(&file, "").unwrap();
    // When it has used three seconds of processor time, which a busy machine gives it slowly.
    assert_eq!(gate.wait_exit(3 * LONG).code(), Some(1));
    let line = gate.line_with("error: worker ");
    assert!(line.contains("its event loop makes no progress"), "{line}");
}

#[test]
fn messages_whose_ring_is_refused_are_sent_all_the_same() {
    let echo = Echo::start();
    for error in [libc::EPERM, libc::ENOSYS] {
        // The worker's own ring waits for one completion at least, that for messages for none.
        let through = refusing_where(IO_URING_ENTER, error, 2, 0);
        let gate = setup(&echo, "workers = 1\ndriver = \"io_uring\"", through).start();
        let mut clients: Vec<TcpStream> = (0..20).map(|_| gate.connect("ingress")).collect();
        clients.iter_mut().for_each(echoes);
        wait_for("the ring for messages is given up", SHORT, || {
            // All at one time, so that they share a turn.
            gate.frozen(|| clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap()));
            clients.iter_mut().for_each(|client| client.read_exact(&mut [0]).unwrap());
            (lines_with(&gate, "io_uring refuses to send") == 1).then_some(())
        });
        clients.iter_mut().for_each(echoes);
    }
}

#[test]
fn too_little_locked_memory_means_the_same_advice_for_both_drivers_once() {
    let echo = Echo::start();
    let advice = "LimitMEMLOCK=";
    let gate = setup(&echo, "workers = 5", as_ordinary_user("ulimit -l 64")).start();
    gate.line_with("ready workers=5 driver=epoll");
    assert_eq!(lines_with(&gate, advice), 1);
    assert_eq!(lines_with(&gate, "io_uring cannot be used"), 1);
    echoes(&mut gate.connect("ingress"));

    let server = "workers = 5\ndriver = \"io_uring\"";
    let mut gate = setup(&echo, server, as_ordinary_user("ulimit -l 64")).spawn();
    assert_eq!(gate.wait_exit(SHORT).code(), Some(1));
    gate.line_with(advice);
    assert_eq!(lines_with(&gate, advice), 1);
}

#[test]
fn all_workers_have_rings_of_the_size_that_fits_them_all() {
    let echo = Echo::start();
    // (workers, KiB, size, rings): 328, 164 and 84 KiB for a ring of 1024, 512 and 256 entries, and
    // 16 KiB for that of the outbox.
    for (workers, limit, size, expected) in
        [(2, 1024, 1024, 4), (4, 1024, 512, 8), (8, 1024, 256, 16), (12, 1040, 256, 12)]
    {
        let server = format!("workers = {workers}");
        let through = as_ordinary_user(&format!("ulimit -l {limit}"));
        let gate = setup(&echo, &server, through).start();
        gate.line_with(&format!("ready workers={workers} driver=io_uring ring_size={size} "));
        assert_eq!(rings(&gate), expected, "{workers} workers with {limit} KiB");
        assert_eq!(lines_with(&gate, "LimitMEMLOCK="), usize::from(size < 1024));
        (0..20).for_each(|_| echoes(&mut gate.connect("ingress")));
    }
}

#[test]
fn where_the_rings_of_all_do_not_fit_none_has_one() {
    let echo = Echo::start();
    let through = as_ordinary_user("ulimit -l 1024");
    let gate = setup(&echo, "workers = 16", through).start();
    gate.line_with("ready workers=16 driver=epoll ");
    assert_eq!((rings(&gate), lines_with(&gate, "LimitMEMLOCK=")), (0, 1));
    (0..20).for_each(|_| echoes(&mut gate.connect("ingress")));
}

#[test]
fn what_other_processes_of_the_user_have_locked_delays_a_start_by_seconds_at_most() {
    let (echo, user) = (Echo::start(), new_user());
    let start = || setup(&echo, "workers = 2", as_user(user, "ulimit -l 1000")).spawn();
    let first = start();
    // 688 of the 1,000 KiB.
    first.line_with("ready workers=2 driver=io_uring ring_size=1024 ");
    let begin = Instant::now();
    let second = start();
    // Smaller rings; or none, where the kernel takes long to free what the start tried before.
    let line = second.line_with("ready workers=2 ");
    assert!(!line.contains("ring_size=1024"), "{line}");
    let passed = begin.elapsed();
    assert!(passed < SOON, "{passed:?}");
    let warning = second.line_with("LimitMEMLOCK=");
    assert!(warning.contains("all processes of a user share"));
    // With 1 MiB the next start would have the same warning.
    assert!(line.contains("epoll") || warning.contains(" enough_mib=2"), "{warning}");
    echoes(&mut second.connect("ingress"));
}

#[test]
fn where_two_small_rings_do_not_fit_the_limit_of_locked_memory_is_named() {
    let echo = Echo::start();
    let gate = setup(&echo, "workers = 1", as_ordinary_user("ulimit -l 8")).start();
    gate.line_with("ready workers=1 driver=epoll ");
    let line = gate.line_with("io_uring cannot be used");
    assert!(line.contains("call=io_uring_setup ") && line.contains("LimitMEMLOCK="), "{line}");
}
