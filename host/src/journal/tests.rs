use std::path::Path;

use super::*;
use crate::error::Diagnose;

fn header() -> Header {
    Header { node_name: "n2".into(), endpoint: "10.0.0.1:6443".into(), arguments: "00".into() }
}

fn open(root: &Path) -> Journal {
    Journal::open(root, header()).unwrap()
}

/// A record with a run and nothing else, as a killed run leaves it.
fn begun(root: &Path) {
    std::mem::forget(open(root));
    // The forgotten lock is still held.
    std::fs::remove_file(locate(root, LOCK_PATH)).unwrap();
}

fn text(root: &Path) -> String {
    std::fs::read_to_string(locate(root, JOURNAL_PATH)).unwrap()
}

fn file(path: &str, content: &[u8]) -> Effect {
    Effect::File { path: path.into(), sha256: crate::node::sha256_hex(content), mode: 0o600, replaced: None }
}

fn cluster(server: &str, ca: &str) -> crate::join::TrustedCluster {
    crate::join::TrustedCluster {
        server: server.into(),
        ca_pem: ca.into(),
        tls_server_name: None,
        established_by: String::new(),
    }
}

#[test]
fn a_record_is_private_and_begins_with_its_run() {
    let root = tempfile::tempdir().unwrap();
    let journal = open(root.path());
    let entry = journal.intend(file("/a", b"a")).unwrap();
    journal.complete(entry).unwrap();
    journal.finish().unwrap();
    let metadata = std::fs::metadata(locate(root.path(), JOURNAL_PATH)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let lines: Vec<serde_json::Value> =
        text(root.path()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["run", "intent", "done", "finished"]);
    assert_eq!((lines[0]["version"].as_u64(), lines[0]["nodeName"].as_str()), (Some(1), Some("n2")));
    assert_eq!((lines[1]["seq"].as_u64(), lines[2]["seq"].as_u64()), (Some(2), Some(2)));
    assert_eq!(lines[1]["effect"], "file");
}

#[test]
fn an_etcd_members_id_follows_its_peer_url() {
    let root = tempfile::tempdir().unwrap();
    let url = "https://192.0.2.12:2380";
    let effect = || Effect::EtcdMember { peer_url: url.into(), id: None };
    {
        let journal = open(root.path());
        assert!(journal.record().etcd_member().is_none());
        let lost = journal.intend(effect()).unwrap();
        assert_eq!(journal.record().etcd_member(), Some((lost, url, None)));
    }
    {
        // What came of it is not on the disk: it stays open.
        let journal = open(root.path());
        let (entry, _, id) = journal.earlier().etcd_member().unwrap();
        assert_eq!(id, None);
        journal.complete_member(entry, "8e9e05c52164694d").unwrap();
    }
    let journal = open(root.path());
    let record = journal.earlier();
    let (entry, found, id) = record.etcd_member().unwrap();
    assert_eq!((found, id), (url, Some("8e9e05c52164694d")));
    assert_eq!(record.effects.len(), 1);
    assert!(text(root.path()).contains(r#""kind":"done","memberId":"8e9e05c52164694d""#));
    // The latest counts, and one that came to nothing does not.
    let refused = journal.intend(effect()).unwrap();
    assert_ne!(refused, entry);
    assert_eq!(journal.record().etcd_member(), Some((refused, url, None)));
    journal.void(refused).unwrap();
    assert_eq!(journal.record().etcd_member(), Some((entry, url, Some("8e9e05c52164694d"))));
}

#[test]
fn a_second_run_reads_what_the_first_one_did() {
    let root = tempfile::tempdir().unwrap();
    {
        let journal = open(root.path());
        assert_eq!(journal.earlier(), &Record::default());
        let entry = journal.intend(file("/etc/kubernetes/kubelet.conf", b"x")).unwrap();
        journal.complete(entry).unwrap();
        journal.intend(Effect::ApiObject { kind: "CertificateSigningRequest".into(), name: "csr-1".into() }).unwrap();
        journal.finish().unwrap();
    }
    let journal = open(root.path());
    assert!(journal.earlier().finished);
    assert!(journal.owns(Path::new("/etc/kubernetes/kubelet.conf")));
    assert!(!journal.owns(Path::new("/etc/kubernetes/pki/ca.crt")));
    assert_eq!(journal.record().api_objects("CertificateSigningRequest"), ["csr-1"]);
    // A finished join that begins something new is not finished.
    journal.intend(file("/b", b"")).unwrap();
    assert!(!journal.record().finished);
}

#[test]
fn a_plugin_has_its_line_before_the_first_effect_and_again_only_with_another_digest() {
    let root = tempfile::tempdir().unwrap();
    let used = |version: &str, digest: &str| UsedPlugin {
        name: "preflight-node".into(),
        version: version.into(),
        digest: format!("sha256:{digest}"),
    };
    let join = |plugin: UsedPlugin, effect: Option<Effect>| {
        let journal = open(root.path());
        // Each stage of checks says it.
        journal.use_plugin(plugin.clone());
        journal.use_plugin(plugin);
        if let Some(effect) = effect {
            let entry = journal.intend(effect).unwrap();
            journal.complete(entry).unwrap();
            journal.finish().unwrap();
        }
    };
    join(used("1", "aa"), None);
    assert!(!locate(root.path(), STATE_DIRECTORY).exists(), "checks that fail leave nothing");
    join(used("1", "aa"), Some(file("/a", b"")));
    join(used("1", "aa"), Some(file("/b", b"")));
    join(used("2", "bb"), Some(file("/c", b"")));
    let lines: Vec<serde_json::Value> =
        text(root.path()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    let first = ["run", "plugin", "intent", "done", "finished"];
    let same = ["run", "intent", "done", "finished"];
    assert_eq!(kinds, [&first[..], &same, &first].concat());
    assert_eq!(lines[1]["digest"], "sha256:aa");
    assert_eq!(Record::load(root.path()).unwrap().unwrap().plugins, [used("2", "bb")]);
}

#[test]
fn open_intents_are_settled_by_what_is_on_the_disk() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("made"), "made").unwrap();
    std::fs::write(root.path().join("other"), "other").unwrap();
    std::os::unix::fs::symlink("t", root.path().join("link")).unwrap();
    std::fs::create_dir(root.path().join("directory")).unwrap();
    let effects = [
        (file("/made", b"made"), State::Done),
        (file("/other", b"made"), State::Void),
        (file("/absent", b"made"), State::Void),
        (Effect::Symlink { path: "/link".into(), target: "t".into() }, State::Done),
        (Effect::Symlink { path: "/link".into(), target: "u".into() }, State::Void),
        (Effect::Directory { path: "/directory".into(), mode: 0o755 }, State::Done),
        (Effect::Directory { path: "/no".into(), mode: 0o755 }, State::Void),
        (Effect::Removal { path: "/gone".into() }, State::Done),
        (Effect::Removal { path: "/other".into() }, State::Void),
        (Effect::WasEmpty { path: "/var/lib/kubelet".into(), existed: false }, State::Done),
        (Effect::Unit { unit: "kubelet".into(), action: "restart".into() }, State::Intended),
        (Effect::ApiObject { kind: "Node".into(), name: "n2".into() }, State::Intended),
    ];
    {
        let journal = open(root.path());
        for (effect, _) in &effects {
            journal.intend(effect.clone()).unwrap();
        }
    }
    let journal = open(root.path());
    assert!(journal.earlier().effects.iter().all(|recorded| recorded.state == State::Intended));
    let settled: Vec<_> =
        journal.record().effects.into_iter().map(|recorded| (recorded.effect, recorded.state)).collect();
    assert_eq!(settled, effects);
    drop(journal);
    // Settled once: a third run finds nothing more to write than its own beginning.
    let before = text(root.path()).lines().count();
    drop(open(root.path()));
    assert_eq!(text(root.path()).lines().count(), before + 1);
}

#[test]
fn a_run_killed_anywhere_leaves_a_record_that_reads_back() {
    let root = tempfile::tempdir().unwrap();
    {
        let journal = open(root.path());
        for path in ["/a", "/b"] {
            let entry = journal.intend(file(path, b"")).unwrap();
            journal.complete(entry).unwrap();
        }
        journal.finish().unwrap();
    }
    let whole = text(root.path());
    let complete_lines = |bytes: usize| whole.as_bytes()[..bytes].iter().filter(|byte| **byte == b'\n').count();
    // Each seventh byte, and every byte around the ends of lines.
    let near_an_end = |bytes: usize| whole[..bytes].ends_with('\n') || whole[bytes..].starts_with('\n');
    for bytes in (0..=whole.len()).filter(|bytes| bytes % 7 == 0 || near_an_end(*bytes)) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(locate(copy.path(), STATE_DIRECTORY)).unwrap();
        std::fs::write(locate(copy.path(), JOURNAL_PATH), &whole.as_bytes()[..bytes]).unwrap();
        let journal = open(copy.path());
        assert_eq!(journal.earlier().finished, bytes == whole.len(), "{bytes}");
        let effects = complete_lines(bytes).saturating_sub(1).div_ceil(2).min(2);
        assert_eq!(journal.earlier().effects.len(), effects, "{bytes}");
        journal.finish().unwrap();
        drop(journal);
        assert!(Record::load(copy.path()).unwrap().unwrap().finished, "{bytes}");
    }
}

#[test]
fn a_line_spoilt_by_a_power_cut_is_cut_off_but_a_hole_in_the_middle_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    begun(root.path());
    let path = locate(root.path(), JOURNAL_PATH);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&good[..], b"\0\0\0\0\n"].concat()).unwrap();
    drop(open(root.path()));
    assert_eq!(text(root.path()).lines().count(), 2);
    std::fs::write(&path, [&good[..], b"\0\0\0\0\n", &good[..]].concat()).unwrap();
    let error = Journal::open(root.path(), header()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_newer_format_is_refused_whatever_else_it_holds() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(locate(root.path(), STATE_DIRECTORY)).unwrap();
    std::fs::write(locate(root.path(), JOURNAL_PATH), "{\"version\":2,\"all\":\"else\"}\n").unwrap();
    let error = Journal::open(root.path(), header()).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 2, .. }), "{error}");
    assert_eq!(error.code(), "journal-newer");
}

