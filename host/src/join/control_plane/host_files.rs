//! Files of this machine that the cluster's configuration names for control planes.
//!
//! kubeadm copies certificates to a new control plane, but no audit policy, no encryption configuration and nothing else that
//! `extraArgs` or `extraVolumes` name. Without such a file the API server does not start, which shows when the member is in
//! etcd already; so all of them are looked for before anything is announced.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::configuration::{Component, ControlPlaneConfiguration, HostPathMount};
use crate::config::Arg;
use crate::error::{Diagnose, ExitCode};
use crate::node::Node;
use crate::output::printable;

/// Arguments of kube-apiserver whose value is a file that it reads when it starts.
const READ_AT_START: [&str; 7] = [
    "admission-control-config-file",
    "audit-policy-file",
    "authentication-config",
    "authorization-config",
    "egress-selector-config-file",
    "encryption-provider-config",
    "tracing-config-file",
];

/// Something that is not as the cluster's configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// On this machine; without `--root`.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
    /// The arguments and volumes that need it, in the words of the configuration.
    pub wanted_by: Vec<String>,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nothing is there.
    Absent,
    /// Something else is there; what should be.
    IsNo(&'static str),
    /// The component could not see it: no volume holds it.
    NotMounted,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.display().to_string());
        match self.problem {
            Problem::Absent => write!(f, "`{path}` does not exist")?,
            Problem::IsNo(what) => write!(f, "`{path}` is no {what}")?,
            Problem::NotMounted => write!(f, "`{path}` is in no volume")?,
        }
        write!(f, "; wanted by {}", self.wanted_by.iter().map(|by| printable(by)).collect::<Vec<_>>().join(", "))
    }
}

impl Missing {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let path = printable(&self.path.display().to_string());
        match self.problem {
            Problem::Absent => format!("copy it from another control plane: `scp -rp CONTROL-PLANE:{path} {path}`"),
            Problem::IsNo(_) => format!("compare it with another control plane's: `ls -ld {path}`"),
            Problem::NotMounted => {
                "add its directory to `extraVolumes` of ConfigMap `kubeadm-config`, namespace `kube-system`".into()
            }
        }
    }
}

/// Refuses to go on while anything is missing.
///
/// # Errors
///
/// [`HostFilesMissing`] with all of it at once.
pub fn require(cluster: &ControlPlaneConfiguration, node: &Node) -> Result<(), HostFilesMissing> {
    let missing = check(cluster, node);
    if missing.is_empty() { Ok(()) } else { Err(HostFilesMissing { missing }) }
}

/// Files that the cluster's configuration names are not as it needs them: its components would not start.
#[derive(Debug, Error)]
#[error("the cluster's configuration names files that this machine lacks:{}", list(missing))]
pub struct HostFilesMissing {
    /// By path, at least one.
    pub missing: Vec<Missing>,
}

impl Diagnose for HostFilesMissing {
    fn code(&self) -> &'static str {
        "control-plane-host-files"
    }

    fn hint(&self) -> Option<String> {
        self.missing.first().map(Missing::hint)
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Preflight
    }
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|one| format!("\n  - {one}")).collect()
}

/// Everything that is missing, by path.
pub fn check(cluster: &ControlPlaneConfiguration, node: &Node) -> Vec<Missing> {
    let mut found = Found { node, missing: BTreeMap::new() };
    const NONE: &[&str] = &[];
    for (name, component, read_at_start) in [
        ("apiServer", &cluster.api_server.component, READ_AT_START.as_slice()),
        ("controllerManager", &cluster.controller_manager, NONE),
        ("scheduler", &cluster.scheduler, NONE),
    ] {
        found.volumes(name, component);
        found.arguments(name, component, read_at_start, &cluster.certificates_dir);
    }
    found.missing.into_values().collect()
}

struct Found<'a> {
    node: &'a Node,
    missing: BTreeMap<PathBuf, Missing>,
}

