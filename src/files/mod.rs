//! Files of a site: from the path of a request to a response and its bytes.
//!
//! A worker never waits for a disk. What the kernel has in its caches is opened and read at once;
//! everything else goes to threads that may wait.
//!
//! | file | what it does |
//! | --- | --- |
//! | `site` | a request becomes a response: from memory, from the kernel's caches, or by a thread |
//! | `rules` | which file a path leads to: index, coded copies, pages for what is not found |
//! | `root` | the directory, which may be replaced |
//! | `cache` | small files in memory |
//! | `response` | status, fields and content as a value |
//! | `body` | the bytes of a file on their way to a client |
//! | `threads` | the threads that may wait, and how they wake a task |
//!
//! ```text
//! Site::lookup_now ─▶ Response                       nothing has to wait
//!                 └─▶ None ─▶ Site::find(…).await    a thread looks for the file
//! Content::Bytes ─▶ sent like any other small content
//! Content::File  ─▶ Body::send(…).await (HTTP/1.1) or Body::read(…).await (HTTP/2)
//! ```
//!
//! What may not be served looks like a file that is not there. The module knows no connection and
//! writes no head.

mod body;
mod cache;
mod response;
mod root;
mod rules;
mod site;
mod threads;

#[cfg(test)]
mod tests;

pub use body::{Body, Broken};
pub use cache::Bytes;
pub use response::{Content, Request, Response};
pub use root::probe;
pub use rules::Rules;
pub use site::{Site, Store};
pub use threads::{Disk, NoResult, Threads};
