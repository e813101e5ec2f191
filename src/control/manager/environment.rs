//! What the service manager says in the environment: sd_listen_fds(3), sd_notify(3) and
//! sd_watchdog_enabled(3).

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::sys;

/// Variables that are meant for this process alone, and not for a successor that it starts. The
/// others name the service.
pub(in crate::control) const OWN: [&str; 5] =
    ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// What the service manager has said and handed over.
#[derive(Debug, Default)]
pub struct Environment {
    /// Where it receives notifications.
    pub(super) socket: Option<OsString>,
    /// It ends the process after this time without a beat.
    pub(super) watchdog: Option<Duration>,
    /// How many descriptors it stores; `None` if it does not say.
    pub(super) max_stored: Option<usize>,
    /// The descriptors that it has handed over, by their names.
    pub(super) handed: Vec<(String, OwnedFd)>,
    /// Names of descriptors that are not open.
    pub(super) missing: Vec<String>,
}

/// How variables name this process.
#[derive(Clone, Copy)]
struct Own {
    pid: u32,
    /// See [`sys::pidfd_inode`].
    pidfd_inode: Option<u64>,
}

impl Environment {
    /// Takes what there is, and removes the variables that are meant for this process alone. Must
    /// be called before the process starts a thread or opens a file.
    pub fn take() -> Environment {
        let mut environment = Environment::default();
        let own = Own { pid: std::process::id(), pidfd_inode: sys::pidfd_inode() };
        let names = environment.read(|name| std::env::var_os(name), own);
        let descriptors = sys::take_descriptors(names.len());
        for (name, descriptor) in names.into_iter().zip(descriptors) {
            match descriptor {
                Some(descriptor) => environment.handed.push((name, descriptor)),
                None => environment.missing.push(name),
            }
        }
        sys::remove_variables(&OWN);
        environment
    }

    /// Reads all variables. Returns the name of each descriptor.
    fn read(&mut self, variable: impl Fn(&str) -> Option<OsString>, own: Own) -> Vec<String> {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_own = |name| number(name) == Some(u64::from(own.pid));
        self.socket = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        // Without WATCHDOG_PID the variable is for every process that has it
        // (sd_watchdog_enabled(3)).
        let is_watched = variable("WATCHDOG_PID").is_none() || is_own("WATCHDOG_PID");
        let watchdog = number("WATCHDOG_USEC").filter(|&time| is_watched && time > 0);
        self.watchdog = watchdog.map(Duration::from_micros);
        self.max_stored = number("FDSTORE").map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        // The variables may have been inherited from the parent, whose descriptors these are not.
        // The process that they were for may have ended, and its id is used again. Since version
        // 258 systemd also says the inode of its pidfd.
        let inodes = number("LISTEN_PIDFDID").zip(own.pidfd_inode);
        let are_own = is_own("LISTEN_PID") && inodes.is_none_or(|(meant, own)| meant == own);
        let count = number("LISTEN_FDS").filter(|_| are_own).unwrap_or_default();
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.as_bytes().split(|&byte| byte == b':').map(OsStr::from_bytes);
        let names = names.map(|name| name.to_string_lossy().into_owned());
        // The name of a descriptor without one (sd_listen_fds(3)).
        let unknown = || "unknown".to_owned();
        let count = usize::try_from(count.min(sys::file_limit())).unwrap_or_default();
        names
            .map(Some)
            .chain(std::iter::repeat(None))
            .take(count)
            .map(|name| name.filter(|name| !name.is_empty()).unwrap_or_else(unknown))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Environment, Vec<String>) {
        let find = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let mut environment = Environment::default();
        let names = environment.read(find, Own { pid: 77, pidfd_inode: Some(1234) });
        (environment, names)
    }

    #[test]
    fn without_variables_there_is_no_manager() {
        let (environment, names) = read(&[]);
        assert_eq!((environment.socket, environment.watchdog), (None, None));
        assert!(environment.max_stored.is_none() && names.is_empty());
    }

    #[test]
    fn descriptors_belong_to_the_process_that_they_name() {
        let fds = ("LISTEN_FDS", "2");
        assert_eq!(read(&[fds, ("LISTEN_PID", "77")]).1, ["unknown", "unknown"]);
        let named = [fds, ("LISTEN_PID", "77"), ("LISTEN_FDNAMES", "web:udp-53-1f")];
        assert_eq!(read(&named).1, ["web", "udp-53-1f"]);
        let fewer = [fds, ("LISTEN_PID", "77"), ("LISTEN_FDNAMES", "web")];
        assert_eq!(read(&fewer).1, ["web", "unknown"]);
        assert!(read(&[fds, ("LISTEN_PID", "78")]).1.is_empty());
        assert!(read(&[fds]).1.is_empty());
        assert!(read(&[("LISTEN_FDS", "-1"), ("LISTEN_PID", "77")]).1.is_empty());
        let meant = |number| read(&[fds, ("LISTEN_PID", "77"), ("LISTEN_PIDFDID", number)]).1;
        assert_eq!((meant("1234").len(), meant("1235").len()), (2, 0));
        let many = read(&[("LISTEN_FDS", "18446744073709551615"), ("LISTEN_PID", "77")]).1;
        assert!(many.len() as u64 <= sys::file_limit());
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names_or_for_any() {
        let time = ("WATCHDOG_USEC", "3000000");
        let three = Some(Duration::from_secs(3));
        assert_eq!(read(&[time]).0.watchdog, three);
        assert_eq!(read(&[time, ("WATCHDOG_PID", "77")]).0.watchdog, three);
        assert_eq!(read(&[time, ("WATCHDOG_PID", "78")]).0.watchdog, None);
        assert_eq!(read(&[("WATCHDOG_USEC", "0")]).0.watchdog, None);
        assert_eq!(read(&[("WATCHDOG_USEC", "soon")]).0.watchdog, None);
    }

    #[test]
    fn the_size_of_the_store_may_be_unknown() {
        assert_eq!(read(&[("FDSTORE", "512")]).0.max_stored, Some(512));
        assert_eq!(read(&[("FDSTORE", "0")]).0.max_stored, Some(0));
        assert_eq!(read(&[("NOTIFY_SOCKET", "/n")]).0.max_stored, None);
    }
}
