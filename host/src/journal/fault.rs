//! Death at an exact journal entry, for tests of resumption: cargo feature `faults`, which no release has.
//!
//! `MORTISE_FAULT=before:N` and `after:N` kill this process with SIGKILL around the N-th line that it writes;
//! `MORTISE_FAULT=count` prints at the end how many there were.

#[cfg(not(feature = "faults"))]
#[derive(Debug)]
pub(super) struct Fault;

#[cfg(not(feature = "faults"))]
impl Fault {
    pub(super) fn none() -> Self {
        Self
    }

    pub(super) fn from_environment() -> Self {
        Self
    }

    pub(super) fn before(&mut self) {}

    pub(super) fn after(&mut self) {}

    pub(super) fn report(&mut self) {}
}

#[cfg(feature = "faults")]
#[derive(Debug)]
pub(super) struct Fault {
    written: u64,
    plan: Option<Plan>,
}

#[cfg(feature = "faults")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Before(u64),
    After(u64),
    Count,
}

#[cfg(feature = "faults")]
impl Fault {
    pub(super) fn none() -> Self {
        Self { written: 0, plan: None }
    }

    pub(super) fn from_environment() -> Self {
        let text = std::env::var("MORTISE_FAULT").unwrap_or_default();
        let number = |prefix: &str| text.strip_prefix(prefix).and_then(|number| number.parse().ok());
        let plan = match (number("before:"), number("after:")) {
            (Some(number), _) => Some(Plan::Before(number)),
            (_, Some(number)) => Some(Plan::After(number)),
            _ => (text == "count").then_some(Plan::Count),
        };
        Self { written: 0, plan }
    }

    pub(super) fn before(&mut self) {
        if self.plan == Some(Plan::Before(self.written + 1)) {
            die();
        }
    }

    pub(super) fn after(&mut self) {
        self.written += 1;
        if self.plan == Some(Plan::After(self.written)) {
            die();
        }
    }

    pub(super) fn report(&mut self) {
        if self.plan.take() == Some(Plan::Count) {
            eprintln!("journal entries: {}", self.written);
        }
    }
}

/// A run that fails tells its count, too.
#[cfg(feature = "faults")]
impl Drop for Fault {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(feature = "faults")]
fn die() {
    // SIGKILL cannot be caught: nothing after this line runs.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}
