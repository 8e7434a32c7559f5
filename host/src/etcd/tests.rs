use super::*;

#[test]
fn reads_member_ids_as_etcdctl_writes_them() {
    for (text, id) in [("8e9e05c52164694d", 0x8e9e_05c5_2164_694d), ("1", 1), ("ABCdef", 0x00ab_cdef)] {
        assert_eq!(text.parse(), Ok(MemberId(id)));
    }
    for text in ["", "0", "+1", "-1", "0x1", "8e9e05c52164694d0", "cp-2", " 1", "１"] {
        assert!(text.parse::<MemberId>().is_err(), "{text}");
    }
    assert_eq!(MemberId(0xab).to_string(), "ab");
}

fn unreachable_at(endpoint: &str) -> EtcdError {
    unreachable(NoConnection { endpoint: endpoint.into(), why: Why::Refused })
}

fn refused(refusal: Refusal) -> EtcdError {
    EtcdError::Refused { call: "MemberList", endpoint: "https://a:2379".into(), refusal }
}

#[test]
fn tells_what_a_member_said_rather_than_that_another_is_away() {
    let unanswered = || error::unanswered("MemberList", Kind::Question, "https://b:2379".into(), "silence".into());
    let told = |errors| most_telling(errors);
    assert!(matches!(
        told(vec![unreachable_at("a"), unreachable_at("b")]),
        EtcdError::Unreachable { tried } if tried.len() == 2
    ));
    assert!(matches!(told(vec![unreachable_at("a"), unanswered()]), EtcdError::Unanswered { .. }));
    assert!(matches!(told(vec![refused(Refusal::AskedALearner), unanswered()]), EtcdError::Unanswered { .. }));
    assert!(matches!(told(vec![unanswered(), refused(Refusal::AskedALearner)]), EtcdError::Unanswered { .. }));
    let no_space = told(vec![refused(Refusal::NoSpace), unanswered()]);
    assert_eq!(no_space.refusal(), Some(&Refusal::NoSpace));
    assert!(matches!(told(Vec::new()), EtcdError::NoEndpoint));
}

#[tokio::test]
async fn asks_the_next_one_at_once_after_a_failure_and_beside_a_silent_one() {
    let begun = Mutex::new(Vec::new());
    let attempt = |number: u32| {
        let begun = &begun;
        async move {
            begun.lock().unwrap().push(number);
            match number {
                0 => Err("refused"),
                1 => std::future::pending().await,
                _ => Ok(number),
            }
        }
    };
    assert_eq!(first_ok((0..4).map(attempt)).await, Ok(2));
    assert_eq!(*begun.lock().unwrap(), [0, 1, 2]);
    assert_eq!(first_ok((0..1).map(attempt)).await, Err(vec!["refused"]));
}
