//! ringgate: an io_uring, thread-per-core edge proxy that puts Shadowsocks behind a real website.
pub mod config;
pub mod observe;
pub mod sys;
