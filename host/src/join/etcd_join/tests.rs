use super::*;

fn member(id: u64, name: &str, host: &str, is_learner: bool) -> Member {
    Member {
        id: MemberId(id),
        name: name.into(),
        peer_urls: vec![format!("https://{host}:2380")],
        client_urls: Vec::new(),
        is_learner,
    }
}

#[test]
fn names_every_member_as_etcd_wants_it() {
    let mut first = member(1, "cp-1", "192.0.2.11", false);
    first.peer_urls.push("https://[2001:db8::1]:2380".into());
    let members = vec![first, member(0xab, "", "192.0.2.13", true), member(2, "", "192.0.2.12", true)];
    let membership = Membership { cluster_id: 1, members };
    assert_eq!(
        initial_cluster(&membership, MemberId(2), "cp-2"),
        "cp-1=https://192.0.2.11:2380,cp-1=https://[2001:db8::1]:2380,ab=https://192.0.2.13:2380,\
         cp-2=https://192.0.2.12:2380"
    );
}

#[test]
fn says_what_a_loss_means_with_so_many_voters() {
    assert!(what_a_loss_means(2).starts_with("2 voters: losing either one stops every write"));
    assert_eq!(what_a_loss_means(3), "3 voters: 1 of them may be lost at a time, one more stops every write");
    assert_eq!(what_a_loss_means(5), "5 voters: 2 of them may be lost at a time, one more stops every write");
}
