//! Whether this machine reaches the other members where they talk to each other.
//!
//! A learner that does not is of no use, and its etcd ends again and again. That is looked at before the learner is added,
//! and told where one stands still. The other direction shows only there.

use std::time::Duration;

use futures::future::join_all;
use http::Uri;
use tokio::net::TcpStream;

use crate::etcd::health::Health;
use crate::etcd::{Member, Membership};
use crate::output::printable;

/// A packet may be lost once: it is sent again after a second.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Voters that are up and are not reached, each with the reason.
pub(super) async fn unreached_of(health: &Health) -> Vec<String> {
    let up = health.members.iter().filter(|found| !found.member.is_learner && found.is_up());
    unreached(up.map(|found| &found.member)).await
}

/// Voters that are not reached, each with the reason.
pub(super) async fn unreached_in(membership: &Membership) -> Vec<String> {
    unreached(membership.voters()).await
}

async fn unreached<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<String> {
    join_all(members.map(why_not)).await.into_iter().flatten().collect()
}

/// Why none of a member's peer URLs is reached.
async fn why_not(member: &Member) -> Option<String> {
    let mut reason = "it has no peer URL".to_owned();
    for url in &member.peer_urls {
        match connect(url).await {
            Ok(()) => return None,
            Err(why) => reason = why,
        }
    }
    Some(format!("{member}: {reason}"))
}

async fn connect(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| "this is no URL".to_owned())?;
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else { return Err("this URL has no port".into()) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::time::timeout(TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(printable(&error.to_string())),
        Err(_) => Err(format!("no connection within {} s", TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::MemberId;

    fn member(urls: &[String]) -> Member {
        let peer_urls = urls.to_vec();
        Member { id: MemberId(1), name: "cp-1".into(), peer_urls, client_urls: Vec::new(), is_learner: false }
    }

    #[tokio::test]
    async fn names_a_member_none_of_whose_addresses_answers() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |listener: &std::net::TcpListener| format!("https://{}", listener.local_addr().unwrap());
        let (open_url, closed_url) = (url(&open), url(&closed));
        drop(closed);
        let members = [member(std::slice::from_ref(&closed_url)), member(&[closed_url.clone(), open_url])];
        let found = unreached(members.iter()).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&closed_url) && found[0].contains("refused"), "{found:?}");
        assert_eq!(unreached([member(&[])].iter()).await, ["cp-1 (id 1, ): it has no peer URL"]);
    }
}
