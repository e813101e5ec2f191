//! ringgate: an io_uring, thread-per-core edge proxy that puts Shadowsocks behind a real website.
//!
//! There are two planes. The **data plane** is one worker for each CPU by default: a pinned thread
//! with its own runtime, its own listening sockets and its own pools. It handles every byte of
//! traffic and takes no locks. The **control plane** is the main thread: it binds sockets, resolves
//! names, handles signals and writes logs. It sends immutable values to the workers and never
//! touches a connection.
//!
//! ```text
//! config text ─▶ as typed ─▶ Config ─▶ Layout (shared, immutable) ─▶ per worker: Generation
//!
//! accept ─▶ admission ─▶ detect ─▶ sni, tls │ tcp │ http ─▶ Lease ─▶ relay ─▶ Outcome ─▶ record
//! worker    front                                         cluster           observe    counters
//!
//! control ── Command::{Endpoints, Certificate, TicketKeys, Drain, …} ──▶ every worker
//! workers ── batches of records (bounded) ──▶ the access log's writer
//! workers ── endpoints that fail, counted (bounded) ──▶ diagnostics
//! ```
//!
//! An accepted connection holds what it uses: its [`Listener`](front::Listener), then the cluster
//! and the endpoint that it is connected to. It reads and writes a
//! [`Transport`](transport::Transport): a socket, or TLS records over one.
//!
//! - **L4**: `front::tcp` connects and goes straight to [`relay`].
//! - **A request**: `front::http` has the connection (bytes, limits, pipelining) apart from the
//!   exchange, which takes a request and returns a response.
//! - **A tunnel**: an upgrade goes on to `front::tunnel`, which reads the upstream's response by
//!   [`upstream`] and ends in the same [`relay`], so a tunnel costs no more than plain L4.
//!
//! Tasks of one worker share its time by [`sched`]. A wait has a limit ([`timers`]) and fails when
//! the limit fires.
//!
//! Imports point downward only (`tests/tidy.rs` checks it):
//!
//! `cli → control → worker → front → upstream → files → {route, relay, cluster} → handshake →
//! {config, timers} → transport → sched → observe → proto → sys → error`
//!
//! The main names: listener, worker, generation, conn, host, route, cluster, endpoint,
//! lease, transport, exchange, relay (copy, splice), tunnel, outcome, record. The two sides are
//! always **client** and **upstream**.

pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod error;
pub mod files;
pub mod front;
pub mod handshake;
pub mod observe;
pub mod proto;
pub mod relay;
pub mod route;
pub mod sched;
pub mod sys;
pub mod timers;
pub mod transport;
pub mod upstream;
pub mod worker;
