//! Collects every difference, so that one run shows all.

use std::time::{Duration, Instant};

use mortise::sandbox::client::{Answer, Events};
use serde_json::Value;

/// How long a controller may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between looks.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Report {
    seen: usize,
    differences: Vec<String>,
}

impl Report {
    /// The answer has this status, and every field of `expected` is in its body. A text that ends in `…` is a prefix.
    pub(crate) fn expect(&mut self, claim: &str, answer: &Answer, code: u16, expected: &Value) {
        self.seen += 1;
        if answer.code != code {
            self.differences.push(format!("{claim}: {} instead of {code}: {}", answer.code, answer.body));
        } else if let Err(why) = contains(&answer.body, expected, "") {
            self.differences.push(format!("{claim}: {why} in {}", answer.body));
        }
    }

    pub(crate) fn check(&mut self, claim: &str, holds: bool, seen: &Value) {
        self.seen += 1;
        if !holds {
            self.differences.push(format!("{claim}: {seen}"));
        }
    }

    pub(crate) fn assert_empty(&self) {
        println!("{} answers looked at", self.seen);
        assert!(self.differences.is_empty(), "{} differ:\n{}", self.differences.len(), self.differences.join("\n"));
    }
}

fn contains(seen: &Value, expected: &Value, at: &str) -> Result<(), String> {
    match expected {
        Value::Object(fields) => {
            fields.iter().try_for_each(|(field, expected)| contains(&seen[field], expected, &format!("{at}.{field}")))
        }
        Value::Array(items) => {
            let length = seen.as_array().map(Vec::len);
            if length != Some(items.len()) {
                return Err(format!("{at} has not {} items", items.len()));
            }
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, expected)| contains(&seen[index], expected, &format!("{at}[{index}]")))
        }
        Value::String(text) if text.ends_with('…') => {
            let prefix = text.trim_end_matches('…');
            let fits = seen.as_str().is_some_and(|seen| seen.starts_with(prefix));
            if fits { Ok(()) } else { Err(format!("{at} does not begin with {prefix:?}")) }
        }
        expected if expected == seen => Ok(()),
        expected => Err(format!("{at} is not {expected}")),
    }
}

/// Asks again until the answer pleases or time is up; the last answer.
pub(crate) async fn eventually(ask: impl AsyncFn() -> Answer, pleases: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if pleases(&answer) || Instant::now() > deadline {
            return answer;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The next event; null when the watch ends or time is up.
pub(crate) async fn next(watch: &mut Events) -> Value {
    match tokio::time::timeout(PATIENCE, watch.next()).await {
        Ok(event) => event.unwrap().unwrap_or_default(),
        Err(_) => Value::Null,
    }
}
