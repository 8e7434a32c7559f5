//! Files of this machine, as a plugin may see them: opened step by step, so that what was checked is what is read.
//!
//! A link is followed only while every directory passed, and the link itself, belong to root (or to the user who runs
//! the host) and cannot be written by others; where it leads must be granted, too. Some files are never read, whatever a
//! grant says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::broker::failed;
use crate::facts::{FileInfo, FileKind, FileRequest, HostError, MAX_ENTRIES};

/// Links followed for one path, as the kernel's own limit.
const LINKS: usize = 40;

/// What is known of a file; none: nothing is there. `ours` is left false.
///
/// # Errors
///
/// `denied` for a path that leads to what no grant covers, through a link that cannot be trusted, or to a file that is
/// never shown; `unavailable` for the kernel's own refusals.
pub fn stat(request: FileRequest<'_>) -> Result<Option<FileInfo>, HostError> {
    let Some(found) = open(request)? else { return Ok(None) };
    let stat = &found.stat;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Other,
    };
    Ok(Some(FileInfo {
        kind,
        size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        ours: false,
    }))
}

/// The whole content of a regular file.
///
/// # Errors
///
/// As [`stat`]; also `not-found`, `invalid` for what is no regular file, `too-large`, and `denied` for content that is a
/// private key or a kubeconfig, wherever it lies.
pub fn read(request: FileRequest<'_>) -> Result<Vec<u8>, HostError> {
    let shown = request.path.display();
    let Some(found) = open(request)? else {
        return Err(failed("not-found", format!("there is no `{shown}`")));
    };
    if is_secret_path(&found.path) {
        return Err(never(&found.path));
    }
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        return Err(failed("invalid", format!("`{shown}` is not a regular file")));
    }
    // By descriptor, so that it is the file that was checked. Only now does opening have an effect.
    let reopened =
        File::open(format!("/proc/self/fd/{}", found.file.as_raw_fd())).map_err(|e| unavailable(&found.path, &e))?;
    let mut content = Vec::new();
    reopened.take(request.max_bytes + 1).read_to_end(&mut content).map_err(|e| unavailable(&found.path, &e))?;
    if content.len() as u64 > request.max_bytes {
        return Err(failed("too-large", format!("`{shown}` is larger than {} bytes", request.max_bytes)));
    }
    if is_secret_content(&content) {
        return Err(never(&found.path));
    }
    Ok(content)
}