impl Found<'_> {
    fn volumes(&mut self, of: &str, component: &Component) {
        for volume in effective(&component.extra_volumes) {
            let wanted_by = format!("volume `{}` of `{of}.extraVolumes`", volume.name);
            let Some((what, is, required)) = wanted_type(&volume.path_type) else { continue };
            let path = Path::new(&volume.host_path);
            // Links are followed, as the kubelet does.
            match std::fs::metadata(self.node.locate(path)) {
                Ok(metadata) if is(&metadata.file_type()) => {}
                Ok(_) => self.add(path, Problem::IsNo(what), wanted_by),
                Err(_) if required => self.add(path, Problem::Absent, wanted_by),
                Err(_) => {}
            }
        }
    }

    /// An argument names a file that must be there where it is known to be read at the start, or where it lies in a volume
    /// that the component cannot write to; anywhere else it may be one that the component makes, like a log.
    fn arguments(&mut self, of: &str, component: &Component, read_at_start: &[&str], certificates_dir: &str) {
        for argument in &component.extra_args {
            let read = read_at_start.contains(&argument.name.as_str());
            let wanted_by = format!("`{}` of `{of}.extraArgs`", argument.name);
            for path in paths(argument, read) {
                let volume = covering(&component.extra_volumes, path);
                let on_host = match volume {
                    Some(volume) if read || volume.read_only => {
                        let rest = Path::new(path).strip_prefix(&volume.mount_path).unwrap_or(Path::new(""));
                        if rest.as_os_str().is_empty() {
                            PathBuf::from(&volume.host_path)
                        } else {
                            Path::new(&volume.host_path).join(rest)
                        }
                    }
                    // The certificates' own volume, under the same path.
                    None if read && Path::new(path).starts_with(certificates_dir) => PathBuf::from(path),
                    None if read => {
                        self.add(Path::new(path), Problem::NotMounted, wanted_by.clone());
                        continue;
                    }
                    _ => continue,
                };
                if std::fs::metadata(self.node.locate(&on_host)).is_err() {
                    self.add(&on_host, Problem::Absent, wanted_by.clone());
                }
            }
        }
    }

    fn add(&mut self, path: &Path, problem: Problem, wanted_by: String) {
        let new = || Missing { path: path.to_owned(), problem, wanted_by: Vec::new() };
        let missing = self.missing.entry(path.to_owned()).or_insert_with(new);
        if !missing.wanted_by.contains(&wanted_by) {
            missing.wanted_by.push(wanted_by);
        }
    }
}

/// Of several volumes with one name the last counts.
fn effective(volumes: &[HostPathMount]) -> impl Iterator<Item = &HostPathMount> {
    volumes
        .iter()
        .enumerate()
        .filter(|(n, volume)| !volumes[n + 1..].iter().any(|later| later.name == volume.name))
        .map(|(_, volume)| volume)
}

/// The volume in which a path of the container lies: the innermost one.
fn covering<'a>(volumes: &'a [HostPathMount], path: &str) -> Option<&'a HostPathMount> {
    let covers = effective(volumes).filter(|volume| Path::new(path).starts_with(&volume.mount_path));
    covers.max_by_key(|volume| Path::new(&volume.mount_path).components().count())
}

/// Absolute paths in a value: the value, or the parts of a list like `--tls-sni-cert-key`'s.
fn paths(argument: &Arg, whole: bool) -> Vec<&str> {
    let value = argument.value.as_str();
    let parts: Vec<&str> = if whole { vec![value] } else { value.split([',', ':']).collect() };
    parts.into_iter().filter(|part| part.starts_with('/')).collect()
}

type Is = fn(&FileType) -> bool;