#[test]
fn two_runs_at_once_are_told_apart_and_the_first_named() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path());
    let error = Journal::open(root.path(), header()).unwrap_err();
    assert_eq!(error.code(), "join-in-progress");
    assert_eq!(error.exit_code(), crate::error::ExitCode::Failed);
    let holder = format!("process {}, `mortise join`", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    drop(first);
    drop(open(root.path()));
}

#[test]
fn a_lock_file_removed_by_its_holder_locks_nobody_out() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(locate(root.path(), STATE_DIRECTORY)).unwrap();
    let lock = Lock::acquire(root.path(), "reset").unwrap();
    lock.remove().unwrap();
    drop(Lock::acquire(root.path(), "join").unwrap());
}

#[test]
fn a_record_of_another_node_or_cluster_is_refused_once_something_was_done() {
    let root = tempfile::tempdir().unwrap();
    {
        let journal = open(root.path());
        journal.bind_cluster(&cluster("https://a:6443", "CA A")).unwrap();
        // Killed: what would remove the record does not run.
        std::mem::forget(journal);
        std::fs::remove_file(locate(root.path(), LOCK_PATH)).unwrap();
    }
    let other = || Header { node_name: "n3".into(), ..header() };
    {
        // Nothing was done yet: a mistyped name or endpoint is no commitment.
        let journal = Journal::open(root.path(), other()).unwrap();
        journal.bind_cluster(&cluster("https://b:6443", "CA B")).unwrap();
        journal.bind_cluster(&cluster("https://b2:6443", "CA B")).unwrap();
        let entry = journal.intend(file("/a", b"")).unwrap();
        journal.complete(entry).unwrap();
    }
    let error = Journal::open(root.path(), header()).unwrap_err();
    assert_eq!(error.code(), "journal-other-node");
    assert!(error.hint().unwrap().contains("mortise reset"));
    let journal = Journal::open(root.path(), other()).unwrap();
    let error = journal.bind_cluster(&cluster("https://a:6443", "CA A")).unwrap_err();
    assert_eq!(error.code(), "journal-other-cluster");
    journal.bind_cluster(&cluster("https://b:6443", "CA B")).unwrap();
}

