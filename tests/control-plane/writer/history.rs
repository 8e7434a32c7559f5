//! What the writer was told, and whether that can be true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::etcd::Answer;

/// All the writer's keys lie below.
pub(super) const PREFIX: &str = "/mortise-writer/";

/// Keys and values of one member.
pub(crate) type Contents = BTreeMap<String, String>;

/// A write that etcd acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Ack {
    pub(crate) lane: usize,
    pub(crate) sequence: usize,
    pub(crate) revision: u64,
    /// Since when the lane wanted a write acknowledged, other attempts included.
    pub(crate) waited_since: Duration,
    pub(crate) at: Duration,
}

/// An answer to a read of one register.
pub(super) struct Read {
    pub(super) cluster_id: u64,
    pub(super) revision: u64,
    pub(super) value: Option<String>,
}

/// A member as a list has it; one that has not started tells no address for clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) peer_url: String,
    pub(crate) client_url: Option<String>,
    pub(crate) is_learner: bool,
}

/// Everything that can be judged. Times count from the writer's start.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) acks: Vec<Ack>,
    /// Attempts that failed or were given up: what they would have written may be there or not.
    pub(crate) failures: Vec<(Duration, String)>,
    /// Every list of members that differed from the one before it.
    pub(crate) members: Vec<(Duration, Vec<Member>)>,
    pub(crate) cluster_ids: BTreeSet<u64>,
    /// What each member held at the end, by its address.
    pub(crate) contents: BTreeMap<String, Contents>,
    pub(crate) ended: Duration,
    pub(crate) reads: usize,
    lanes: Vec<Lane>,
    highest_revision: u64,
    seen: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    begun: usize,
    acknowledged: usize,
    last_read: usize,
    /// Since when it waits; none while it has nothing to write.
    waits_since: Option<Duration>,
}

pub(super) fn register(lane: usize) -> String {
    format!("{PREFIX}register/{lane}")
}

pub(super) fn key(lane: usize, sequence: usize) -> String {
    format!("{PREFIX}written/{lane}/{}", value(sequence))
}

/// Of one length, so that etcd's order of bytes is that of numbers.
pub(super) fn value(sequence: usize) -> String {
    format!("{sequence:08}")
}

