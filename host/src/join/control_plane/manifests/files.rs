//! Manifests on the machine: staged as dot-files, which the kubelet passes over, and published when their time has come.
//!
//! The kubelet reads every file of its directory whose name does not begin with a dot (its `config` package,
//! `extractFromDir` and the watch alike). So all can be written and looked at before one of them runs, and a component
//! starts when what it needs is there.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{CA_DIRECTORIES, Component, Environment, InitialCluster, Manifest, render};
use crate::error::Diagnose;
use crate::join::JoinContext;
use crate::join::control_plane::LocalNode;
use crate::join::control_plane::configuration::{ControlPlaneConfiguration, Etcd};
use crate::node::{Change, Node, NodeError};
use crate::patches::{PatchError, Patches};

/// Where the kubelet looks for static Pods.
pub const DIRECTORY: &str = "/etc/kubernetes/manifests";
/// Largest manifest that is read, in bytes.
pub const LIMIT_BYTES: u64 = 1 << 20;
/// What a control plane runs beside etcd, in the order in which kubeadm writes it.
const STAGED: [Manifest<'_>; 3] = [Manifest::ApiServer, Manifest::ControllerManager, Manifest::Scheduler];

/// `/etc/kubernetes/manifests/<component>.yaml`.
pub fn path(component: Component) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.yaml", component.name()))
}

fn staged_path(component: Component) -> PathBuf {
    Path::new(DIRECTORY).join(format!(".{}.yaml", component.name()))
}

/// Writes what a control plane runs beside etcd, out of the kubelet's sight. etcd's manifest is made for the trial alone: a
/// patch that does not apply must not come to light when its member was added.
///
/// # Errors
///
/// [`ManifestsError`].
pub fn stage(
    cluster: &ControlPlaneConfiguration,
    local: &LocalNode,
    phase: &'static str,
    cx: &JoinContext,
) -> Result<(), ManifestsError> {
    let step = cx.reporter.step(phase, "write the manifests of the static Pods");
    if let Etcd::Local(_) = cluster.etcd {
        let patches = cx.settings.patches.as_deref().map_or_else(|| Ok(Patches::default()), Patches::load)?;
        let members = InitialCluster { members: &local.etcd_peer_url(), state: "existing" };
        render(Manifest::Etcd(members), cluster, local, &environment(cluster, cx)?, &patches)?;
    }
    let mut made = 0;
    for manifest in STAGED {
        made += u32::from(stage_one(manifest, cluster, local, cx)? == Change::Made);
    }
    match made {
        0 => step.unchanged(format!("they are in `{DIRECTORY}`")),
        _ => step.done(format!("in `{DIRECTORY}`, not seen by the kubelet yet")),
    }
    Ok(())
}

/// Writes etcd's manifest and lets the kubelet see it.
///
/// # Errors
///
/// [`ManifestsError`].
pub fn publish_etcd(
    members: InitialCluster<'_>,
    cluster: &ControlPlaneConfiguration,
    local: &LocalNode,
    cx: &JoinContext,
) -> Result<Change, ManifestsError> {
    stage_one(Manifest::Etcd(members), cluster, local, cx)?;
    publish(Component::Etcd, &cx.node)
}

fn stage_one(
    manifest: Manifest<'_>,
    cluster: &ControlPlaneConfiguration,
    local: &LocalNode,
    cx: &JoinContext,
) -> Result<Change, ManifestsError> {
    let patches = cx.settings.patches.as_deref().map_or_else(|| Ok(Patches::default()), Patches::load)?;
    let text = render(manifest, cluster, local, &environment(cluster, cx)?, &patches)?;
    cx.node.ensure_dir(Path::new(DIRECTORY), 0o700)?;
    let published = path(manifest.component());
    if cx.node.read(&published, LIMIT_BYTES)?.is_some_and(|there| there == text.as_bytes()) {
        return Ok(Change::Unchanged);
    }
    Ok(cx.node.ensure_file(&staged_path(manifest.component()), text.as_bytes(), 0o600)?)
}

/// Lets the kubelet see a manifest. The staged file goes last, so that a run after a crash finds one of the two.
///
/// # Errors
///
/// [`ManifestsError::NotStaged`], [`ManifestsError::Node`].
pub fn publish(component: Component, node: &Node) -> Result<Change, ManifestsError> {
    let (staged, published) = (staged_path(component), path(component));
    let Some(content) = node.read(&staged, LIMIT_BYTES)? else {
        return match node.read(&published, LIMIT_BYTES)? {
            Some(_) => Ok(Change::Unchanged),
            None => Err(ManifestsError::NotStaged { path: staged }),
        };
    };
    let change = node.ensure_file(&published, &content, 0o600)?;
    node.remove(&staged)?;
    Ok(change)
}

