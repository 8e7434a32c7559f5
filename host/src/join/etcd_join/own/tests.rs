use super::*;

const PEER: &str = "https://192.0.2.12:2380";
const CLUSTER: u64 = 0xc1;

fn member(id: u64, name: &str, url: &str, is_learner: bool) -> Member {
    let client_urls = if name.is_empty() { Vec::new() } else { vec![url.replace("2380", "2379")] };
    Member { id: MemberId(id), name: name.into(), peer_urls: vec![url.into()], client_urls, is_learner }
}

fn with(own: Option<Member>) -> Membership {
    let mut members = vec![member(1, "cp-1", "https://192.0.2.11:2380", false)];
    members.extend(own);
    Membership { cluster_id: CLUSTER, members }
}

fn data(cluster_id: u64, member: u64) -> Data {
    Data::Of(Identity { cluster_id, member: MemberId(member) })
}

fn decided(own: Option<Member>, recorded: Recorded, data: Data) -> Plan {
    decide(&with(own), PEER, recorded, data, None)
}

#[test]
fn adds_where_nobody_has_our_url_and_there_is_no_data() {
    for recorded in [Recorded::Nothing, Recorded::Intended, Recorded::Added(MemberId(2))] {
        assert_eq!(decided(None, recorded, Data::Empty), Plan::Add);
    }
}

#[test]
fn empties_only_what_our_own_removed_learner_left() {
    let added = Recorded::Added(MemberId(2));
    for data in [data(CLUSTER, 2), Data::NoLog] {
        assert_eq!(decided(None, added, data), Plan::EmptyAndAdd);
    }
    for (recorded, data) in [
        (added, data(CLUSTER, 3)),
        (added, data(CLUSTER + 1, 2)),
        (added, Data::Unknown),
        (Recorded::Intended, data(CLUSTER, 2)),
        (Recorded::Intended, Data::NoLog),
        (Recorded::Nothing, data(CLUSTER, 2)),
        (Recorded::Nothing, Data::NoLog),
    ] {
        let plan = decided(None, recorded, data);
        assert!(matches!(plan, Plan::Refuse(Conflict::OtherData { .. })), "{recorded:?} {data:?}: {plan:?}");
    }
}

#[test]
fn adopts_an_unstarted_learner_only_where_the_journal_says_so() {
    let learner = member(2, "", PEER, true);
    for recorded in [Recorded::Intended, Recorded::Added(MemberId(2))] {
        for data in [Data::Empty, Data::NoLog] {
            assert_eq!(decided(Some(learner.clone()), recorded, data), Plan::Adopt(learner.clone()));
        }
    }
    for recorded in [Recorded::Nothing, Recorded::Added(MemberId(3))] {
        let plan = decided(Some(learner.clone()), recorded, Data::Empty);
        assert_eq!(plan, Plan::Refuse(Conflict::NotProved(learner.clone())), "{recorded:?}");
    }
}

#[test]
fn adopts_by_the_ids_in_the_data_directory_whatever_the_journal_says() {
    for own in [member(2, "cp-2", PEER, true), member(2, "cp-2", PEER, false), member(2, "", PEER, true)] {
        for recorded in [Recorded::Nothing, Recorded::Intended, Recorded::Added(MemberId(3))] {
            assert_eq!(decided(Some(own.clone()), recorded, data(CLUSTER, 2)), Plan::Adopt(own.clone()));
        }
        for other in [data(CLUSTER, 3), data(CLUSTER + 1, 2)] {
            let plan = decided(Some(own.clone()), Recorded::Added(MemberId(2)), other);
            assert!(matches!(plan, Plan::Refuse(Conflict::OtherData { of: Some(_) })), "{plan:?}");
        }
    }
}

#[test]
fn never_lets_a_member_come_back_without_what_it_knew() {
    for own in [member(2, "cp-2", PEER, false), member(2, "cp-2", PEER, true), member(2, "", PEER, false)] {
        for data in [Data::Empty, Data::NoLog, Data::Unknown] {
            let plan = decided(Some(own.clone()), Recorded::Added(MemberId(2)), data);
            assert_eq!(plan, Plan::Refuse(Conflict::DataGone(own.clone())));
            let plan = decided(Some(own.clone()), Recorded::Nothing, data);
            assert_eq!(plan, Plan::Refuse(Conflict::NotProved(own.clone())));
        }
    }
}

#[test]
fn replaces_the_named_member_and_no_other_and_empties_only_what_is_its() {
    let own = member(2, "cp-2", PEER, false);
    let replacing = |id, recorded, data| decide(&with(Some(own.clone())), PEER, recorded, data, Some(MemberId(id)));
    let replaced = |holds_data| Plan::Replace { member: own.clone(), holds_data };
    let added = Recorded::Added(MemberId(2));
    assert_eq!(replacing(2, Recorded::Nothing, Data::Empty), replaced(false));
    assert_eq!(replacing(2, Recorded::Nothing, data(CLUSTER, 2)), replaced(true));
    assert_eq!(replacing(2, added, Data::NoLog), replaced(true));
    assert_eq!(replacing(3, Recorded::Nothing, Data::Empty), Plan::Refuse(Conflict::NotProved(own.clone())));
    for (recorded, data) in [
        (added, data(CLUSTER, 3)),
        (added, data(CLUSTER + 1, 2)),
        (added, Data::Unknown),
        (Recorded::Nothing, Data::NoLog),
        (Recorded::Added(MemberId(3)), Data::NoLog),
    ] {
        let plan = replacing(2, recorded, data);
        assert!(matches!(plan, Plan::Refuse(Conflict::OtherData { .. })), "{recorded:?} {data:?}: {plan:?}");
    }
}

/// Metadata of node 2 in cluster 0xc1, after the checksum record with which every log file begins.
fn head() -> Vec<u8> {
    let frame = |record: &Record| {
        let bytes = record.encode_to_vec();
        let padding = (8 - bytes.len() % 8) % 8;
        let mut length = bytes.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        [&length.to_le_bytes()[..], &bytes, &vec![0; padding]].concat()
    };
    let metadata = Metadata { node_id: Some(2), cluster_id: Some(CLUSTER) }.encode_to_vec();
    let checksum = Record { kind: Some(4), data: None };
    [frame(&checksum), frame(&Record { kind: Some(METADATA), data: Some(metadata) })].concat()
}

#[test]
fn reads_the_ids_at_the_beginning_of_a_log() {
    let head = head();
    assert_eq!(identity(&head), Some(Identity { cluster_id: CLUSTER, member: MemberId(2) }));
    for cut in 0..head.len() - 8 {
        assert_eq!(identity(&head[..cut]), None, "{cut}");
    }
    // etcd makes its files in full, with zeros.
    assert_eq!(identity(&[0; 4096]), None);
    assert_eq!(identity(&[0xff; 4096]), None);
}

#[test]
fn tells_a_directory_without_a_member_and_a_member_without_a_log_from_one_that_says_whose_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(read_data(&path.join("absent")).unwrap(), Data::Empty);
    fs::create_dir(path.join("lost+found")).unwrap();
    assert_eq!(read_data(path).unwrap(), Data::Empty);
    fs::create_dir_all(path.join("member/wal")).unwrap();
    assert_eq!(read_data(path).unwrap(), Data::NoLog);
    let log = path.join("member/wal/0000000000000000-0000000000000000.wal");
    fs::write(&log, "").unwrap();
    assert_eq!(read_data(path).unwrap(), Data::Unknown);
    fs::write(&log, head()).unwrap();
    assert_eq!(read_data(path).unwrap(), data(CLUSTER, 2));
}
