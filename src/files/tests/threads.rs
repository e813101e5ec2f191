//! The threads that may wait: what happens when there are none, and when a request is given up.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};

use super::*;

/// Occupies a thread until the sender is dropped. Returns when the thread has begun.
fn occupy(site: &Tested) -> (mpsc::Sender<()>, impl Future<Output = ()> + '_) {
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let job = async move {
        let wait = move || {
            begin.send(()).unwrap();
            let _ = released.recv();
        };
        site.store.disk().run(&site.watch, wait).await.unwrap();
    };
    let mut job = Box::pin(job);
    assert!(job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    begun.recv().unwrap();
    (release, job)
}

#[test]
fn with_all_threads_busy_and_a_full_queue_a_request_fails_at_once() {
    on_each_driver(async || {
        let site = Tested::new(|_| {}, Way::Thread, &Threads::with(1, 1).unwrap());
        site.write("file", "content");
        let (release, job) = occupy(&site);
        let conditions = Conditions::default();
        let request = Request { method: "GET", path: "/file", conditions: &conditions };
        let mut waits = pin!(site.site.find(&request, site.now.get(), &site.watch));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending(), "it is in the queue");
        let refused = site.site.find(&request, site.now.get(), &site.watch).await.unwrap();
        assert_eq!(refused.status, 503);
        drop(release);
        job.await;
        assert_eq!(waits.await.unwrap().status, 200);
    });
}

#[test]
fn a_job_that_is_given_up_before_it_begins_is_not_done() {
    on_each_driver(async || {
        let site = Tested::new(|_| {}, Way::Thread, &Threads::with(1, 8).unwrap());
        let (release, job) = occupy(&site);
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        {
            let work = move || done.store(true, Ordering::SeqCst);
            let mut given_up = pin!(site.store.disk().run(&site.watch, work));
            let mut context = Context::from_waker(Waker::noop());
            assert!(given_up.as_mut().poll(&mut context).is_pending());
        }
        drop(release);
        job.await;
        // This job comes after the one that was given up.
        assert_eq!(site.store.disk().run(&site.watch, || 7).await, Ok(7));
        assert!(!is_done.load(Ordering::SeqCst));
    });
}

#[test]
fn a_limit_ends_the_wait_for_a_disk_that_hangs() {
    on_each_driver(async || {
        let site = Tested::new(|_| {}, Way::Thread, &Threads::with(1, 8).unwrap());
        let (release, job) = occupy(&site);
        let conditions = Conditions::default();
        let request = Request { method: "GET", path: "/", conditions: &conditions };
        let mut waits = pin!(site.site.find(&request, site.now.get(), &site.watch));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        site.timers.end_all();
        assert!(matches!(waits.await, Err(Fired::Drained)));
        drop((release, job));
    });
}

#[test]
fn many_requests_wait_at_one_time() {
    with_site(
        |_| {},
        async |site| {
            let jobs: Vec<_> =
                (0..8).map(|number| site.store.disk().run(&site.watch, move || number)).collect();
            let mut jobs: Vec<_> = jobs.into_iter().map(Box::pin).collect();
            // The last one is awaited first.
            while let Some(job) = jobs.pop() {
                let number = jobs.len();
                assert_eq!(job.await, Ok(number));
            }
        },
    );
}
