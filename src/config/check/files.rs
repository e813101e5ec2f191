//! Checks a route that serves files: the directory exists, and the names are names of files.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use super::super::input::ReadError;
use super::super::report::{Fault, quoted};
use super::super::types::{At, Field, List};
use super::super::{Files, keys};
use super::Check;

impl Check<'_> {
    pub(super) fn files(&self, route: &keys::Route) -> Option<Files> {
        let index = self.index(&route.index);
        let not_found = self.file_below("not_found", &route.not_found);
        let fallback = self.file_below("fallback", &route.fallback);
        let cache_control = self.some_field_value("cache_control", &route.cache_control);
        let mut precompressed = Vec::new();
        for coding in route.precompressed.as_ref().into_iter().flat_map(|codings| codings.iter()) {
            if precompressed.contains(&coding.value) {
                let note = "list each coding once, the preferred one first";
                self.report.error(coding.span, "this coding is in the list already", note);
            }
            precompressed.push(coding.value);
        }
        let root = route.root.value.as_ref()?;
        let path = self.base.join(&root.value);
        self.directory(root, &path)?;
        for (key, field, file) in
            [("not_found", &route.not_found, &not_found), ("fallback", &route.fallback, &fallback)]
        {
            if let (Some(at), Some(file)) = (&field.value, file)
                && !path.join(file).is_file()
            {
                let what = format!("`{key}` is not a file: {}", quoted(&at.value));
                let below = format!("{}/{file}", root.value.trim_end_matches('/'));
                let note = format!("it stands below `root`: create {}", quoted(&below));
                self.report.warning(at.span, what, note);
            }
        }
        Some(Files {
            root: path,
            index,
            not_found,
            fallback,
            cache_control,
            precompressed,
            dot_files: route.dot_files.get(),
            symlinks: route.symlinks.get(),
        })
    }

    /// Checks that a directory exists and that this user may enter it. Returns `None` if an error
    /// was reported.
    fn directory(&self, at: &At<String>, path: &Path) -> Option<()> {
        let found = path.metadata().and_then(|found| {
            let is_directory = found.is_dir();
            let enters = if is_directory { access(path, Access::EXEC_OK) } else { Ok(()) };
            enters.map(|()| is_directory).map_err(io::Error::from)
        });
        let name = quoted(&at.value);
        match found {
            Ok(true) => Some(()),
            Ok(false) => {
                let what = format!("`root` is not a directory: {name}");
                let note = "name the directory of the files; for one file there is \
                            respond = { file = \"…\" }";
                self.report.error(at.span, what, note);
                None
            }
            Err(cause) => {
                let note = match cause.kind() {
                    io::ErrorKind::NotFound if at.value.starts_with('/') => {
                        "create the directory, or check the spelling of the path"
                    }
                    io::ErrorKind::NotFound => {
                        "relative paths start at the directory of this configuration"
                    }
                    _ => {
                        "the user that runs ringgate must be allowed to enter the directory and \
                         those around it"
                    }
                };
                let what = format!("the directory {name} cannot be read");
                let fault = Fault::new(what, note);
                self.report.unreadable(at.span, fault, ReadError::System(cause));
                None
            }
        }
    }

    fn index(&self, field: &Field<List<String>>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in field.get().iter() {
            let text = &name.value;
            if !is_file_name(text) {
                let what = format!("{} is not the name of a file", quoted(text));
                let note = "write names alone, such as \"index.html\": they are looked for in each \
                            directory";
                self.report.error(name.span, what, note);
            } else if names.contains(text) {
                let what = format!("{} is in the list already", quoted(text));
                self.report.error(name.span, what, "list each name once");
            }
            names.push(text.clone());
        }
        names
    }

    /// The path of a file below `root`, without the slash at its start. Returns `None` if the key
    /// was left out or is wrong, which is reported.
    fn file_below(&self, key: &str, field: &Field<String>) -> Option<String> {
        let at = field.value.as_ref()?;
        let below = at.value.strip_prefix('/');
        if let Some(below) = below
            && below.split('/').all(is_file_name)
        {
            return Some(below.to_owned());
        }
        let what = format!("`{key}` is not the path of a file: {}", quoted(&at.value));
        let note = if below.is_none() {
            format!("it stands below `root` and starts with `/`: {key} = \"/index.html\"")
        } else {
            String::from(
                "it names a file below `root`, without the segments `.` and `..`, without two \
                 slashes in a row, and without control characters",
            )
        };
        self.report.error(at.span, what, note);
        None
    }
}

fn is_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains('/') && !text.chars().any(char::is_control)
}
