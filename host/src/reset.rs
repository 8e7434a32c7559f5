//! Undoes a join.
//!
//! With a record, everything it lists goes in reverse, and what the kubelet made under it: Pod sandboxes, mounts, the
//! contents of directories that were empty before. Without one, what `kubeadm reset` removes goes. First all actions
//! are listed (`plan`), then they are shown (`--dry-run`) or done one by one (`undo`). Each may be repeated, the record
//! goes last: a reset that failed or was killed goes on when it is run again.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::api::Dialer;
use crate::config::ResetSettings;
use crate::error::{Diagnose, ExitCode};
use crate::journal::{Journal, JournalError, Lock, Record, STATE_DIRECTORY};
use crate::node::{Journalless, Machine};
use crate::output::{Format, Reporter};

mod cluster;
mod mounts;
mod plan;
mod undo;

pub use plan::Action;

/// Phase ids, kubeadm's.
const PREFLIGHT: &str = "preflight";
const REMOVE_ETCD_MEMBER: &str = "remove-etcd-member";
const CLEANUP_NODE: &str = "cleanup-node";
/// A machine that has this runs an etcd member, which must leave its cluster first.
const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// Undoes the join of the machine below `settings.root`.
///
/// # Errors
///
/// [`ResetError`].
pub async fn run(
    settings: &ResetSettings,
    machine: Arc<dyn Machine>,
    dialer: &Dialer,
    reporter: &Reporter,
) -> Result<(), ResetError> {
    let skipped = |phase: &str| settings.skip_phases.iter().any(|skip| skip == phase);
    if !skipped(PREFLIGHT) {
        preflight(settings)?;
    }
    let files = Journalless::new(settings.root.clone());
    if !skipped(REMOVE_ETCD_MEMBER) && files.exists(Path::new(ETCD_MANIFEST)) {
        return Err(ResetError::EtcdMember);
    }
    if skipped(CLEANUP_NODE) {
        return Ok(());
    }
    if settings.dry_run {
        let record = Record::load(&settings.root)?;
        let actions = plan::actions(record.as_ref(), settings, &files);
        show(&actions, reporter);
        return Ok(());
    }
    // The directory is there if there is anything to lock.
    let lock = match files.exists(Path::new(STATE_DIRECTORY)) {
        true => Some(Lock::acquire(&settings.root, "reset")?),
        false => None,
    };
    let record = Record::load(&settings.root)?;
    let actions = plan::actions(record.as_ref(), settings, &files);
    Journal::begin_reset(&settings.root)?;
    undo::all(&actions, undo::Tools { settings, machine: &*machine, dialer, reporter, files: &files }).await?;
    undo::forget(&settings.root, lock, &actions)?;
    reporter.step(CLEANUP_NODE, "reset").done("this machine is as before the join");
    Ok(())
}

fn preflight(settings: &ResetSettings) -> Result<(), ResetError> {
    if !settings.force && !settings.dry_run && !confirmed(&mut io::stdin().lock(), &mut io::stderr().lock()) {
        return Err(ResetError::Declined);
    }
    let own_machine = settings.root == Path::new("/");
    if own_machine && !rustix::process::getuid().is_root() && !settings.ignore.covers("IsPrivilegedUser") {
        return Err(ResetError::NotRoot);
    }
    Ok(())
}

/// kubeadm's question: only `y` and `yes`, in any case, are a yes.
fn confirmed(input: &mut impl BufRead, output: &mut impl Write) -> bool {
    let question = "This undoes what `mortise join` or `kubeadm join` did to this machine.\n\
                    Are you sure you want to proceed? [y/N]: ";
    // Nobody to ask or to answer is no yes.
    let mut answer = String::new();
    let asked = output.write_all(question.as_bytes()).and_then(|()| output.flush());
    asked.and_then(|()| input.read_line(&mut answer)).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

fn show(actions: &[Action], reporter: &Reporter) {
    // A reader that went away must not fail a command that changes nothing.
    let mut stdout = io::stdout().lock();
    let _ = match reporter.format() {
        Format::Json => writeln!(stdout, "{}", serde_json::json!({ "plan": actions })),
        Format::Text => actions.iter().try_for_each(|action| writeln!(stdout, "would {action}")),
    };
}

/// Why a machine was not reset.
#[derive(Debug, Error)]
pub enum ResetError {
    /// The question was not answered with yes.
    #[error("the reset was not confirmed")]
    Declined,
    /// Not root.
    #[error("[ERROR IsPrivilegedUser]: a reset needs root")]
    NotRoot,
    /// A member of the cluster's etcd runs here.
    #[error("`{ETCD_MANIFEST}` shows that this machine runs an etcd member, which must leave its cluster first")]
    EtcdMember,
    /// The record.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Some actions failed; the others were done.
    #[error("{} of the reset's steps failed: {}", .failures.len(), .failures.join("; "))]
    Incomplete {
        /// One line each.
        failures: Vec<String>,
    },
    /// The record could not be removed at the end.
    #[error("cannot remove `{path}`")]
    Forget {
        /// With `--root`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Diagnose for ResetError {
    fn code(&self) -> &'static str {
        match self {
            Self::Declined => "reset-declined",
            Self::NotRoot => "reset-not-root",
            Self::EtcdMember => "reset-etcd-member",
            Self::Journal(error) => error.code(),
            Self::Incomplete { .. } => "reset-incomplete",
            Self::Forget { .. } => "reset-forget",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Declined => Some("`--force` asks nothing, `--dry-run` shows what would be done".into()),
            Self::NotRoot => Some("run it with sudo".into()),
            Self::EtcdMember => Some(format!(
                "`kubeadm reset` removes the member; `--skip-phases {REMOVE_ETCD_MEMBER}` if it is gone already"
            )),
            Self::Journal(error) => error.hint(),
            Self::Incomplete { .. } | Self::Forget { .. } => {
                Some("remove the cause and run the same command again: it goes on where it stopped".into())
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotRoot => ExitCode::Preflight,
            Self::Declined => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
