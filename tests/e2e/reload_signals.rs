//! Signals that come while something else is in progress: a reload, a take-over.

use rustix::process::{Signal, kill_process};

use crate::support::{SHORT, wait_for};
use crate::takeover::{Chain, has_ended};

/// The packet that ends the take-over and the signal that ends the process are there at once.
#[test]
fn a_signal_at_the_end_of_a_take_over_does_not_end_the_successor() {
    for _ in 0..3 {
        let (mut chain, path, _dir) = Chain::serving("io_uring", 1);
        let script = "import os, signal, socket; \
                      s = socket.socket(fileno = int(os.environ[\"RINGGATE_TAKEOVER\"])); \
                      s.setblocking(True); s.send(b\"ready\"); s.recvmsg(65536, 4096); \
                      s.recv(65536); p = os.getppid(); os.kill(p, signal.SIGSTOP); \
                      s.send(b\"accepting\"); \
                      os.kill(p, signal.SIGTERM); os.kill(p, signal.SIGCONT); signal.pause()";
        chain.replace_program(&format!("exec python3 -c '{script}'"));
        let first = chain.gate.pid();
        chain.ask();
        chain.succeeds();
        wait_for("the first one ends", SHORT, || has_ended(first).then_some(()));
        let successor = chain.current;
        assert!(!has_ended(successor), "it was killed");
        assert!(path.exists(), "the path is the successor's");
        kill_process(successor, Signal::KILL).unwrap();
    }
}