#[test]
fn owns_what_came_into_an_empty_directory_and_what_it_left_to_the_kubelet() {
    let journal = Journal::in_memory();
    journal.intend(Effect::WasEmpty { path: "/var/lib/kubelet".into(), existed: true }).unwrap();
    journal.intend(Effect::Delegated { path: "/etc/kubernetes/kubelet.conf".into() }).unwrap();
    for (path, owned) in [
        ("/var/lib/kubelet/pki/kubelet.crt", true),
        ("/var/lib/kubelet", false),
        ("/var/lib/kubelet2/x", false),
        ("/etc/kubernetes/kubelet.conf", true),
        ("/etc/kubernetes/bootstrap-kubelet.conf", false),
    ] {
        assert_eq!(journal.owns(Path::new(path)), owned, "{path}");
    }
}

#[test]
fn owns_a_file_until_its_removal_is_done() {
    let journal = Journal::in_memory();
    let path = Path::new("/etc/kubernetes/bootstrap-kubelet.conf");
    journal.intend(file("/etc/kubernetes/bootstrap-kubelet.conf", b"x")).unwrap();
    let removal = journal.intend(Effect::Removal { path: path.into() }).unwrap();
    assert!(journal.owns(path));
    journal.complete(removal).unwrap();
    assert!(!journal.owns(path));
}