impl History {
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes: vec![Lane::default(); lanes], ..Self::default() }
    }

    pub(super) fn tells_cluster(&mut self, id: u64) {
        self.cluster_ids.insert(id);
    }

    /// Returns the highest revision that was acknowledged before.
    pub(super) fn begins(&mut self, lane: usize, sequence: usize, waits_since: Duration) -> u64 {
        self.lanes[lane].begun = sequence;
        self.lanes[lane].waits_since = Some(waits_since);
        self.highest_revision
    }

    pub(super) fn acknowledged(&mut self, ack: Ack, answer: &Answer, revision_before: u64) {
        self.tells_cluster(answer.cluster_id);
        if !answer.succeeded {
            self.seen.push(format!(
                "lane {} may not write {}: its register is not lower, though nobody wrote more",
                ack.lane, ack.sequence
            ));
            return;
        }
        if ack.revision <= revision_before {
            self.seen.push(format!(
                "lane {}'s write {} has revision {}, begun after {revision_before} was acknowledged",
                ack.lane, ack.sequence, ack.revision
            ));
        }
        self.highest_revision = self.highest_revision.max(ack.revision);
        self.lanes[ack.lane].acknowledged = ack.sequence;
        self.lanes[ack.lane].waits_since = None;
        self.acks.push(ack);
    }

    pub(super) fn failed(&mut self, at: Duration, text: &str) {
        self.failures.push((at, text.to_owned()));
    }

    pub(super) fn acknowledged_in(&self, lane: usize) -> usize {
        self.lanes[lane].acknowledged
    }

    /// A read of a register that began when `acknowledged` was.
    pub(super) fn was_read(&mut self, lane: usize, read: &Read, acknowledged: usize) {
        self.tells_cluster(read.cluster_id);
        self.reads += 1;
        let found = read.value.as_deref().and_then(|text| text.parse::<usize>().ok());
        let Lane { begun, last_read, .. } = self.lanes[lane];
        match found {
            Some(found) if found >= acknowledged.max(last_read) && found <= begun => self.lanes[lane].last_read = found,
            _ => self.seen.push(format!(
                "register {lane} is {found:?} at revision {}: {acknowledged} was acknowledged, {last_read} was read \
                 before, {begun} is the last begun",
                read.revision
            )),
        }
    }

    pub(super) fn saw_members(&mut self, at: Duration, cluster_id: u64, mut members: Vec<Member>) {
        self.tells_cluster(cluster_id);
        members.sort();
        if self.members.last().is_none_or(|(_, last)| *last != members) {
            self.members.push((at, members));
        }
    }

    /// The longest time a lane waited for an acknowledgement, and when that began; one still waiting counts.
    pub(crate) fn longest_stall(&self) -> (Duration, Duration) {
        let waits = self.acks.iter().map(|ack| (ack.at.saturating_sub(ack.waited_since), ack.waited_since));
        let unended = self.lanes.iter().filter_map(|lane| lane.waits_since);
        waits.chain(unended.map(|since| (self.ended.saturating_sub(since), since))).max().unwrap_or_default()
    }

    /// Figures on one line, then every list of members with its time.
    pub(crate) fn summary(&self) -> String {
        let (stall, at) = self.longest_stall();
        let (acks, failures, ended) = (self.acks.len(), self.failures.len(), self.ended.as_secs_f64());
        let mut text = format!(
            "{acks} writes acknowledged in {ended:.1} s, {failures} attempts failed, {} reads; longest stall {:.3} s, \
             begun after {:.1} s",
            self.reads,
            stall.as_secs_f64(),
            at.as_secs_f64()
        );
        for (at, members) in &self.members {
            let members = members.iter().map(|member| {
                let role = if member.is_learner { "learner" } else { "voter" };
                format!("{:x} {role} {}", member.id, member.peer_url)
            });
            text.push_str(&format!("\n{:6.1} s  {}", at.as_secs_f64(), members.collect::<Vec<_>>().join(", ")));
        }
        text
    }

    /// Everything that cannot be if etcd keeps its word; empty is good.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = self.seen.clone();
        if self.cluster_ids.len() != 1 {
            found.push(format!("there is not one cluster id: {:x?}", self.cluster_ids));
        }
        for (at, members) in &self.members {
            let (ids, peers): (BTreeSet<u64>, BTreeSet<&str>) =
                members.iter().map(|member| (member.id, member.peer_url.as_str())).unzip();
            if ids.len() != members.len() || peers.len() != members.len() {
                found.push(format!("a member is there twice after {at:?}: {members:?}"));
            }
        }
        for (url, contents) in &self.contents {
            for ack in &self.acks {
                let (key, value) = (key(ack.lane, ack.sequence), value(ack.sequence));
                if contents.get(&key) != Some(&value) {
                    found.push(format!(
                        "`{key}` was acknowledged after {:?} with revision {}, and {url} has {:?}",
                        ack.at,
                        ack.revision,
                        contents.get(&key)
                    ));
                }
            }
            for (lane, state) in self.lanes.iter().enumerate() {
                let value = contents.get(&register(lane)).and_then(|text| text.parse::<usize>().ok());
                if value.is_none_or(|value| value < state.acknowledged || value > state.begun) {
                    found.push(format!("register {lane} is {value:?} at {url}, not {} at least", state.acknowledged));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(revision: u64) -> Answer {
        Answer { cluster_id: 7, revision, succeeded: true }
    }

    /// Lane 0 has written 1 to 3, as revisions 11 to 13, and one member holds all.
    fn good() -> History {
        let mut history = History::new(1);
        let mut contents = Contents::from([(register(0), value(3))]);
        for sequence in 1..=3 {
            let at = Duration::from_millis(100 * sequence as u64);
            let before = history.begins(0, sequence, at);
            let revision = 10 + sequence as u64;
            let ack = Ack { lane: 0, sequence, revision, waited_since: at, at: at + Duration::from_millis(5) };
            history.acknowledged(ack, &answer(revision), before);
            contents.insert(key(0, sequence), value(sequence));
        }
        history.contents.insert("https://192.0.2.11:2379".into(), contents);
        assert_eq!(history.violations(), Vec::<String>::new());
        history
    }

    fn one(history: &History, expected: &str) {
        let found = history.violations();
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_is_found() {
        let mut history = good();
        history.contents.values_mut().next().unwrap().remove(&key(0, 2));
        one(&history, "written/0/00000002` was acknowledged");
    }

    #[test]
    fn a_register_that_went_back_is_found_at_the_end() {
        let mut history = good();
        history.contents.values_mut().next().unwrap().insert(register(0), value(2));
        one(&history, "register 0 is Some(2)");
    }

    #[test]
    fn a_read_may_see_neither_less_than_was_acknowledged_nor_less_than_before_nor_what_nobody_began() {
        for (value, acknowledged) in [(2, 3), (4, 3)] {
            let mut history = good();
            let read = Read { cluster_id: 7, revision: 13, value: Some(super::value(value)) };
            history.was_read(0, &read, acknowledged);
            one(&history, &format!("register 0 is Some({value})"));
        }
        let mut history = good();
        for (value, expected) in [(3, 0), (2, 1)] {
            let read = Read { cluster_id: 7, revision: 13, value: Some(super::value(value)) };
            history.was_read(0, &read, 1);
            assert_eq!(history.violations().len(), expected);
        }
        let mut history = good();
        history.was_read(0, &Read { cluster_id: 7, revision: 13, value: None }, 1);
        one(&history, "register 0 is None");
    }

    #[test]
    fn a_revision_older_than_one_acknowledged_before_is_found() {
        let mut history = good();
        let before = history.begins(0, 4, Duration::ZERO);
        let ack = Ack { lane: 0, sequence: 4, revision: 12, waited_since: Duration::ZERO, at: Duration::ZERO };
        history.contents.clear();
        history.acknowledged(ack, &answer(12), before);
        one(&history, "has revision 12, begun after 13");
    }

    #[test]
    fn a_second_cluster_and_a_doubled_member_are_found() {
        let mut history = good();
        history.tells_cluster(8);
        one(&history, "not one cluster id");
        let mut history = good();
        let member = |id| Member { id, peer_url: "https://192.0.2.12:2380".into(), client_url: None, is_learner: true };
        history.saw_members(Duration::ZERO, 7, vec![member(1), member(2)]);
        one(&history, "a member is there twice");
    }

    #[test]
    fn a_stall_counts_all_attempts_and_one_that_never_ended() {
        let mut history = good();
        assert_eq!(history.longest_stall().0, Duration::from_millis(5));
        history.begins(0, 4, Duration::from_millis(400));
        history.failed(Duration::from_millis(800), "no answer");
        history.begins(0, 5, Duration::from_millis(400));
        history.ended = Duration::from_millis(1400);
        assert_eq!(history.longest_stall(), (Duration::from_secs(1), Duration::from_millis(400)));
    }
}
