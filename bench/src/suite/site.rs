//! The rows of a site: answers of a backend, uploads to it, files, HTTP/2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::contender::{Programs, Running};
use super::measure::{Manner, target};
use super::results::{Contender, Generator, Workload};
use super::{generators, servers};
use crate::load::bulk::Direction;
use crate::load::dial::Target;
use crate::load::http::Request;
use crate::load::{self, keepalive, mixed, transfers};
use crate::while_doing;

pub(super) const SMALL: u32 = 1 << 10;
pub(super) const LARGE: u32 = 10 << 20;

/// What is asked for.
#[derive(Clone, Copy)]
enum Kind {
    Backend,
    File,
}

/// Where a body of so many bytes is. Every peer's configuration has the same paths.
fn path(kind: Kind, size: u32) -> String {
    match kind {
        Kind::Backend if size <= SMALL => format!("/small/{size}"),
        Kind::Backend => format!("/large/{size}"),
        Kind::File => format!("/files/{size}.bin"),
    }
}

/// Makes the site's files below a directory, and returns their root.
pub(super) fn write(directory: &Path) -> io::Result<PathBuf> {
    let root = directory.join("root");
    for size in [SMALL, LARGE] {
        let file = root.join(path(Kind::File, size).trim_start_matches('/'));
        let make = || -> io::Result<()> {
            fs::create_dir_all(file.parent().unwrap_or(&root))?;
            fs::write(&file, vec![0x5a; size as usize])
        };
        make().map_err(while_doing(file.display()))?;
    }
    Ok(root)
}

/// One of the contender's two ports, and without a proxy the backend for bodies of so many bytes.
fn port(running: &Running, tls: bool, size: u32) -> Target {
    if tls {
        return target(running, |ports| ports.secure);
    }
    let large = running.contender == Contender::Direct && size > SMALL;
    Target { tls: None, ..target(running, |ports| if large { ports.large } else { ports.web }) }
}

/// Runs a workload of the site once, and returns the bytes that were moved beside it, too.
pub(super) fn run(
    running: &Running,
    programs: &Programs,
    workload: Workload,
    manner: Manner,
) -> io::Result<(load::Outcome, Option<u64>)> {
    let outcome = match workload {
        Workload::SiteAnswers { connections, size, tls, by } => {
            let (target, path) = (port(running, tls, size), path(Kind::Backend, size));
            bodies(programs, &target, &path, (connections, size, by), workload, manner)
        }
        Workload::SiteFiles { connections, size, tls, by } => {
            let (target, path) = (port(running, tls, size), path(Kind::File, size));
            bodies(programs, &target, &path, (connections, size, by), workload, manner)
        }
        Workload::SiteUploads { connections, size, by } => {
            let (target, path) = (port(running, false, size), path(Kind::Backend, size));
            match by {
                Generator::Own => {
                    transfer(&target, Direction::Up, (connections, size), path, manner)
                }
                _ => generators::site(programs, &target, &path, workload, manner.seconds),
            }
        }
        Workload::SiteStreams { .. } => {
            let target = port(running, true, 0);
            generators::site(programs, &target, "/some/path?x=1", workload, manner.seconds)
        }
        Workload::SiteMixed { large, small } => {
            let target = port(running, false, SMALL);
            let Manner { seconds, warmup, send } = manner;
            let request = Request::of(path(Kind::Backend, SMALL), SMALL as usize);
            let load = mixed::Load { bulk: large, small, size: 100, send, seconds, warmup };
            let large = path(Kind::Backend, LARGE);
            let outcome = mixed::run_requests(&target, &load, &request, (&large, LARGE.into()))?;
            return Ok((outcome.small, Some(outcome.bulk_bytes)));
        }
        _ => Err(io::Error::other(format!("{workload} is no workload of the site"))),
    };
    Ok((outcome?, None))
}

/// Asks for bodies of one size, again and again.
fn bodies(
    programs: &Programs,
    target: &Target,
    path: &str,
    (connections, size, by): (u16, u32, Generator),
    workload: Workload,
    manner: Manner,
) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, .. } = manner;
    if by != Generator::Own {
        return generators::site(programs, target, path, workload, seconds);
    }
    if workload.is_bulk() {
        return transfer(target, Direction::Down, (connections, size), path.into(), manner);
    }
    let request = Request::of(path, size as usize);
    keepalive::run(target, &keepalive::Load { request, connections, seconds, warmup })
}

fn transfer(
    target: &Target,
    direction: Direction,
    (connections, size): (u16, u32),
    ask: String,
    manner: Manner,
) -> io::Result<load::Outcome> {
    let Manner { seconds, warmup, send } = manner;
    let size = size.into();
    let load = transfers::Load { direction, connections, ask, size, seconds, warmup, send };
    transfers::run_counting(target, &load, Some(&servers::ARRIVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_where_requests_look_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let root = write(directory.path()).unwrap();
        for size in [SMALL, LARGE] {
            let path = path(Kind::File, size);
            let file = fs::metadata(root.join(&path[1..])).unwrap();
            assert_eq!(file.len(), u64::from(size), "{path}");
        }
    }
}
