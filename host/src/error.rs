//! Exit codes, stable error codes, hints, and the one place that prints an error.
//!
//! Each module has its own error enum and says through [`Diagnose`] what a program (code, exit status) and a person
//! (hint) need of it. [`Failure`] carries any of them up to `main`, with the phase it happened in.

use std::error::Error;
use std::fmt;

use crate::output::printable;

/// Begins the next of several errors in one file.
const NEXT_ITEM: &str = "\n  - ";

/// Exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// 1: failed on the way; safe to run again.
    Failed,
    /// 2: asked wrongly, by flags or configuration; nothing was done.
    Usage,
    /// 3: a preflight check failed; the node is untouched.
    Preflight,
}

impl ExitCode {
    /// The number the process exits with.
    pub fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Preflight => 3,
        }
    }
}

/// What an error of a module tells beside its text.
pub trait Diagnose: Error + Send + Sync + 'static {
    /// Stable code, kebab case, prefixed by the subject: `discovery-no-signature`. Never renamed.
    fn code(&self) -> &'static str;

    /// What to run or change next, when something useful is known.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Exit status; [`ExitCode::Failed`] unless the user asked wrongly or a check failed.
    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// An error on its way to `main`.
#[derive(Debug)]
pub struct Failure {
    phase: Option<&'static str>,
    error: Box<dyn Diagnose>,
}

impl Failure {
    /// Names the phase, unless an inner one is named already.
    #[must_use]
    pub fn in_phase(mut self, phase: &'static str) -> Self {
        self.phase.get_or_insert(phase);
        self
    }

    /// The phase it happened in.
    pub fn phase(&self) -> Option<&'static str> {
        self.phase
    }

    /// See [`Diagnose::code`].
    pub fn code(&self) -> &'static str {
        self.error.code()
    }

    /// See [`Diagnose::hint`]; one printable line.
    pub fn hint(&self) -> Option<String> {
        self.error.hint().as_deref().map(printable)
    }

    /// See [`Diagnose::exit_code`].
    pub fn exit_code(&self) -> ExitCode {
        self.error.exit_code()
    }

    /// The error and its causes, joined by `: `, each cause once. Printable, since names of files and whatever else an error
    /// repeats may hold anything; one line, or one and an item on each further one.
    pub fn message(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text.split(NEXT_ITEM).map(printable).collect::<Vec<_>>().join(NEXT_ITEM)
    }
}

impl<E: Diagnose> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { phase: None, error: Box::new(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(phase) = self.phase {
            write!(f, "phase `{phase}`: ")?;
        }
        f.write_str(&self.message())
    }
}
