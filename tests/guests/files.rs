//! Host files as a plugin may see them. Here rather than beside the code because it needs a directory that nobody else
//! can write to, which a temporary one is not.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mortise::facts::{FileKind, FileRequest, HostError};
use mortise::plugin::files;

/// A fresh directory that nobody else can write to, nor to any above it: below the build's, or, where the checkout is
/// somewhere public such as `/tmp`, in the home directory. It goes with the test.
pub(crate) fn directory(name: &str) -> Private {
    let build = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let above = [Some(build), home].into_iter().flatten().find(|above| is_private(above));
    let above = above.expect("the build's directory or the home directory is writable for its owner alone");
    let directory = tempfile::Builder::new().prefix(&format!("mortise-{name}-")).tempdir_in(above).unwrap();
    let path = directory.path().canonicalize().unwrap();
    Private { path, _directory: directory }
}

pub(crate) struct Private {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Deref for Private {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

fn is_private(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    path.canonicalize().is_ok_and(|path| {
        path.ancestors().all(|above| {
            fs::metadata(above).is_ok_and(|of| [0, me].contains(&of.uid()) && of.permissions().mode() & 0o022 == 0)
        })
    })
}

fn read(path: &Path, permitted: &[&Path]) -> Result<Vec<u8>, HostError> {
    let permits = |path: &Path| permitted.contains(&path);
    files::read(FileRequest { path, permits: &permits, max_bytes: 100 })
}

fn code<T: std::fmt::Debug>(result: Result<T, HostError>) -> String {
    result.unwrap_err().code
}

#[test]
fn plain_files_are_read_up_to_their_bound() {
    let root = directory("plain");
    fs::write(root.join("small"), "x".repeat(100)).unwrap();
    fs::write(root.join("large"), "x".repeat(101)).unwrap();
    assert_eq!(read(&root.join("small"), &[]).unwrap().len(), 100);
    assert_eq!(code(read(&root.join("large"), &[])), "too-large");
    assert_eq!(code(read(&root.join("absent"), &[])), "not-found");
    assert_eq!(code(read(&root.join("small/below"), &[])), "not-found");
    assert_eq!(code(read(&root, &[])), "invalid");
}

#[test]
fn a_link_is_followed_only_to_what_is_granted() {
    let root = directory("links");
    fs::write(root.join("target"), "content").unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    symlink("../target", root.join("sub/relative")).unwrap();
    symlink(root.join("target"), root.join("absolute")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let target = root.join("target");
    for link in ["sub/relative", "absolute"] {
        assert_eq!(read(&root.join(link), &[&target]).unwrap(), b"content");
        let error = read(&root.join(link), &[]).unwrap_err();
        assert!(error.code == "denied" && error.message.contains("which is not granted"), "{error:?}");
    }
    assert_eq!(code(read(&root.join("loop"), &[])), "invalid");
}

#[test]
fn a_link_in_a_directory_that_others_write_to_is_not_followed() {
    let root = directory("shared");
    fs::write(root.join("target"), "content").unwrap();
    symlink("target", root.join("link")).unwrap();
    fs::set_permissions(&*root, fs::Permissions::from_mode(0o1777)).unwrap();
    let error = read(&root.join("link"), &[&root.join("target")]).unwrap_err();
    assert!(error.code == "denied" && error.message.contains("others could have made"), "{error:?}");
    assert_eq!(read(&root.join("target"), &[]).unwrap(), b"content");
}

#[test]
fn secrets_and_devices_are_never_read() {
    let root = directory("secrets");
    fs::create_dir(root.join(".ssh")).unwrap();
    for name in ["server.key", "tls-key.pem", "admin.kubeconfig", "user-data.txt", ".ssh/id_ed25519"] {
        fs::write(root.join(name), "secret").unwrap();
        assert_eq!(code(read(&root.join(name), &[])), "denied", "{name}");
    }
    let anywhere = root.join("notes.txt");
    for content in [
        "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\n",
        "kind: Config\nclusters: []\nusers: [{user: {token: x}}]\n",
    ] {
        fs::write(&anywhere, content).unwrap();
        assert_eq!(code(read(&anywhere, &[])), "denied", "{content}");
    }
    for path in ["/dev/zero", "/proc/self/environ", "/proc/1/environ", "/proc/mounts", "/proc/kcore", "/etc/shadow"] {
        let error = read(Path::new(path), &[Path::new(path)]).unwrap_err();
        assert_eq!(error.code, "denied", "{path}: {}", error.message);
    }
    assert!(read(Path::new("/proc/loadavg"), &[]).is_ok());
}

#[test]
fn a_fifo_does_not_hold_up_the_host() {
    let root = directory("fifo");
    let path = root.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(code(read(&path, &[])), "invalid");
}

#[test]
fn stat_tells_without_opening() {
    let root = directory("stat");
    fs::write(root.join("ca.key"), "12345").unwrap();
    fs::set_permissions(root.join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let stat = |path: &Path| files::stat(FileRequest { path, permits: &|_| false, max_bytes: 1 }).unwrap();
    let found = stat(&root.join("ca.key")).unwrap();
    assert_eq!((found.kind, found.size_bytes, found.mode), (FileKind::Regular, 5, 0o600));
    assert_eq!(stat(&root).unwrap().kind, FileKind::Directory);
    assert_eq!(stat(&root.join("absent")), None);
}
