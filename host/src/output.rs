//! What a command tells while it runs: one line a step for people, one JSON object a line for programs.
//!
//! A [`Reporter`] is cheap to clone. People's lines go to stderr, JSON events and results to stdout. A secret cannot
//! reach an event: the types that hold one do not serialize.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::plugin::walls::Walls;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for a person on stderr.
    Text,
    /// One JSON object a line on stdout.
    Json,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "kebab-case")]
pub enum Ending {
    /// It changed something, or saw what it waited for.
    Done(String),
    /// Everything was as it should be already.
    Unchanged(String),
    /// It does not apply here, or the user said so.
    Skipped(String),
}

/// One event, as a program reads it. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// A step of a phase ended.
    Step {
        /// Phase id.
        phase: &'static str,
        /// What was done, a few words.
        step: String,
        /// How it ended, with a reason a person can read.
        #[serde(flatten)]
        ending: Ending,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// Something is being waited for. Repeated when what is seen changes.
    Waiting {
        /// Phase id.
        phase: &'static str,
        /// What is awaited and what is seen now.
        what: String,
        /// Seconds left until it is given up.
        left_seconds: u64,
    },
    /// Something an operator should know that does not stop the command.
    Warning {
        /// Phase id, when there is one.
        phase: Option<&'static str>,
        /// One line.
        message: String,
    },
    /// What stood around the plugins that ran. Told once.
    Walls {
        /// By name.
        walls: Walls,
    },
    /// One preflight check ended.
    Check(crate::plugin::CheckResult),
    /// A line a plugin logged.
    PluginLog {
        /// Plugin name.
        plugin: String,
        /// `debug`, `info` or `warn`.
        level: &'static str,
        /// The line, control characters replaced.
        message: String,
    },
    /// How a discovery source or an approval hook answered.
    PluginAnswer {
        /// `name@version`.
        plugin: String,
        /// `discovery` or `approval`.
        kind: crate::plugin::Kind,
        /// Which of the endings.
        ending: crate::plugin::EndingKind,
        /// What it found or judged, without secrets; none where it did not answer.
        answer: Option<crate::plugin::ShownAnswer>,
        /// Requests to the host that no grant covered.
        denied: u32,
        /// Grant lines that would have covered them.
        missing_grants: Vec<String>,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// What a sandbox join left, after it.
    Sandbox {
        /// Where the machine's files are.
        root: std::path::PathBuf,
        /// A line each: mode, path, size or target.
        files: Vec<String>,
        /// The Node, a line each.
        node: Vec<String>,
    },
    /// The command failed. Always the last event.
    Error {
        /// Phase id, when there is one.
        phase: Option<&'static str>,
        /// Stable code.
        code: &'static str,
        /// What was seen.
        message: String,
        /// What to run next.
        hint: Option<String>,
    },
    /// The command succeeded. Always the last event.
    Finished {
        /// What is now true.
        message: String,
        /// Milliseconds since the start.
        took_ms: u64,
    },
}

/// Tells events to whoever listens.
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
    /// What is held back; none once it was let out, or when nothing is to be.
    held: Option<Arc<Mutex<Option<Vec<Event>>>>>,
}

struct Inner {
    format: Format,
    verbose: bool,
    /// Whether checks are told; else the command prints them itself.
    checks: bool,
    started: Instant,
    /// Width of the live line that stands on the terminal now.
    live: Mutex<usize>,
}

impl Reporter {
    /// `verbose` shows passed checks, plugins' debug lines and unchanged steps to people, too.
    pub fn new(format: Format, verbose: bool) -> Self {
        Self::with(format, verbose, true)
    }

    fn with(format: Format, verbose: bool, checks: bool) -> Self {
        let inner = Inner { format, verbose, checks, started: Instant::now(), live: Mutex::new(0) };
        Self { inner: Arc::new(inner), held: None }
    }

    /// One of the same form, with a clock of its own, that leaves checks out: for a command that prints them itself.
    #[must_use]
    pub fn without_checks(&self) -> Self {
        Self::with(self.inner.format, self.inner.verbose, false)
    }

