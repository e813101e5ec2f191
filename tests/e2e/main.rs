//! ringgate from the outside: the real binary between real clients and real servers.
//!
//! Every test starts its own ringgate with its own configuration on ports from the kernel and reads
//! what an operator would read: answers, bytes, the access log, exit codes. Missing peers fail a
//! test and name the package to install.

#![expect(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

mod acme;
mod balance;
mod beside_nginx;
mod both_versions;
mod bulk;
mod chains;
mod closing;
mod cluster;
mod command;
mod costs;
mod cuts;
mod diagnostics;
mod disguises;
mod dns;
mod dot_segments;
mod drain;
mod drain_delay;
mod drivers;
mod endings;
mod endpoints;
mod fairness;
mod faults;
mod files;
mod generations;
mod hosts;
mod http2;
mod http2_limits;
mod http2_strict;
mod http_flow;
mod http_head;
mod http_routes;
mod http_strict;
mod life;
mod limits;
mod listeners;
mod loops;
mod loops_reloaded;
mod manager;
mod manners;
mod names;
mod ports;
mod proxied;
mod proxied_ends;
mod proxied_failures;
mod proxied_fields;
mod proxied_framing;
mod proxied_limits;
mod proxied_pool;
mod proxied_upgrades;
mod readme;
mod relay;
mod reload;
mod reload_limits;
mod reload_signals;
mod reload_tls;
mod reload_tunnels;
mod resolver;
mod restart;
mod self_connect;
mod shares;
mod stops;
mod support;
mod takeover;
mod terminate;
mod tls;
mod tls_ended;
mod tls_files;
mod tls_records;
mod tls_rules;
mod tls_stripped;
mod tls_tickets;
mod tls_upstream;
mod tls_wss;
mod udp;
mod udp_drain;
mod unix_backlog;
mod upgrade;
mod upgrade_names;
mod upgrade_refused;
mod user_timeout;
