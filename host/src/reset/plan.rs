//! What a reset does, listed before anything is done.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::member::{DEFAULT_DATA_DIRECTORY, Departure, Local};
use crate::config::ResetSettings;
use crate::join::kubelet_start::{BOOTSTRAP_KUBECONFIG, INSTANCE_CONFIG, KUBELET_DIRECTORY};
use crate::join::tls_bootstrap::KUBELET_CONF;
use crate::journal::{Effect, Record, Recorded, State};
use crate::node::Journalless;

/// One thing a reset does. Repeating it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Action {
    /// The kubelet is stopped.
    StopKubelet,
    /// The Node's Ready condition is set to False, with the node's own certificate.
    MarkNotReady,
    /// The etcd member of this machine leaves its cluster.
    RemoveEtcdMember {
        /// Hexadecimal digits.
        id: String,
        /// What it means to the others.
        meaning: String,
    },
    /// The etcd member stays in its cluster's list, although its data goes.
    LeaveEtcdMember {
        /// One line.
        why: String,
    },
    /// Every Pod sandbox of the runtime is stopped and removed.
    RemoveSandboxes {
        /// URL.
        socket: String,
    },
    /// Everything mounted below a directory is unmounted.
    Unmount {
        /// Absolute, without `--root`.
        below: PathBuf,
    },
    /// A file or link is removed.
    Remove {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// A directory is emptied.
    Empty {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// A directory is removed if it is empty.
    RemoveDirectory {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// A file was there before the join, with other content that nobody kept: it stays.
    Keep {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// The record itself is removed.
    Forget {
        /// Whether `/var/lib/mortise` goes, too, if nothing else is in it.
        state_directory: bool,
        /// Whether `/run/mortise` does.
        runtime_directory: bool,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StopKubelet => f.write_str("stop the kubelet"),
            Self::MarkNotReady => f.write_str("mark the Node not ready, with its own certificate"),
            Self::RemoveEtcdMember { id, meaning } => write!(f, "remove etcd member {id}: {meaning}"),
            Self::LeaveEtcdMember { why } => write!(f, "leave the etcd member where it is listed: {why}"),
            Self::RemoveSandboxes { socket } => write!(f, "stop and remove all Pod sandboxes of {socket}"),
            Self::Unmount { below } => write!(f, "unmount everything below {}", below.display()),
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::Empty { path } => write!(f, "empty {}", path.display()),
            Self::RemoveDirectory { path } => write!(f, "remove the directory {} if it is empty", path.display()),
            Self::Keep { path } => write!(f, "keep {}, which was there before the join", path.display()),
            Self::Forget { .. } => f.write_str("remove mortise's record of the join"),
        }
    }
}

const MANIFESTS: &str = "/etc/kubernetes/manifests";
const DEFAULT_CERTIFICATES: &str = "/etc/kubernetes/pki";
const TEMPORARY: &str = "/etc/kubernetes/tmp";
/// What `kubeadm reset` deletes, in its order.
const KUBECONFIGS: [&str; 6] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    KUBELET_CONF,
    BOOTSTRAP_KUBECONFIG,
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
];
/// A machine with one of these is, or was half reset from being, a control plane.
const CONTROL_PLANE_TRACES: [&str; 2] = ["/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/admin.conf"];
/// Holds one line.
const INSTANCE_CONFIG_LIMIT_BYTES: u64 = 4096;

/// Phases that were asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// `remove-etcd-member`.
    pub(super) etcd: bool,
    /// `cleanup-node`.
    pub(super) node: bool,
}

/// The member of this machine, if it runs one, and what becomes of it, if that was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct EtcdPlan<'a> {
    pub(super) local: Option<&'a Local>,
    pub(super) departure: Option<&'a Departure>,
}

/// All actions, in order.
pub(super) fn actions(
    record: Option<&Record>,
    settings: &ResetSettings,
    files: &Journalless,
    asked: Asked,
    etcd: EtcdPlan<'_>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    if asked.node {
        // Before the member leaves: a control plane's kubelet talks to the API server beside it.
        actions.push(Action::StopKubelet);
        if files.exists(Path::new(KUBELET_CONF)) {
            actions.push(Action::MarkNotReady);
        }
    }
    actions.extend(etcd.departure.and_then(|departure| match departure {
        Departure::Gone => None,
        Departure::Leaves(leaving) => {
            Some(Action::RemoveEtcdMember { id: leaving.id.to_string(), meaning: leaving.meaning.clone() })
        }
        Departure::Impossible { why } => Some(Action::LeaveEtcdMember { why: why.clone() }),
    }));
    // Below another root neither the runtime nor the mounts are that root's.
    if asked.node && settings.root == Path::new("/") {
        actions.push(Action::RemoveSandboxes { socket: socket(settings, files) });
    }
    let data = etcd.local.map_or_else(|| DEFAULT_DATA_DIRECTORY.into(), |local| local.data_directory.clone());
    if asked.node {
        clean_up(record, settings, &mut actions);
    }
    // Whose member was not looked at keeps its data; so does an etcd on a machine that was no control plane.
    actions.retain(|action| !matches!(action, Action::Empty { path } if *path == data && !asked.etcd));
    let emptied = actions.iter().any(|action| matches!(action, Action::Empty { path } if *path == data));
    let control_plane = etcd.local.is_some() || CONTROL_PLANE_TRACES.iter().any(|path| files.exists(Path::new(path)));
    if asked.etcd && !emptied && control_plane && files.exists(&data) && record.is_none_or(|_| etcd.local.is_some()) {
        let before = actions.iter().position(|action| matches!(action, Action::Unmount { .. }));
        actions.insert(before.unwrap_or(actions.len()), Action::Empty { path: data });
    }
    if asked.node {
        actions.push(Action::Forget {
            state_directory: record.is_some_and(|record| record.state_directory_made),
            runtime_directory: record.is_some_and(|record| record.runtime_directory_made),
        });
    }
    actions
}

