//! Does the actions, one by one. A failed one does not keep the others from being done.

use std::fs;
use std::io;
use std::path::Path;

use super::member::Departure;
use super::plan::Action;
use super::{CLEANUP_NODE, REMOVE_ETCD_MEMBER, ResetError, cluster, mounts};
use crate::api::Dialer;
use crate::config::ResetSettings;
use crate::cri::Client;
use crate::join::kubelet_start::UNIT;
use crate::journal::{JOURNAL_PATH, Lock, STATE_DIRECTORY};
use crate::node::{Journalless, Machine, NodeError, UnitAction};
use crate::output::{Ending, Reporter};

/// Tries to stop and to remove one sandbox, as kubeadm.
const SANDBOX_TRIES: usize = 5;

/// What the actions work with.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) settings: &'a ResetSettings,
    pub(super) machine: &'a dyn Machine,
    pub(super) dialer: &'a Dialer,
    pub(super) reporter: &'a Reporter,
    pub(super) files: &'a Journalless,
    pub(super) departure: Option<&'a Departure>,
}

/// Does everything but [`Action::Forget`].
pub(super) async fn all(actions: &[Action], tools: Tools<'_>) -> Result<(), ResetError> {
    let mut failures = Vec::new();
    for action in actions.iter().filter(|action| !matches!(action, Action::Forget { .. })) {
        let phase = match action {
            Action::RemoveEtcdMember { .. } | Action::LeaveEtcdMember { .. } => REMOVE_ETCD_MEMBER,
            _ => CLEANUP_NODE,
        };
        let step = tools.reporter.step(phase, action.to_string());
        match tools.act(action).await {
            Ok(ending) => step.end(ending),
            // While the member is there its data, certificates and manifest stay.
            Err(reason) if matches!(action, Action::RemoveEtcdMember { .. }) => {
                return Err(ResetError::EtcdMember { reason });
            }
            Err(failure) => {
                tools.reporter.warn(Some(CLEANUP_NODE), format!("cannot {action}: {failure}"));
                failures.push(format!("cannot {action}: {failure}"));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(ResetError::Incomplete { failures }) }
}

/// Removes the record, the lock and, where the join made it, their directory: the last step.
pub(super) fn forget(root: &Path, lock: Option<Lock>, actions: &[Action]) -> Result<(), ResetError> {
    let files = Journalless::new(root.to_owned());
    let fail = |path: &str| {
        let path = files.locate(Path::new(path));
        |source| ResetError::Forget { path, source }
    };
    for path in [crate::result::RESULT_PATH, JOURNAL_PATH] {
        files.remove(Path::new(path)).map_err(fail(path))?;
    }
    if let Some(lock) = lock {
        lock.remove().map_err(fail(crate::journal::LOCK_PATH))?;
    }
    for action in actions {
        let Action::Forget { state_directory, runtime_directory } = action else { continue };
        for (path, made) in [(STATE_DIRECTORY, state_directory), (crate::result::RESULT_DIRECTORY, runtime_directory)] {
            if *made {
                // Others may keep things there.
                let _ = files.remove_directory(Path::new(path));
            }
        }
    }
    Ok(())
}

fn done() -> Ending {
    Ending::Done("done".into())
}

impl Tools<'_> {
    async fn act(self, action: &Action) -> Result<Ending, String> {
        match action {
            Action::StopKubelet => self.stop_kubelet().await,
            Action::MarkNotReady => Ok(match cluster::mark_not_ready(self.files, self.dialer).await {
                Ok(name) => Ending::Done(format!("Node `{name}`; `kubectl delete node {name}` removes it")),
                // Perhaps the cluster is gone; this machine shall be free in any case.
                Err(why) => {
                    self.reporter.warn(Some(CLEANUP_NODE), format!("the Node was not marked not ready: {why}"));
                    Ending::Skipped(why)
                }
            }),
            Action::RemoveEtcdMember { .. } => self.remove_etcd_member().await,
            Action::LeaveEtcdMember { why } => Ok(self.left_behind(why)),
            Action::RemoveSandboxes { socket } => self.remove_sandboxes(socket).await,
            Action::Unmount { below } => self.unmount(below),
            Action::Remove { path } => match self.files.remove(path).map_err(text)? {
                true => Ok(done()),
                false => Ok(gone()),
            },
            Action::Empty { path } => self.empty(path),
            Action::RemoveDirectory { path } => match self.files.remove_directory(path) {
                Ok(true) => Ok(done()),
                Ok(false) => Ok(gone()),
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    Ok(Ending::Skipped("it holds what the join did not make".into()))
                }
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    Ok(Ending::Skipped("a file system is mounted there".into()))
                }
                Err(error) => Err(text(error)),
            },
            Action::Keep { .. } => Ok(Ending::Skipped("its earlier content was not kept".into())),
            Action::Forget { .. } => Ok(done()),
        }
    }

    async fn remove_etcd_member(self) -> Result<Ending, String> {
        let Some(Departure::Leaves(leaving)) = self.departure else { return Ok(gone()) };
        Ok(match leaving.run(self.settings.force, self.reporter).await? {
            None => done(),
            Some(why) => self.left_behind(&why),
        })
    }

    fn left_behind(self, why: &str) -> Ending {
        let message = format!(
            "the etcd member of this machine may still be listed: {why}; `etcdctl member list` in the Pod of another \
             member shows it, `etcdctl member remove ID` removes it"
        );
        self.reporter.warn(Some(REMOVE_ETCD_MEMBER), message);
        Ending::Skipped("what is left of the member is told above".into())
    }

    async fn stop_kubelet(self) -> Result<Ending, String> {
        match self.machine.unit_state(UNIT).await {
            Err(NodeError::NoInit) => return Ok(Ending::Skipped("no init system runs here".into())),
            Err(error) => return Err(error.to_string()),
            Ok(state) if !state.exists => return Ok(Ending::Skipped("there is no unit `kubelet`".into())),
            // One that waits to be started again has to be stopped, too, but is active then.
            Ok(state) if !state.active => return Ok(Ending::Unchanged("it does not run".into())),
            Ok(_) => {}
        }
        self.machine.unit(UnitAction::Stop, UNIT).await.map_err(|error| error.to_string())?;
        Ok(done())
    }

    async fn remove_sandboxes(self, socket: &str) -> Result<Ending, String> {
        let mut runtime = match Client::connect(socket).await {
            Ok(runtime) => runtime,
            // A machine whose runtime is gone has no sandboxes that could be asked for.
            Err(error) => {
                self.reporter.warn(Some(CLEANUP_NODE), format!("Pod sandboxes are left alone: {error}"));
                return Ok(Ending::Skipped("the runtime does not answer".into()));
            }
        };
        let sandboxes = runtime.pod_sandboxes().await.map_err(|error| error.to_string())?;
        if sandboxes.is_empty() {
            return Ok(Ending::Unchanged("there are none".into()));
        }
        let mut failures = Vec::new();
        for sandbox in &sandboxes {
            let mut last = None;
            for _ in 0..SANDBOX_TRIES {
                last = match runtime.stop_pod_sandbox(&sandbox.id).await {
                    Ok(()) => runtime.remove_pod_sandbox(&sandbox.id).await.err(),
                    Err(error) => Some(error),
                };
                if last.is_none() {
                    break;
                }
            }
            failures.extend(last.map(|error| format!("{}: {error}", crate::output::printable(&sandbox.pod))));
        }
        if failures.is_empty() {
            Ok(Ending::Done(format!("{} removed", sandboxes.len())))
        } else {
            Err(failures.join(", "))
        }
    }

    fn unmount(self, below: &Path) -> Result<Ending, String> {
        let Some(directory) = self.resolved(below)? else { return Ok(gone()) };
        let points = mounts::below(&directory).map_err(text)?;
        for point in &points {
            mounts::unmount(point, &self.settings.unmount_flags)
                .map_err(|error| format!("`{}`: {error}", crate::output::printable(&point.to_string_lossy())))?;
        }
        if points.is_empty() {
            return Ok(Ending::Unchanged("nothing is mounted there".into()));
        }
        Ok(Ending::Done(format!("{} unmounted", points.len())))
    }

    fn empty(self, path: &Path) -> Result<Ending, String> {
        if path.components().count() < 3 {
            return Err("it is a directory of the system".into());
        }
        let Some(directory) = self.resolved(path)? else { return Ok(gone()) };
        // Deleting through a mount would delete somebody's volume.
        if let Some(point) = mounts::below(&directory).map_err(text)?.first() {
            return Err(format!("`{}` is still mounted", crate::output::printable(&point.to_string_lossy())));
        }
        let mut count = 0;
        for entry in fs::read_dir(&directory).map_err(text)? {
            let entry = entry.map_err(text)?;
            let removed = match entry.file_type().map_err(text)?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            removed.map_err(|error| format!("`{}`: {error}", entry.path().display()))?;
            count += 1;
        }
        if count == 0 { Ok(Ending::Unchanged("it is empty".into())) } else { Ok(done()) }
    }

    /// The directory itself where the path is a link of the machine's owner; none: nothing is there.
    fn resolved(self, path: &Path) -> Result<Option<std::path::PathBuf>, String> {
        match fs::canonicalize(self.files.locate(path)) {
            Ok(directory) if !directory.starts_with(&self.settings.root) => Err("it leads out of `--root`".into()),
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(text(error)),
        }
    }
}

fn gone() -> Ending {
    Ending::Unchanged("it is not there".into())
}

fn text(error: io::Error) -> String {
    error.to_string()
}