    /// One for work that is done ahead of its turn: it keeps its events until [`Reporter::let_out`].
    pub fn holding_back(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), held: Some(Arc::new(Mutex::new(Some(Vec::new())))) }
    }

    /// Tells what was held back; from now on events are told as they come.
    pub fn let_out(&self) {
        let held = self.held.as_ref().and_then(|held| held.lock().unwrap_or_else(PoisonError::into_inner).take());
        for event in held.into_iter().flatten() {
            self.tell(&event);
        }
    }

    /// The form asked for.
    pub fn format(&self) -> Format {
        self.inner.format
    }

    /// Whether waiting is one line on a terminal, which may be told anew at any time.
    pub fn has_live_line(&self) -> bool {
        self.inner.format == Format::Text && self.held.is_none() && io::stderr().is_terminal()
    }

    /// Time since the command began.
    pub fn elapsed(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Starts the clock of one step.
    pub fn step(&self, phase: &'static str, step: impl Into<String>) -> Step {
        Step { reporter: self.clone(), phase, step: step.into(), started: Instant::now() }
    }

    /// Shows what is awaited: a live line on a terminal, an event or line on change elsewhere.
    pub fn waiting(&self, phase: &'static str, what: impl Into<String>, left: Duration) {
        self.tell(&Event::Waiting { phase, what: what.into(), left_seconds: left.as_secs() });
    }

    /// Something that does not stop the command.
    pub fn warn(&self, phase: Option<&'static str>, message: impl Into<String>) {
        self.tell(&Event::Warning { phase, message: message.into() });
    }

    /// Tells one event.
    pub fn tell(&self, event: &Event) {
        if let Some(held) = &self.held
            && let Some(events) = held.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            return events.push(event.clone());
        }
        if !self.inner.checks && matches!(event, Event::Check(_)) {
            return;
        }
        match self.inner.format {
            Format::Json => {
                let line = serde_json::to_string(event).expect("events hold only strings, numbers and enums");
                // A reader that went away must not fail the join.
                let _ = writeln!(io::stdout().lock(), "{line}");
            }
            Format::Text => self.tell_people(event),
        }
    }

    fn tell_people(&self, event: &Event) {
        let Some(line) = text::line(event, self.inner.started.elapsed(), self.inner.verbose) else { return };
        let mut live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = io::stderr().lock();
        let clear = if *live > 0 { "\r\u{1b}[K" } else { "" };
        // As above: stderr may be gone.
        let _ = if matches!(event, Event::Waiting { .. }) && stderr.is_terminal() {
            *live = line.len();
            write!(stderr, "{clear}{line}").and_then(|()| stderr.flush())
        } else {
            *live = 0;
            writeln!(stderr, "{clear}{line}")
        };
    }
}

/// A step whose clock runs. Dropped without an ending it says nothing: the error that ended it will.
#[must_use]
pub struct Step {
    reporter: Reporter,
    phase: &'static str,
    step: String,
    started: Instant,
}

impl Step {
    /// Tells how it ended.
    pub fn end(self, ending: Ending) {
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Self { reporter, phase, step, .. } = self;
        reporter.tell(&Event::Step { phase, step, ending, took_ms });
    }

    /// It changed something, or saw what it waited for.
    pub fn done(self, what: impl Into<String>) {
        self.end(Ending::Done(what.into()));
    }

    /// Everything was as it should be already.
    pub fn unchanged(self, why: impl Into<String>) {
        self.end(Ending::Unchanged(why.into()));
    }

    /// It does not apply.
    pub fn skipped(self, why: impl Into<String>) {
        self.end(Ending::Skipped(why.into()));
    }
}

/// Makes text from elsewhere (a plugin, a server) safe for a terminal: control characters become `\u{..}`, and so does
/// what ends a line or turns the direction of a text, which would show it as another than it is.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if misleads(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Unicode's general category Cc, the line and paragraph separators, and the characters of property `Bidi_Control`.
pub(crate) fn misleads(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

mod text;
