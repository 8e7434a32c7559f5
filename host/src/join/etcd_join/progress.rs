//! How far a learner has come, how fast, and when it will be there.

use std::time::Duration;

use tokio::time::Instant;

use crate::output::Reporter;

/// A learner this many entries behind what the leader has agreed on is promoted. etcd itself is content with nine tenths
/// of the log; with a long one, the others would then wait for the new voter, whose answer counts from two voters on.
const IN_STEP_ENTRIES: u64 = 500;
/// Rate and estimate are those of this time.
const WINDOW: Duration = Duration::from_secs(5);
/// Where there is no live line.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Where a learner is in the log of its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Latest entry in the learner's database.
    pub(super) learner: u64,
    /// Latest entry that the leader knows to be agreed on.
    pub(super) leader: u64,
}

impl Position {
    /// Whether promotion would let nobody wait.
    pub(super) fn is_in_step(self) -> bool {
        self.learner > 0 && self.leader.saturating_sub(self.learner) <= IN_STEP_ENTRIES
    }
}

/// What was seen of a learner so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Time since the beginning, and where it was then.
    seen: Vec<(Duration, Position)>,
}

impl Progress {
    /// Notes where the learner is; whether it has moved since the last time.
    pub(super) fn note(&mut self, at: Duration, position: Position) -> bool {
        let moved = self.seen.last().is_none_or(|(_, last)| position.learner > last.learner);
        let old = self.seen.iter().take_while(|(seen, _)| at.saturating_sub(*seen) > WINDOW).count();
        self.seen.drain(..old);
        self.seen.push((at, position));
        moved
    }

    /// Entries a second, within the last moments; none: it is too early to say.
    pub(super) fn rate(&self) -> Option<u64> {
        let ((first, from), (last, to)) = (self.seen.first()?, self.seen.last()?);
        let millis = u64::try_from(last.saturating_sub(*first).as_millis()).ok().filter(|millis| *millis > 0)?;
        Some(to.learner.saturating_sub(from.learner).saturating_mul(1000) / millis)
    }

    /// `entry 1200 of 5000 (24 %), 400/s, about 9 s`
    pub(super) fn describe(&self) -> String {
        let Some((_, Position { learner, leader })) = self.seen.last() else { return "nothing yet".into() };
        let percent = (learner.saturating_mul(100) / (*leader).max(1)).min(100);
        let mut text = format!("entry {learner} of {leader} ({percent} %)");
        if let Some(rate) = self.rate() {
            text.push_str(&format!(", {rate}/s"));
            let behind = leader.saturating_sub(*learner);
            if behind > 0
                && let Some(seconds) = behind.checked_div(rate)
            {
                text.push_str(&format!(", about {} s", seconds.max(1)));
            }
        }
        text
    }
}

/// Words about one wait: a live line is told anew at each look, elsewhere a line a second is enough.
pub(super) struct Words<'a> {
    reporter: &'a Reporter,
    told: Option<Instant>,
}

impl<'a> Words<'a> {
    pub(super) fn to(reporter: &'a Reporter) -> Self {
        Self { reporter, told: None }
    }

    pub(super) fn tell(&mut self, phase: &'static str, what: impl Into<String>, left: Duration) {
        if self.reporter.has_live_line() || self.told.is_none_or(|told| told.elapsed() >= BETWEEN_LINES) {
            self.told = Some(Instant::now());
            self.reporter.waiting(phase, what, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(learner: u64, leader: u64) -> Position {
        Position { learner, leader }
    }

    #[test]
    fn is_in_step_only_close_behind_the_leader() {
        assert!(at(10, 10).is_in_step());
        assert!(at(12, 10).is_in_step());
        assert!(at(100_000, 100_500).is_in_step());
        // etcd would take all of these.
        assert!(!at(95_000, 100_000).is_in_step());
        assert!(!at(100_000, 100_501).is_in_step());
        // It has not begun, however short the log is.
        assert!(!at(0, 10).is_in_step());
    }

    #[test]
    fn tells_rate_and_estimate_of_the_last_moments() {
        let mut progress = Progress::default();
        assert_eq!(progress.describe(), "nothing yet");
        assert!(progress.note(Duration::from_secs(0), at(0, 5000)));
        assert_eq!(progress.describe(), "entry 0 of 5000 (0 %)");
        assert!(!progress.note(Duration::from_secs(1), at(0, 5000)));
        assert_eq!(progress.describe(), "entry 0 of 5000 (0 %), 0/s");
        assert!(progress.note(Duration::from_secs(3), at(1200, 5000)));
        assert_eq!(progress.describe(), "entry 1200 of 5000 (24 %), 400/s, about 9 s");
        // What was slow long ago no longer counts.
        assert!(progress.note(Duration::from_secs(7), at(5000, 5000)));
        assert_eq!(progress.describe(), "entry 5000 of 5000 (100 %), 950/s");
    }
}
