//! Undoes a join.
//!
//! With a record, everything it lists goes in reverse, and what the kubelet made under it: Pod sandboxes, mounts, the
//! contents of directories that were empty before. Without one, what `kubeadm reset` removes goes. First all actions
//! are listed (`plan`), then they are shown (`--dry-run`) or done one by one (`undo`). Each may be repeated, the record
//! goes last: a reset that failed or was killed goes on when it is run again.
//!
//! On a control plane the etcd member leaves its cluster (`member`) before anything that it needs goes, and its data goes
//! after it. What that means for the other members is looked at before anything is done.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::api::Dialer;
use crate::config::ResetSettings;
use crate::error::{Diagnose, ExitCode};
use crate::journal::{Journal, JournalError, Lock, Record, STATE_DIRECTORY};
use crate::node::{Journalless, Machine, Node};
use crate::output::{Format, Reporter};

mod cluster;
mod member;
mod mounts;
mod plan;
mod undo;

pub use plan::Action;

/// Phase ids, kubeadm's.
const PREFLIGHT: &str = "preflight";
const REMOVE_ETCD_MEMBER: &str = "remove-etcd-member";
const CLEANUP_NODE: &str = "cleanup-node";
/// A machine that has this runs an etcd member.
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
    // The directory is there if there is anything to lock.
    let lock = match !settings.dry_run && files.exists(Path::new(STATE_DIRECTORY)) {
        true => Some(Lock::acquire(&settings.root, "reset")?),
        false => None,
    };
    let record = Record::load(&settings.root)?;
    let asked = plan::Asked { etcd: !skipped(REMOVE_ETCD_MEMBER), node: !skipped(CLEANUP_NODE) };
    let local = member::local(record.as_ref(), settings, &files);
    let departure = match &local {
        Some(local) if asked.etcd => {
            let node = Node::new(settings.root.clone(), Arc::clone(&machine), Arc::new(Journal::in_memory()));
            Some(member::foresee(local, settings, &node, dialer, reporter).await?)
        }
        _ => None,
    };
    let etcd = plan::EtcdPlan { local: local.as_ref(), departure: departure.as_ref() };
    let actions = plan::actions(record.as_ref(), settings, &files, asked, etcd);
    if settings.dry_run {
        show(&actions, reporter);
        return Ok(());
    }
    Journal::begin_reset(&settings.root)?;
    let tools =
        undo::Tools { settings, machine: &*machine, dialer, reporter, files: &files, departure: departure.as_ref() };
    undo::all(&actions, tools).await?;
    if asked.node {
        undo::forget(&settings.root, lock, &actions)?;
        reporter.step(CLEANUP_NODE, "reset").done("this machine is as before the join");
    }
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
    /// The others could agree on nothing any more.
    #[error("this machine's etcd member cannot leave: {meaning}")]
    Quorum {
        /// One line.
        meaning: String,
    },
    /// Nobody says what leaving would mean.
    #[error("cannot see whether etcd goes on without this machine's member: {reason}")]
    EtcdUnreachable {
        /// One line.
        reason: String,
    },
    /// The member is still there, and so is everything else.
    #[error("etcd does not let this machine's member go: {reason}")]
    EtcdMember {
        /// One line.
        reason: String,
    },
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
            Self::Quorum { .. } => "reset-breaks-quorum",
            Self::EtcdUnreachable { .. } => "reset-etcd-unreachable",
            Self::EtcdMember { .. } => "reset-etcd-member",
            Self::Journal(error) => error.code(),
            Self::Incomplete { .. } => "reset-incomplete",
            Self::Forget { .. } => "reset-forget",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Declined => Some("`--force` asks nothing, `--dry-run` shows what would be done".into()),
            Self::NotRoot => Some("run it with sudo".into()),
            Self::Quorum { .. } => Some(
                "bring the other members up first, `kubectl -n kube-system get pods -l component=etcd` shows them; where \
                 the cluster shall end, `--force` goes on all the same"
                    .into(),
            ),
            Self::EtcdUnreachable { .. } | Self::EtcdMember { .. } => Some(format!(
                "`crictl logs` of the container `etcd` may tell more; `--skip-phases {REMOVE_ETCD_MEMBER}` leaves member and \
                 data alone, `--force` goes on without them"
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