/// Names in a directory, sorted.
///
/// # Errors
///
/// As [`stat`]; also `not-found`, `invalid` for what is no directory, and `too-large` beyond [`MAX_ENTRIES`].
pub fn entries(request: FileRequest<'_>) -> Result<Vec<String>, HostError> {
    let shown = request.path.display();
    let Some(found) = open(request)? else {
        return Err(failed("not-found", format!("there is no `{shown}`")));
    };
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
        return Err(failed("invalid", format!("`{shown}` is not a directory")));
    }
    let listed = std::fs::read_dir(format!("/proc/self/fd/{}", found.file.as_raw_fd()));
    let mut names = Vec::new();
    for entry in listed.map_err(|e| unavailable(&found.path, &e))? {
        if names.len() == MAX_ENTRIES {
            return Err(failed("too-large", format!("more than {MAX_ENTRIES} entries are in `{shown}`")));
        }
        let entry = entry.map_err(|e| unavailable(&found.path, &e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

struct Found {
    /// Opened with `O_PATH`.
    file: OwnedFd,
    stat: Stat,
    /// Without links.
    path: PathBuf,
}

/// A directory on the way.
struct Step {
    file: OwnedFd,
    trusted: bool,
}

/// Walks to a file without letting the kernel follow a link.
fn open(request: FileRequest<'_>) -> Result<Option<Found>, HostError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(|e| unavailable(Path::new("/"), &e.into()))?;
    let root_stat = rustix::fs::fstat(&root).map_err(|e| unavailable(Path::new("/"), &e.into()))?;
    let mut way = vec![Step { file: root, trusted: is_trusted(&root_stat) }];
    let mut path = PathBuf::from("/");
    let mut left: VecDeque<_> = segments(request.path);
    let mut links = 0;
    loop {
        let Some(segment) = left.pop_front() else {
            // The path was `/`, or a link led there.
            let last = way.pop().expect("the way begins at the root");
            let stat = rustix::fs::fstat(&last.file).map_err(|e| unavailable(&path, &e.into()))?;
            return admitted(request, Found { file: last.file, stat, path }, links > 0).map(Some);
        };
        if segment == ".." {
            // Only out of a link; the root is its own parent.
            if way.len() > 1 {
                way.pop();
                path.pop();
            }
            continue;
        }
        let parent = way.last().expect("the way begins at the root");
        let next = path.join(&segment);
        if is_never(&next) {
            return Err(never(&next));
        }
        let file = match rustix::fs::openat(&parent.file, segment.as_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(unavailable(&next, &error.into())),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| unavailable(&next, &e.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(failed("invalid", format!("`{}` has too many links", request.path.display())));
                }
                if !way.iter().all(|step| step.trusted) || !is_own(&stat) {
                    return Err(failed(
                        "denied",
                        format!("`{}` is a link that others could have made", next.display()),
                    ));
                }
                let target =
                    rustix::fs::readlinkat(&file, "", Vec::new()).map_err(|e| unavailable(&next, &e.into()))?;
                let target = target.into_string().map_err(|_| failed("invalid", "a link is not UTF-8".into()))?;
                if target.starts_with('/') {
                    way.truncate(1);
                    path = "/".into();
                }
                for segment in segments(Path::new(&target)).into_iter().rev() {
                    left.push_front(segment);
                }
            }
            FileType::Directory if !left.is_empty() => {
                way.push(Step { file, trusted: is_trusted(&stat) });
                path = next;
            }
            _ if left.is_empty() => return admitted(request, Found { file, stat, path: next }, links > 0).map(Some),
            _ => return Ok(None),
        }
    }
}

/// Segments as text; the broker admits no others in a request, and a link's are checked above.
fn segments(path: &Path) -> VecDeque<String> {
    path.to_string_lossy().split('/').filter(|it| !it.is_empty() && *it != ".").map(str::to_owned).collect()
}

fn admitted(request: FileRequest<'_>, found: Found, followed: bool) -> Result<Found, HostError> {
    if followed && !(request.permits)(&found.path) {
        let (from, to) = (request.path.display(), found.path.display());
        return Err(failed("denied", format!("`{from}` is a link to `{to}`, which is not granted")));
    }
    Ok(found)
}

/// Belongs to root, or to the user who runs the host.
pub(super) fn is_own(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Own, and not writable by group or others.
pub(super) fn is_trusted(stat: &Stat) -> bool {
    is_own(stat) && stat.st_mode & 0o022 == 0
}

fn unavailable(path: &Path, error: &io::Error) -> HostError {
    failed("unavailable", format!("`{}`: {error}", path.display()))
}

fn never(path: &Path) -> HostError {
    failed("denied", format!("`{}` is never shown to a plugin, whatever is granted", path.display()))
}

/// Places whose files say or do more than a grant could mean: devices, and what belongs to a process.
fn is_never(path: &Path) -> bool {
    let mut parts = path.components().skip(1).filter_map(|part| part.as_os_str().to_str());
    match (parts.next(), parts.next()) {
        (Some("dev"), _) => true,
        (Some("proc"), Some(entry)) => {
            let process = entry.bytes().all(|byte| byte.is_ascii_digit()) || entry == "self" || entry == "thread-self";
            process || ["kcore", "kmsg", "kpagecount", "kpageflags", "sysrq-trigger", "keys", "vmcore"].contains(&entry)
        }
        _ => false,
    }
}

/// Files that hold secrets by their place or name. Their size and mode may be seen.
fn is_secret_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let below = |dir: &str| text.starts_with(dir);
    let named = |end: &str| name.ends_with(end);
    let accounts =
        below("/etc/") && ["shadow", "gshadow", "opasswd"].iter().any(|it| name.trim_end_matches('-') == *it);
    let ssh = text.contains("/.ssh/") || (below("/etc/ssh/") && named("_key"));
    let kubernetes = (below("/etc/kubernetes/") && named(".conf"))
        || below("/var/lib/kubelet/pki/")
        || below("/etc/rancher/")
        || text.contains("/.kube/")
        || name.contains("kubeconfig");
    let keys =
        named(".key") || named("-key.pem") || name == "key.pem" || named(".p12") || named(".pfx") || named(".keytab");
    let cloud = below("/var/lib/cloud/") || below("/run/cloud-init/") || name.starts_with("user-data");
    accounts || ssh || kubernetes || keys || cloud
}

/// Content that is a secret wherever it lies.
fn is_secret_content(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let key = text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----");
    let credentials = ["client-key-data", "token", "password", "exec", "client-key"];
    let kubeconfig = text.contains("users")
        && text.contains("clusters")
        && text.contains("Config")
        && credentials.iter().any(|it| text.contains(it));
    key || kubeconfig
}

/// Opens a program that only its owner, root or the user who runs the host, can change: it and every directory on the
/// way.
pub(super) fn open_program(program: &Path) -> Result<OwnedFd, HostError> {
    let refuse = |what: &Path, why: &str| failed("denied", format!("`{}` {why}", what.display()));
    let resolved = program.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed("not-found", format!("there is no `{}`", program.display())),
        _ => unavailable(program, &error),
    })?;
    for (named, path) in [(program, program), (program, resolved.as_path())] {
        for part in path.ancestors() {
            let flags = if part == resolved { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
            let stat = rustix::fs::statat(CWD, part, flags).map_err(|error| unavailable(part, &error.into()))?;
            if !is_trusted(&stat) {
                return Err(refuse(named, &format!("is not run: `{}` can be changed by others", part.display())));
            }
        }
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::openat(CWD, &resolved, flags, Mode::empty()).map_err(|e| unavailable(&resolved, &e.into()))?;
    let stat = rustix::fs::fstat(file.as_fd()).map_err(|e| unavailable(&resolved, &e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_trusted(&stat) {
        return Err(refuse(program, "is not a regular file that only its owner can change"));
    }
    Ok(file)
}