/// Leaves a manifest that the kubelet sees as it is, without what a run that was killed meanwhile left beside it. Whether
/// there is one.
///
/// # Errors
///
/// [`ManifestsError::Node`].
pub fn keep(component: Component, node: &Node) -> Result<bool, ManifestsError> {
    if node.read(&path(component), LIMIT_BYTES)?.is_none() {
        return Ok(false);
    }
    node.remove(&staged_path(component))?;
    Ok(true)
}

/// Takes a manifest out of the kubelet's sight, which ends its Pod.
///
/// # Errors
///
/// [`ManifestsError::Node`].
pub fn withdraw(component: Component, node: &Node) -> Result<(), ManifestsError> {
    node.remove(&path(component))?;
    node.remove(&staged_path(component))?;
    Ok(())
}

/// What the manifests follow of this machine.
fn environment(cluster: &ControlPlaneConfiguration, cx: &JoinContext) -> Result<Environment, NodeError> {
    let exists = |path: &str| cx.node.locate(Path::new(path)).exists();
    let pki = cluster.certificates_dir.trim_end_matches('/');
    // Also what a dry run would have written.
    let holds = |path: String| Ok::<_, NodeError>(cx.node.read(Path::new(&path), LIMIT_BYTES)?.is_some());
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Environment {
        proxies: super::proxies(variables),
        ca_directories: CA_DIRECTORIES.into_iter().filter(|directory| exists(directory)).collect(),
        external_ca: holds(format!("{pki}/ca.crt"))? && !holds(format!("{pki}/ca.key"))?,
        health_check: cx.settings.timeouts.control_plane_component_health_check,
    })
}

/// Why a manifest is not where it belongs.
#[derive(Debug, Error)]
pub enum ManifestsError {
    /// A patch.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The machine.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Nothing to publish.
    #[error("there is no staged manifest `{path}`")]
    NotStaged {
        /// Absolute.
        path: PathBuf,
    },
}

impl Diagnose for ManifestsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Patch(error) => error.code(),
            Self::Node(error) => error.code(),
            Self::NotStaged { .. } => "manifest-not-staged",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Patch(error) => error.hint(),
            Self::Node(error) => error.hint(),
            Self::NotStaged { .. } => {
                Some("`mortise join phase control-plane-prepare control-plane --control-plane …` writes it".into())
            }
        }
    }

    fn exit_code(&self) -> crate::error::ExitCode {
        match self {
            Self::Patch(error) => error.exit_code(),
            Self::Node(error) => error.exit_code(),
            Self::NotStaged { .. } => crate::error::ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::control_plane::fixture;

    #[test]
    fn a_patch_of_etcd_that_does_not_apply_is_told_before_anything_is_staged() {
        let (_directory, cx) = fixture::machine();
        let patches = tempfile::tempdir().unwrap();
        let patch = r#"[{"op": "remove", "path": "/spec/nothing"}]"#;
        std::fs::write(patches.path().join("etcd0+json.json"), patch).unwrap();
        let cx = cx.with(|settings| settings.patches = Some(patches.path().to_owned()));
        let stage = |configuration| stage(&configuration, &fixture::local(), "a phase", &cx);
        assert!(matches!(stage(fixture::configuration()), Err(ManifestsError::Patch(_))));
        assert!(!cx.node.locate(&staged_path(Component::ApiServer)).exists());

        let external = ControlPlaneConfiguration {
            etcd: Etcd::External(crate::join::control_plane::configuration::ExternalEtcd::default()),
            ..fixture::configuration()
        };
        stage(external).unwrap();
        assert!(cx.node.locate(&staged_path(Component::ApiServer)).exists());
    }

    #[test]
    fn a_manifest_is_kept_and_what_was_staged_beside_it_is_not() {
        let (root, cx) = fixture::machine();
        let at = |path: PathBuf| root.path().join(path.strip_prefix("/").unwrap());
        let (published, staged) = (at(path(Component::Etcd)), at(staged_path(Component::Etcd)));
        std::fs::create_dir_all(published.parent().unwrap()).unwrap();
        std::fs::write(&staged, "new").unwrap();
        assert!(!keep(Component::Etcd, &cx.node).unwrap());
        assert!(staged.exists(), "it is all there is");
        std::fs::write(&published, "old").unwrap();
        assert!(keep(Component::Etcd, &cx.node).unwrap());
        assert!(!staged.exists());
        assert_eq!(std::fs::read_to_string(published).unwrap(), "old");
    }
}
