//! Asking again until a deadline, telling meanwhile what is seen.

use std::time::Duration;

use tokio::time::Instant;

use crate::output::Reporter;

/// A person who waits is told something within this time.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Pauses between attempts; the last one repeats. Short at first: a token made a moment ago is signed a moment later.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What a failed attempt means.
#[derive(Debug)]
pub enum Finding<E> {
    /// Waiting cannot help.
    Final(E),
    /// It may pass by itself, or somebody may mend it.
    MayPass(E),
}

/// How long to go on, and where to tell.
pub struct Patience<'a> {
    /// Where to tell.
    pub reporter: &'a Reporter,
    /// Phase id of what is told.
    pub phase: &'static str,
    /// What is being waited for, a few words.
    pub what: &'a str,
    /// How long.
    pub timeout: Duration,
    /// Whether the first failure ends it.
    pub fail_fast: bool,
}

impl Patience<'_> {
    /// Attempts until one succeeds, or fails for good, or the time is over; then the last failure is the answer.
    ///
    /// # Errors
    ///
    /// The finding that ended it.
    pub async fn until_ok<T, E: std::error::Error>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, Finding<E>>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + self.timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut pauses = PAUSES.iter().copied().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
        let mut told = String::new();
        loop {
            let outcome = {
                let mut work = std::pin::pin!(attempt());
                match tokio::time::timeout(FIRST_WORD, &mut work).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        if told.is_empty() {
                            told = format!("{}: no answer yet", self.what);
                            self.reporter.waiting(self.phase, &told, left());
                        }
                        work.await
                    }
                }
            };
            let error = match outcome {
                Ok(value) => return Ok(value),
                Err(Finding::Final(error)) => return Err(error),
                Err(Finding::MayPass(error)) => error,
            };
            if self.fail_fast || left().is_zero() {
                return Err(error);
            }
            let seen = super::error::chain(&error);
            if seen != told {
                self.reporter.waiting(self.phase, &seen, left());
                told = seen;
            }
            let pause = pauses.next().expect("the last pause repeats");
            tokio::time::sleep(pause.min(left())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn patience(reporter: &Reporter, timeout: Duration, fail_fast: bool) -> Patience<'_> {
        Patience { reporter, phase: "discovery", what: "a test", timeout, fail_fast }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("seen")]
    struct Seen;

    #[tokio::test]
    async fn asks_often_at_first_and_ends_at_the_deadline_with_what_it_saw_last() {
        let reporter = Reporter::new(Format::Text, false);
        let started = Instant::now();
        let mut at = Vec::new();
        let result: Result<(), Seen> = patience(&reporter, Duration::from_millis(1000), false)
            .until_ok(async || {
                at.push(started.elapsed());
                Err(Finding::MayPass(Seen))
            })
            .await;
        assert!(result.is_err());
        // At once, after 0.2 s, after 0.7 s, and once more when the time is over.
        assert_eq!(at.len(), 4, "{at:?}");
        assert!(at[1] < Duration::from_millis(600) && at[3] >= Duration::from_secs(1), "{at:?}");
    }

    #[tokio::test]
    async fn ends_at_once_when_waiting_cannot_help_or_is_not_wanted() {
        let reporter = Reporter::new(Format::Text, false);
        let mut attempts = 0;
        for (finding, fail_fast) in [(Finding::Final(Seen), false), (Finding::MayPass(Seen), true)] {
            let mut finding = Some(finding);
            let result: Result<(), Seen> = patience(&reporter, Duration::from_secs(300), fail_fast)
                .until_ok(async || {
                    attempts += 1;
                    Err(finding.take().expect("one attempt"))
                })
                .await;
            assert!(result.is_err());
        }
        assert_eq!(attempts, 2);
    }
}
