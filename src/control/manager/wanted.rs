//! What the service manager is to know. The notifier sends what of it is new, as fast as the
//! manager reads. Only the last state is kept, so it does not grow while the manager does not read.

use std::sync::Arc;

use super::store::Stored;

/// The state that the manager is to have.
#[derive(Default)]
pub(super) struct Wanted {
    /// The last notification of each kind, in the order in which they came.
    notices: Vec<Notice>,
    /// The number of the last notification.
    last: u64,
    /// Sockets that the manager is to store.
    pub(super) store: Vec<Arc<Stored>>,
    /// Changes with `store`. 0 as long as nothing is known of the store.
    pub(super) store_version: u64,
    /// Names of sockets of a predecessor, which it may have stored.
    pub(super) inherited: Vec<String>,
    /// Names of sockets that the manager has bound itself.
    pub(super) bound_by_manager: Vec<String>,
    /// How many beats of the watchdog there were. The manager needs the last one.
    pub(super) beats: u64,
    /// How many answers were asked for. One to the last question answers the others.
    pub(super) asked: u64,
    /// The last answer that nothing waits for any more.
    pub(super) given_up: u64,
    /// Whether another process is the main one of the service.
    pub(super) has_resigned: bool,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) kind: Kind,
    /// They are sent in this order.
    pub(super) number: u64,
    pub(super) text: String,
}

/// The kinds of notifications. One replaces an earlier one of its kind that is not sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Status,
    Ready,
    Reloading,
    Stopping,
    MainPid,
}

impl Wanted {
    /// Nothing yet, beside a manager that has bound sockets with these names.
    pub(super) fn beside(bound_by_manager: Vec<String>) -> Wanted {
        Wanted { bound_by_manager, ..Wanted::default() }
    }

    /// Adds a notification. After that of another main process there are no further ones.
    pub(super) fn say(&mut self, kind: Kind, text: String) {
        if self.has_resigned {
            return;
        }
        self.last += 1;
        self.notices.retain(|notice| notice.kind != kind);
        self.notices.push(Notice { kind, number: self.last, text });
    }

    /// Another process is the main one from now on. What is stored stays as it is, and this process
    /// holds the sockets no longer.
    pub(super) fn resign(&mut self, text: String) {
        self.say(Kind::MainPid, text);
        self.has_resigned = true;
        self.store.clear();
        self.store_version += 1;
    }

    /// Makes these sockets those that the manager is to store.
    pub(super) fn set_store(&mut self, sockets: Vec<Arc<Stored>>) {
        if !self.has_resigned {
            self.store = sockets;
            self.store_version += 1;
        }
    }

    /// The numbers of the last notification and of the last question.
    pub(super) fn last_ones(&self) -> (u64, u64) {
        (self.last, self.asked)
    }

    /// The first notification after the one with this number.
    pub(super) fn notice_after(&self, number: u64) -> Option<&Notice> {
        self.notices.iter().find(|notice| notice.number > number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(wanted: &Wanted, mut sent: u64) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(notice) = wanted.notice_after(sent) {
            texts.push(notice.text.clone());
            sent = notice.number;
        }
        texts
    }

    #[test]
    fn the_last_notification_of_each_kind_is_kept_in_order() {
        let mut wanted = Wanted::default();
        for number in 1..=100 {
            wanted.say(Kind::Status, format!("status {number}"));
            wanted.say(Kind::Reloading, format!("reloading {number}"));
            wanted.say(Kind::Ready, format!("ready {number}"));
        }
        assert_eq!(texts(&wanted, 0), ["status 100", "reloading 100", "ready 100"]);
        // What is sent is not sent again.
        assert_eq!(texts(&wanted, 299), ["ready 100"]);
        // A reload in progress comes behind the end of the one before.
        wanted.say(Kind::Reloading, "reloading 101".to_owned());
        assert_eq!(texts(&wanted, 298), ["ready 100", "reloading 101"]);
    }

    #[test]
    fn after_another_main_process_nothing_is_said() {
        let mut wanted = Wanted::default();
        wanted.say(Kind::Ready, "ready".to_owned());
        wanted.resign("main pid".to_owned());
        wanted.say(Kind::Stopping, "stopping".to_owned());
        wanted.set_store(Vec::new());
        assert_eq!(texts(&wanted, 0), ["ready", "main pid"]);
        assert_eq!(wanted.store_version, 1);
    }
}
