use serde_json::json;

use super::*;
use crate::config::IgnoredChecks;
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

fn own() -> Local {
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

#[test]
fn a_member_leaves_only_while_the_others_keep_a_quorum() {
    for (states, fine) in [
        ("uuu", true),
        ("duu", true),
        ("uu", true),
        ("luu", true),
        ("lud", true),
        ("uudd", false),
        ("uud", false),
        ("ud", false),
        ("u", false),
        ("ul", false),
        ("d", false),
    ] {
        let found = outlook(&health(states), &own(), None);
        assert_eq!(matches!(found, Outlook::Fine { .. }), fine, "{states}: {found:?}");
    }
}

#[test]
fn says_what_leaving_means() {
    let meaning = |states: &str| match outlook(&health(states), &own(), None) {
        Outlook::Fine { meaning, .. } | Outlook::Breaks { meaning, .. } => meaning,
        Outlook::Gone => unreachable!("it is a member"),
    };
    let us = "cp-1 (id 1, https://192.0.2.1:2380)";
    assert_eq!(meaning("uuu"), format!("{us} leaves; 2 voters are left, 2 of them up, of which 0 may fail"));
    assert_eq!(meaning("uu"), format!("{us} leaves; one voter is left, and with it all data would be lost"));
    assert_eq!(meaning("luu"), format!("{us} leaves; it has no vote"));
    assert_eq!(meaning("u"), format!("{us} is the only voter: all data of the cluster would be gone"));
    let expected = "1 of 2 voters are up and 2 are needed: the cluster could not write any more";
    assert_eq!(meaning("uud"), format!("without {us}, {expected}"));
}

#[test]
fn the_records_id_decides_and_else_the_peer_url() {
    let id = |recorded| match outlook(&health("uuu"), &own(), recorded) {
        Outlook::Fine { id, .. } => Some(id),
        _ => None,
    };
    assert_eq!(id(None), Some(MemberId(1)));
    assert_eq!(id(Some(MemberId(3))), Some(MemberId(3)));
    assert_eq!(outlook(&health("uuu"), &own(), Some(MemberId(9))), Outlook::Gone);
    assert_eq!(outlook(&health("uuu"), &Local::default(), None), Outlook::Gone);
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
        peer_urls: vec!["https://192.0.2.7:2380".into()],
        endpoints: vec!["https://192.0.2.7:2379".into(), "https://192.0.2.1:2379".into()],
        certificates: "/data/pki/etcd".into(),
        data_directory: "/data/etcd".into(),
    };
    assert_eq!(local, expected);
    let nothing = read_manifest(&Value::Null, &settings());
    assert_eq!(nothing.certificates, Path::new("/etc/kubernetes/pki/etcd"));
    assert_eq!((nothing.endpoints, nothing.data_directory), (Vec::<String>::new(), "/var/lib/etcd".into()));
}
