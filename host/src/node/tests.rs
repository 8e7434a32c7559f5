use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::stub::{StubMachine, tree};
use super::*;
use crate::error::Diagnose;
use crate::journal::State;

fn node(root: &Path) -> Node {
    Node::new(root.to_owned(), Arc::new(StubMachine::default()), Arc::new(Journal::in_memory()))
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_appear_with_the_mode_asked_for_whatever_the_umask_and_repeating_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    let path = Path::new("/etc/kubernetes/pki/ca.crt");
    assert_eq!(node.ensure_file(path, b"ca", 0o644).unwrap(), Change::Made);
    let located = root.path().join("etc/kubernetes/pki/ca.crt");
    assert_eq!((std::fs::read(&located).unwrap().as_slice(), mode(&located)), (&b"ca"[..], 0o644));
    assert_eq!(mode(located.parent().unwrap()), 0o755);
    // No usual umask would let this through.
    node.ensure_file(Path::new("/wide"), b"", 0o666).unwrap();
    assert_eq!(mode(&root.path().join("wide")), 0o666);
    let before = node.journal().record().effects.len();
    assert_eq!(node.ensure_file(path, b"ca", 0o644).unwrap(), Change::Unchanged);
    assert_eq!(node.journal().record().effects.len(), before);
}

#[test]
fn an_old_file_keeps_its_mode_unless_it_holds_a_secret_now() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    for (name, asked, kept) in [("plain", 0o644, 0o640), ("secret", 0o600, 0o600)] {
        let located = root.path().join(name);
        std::fs::write(&located, "old").unwrap();
        std::fs::set_permissions(&located, PermissionsExt::from_mode(0o640)).unwrap();
        let path = Path::new("/").join(name);
        assert_eq!(node.ensure_file(&path, b"new", asked).unwrap(), Change::Made);
        assert_eq!(mode(&located), kept, "{name}");
    }
    let located = root.path().join("secret");
    std::fs::set_permissions(&located, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(node.ensure_file(Path::new("/secret"), b"new", 0o600).unwrap(), Change::Made);
    assert_eq!(mode(&located), 0o600);
}

#[test]
fn records_each_directory_it_makes() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    node.ensure_file(Path::new("/a/b/c"), b"", 0o600).unwrap();
    let effects: Vec<_> = node.journal().record().effects;
    let paths: Vec<_> = effects.iter().map(|recorded| recorded.effect.path().unwrap().to_str().unwrap()).collect();
    assert_eq!(paths, ["/a", "/a/b", "/a/b/c"]);
    assert!(effects.iter().all(|recorded| recorded.state == State::Done));
    assert!(node.journal().owns(Path::new("/a/b/c")));
    node.remove(Path::new("/a/b/c")).unwrap();
    assert!(!node.journal().owns(Path::new("/a/b/c")));
}

#[test]
fn refuses_links_and_what_is_no_regular_file() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let node = node(root.path());
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("link")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("target"), root.path().join("file")).unwrap();
    std::fs::create_dir(root.path().join("directory")).unwrap();
    std::fs::write(root.path().join("plain"), "").unwrap();
    for path in ["/link/file", "/link/deeper/file", "/file", "/directory", "/plain/file", "/../x", "/a/../../x", "x"] {
        let error = node.ensure_file(Path::new(path), b"", 0o600).unwrap_err();
        assert!(matches!(error, NodeError::Refused { .. }), "{path}: {error}");
        assert_eq!(error.code(), "node-path-refused");
    }
    for path in ["/link/x", "/directory"] {
        assert!(node.ensure_symlink(Path::new(path), Path::new("t")).is_err(), "{path}");
    }
    assert!(node.ensure_dir(Path::new("/link/x"), 0o755).is_err());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(node.journal().record().effects, []);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    let path = Path::new("/config");
    node.ensure_file(path, b"old", 0o644).unwrap();
    // The temporary name is taken by something that cannot be removed as a file.
    let blocker = files::temporary(&root.path().join("config"));
    std::fs::create_dir(&blocker).unwrap();
    let error = node.ensure_file(path, b"new", 0o644).unwrap_err();
    assert!(matches!(error, NodeError::File { action: "write", .. }), "{error}");
    assert_eq!(std::fs::read(root.path().join("config")).unwrap(), b"old");
    std::fs::remove_dir(&blocker).unwrap();
    assert_eq!(tree(root.path()).len(), 1);
    // What a killed run left under that name is in nobody's way.
    std::fs::write(&blocker, "half").unwrap();
    node.ensure_file(path, b"new", 0o644).unwrap();
    assert_eq!(tree(root.path()).len(), 1);
}

#[test]
fn a_full_disk_has_a_code_and_a_hint_of_its_own() {
    // /dev/full cannot take a new file beside it, so the mapping is shown on the error itself.
    let failed = |kind: io::ErrorKind| NodeError::File { action: "write", path: "/etc/x".into(), source: kind.into() };
    let full = failed(io::ErrorKind::StorageFull);
    assert_eq!(full.code(), "node-disk-full");
    assert_eq!(
        full.hint().unwrap(),
        "`df -h /etc` shows the file system; free space on it, then run the same command again"
    );
    assert_eq!(failed(io::ErrorKind::ReadOnlyFilesystem).code(), "node-read-only");
    assert_eq!(failed(io::ErrorKind::PermissionDenied).code(), "node-file");
}