/// What a `HostPathType` wants, how it is told, and whether it must be there; none: nothing.
fn wanted_type(path_type: &str) -> Option<(&'static str, Is, bool)> {
    Some(match path_type {
        "File" => ("file", FileType::is_file, true),
        "FileOrCreate" => ("file", FileType::is_file, false),
        "Directory" => ("directory", FileType::is_dir, true),
        "DirectoryOrCreate" => ("directory", FileType::is_dir, false),
        "Socket" => ("socket", |found| found.is_socket(), true),
        "CharDevice" => ("character device", |found| found.is_char_device(), true),
        "BlockDevice" => ("block device", |found| found.is_block_device(), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::scripted::test_node;

    fn missing(api_server: &Value, there: &[&str]) -> Vec<(String, Problem, usize)> {
        let (directory, node) = test_node();
        for path in there {
            let located = directory.path().join(path.trim_start_matches('/'));
            if path.ends_with('/') {
                std::fs::create_dir_all(located).unwrap();
            } else {
                std::fs::create_dir_all(located.parent().unwrap()).unwrap();
                std::fs::write(located, "").unwrap();
            }
        }
        let cluster: ControlPlaneConfiguration = serde_json::from_value(json!({ "apiServer": api_server })).unwrap();
        let found = check(&cluster, &node);
        found.into_iter().map(|one| (one.path.display().to_string(), one.problem, one.wanted_by.len())).collect()
    }

    #[test]
    fn a_file_that_an_argument_names_is_looked_for_where_its_volume_is() {
        let configuration = json!({
            "extraArgs": [
                {"name": "audit-policy-file", "value": "/etc/audit/policy.yaml"},
                {"name": "audit-log-path", "value": "/var/log/audit/audit.log"},
                {"name": "tls-sni-cert-key", "value": "/etc/audit/a.crt,/etc/audit/a.key:a.example"},
                {"name": "v", "value": "4"},
            ],
            "extraVolumes": [
                {"name": "audit", "hostPath": "/srv/audit", "mountPath": "/etc/audit", "readOnly": true},
                {"name": "log", "hostPath": "/var/log/audit", "mountPath": "/var/log/audit", "pathType": "DirectoryOrCreate"},
            ],
        });
        let absent = |path: &str| (path.to_owned(), Problem::Absent, 1);
        assert_eq!(
            missing(&configuration, &["/srv/audit/a.key"]),
            [absent("/srv/audit/a.crt"), absent("/srv/audit/policy.yaml")]
        );
        assert_eq!(missing(&configuration, &["/srv/audit/policy.yaml", "/srv/audit/a.crt", "/srv/audit/a.key"]), []);
    }

    #[test]
    fn a_file_without_a_volume_could_not_be_seen() {
        let argument = |path: &str| json!({"extraArgs": [{"name": "encryption-provider-config", "value": path}]});
        let found = missing(&argument("/etc/enc.yaml"), &["/etc/enc.yaml"]);
        assert_eq!(found, [("/etc/enc.yaml".to_owned(), Problem::NotMounted, 1)]);
        // The certificates' directory is always mounted.
        let found = missing(&argument("/etc/kubernetes/pki/enc.yaml"), &[]);
        assert_eq!(found, [("/etc/kubernetes/pki/enc.yaml".to_owned(), Problem::Absent, 1)]);
        assert_eq!(missing(&argument("/etc/kubernetes/pki/enc.yaml"), &["/etc/kubernetes/pki/enc.yaml"]), []);
    }

    #[test]
    fn a_volume_wants_the_type_it_says() {
        for (path_type, there, problem) in [
            ("File", "/x", None),
            ("File", "/x/", Some(Problem::IsNo("file"))),
            ("File", "/other", Some(Problem::Absent)),
            ("Directory", "/x/", None),
            ("Directory", "/x", Some(Problem::IsNo("directory"))),
            ("Directory", "/other", Some(Problem::Absent)),
            ("DirectoryOrCreate", "/other", None),
            ("DirectoryOrCreate", "/x", Some(Problem::IsNo("directory"))),
            ("FileOrCreate", "/other", None),
            ("Socket", "/x", Some(Problem::IsNo("socket"))),
            ("", "/other", None),
        ] {
            let volume =
                json!({"extraVolumes": [{"name": "v", "hostPath": "/x", "mountPath": "/y", "pathType": path_type}]});
            let found = missing(&volume, &[there]);
            let expected: Vec<_> = problem.into_iter().map(|problem| ("/x".to_owned(), problem, 1)).collect();
            assert_eq!(found, expected, "{path_type} {there}");
        }
    }

    #[test]
    fn one_path_is_told_once_with_all_that_want_it() {
        let configuration = json!({
            "extraArgs": [{"name": "audit-policy-file", "value": "/p.yaml"}],
            "extraVolumes": [
                {"name": "p", "hostPath": "/srv/old.yaml", "mountPath": "/p.yaml", "pathType": "File"},
                {"name": "p", "hostPath": "/srv/p.yaml", "mountPath": "/p.yaml", "pathType": "File"},
            ],
        });
        assert_eq!(missing(&configuration, &[]), [("/srv/p.yaml".to_owned(), Problem::Absent, 2)]);
    }
}
