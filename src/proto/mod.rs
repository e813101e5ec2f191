//! Protocol code that turns bytes into values. It knows no sockets, clocks or configuration, so
//! every parser can be tested with any input.

pub mod client_hello;
pub mod codec;
pub mod http;
pub mod obfs;
pub mod tls;
pub mod websocket;