#[test]
fn links_are_replaced_in_one_step_and_repeating_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    let path = Path::new("/pki/current.pem");
    assert_eq!(node.ensure_symlink(path, Path::new("/pki/1.pem")).unwrap(), Change::Made);
    assert_eq!(node.ensure_symlink(path, Path::new("/pki/1.pem")).unwrap(), Change::Unchanged);
    assert_eq!(node.ensure_symlink(path, Path::new("/pki/2.pem")).unwrap(), Change::Made);
    assert_eq!(std::fs::read_link(root.path().join("pki/current.pem")).unwrap(), Path::new("/pki/2.pem"));
    assert_eq!(tree(root.path()).len(), 2);
}

#[test]
fn notes_an_empty_directory_once_and_only_while_it_is_empty() {
    let root = tempfile::tempdir().unwrap();
    let node = node(root.path());
    std::fs::create_dir(root.path().join("full")).unwrap();
    std::fs::write(root.path().join("full/file"), "").unwrap();
    std::fs::create_dir(root.path().join("empty")).unwrap();
    for _ in 0..2 {
        for path in ["/full", "/empty", "/absent"] {
            node.note_if_empty(Path::new(path)).unwrap();
        }
    }
    let effects: Vec<_> = node.journal().record().effects.into_iter().map(|recorded| recorded.effect).collect();
    let noted = |path: &str, existed| Effect::WasEmpty { path: path.into(), existed };
    assert_eq!(effects, [noted("/empty", true), noted("/absent", false)]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_its_later_reads_see_what_would_be() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/old"), "old").unwrap();
    let before = tree(root.path());
    let plan = Arc::new(Plan::default());
    let node = Node::planning(root.path().to_owned(), Arc::new(StubMachine::default()), plan.clone());
    assert_eq!(node.ensure_file(Path::new("/etc/new"), b"new", 0o600).unwrap(), Change::Made);
    assert_eq!(node.ensure_file(Path::new("/etc/new"), b"new", 0o600).unwrap(), Change::Unchanged);
    assert_eq!(node.ensure_file(Path::new("/etc/old"), b"old", 0o600).unwrap(), Change::Unchanged);
    assert_eq!(node.ensure_file(Path::new("/var/lib/x/y"), b"y", 0o644).unwrap(), Change::Made);
    node.ensure_symlink(Path::new("/var/lib/x/z"), Path::new("y")).unwrap();
    node.note_if_empty(Path::new("/var/lib/kubelet")).unwrap();
    node.delegate(Path::new("/etc/kubelet.conf")).unwrap();
    assert_eq!(node.remove(Path::new("/etc/old")).unwrap(), Change::Made);
    assert_eq!(node.remove(Path::new("/etc/old")).unwrap(), Change::Unchanged);
    node.unit(UnitAction::Restart, "kubelet").await.unwrap();
    assert_eq!(node.read(Path::new("/etc/new"), 10).unwrap().unwrap(), b"new");
    assert_eq!(node.read(Path::new("/etc/old"), 10).unwrap(), None);
    assert_eq!(tree(root.path()), before);
    let steps: Vec<_> = plan.text().lines().filter(|line| line.starts_with("would")).map(str::to_owned).collect();
    assert_eq!(steps.len(), 8, "{steps:?}");
    assert!(steps[1].starts_with("would make the directory /var (mode 0755)"), "{steps:?}");
}

#[test]
fn reads_at_most_what_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "12345").unwrap();
    let node = node(root.path());
    assert_eq!(node.read(Path::new("/file"), 5).unwrap().unwrap(), b"12345");
    assert!(node.read(Path::new("/file"), 4).is_err());
    assert_eq!(node.read(Path::new("/absent"), 4).unwrap(), None);
    assert!(node.read(Path::new("/"), 4).is_err());
}

#[tokio::test]
async fn a_secret_file_leaves_nothing_of_itself_in_record_plan_or_debug() {
    let root = tempfile::tempdir().unwrap();
    let header = crate::journal::Header { node_name: "n2".into(), endpoint: "e".into(), arguments: String::new() };
    let journal = Arc::new(Journal::open(root.path(), header).unwrap());
    let real = Node::new(root.path().to_owned(), Arc::new(StubMachine::default()), journal.clone());
    let plan = Arc::new(Plan::default());
    let planning = Node::planning(root.path().to_owned(), Arc::new(StubMachine::default()), plan.clone());
    for node in [planning, real] {
        node.ensure_file(Path::new("/etc/secret"), b"token: canary", 0o600).unwrap();
        node.ensure_file(Path::new("/etc/secret"), b"token: canary2", 0o600).unwrap();
        node.remove(Path::new("/etc/secret")).unwrap();
    }
    let record = std::fs::read_to_string(root.path().join("var/lib/mortise/join.jsonl")).unwrap();
    for shown in [record, plan.text(), plan.json().to_string(), format!("{journal:?}"), format!("{plan:?}")] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}
