//! What the tests of this module share.

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::Poll;

use crate::sys::Stream;

/// Runs the test over epoll, and over a ring like a worker's if the kernel has one.
pub(super) fn on_each_driver(test: impl AsyncFn()) {
    let mut epoll = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().unwrap();
    epoll.block_on(test());
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring);
    match runtime.build() {
        Ok(mut ring) => ring.block_on(test()),
        Err(error) => eprintln!("not tested through a ring: {error}"),
    }
}

/// Makes a stream and the test's end of it.
pub(super) fn stream() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Stream::from_fd(ours.into()).unwrap(), theirs)
}

/// Polls once.
pub(super) async fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}