#[test]
fn a_kubelet_that_was_perhaps_started_is_ours_until_it_is_stopped() {
    let journal = Journal::in_memory();
    let act = |action: &str| journal.intend(Effect::Unit { unit: "kubelet".into(), action: action.into() }).unwrap();
    assert!(!journal.record().owns_kubelet());
    let stop = act("stop");
    journal.complete(stop).unwrap();
    assert!(!journal.record().owns_kubelet());
    // Killed before it could say that it was done.
    let restart = act("restart");
    assert!(journal.record().owns_kubelet());
    assert_eq!(journal.record().last_unit_action("kubelet").unwrap().1, "stop");
    journal.complete(restart).unwrap();
    assert!(journal.record().owns_kubelet());
    let stop = act("stop");
    assert!(journal.record().owns_kubelet());
    journal.complete(stop).unwrap();
    assert!(!journal.record().owns_kubelet());
}

#[test]
fn a_first_run_without_effects_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    assert!(!locate(root.path(), STATE_DIRECTORY).exists());
    std::fs::create_dir_all(locate(root.path(), STATE_DIRECTORY)).unwrap();
    drop(open(root.path()));
    assert_eq!(std::fs::read_dir(locate(root.path(), STATE_DIRECTORY)).unwrap().count(), 0);
    begun(root.path());
    drop(open(root.path()));
    assert!(locate(root.path(), JOURNAL_PATH).exists(), "the record of an earlier run stays");
}

#[test]
fn is_not_written_through_a_link() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    std::fs::create_dir_all(locate(root.path(), STATE_DIRECTORY)).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), locate(root.path(), JOURNAL_PATH)).unwrap();
    assert!(Journal::open(root.path(), header()).is_err());
    assert_eq!(std::fs::metadata(elsewhere.path()).unwrap().len(), 0);
}

#[test]
fn a_whole_joins_entries_cost_a_few_milliseconds() {
    // On tmpfs this shows little; on a disk it is the sum of about twenty data syncs.
    let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let journal = open(root.path());
    let started = std::time::Instant::now();
    for _ in 0..20 {
        let entry = journal.intend(file("/a", b"")).unwrap();
        journal.complete(entry).unwrap();
    }
    let took = started.elapsed();
    println!("20 effects: {took:?}");
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
