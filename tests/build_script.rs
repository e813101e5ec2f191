//! Which commit the build script finds, in every kind of checkout and without one.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

#[expect(dead_code, reason = "the build script's own main")]
#[path = "../build.rs"]
mod script;

const ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn commit(files: &[(&str, &str)]) -> Option<String> {
    script::commit(directory(files).path())
}

#[test]
fn a_checkout_says_its_commit() {
    let line = format!("{ID}\n");
    let branch = (".git/HEAD", "ref: refs/heads/main\n");
    let found = Some(ID.to_owned());
    assert_eq!(commit(&[branch, (".git/refs/heads/main", &line)]), found);
    assert_eq!(commit(&[(".git/HEAD", &line)]), found, "detached");
    let packed = format!(
        "# pack-refs with: peeled\n{0} refs/heads/main-2\n{ID} refs/heads/main\n",
        ID.replace('0', "f")
    );
    assert_eq!(commit(&[branch, (".git/packed-refs", &packed)]), found, "packed");
    let other = packed.replace(ID, &ID.replace('1', "e"));
    let files = [branch, (".git/packed-refs", &other), (".git/refs/heads/main", &line)];
    assert_eq!(commit(&files), found, "the packed one is older");
    let worktree = [
        ("wt/.git", "gitdir: ../repository/.git/worktrees/wt\n"),
        ("repository/.git/worktrees/wt/HEAD", "ref: refs/heads/side\n"),
        ("repository/.git/worktrees/wt/commondir", "../..\n"),
        ("repository/.git/refs/heads/side", &line),
    ];
    let directory = directory(&worktree);
    assert_eq!(script::commit(&directory.path().join("wt")), found, "a worktree");
}

#[test]
fn what_changes_with_a_commit_is_watched() {
    let watched = |files: &[(&str, &str)]| -> Vec<String> {
        let directory = directory(files);
        let watched = script::watched(directory.path());
        let below = |path: &Path| path.strip_prefix(directory.path()).expect("below").to_owned();
        watched.iter().map(|path| below(path).display().to_string()).collect()
    };
    let branch = (".git/HEAD", "ref: refs/heads/main\n");
    let (loose, packed) = ((".git/refs/heads/main", ID), (".git/packed-refs", ""));
    assert_eq!(watched(&[branch, loose, packed]), [".git/refs/heads/main", ".git/HEAD"]);
    let other = (".git/refs/heads/side", ID);
    let expected = [".git/packed-refs", ".git/refs/heads", ".git/HEAD"];
    assert_eq!(watched(&[branch, packed, other]), expected);
    assert_eq!(watched(&[(".git/HEAD", ID), packed, other]), [".git/HEAD"]);
    assert_eq!(watched(&[(".cargo_vcs_info.json", "{}")]), [".cargo_vcs_info.json"]);
    assert_eq!(watched(&[("Cargo.toml", "")]), [""; 0]);
}

#[test]
fn a_package_says_what_it_was_made_of() {
    let info =
        format!("{{\n  \"git\": {{\n    \"sha1\": \"{ID}\"\n  }},\n  \"path_in_vcs\": \"\"\n}}");
    let files = [(".cargo_vcs_info.json", info.as_str()), (".git/HEAD", "something else")];
    assert_eq!(commit(&files), Some(ID.to_owned()));
}

#[test]
fn without_a_checkout_there_is_no_commit() {
    assert_eq!(commit(&[("Cargo.toml", "")]), None);
    assert_eq!(commit(&[(".git/HEAD", "ref: refs/heads/main\n")]), None, "no commit yet");
    assert_eq!(commit(&[(".git/HEAD", "nonsense\n")]), None);
    assert_eq!(commit(&[(".git", "gitdir: /nowhere/at/all\n")]), None);
    assert_eq!(commit(&[(".cargo_vcs_info.json", "{\"git\":{\"sha1\":\"\"}}")]), None);
    // That of a directory above is another project's.
    let outer = directory(&[(".git/HEAD", ID), ("inner/Cargo.toml", "")]);
    assert_eq!(script::commit(&outer.path().join("inner")), None);
}

#[test]
fn the_program_knows_the_commit_that_is_checked_out() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = env!("RINGGATE_COMMIT");
    let Some(commit) = script::commit(package) else {
        assert_eq!(built, "commit unknown, built outside a git checkout");
        return;
    };
    assert_eq!(built, format!("commit {}", &commit[..12]), "built from another commit");
}
