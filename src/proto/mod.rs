//! Bytes in, values out: protocols without sockets, clocks or configuration, so that they can be
//! tested on any input.

pub mod client_hello;
pub mod http;
pub mod obfs;
pub mod websocket;
