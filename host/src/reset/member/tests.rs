use serde_json::json;

use super::*;
use crate::config::IgnoredChecks;
use crate::error::Diagnose as _;
use crate::etcd::health::quorum;
use crate::etcd::health::{MemberHealth, State};
use crate::etcd::{Member, Status};

fn settings() -> ResetSettings {
    ResetSettings {
        certificates_dir: None,
        cleanup_tmp_dir: false,
        cri_socket: None,
        dry_run: false,
        force: false,
        ignore: IgnoredChecks::default(),
        kubeconfig: "/etc/kubernetes/admin.conf".into(),
        skip_phases: Vec::new(),
        unmount_flags: Vec::new(),
        root: "/".into(),
    }
}

fn ours() -> Local {
    Local { peer_urls: vec!["https://192.0.2.1:2380".into()], ..Local::default() }
}

/// Members 1, 2, …: a learner, a voter that is up, or one that is down.
fn health(states: &str) -> Health {
    let members = states.chars().zip(1..).map(|(state, number)| {
        let member = Member {
            id: MemberId(number),
            name: format!("cp-{number}"),
            peer_urls: vec![format!("https://192.0.2.{number}:2380")],
            client_urls: vec![format!("https://192.0.2.{number}:2379")],
            is_learner: state == 'l',
        };
        let state = if state == 'd' { State::Down(EtcdError::NoEndpoint) } else { State::Up(status(number)) };
        MemberHealth { member, state }
    });
    let members: Vec<_> = members.collect();
    let agreed = states.matches('u').count() >= quorum(states.len() - states.matches('l').count());
    Health { cluster_id: 1, members, agreed }
}

fn status(number: u64) -> Status {
    Status {
        id: MemberId(number),
        cluster_id: 1,
        version: "3.7.0".into(),
        db_bytes: 1,
        quota_bytes: 0,
        leader: Some(MemberId(1)),
        raft_index: 1,
        applied_index: 1,
        raft_term: 1,
        revision: 1,
        is_learner: false,
        errors: Vec::new(),
    }
}

fn of(health: &Health, force: bool) -> Result<Option<Meaning>, ResetError> {
    judge(etcd_join::foresee(health, own(health, &ours()).unwrap()), force)
}

#[test]
fn a_member_leaves_only_while_the_others_keep_a_quorum() {
    for states in ["uuu", "duu", "uu", "luu", "lud"] {
        assert!(of(&health(states), false).unwrap().unwrap().possible, "{states}");
    }
    for states in ["uudd", "uud", "ud", "u", "ul", "d"] {
        let error = of(&health(states), false).unwrap_err();
        assert_eq!(error.code(), "reset-breaks-quorum", "{states}");
        assert!(error.hint().unwrap().contains("--force"), "{states}");
    }
}

#[test]
fn force_tries_all_the_same_and_leaves_the_last_voter_listed() {
    for (states, possible) in [("uud", true), ("ud", true), ("u", false), ("ul", false)] {
        let meaning = of(&health(states), true).unwrap().unwrap();
        assert_eq!(meaning.possible, possible, "{states}");
        assert!(meaning.text.contains("cp-1"), "{}", meaning.text);
    }
}

#[test]
fn the_records_id_decides_and_else_the_peer_url() {
    let found = |id| own(&health("uuu"), &Local { id, ..ours() });
    assert_eq!(found(None), Some(MemberId(1)));
    assert_eq!(found(Some(MemberId(3))), Some(MemberId(3)));
    assert_eq!(found(Some(MemberId(9))), None, "it left already");
    assert_eq!(own(&health("uuu"), &Local::default()), None);
}

#[test]
fn the_manifest_says_where_the_member_and_its_data_are() {
    let manifest = json!({"spec": {
        "containers": [{"command": [
            "etcd",
            "--advertise-client-urls=https://192.0.2.7:2379",
            "--data-dir=/var/lib/etcd",
            "--initial-advertise-peer-urls=https://192.0.2.7:2380",
            "--initial-cluster=cp-1=https://192.0.2.1:2380,cp-7=https://192.0.2.7:2380,odd=https://[2001:db8::1]:9999",
            "--trusted-ca-file=/data/pki/etcd/ca.crt",
        ]}],
        "volumes": [{"name": "etcd-certs"}, {"name": "etcd-data", "hostPath": {"path": "/data/etcd"}}],
    }});
    let local = read_manifest(&manifest, &settings());
    let expected = Local {
        id: None,
        peer_urls: vec!["https://192.0.2.7:2380".into()],
        endpoints: vec!["https://192.0.2.7:2379".into(), "https://192.0.2.1:2379".into()],
        pki: "/data/pki".into(),
        data_directory: "/data/etcd".into(),
    };
    assert_eq!(local, expected);
    let nothing = read_manifest(&Value::Null, &settings());
    assert_eq!(nothing.pki, Path::new("/etc/kubernetes/pki"));
    assert_eq!((nothing.endpoints, nothing.data_directory), (Vec::<String>::new(), "/var/lib/etcd".into()));
}
