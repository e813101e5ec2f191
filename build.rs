//! Tells the program which commit it is built from, for `ringgate --version`.
//!
//! The commit is read from the files of the checkout, or from what `cargo package` puts beside the
//! sources; no git is needed. A directory above the package is not looked at: it may be a checkout
//! of something else.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    for path in watched(&package) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let commit = match commit(&package) {
        Some(commit) => format!("commit {}", &commit[..12]),
        None => String::from("commit unknown, built outside a git checkout"),
    };
    println!("cargo::rustc-env=RINGGATE_COMMIT={commit}");
}

/// The commit that is checked out, or that the package was made of: 40 hexadecimal digits or more.
pub(crate) fn commit(package: &Path) -> Option<String> {
    let packaged = fs::read_to_string(package.join(".cargo_vcs_info.json")).ok();
    let id = packaged.and_then(|json| {
        let (_, value) = json.split_once("\"sha1\"")?;
        value.split('"').nth(1).map(str::to_owned)
    });
    let id = id.or_else(|| {
        let git = git(package)?;
        let head = fs::read_to_string(git.head).ok()?;
        let Some(name) = head.strip_prefix("ref:") else { return Some(head) };
        let name = name.trim();
        fs::read_to_string(git.common.join(name)).ok().or_else(|| packed(&git.common, name))
    })?;
    let id = id.trim();
    let whole = id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| id.to_owned())
}

/// The parts of a repository that say which commit is checked out (gitrepository-layout(5)).
struct Git {
    head: PathBuf,
    /// What all worktrees share.
    common: PathBuf,
}

fn git(package: &Path) -> Option<Git> {
    let dot_git = package.join(".git");
    let own = if dot_git.is_dir() {
        dot_git
    } else {
        // A worktree or a submodule has a file that says where its directory is.
        let text = fs::read_to_string(&dot_git).ok()?;
        package.join(text.strip_prefix("gitdir:")?.trim())
    };
    let common = match fs::read_to_string(own.join("commondir")) {
        Ok(common) => own.join(common.trim()),
        Err(_) => own.clone(),
    };
    Some(Git { head: own.join("HEAD"), common })
}

/// The commit of a reference among those that git has packed into one file.
fn packed(common: &Path, name: &str) -> Option<String> {
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    let line =
        packed.lines().find(|line| line.split_once(' ').is_some_and(|(_, at)| at == name))?;
    line.split(' ').next().map(str::to_owned)
}

/// The files and directories that change when another commit is checked out, and few others. A
/// missing one would make Cargo run this every time.
pub(crate) fn watched(package: &Path) -> Vec<PathBuf> {
    let mut watched = vec![package.join(".cargo_vcs_info.json")];
    if let Some(git) = git(package) {
        let head = fs::read_to_string(&git.head).unwrap_or_default();
        let branch = head.strip_prefix("ref:").map(|name| git.common.join(name.trim()));
        match branch {
            Some(branch) if !branch.exists() => {
                // It is packed; the next commit makes the file.
                watched.push(git.common.join("packed-refs"));
                watched.extend(branch.ancestors().find(|path| path.exists()).map(Path::to_owned));
            }
            branch => watched.extend(branch),
        }
        watched.push(git.head);
    }
    watched.retain(|path| path.exists());
    watched
}