fn clean_up(record: Option<&Record>, settings: &ResetSettings, actions: &mut Vec<Action>) {
    actions.push(Action::Unmount { below: KUBELET_DIRECTORY.into() });
    match record {
        Some(record) => {
            actions.extend(undone(record));
            actions.extend(settings.certificates_dir.iter().map(|path| Action::Empty { path: path.clone() }));
        }
        None => actions.extend(as_kubeadm(settings)),
    }
    if settings.cleanup_tmp_dir {
        actions.push(Action::Empty { path: TEMPORARY.into() });
    }
}

fn as_kubeadm(settings: &ResetSettings) -> Vec<Action> {
    let certificates = settings.certificates_dir.clone().unwrap_or_else(|| DEFAULT_CERTIFICATES.into());
    let emptied = [MANIFESTS.into(), KUBELET_DIRECTORY.into(), certificates];
    let emptied = emptied.into_iter().map(|path| Action::Empty { path });
    emptied.chain(KUBECONFIGS.map(|path| Action::Remove { path: path.into() })).collect()
}

/// The record backwards. What was there before the first effect on a path decides what becomes of it.
fn undone(record: &Record) -> Vec<Action> {
    let mut first: BTreeMap<&Path, &Effect> = BTreeMap::new();
    // What is intended and not known to be made may have been made.
    let effects: Vec<&Recorded> = record.effects.iter().filter(|recorded| recorded.state != State::Void).collect();
    for Recorded { effect, .. } in &effects {
        if let (Some(path), false) = (effect.path(), matches!(effect, Effect::WasEmpty { .. })) {
            first.entry(path).or_insert(effect);
        }
    }
    let mut actions = Vec::new();
    for Recorded { effect, .. } in effects.iter().rev() {
        let Some(path) = effect.path() else { continue };
        if let Effect::WasEmpty { existed, .. } = effect {
            actions.push(Action::Empty { path: path.to_owned() });
            if !existed {
                actions.push(Action::RemoveDirectory { path: path.to_owned() });
            }
            continue;
        }
        // Once a path, where its first effect stands.
        if !first.get(path).is_some_and(|first| std::ptr::eq(*first, effect)) {
            continue;
        }
        actions.push(match effect {
            Effect::File { replaced: Some(_), .. } => Action::Keep { path: path.to_owned() },
            Effect::Directory { .. } => Action::RemoveDirectory { path: path.to_owned() },
            // Something of the operator's that the join removed cannot be brought back.
            Effect::Removal { .. } => continue,
            _ => Action::Remove { path: path.to_owned() },
        });
    }
    // What is in an emptied directory needs no action of its own, nor is it kept.
    let emptied: Vec<PathBuf> = actions
        .iter()
        .filter_map(|action| if let Action::Empty { path } = action { Some(path.clone()) } else { None })
        .collect();
    actions.retain(|action| match action {
        Action::Remove { path } | Action::Keep { path } | Action::RemoveDirectory { path } => {
            !emptied.iter().any(|directory| path != directory && path.starts_with(directory))
        }
        _ => true,
    });
    // Directories are emptied before they or their parents are removed.
    actions.sort_by_key(|action| match action {
        Action::Keep { .. } => 0,
        Action::Remove { .. } => 1,
        Action::Empty { .. } => 2,
        _ => 3,
    });
    let directories = actions.iter().position(|action| matches!(action, Action::RemoveDirectory { .. }));
    if let Some(at) = directories {
        actions[at..].sort_by_key(|action| match action {
            Action::RemoveDirectory { path } => std::cmp::Reverse(path.components().count()),
            _ => std::cmp::Reverse(0),
        });
    }
    actions.dedup();
    actions
}

/// The socket that the join used, unless another was given.
fn socket(settings: &ResetSettings, files: &Journalless) -> String {
    if let Some(socket) = &settings.cri_socket {
        return socket.clone();
    }
    let instance = files.read(Path::new(INSTANCE_CONFIG), INSTANCE_CONFIG_LIMIT_BYTES).ok().flatten();
    let used = instance.and_then(|text| {
        let tree: serde_json::Value = serde_saphyr::from_slice(&text).ok()?;
        Some(tree.get("containerRuntimeEndpoint")?.as_str()?.to_owned())
    });
    // Several runtimes and no word which: containerd's, as kubeadm's default.
    used.or_else(|| crate::cri::detect_socket().ok()).unwrap_or_else(|| crate::cri::DEFAULT_SOCKET.to_owned())
}
