//! Signals that wait until they can be handled.

use std::mem::MaybeUninit;

/// Signals that ask a running process for something, and that would end it by default.
const HELD: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Makes SIGHUP, SIGUSR1 and SIGUSR2 wait for [`release_signals`], so that a process which has just
/// started does not end by them. Threads that are started meanwhile do not get them at all
/// (pthread_sigmask(3)).
pub fn hold_signals() {
    change_mask(libc::SIG_BLOCK);
}

/// Lets the signals of [`hold_signals`] arrive, at this thread. Those that came meanwhile arrive
/// now.
pub fn release_signals() {
    change_mask(libc::SIG_UNBLOCK);
}

fn change_mask(how: libc::c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initializes the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in HELD {
        // SAFETY: the set is initialized, and the signal exists.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set is initialized, and the mask before is not asked for.
    unsafe { libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut()) };
}
