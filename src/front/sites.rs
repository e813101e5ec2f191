//! The sites of files of one listener on one worker: one for each route that serves files.

use std::rc::Rc;

use crate::config::{Files, Listener};
use crate::files::{Rules, Site, Store};

/// The sites of a listener.
pub(super) struct Sites(Vec<(*const Files, Rc<Site>)>);

impl Sites {
    /// Makes the sites. There is a store if a listener serves files.
    pub(super) fn new(listener: &Listener, store: Option<&Rc<Store>>) -> Sites {
        let Some(store) = store else { return Sites(Vec::new()) };
        let site = |files: &Files| {
            // The configuration lives as long as the listener, and its routes stay in their places.
            (std::ptr::from_ref(files), Rc::new(Site::new(store, &Rules::from(files))))
        };
        Sites(listener.files().map(site).collect())
    }

    /// The site of a route.
    pub(super) fn of(&self, files: &Files) -> Option<&Rc<Site>> {
        self.0.iter().find(|(own, _)| std::ptr::eq(*own, files)).map(|(_, site)| site)
    }
}
