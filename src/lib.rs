//! ringgate: an io_uring, thread-per-core edge proxy that puts Shadowsocks behind a real website.
//!
//! Two planes share almost nothing. The **data plane** is one worker for each CPU: a pinned thread
//! with its own runtime, its own listening sockets and its own pools. It handles every byte of
//! traffic and takes no locks. The **control plane** is the main thread: it binds sockets, resolves
//! names, handles signals and writes logs. It sends immutable values to the workers and never
//! touches a connection.
//!
//! ```text
//! config text ─▶ as typed ─▶ Config ─▶ Layout (shared, immutable) ─▶ per worker: Generation
//!
//! Accepted ─▶ Route ─▶ Lease ─▶ End ─▶ Record
//! worker      route    cluster  relay  observe
//!
//! control ── Command::{Endpoints, Drain, Stop} ──▶ every worker
//! workers ── batches of records (bounded) ──▶ the access log's writer
//! workers ── endpoints that fail, counted (bounded) ──▶ diagnostics
//! ```
//!
//! An L4 connection goes from `front::tcp` straight to [`relay`]. An HTTP connection is read by
//! `front::http`. An upgrade goes on to `front::tunnel` and ends in the same [`relay`], so a tunnel
//! costs no more than plain L4. Responses of HTTP/1.1 upstreams are read by [`upstream`].
//!
//! Imports point downward only (`tests/tidy.rs` checks it):
//!
//! `cli → control → worker → front → upstream → {route, relay, cluster} → {config, timers} →
//! transport → sched → observe → proto → sys → error`
//!
//! Each thing has one name: listener, worker, conn, host, route, cluster, endpoint, lease, relay
//! (copy, splice), tunnel, record. The two sides are always **client** and **upstream**.

pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod error;
pub mod front;
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
