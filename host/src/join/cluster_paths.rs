//! Paths that the cluster's configuration names, and which of them a join refuses.
//!
//! A trusted cluster may configure its node, but a path from a ConfigMap must not make a process of this machine write
//! into, or hand out, what belongs to the operating system. Paths that the operator gave on this machine are not judged.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::error::Diagnose;
use crate::node::Node;
use crate::output::printable;

/// Longest path; that of Linux.
const PATH_LIMIT_BYTES: usize = 4095;
/// Trees of the operating system, of other people, and of the kernel.
const SYSTEM_TREES: [&str; 14] = [
    "/bin",
    "/boot",
    "/dev",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/root",
    "/sbin",
    "/sys",
    "/usr",
    "/lost+found",
];
/// Where distributions keep CA certificates, which may be read.
const CERTIFICATE_TREES: [&str; 2] = ["/etc/ssl", "/etc/pki"];
/// Kubernetes' own places inside system trees.
const KUBERNETES_TREES: [&str; 2] = ["/usr/libexec/kubernetes", "/etc/kubernetes"];

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Files are made there, or programs taken from there.
    Written,
    /// Certificates are read there.
    ReadCertificates,
}

/// A path that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{field}` of the cluster's configuration is `{path}`, which {reason}")]
pub struct PathRefused {
    /// Field name, dotted.
    pub field: &'static str,
    /// Printable.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

impl Diagnose for PathRefused {
    fn code(&self) -> &'static str {
        "cluster-path-refused"
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "look at `{}` in ConfigMaps `kubeadm-config` and `kubelet-config` of namespace `kube-system`",
            self.field
        ))
    }
}

/// Checks one path, and where symbolic links of this machine lead it.
///
/// # Errors
///
/// [`PathRefused`].
pub fn check(field: &'static str, path: &str, r#use: Use, node: &Node) -> Result<(), PathRefused> {
    let refuse = |reason| Err(PathRefused { field, path: printable(path), reason });
    if !path.starts_with('/') {
        return refuse("is not absolute");
    }
    if path.len() > PATH_LIMIT_BYTES || path.chars().any(char::is_control) {
        return refuse("is no usable path");
    }
    let segments = path.trim_end_matches('/').split('/').skip(1);
    if segments.clone().any(|segment| matches!(segment, "" | "." | "..")) {
        return refuse("has empty, `.` or `..` segments");
    }
    if let Some(reason) = judge(Path::new(path), r#use) {
        return refuse(reason);
    }
    match judge(&resolved(Path::new(path), node), r#use) {
        Some(_) => refuse("leads into a system tree through a symbolic link"),
        None => Ok(()),
    }
}

fn judge(path: &Path, r#use: Use) -> Option<&'static str> {
    let below = |trees: &[&str]| trees.iter().any(|tree| path.starts_with(tree));
    if below(&KUBERNETES_TREES) {
        return None;
    }
    if r#use == Use::ReadCertificates && below(&CERTIFICATE_TREES) {
        return None;
    }
    if below(&SYSTEM_TREES) {
        return Some("points into a system tree");
    }
    let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if names.len() < 2 {
        return Some("is a top-level directory");
    }
    // Nearly everything else in /etc decides who may do what on this machine.
    let first = names[1].as_os_str().to_string_lossy().to_lowercase();
    if path.starts_with("/etc") && !["kube", "k8s", "etcd"].iter().any(|own| first.contains(own)) {
        return Some("points into a system tree");
    }
    None
}

/// Where links lead the part of the path that exists, without `--root`.
fn resolved(path: &Path, node: &Node) -> PathBuf {
    let root = node.locate(Path::new("/"));
    let root = root.canonicalize().unwrap_or(root);
    for existing in path.ancestors() {
        let Ok(real) = node.locate(existing).canonicalize() else { continue };
        let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
        // A link that leaves the root is judged as it stands.
        let inside = real.strip_prefix(&root).map_or_else(|_| real.clone(), |inside| Path::new("/").join(inside));
        return inside.join(rest);
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::scripted::test_node;

    #[test]
    fn refuses_paths_that_point_into_system_trees() {
        let (_directory, node) = test_node();
        for (path, reason) in [
            ("etc/kubernetes/pki", "not absolute"),
            ("/etc/kubernetes/../shadow", "segments"),
            ("/etc//kubernetes", "segments"),
            ("/etc/cron.d", "system tree"),
            ("/etc/systemd/system", "system tree"),
            ("/etc/ssl/certs", "system tree"),
            ("/usr/bin", "system tree"),
            ("/usr/libexec/kubernetesX", "system tree"),
            ("/root/.ssh", "system tree"),
            ("/proc/sys/kernel", "system tree"),
            ("/", "top-level"),
            ("/var", "top-level"),
            ("/etc", "top-level"),
            ("/var/lib/x\u{1b}[2J", "usable"),
        ] {
            let refused = check("f", path, Use::Written, &node).unwrap_err();
            assert!(refused.reason.contains(reason), "{path}: {refused}");
            assert!(!refused.to_string().contains('\u{1b}'));
        }
        for path in [
            "/etc/kubernetes/pki",
            "/var/lib/kubelet/x",
            "/etc/kubelet.d/manifests",
            "/etc/etcd/pki/ca.crt",
            "/opt/pki",
            "/data/pki/",
        ] {
            check("f", path, Use::Written, &node).unwrap();
        }
        check("f", "/etc/ssl/certs/ca.crt", Use::ReadCertificates, &node).unwrap();
        check("f", "/etc/shadow", Use::ReadCertificates, &node).unwrap_err();
        check("f", "/usr/libexec/kubernetes/plugins", Use::Written, &node).unwrap();
    }

    #[test]
    fn refuses_a_path_that_a_link_leads_into_a_system_tree() {
        let (directory, node) = test_node();
        std::fs::create_dir_all(directory.path().join("etc/kubernetes")).unwrap();
        std::fs::create_dir_all(directory.path().join("etc/cron.d")).unwrap();
        std::fs::create_dir_all(directory.path().join("data/pki")).unwrap();
        let link = directory.path().join("etc/kubernetes/pki");
        std::os::unix::fs::symlink("../cron.d", &link).unwrap();
        let refused = check("certificatesDir", "/etc/kubernetes/pki/sub", Use::Written, &node).unwrap_err();
        assert!(refused.reason.contains("symbolic link"), "{refused}");
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../../data/pki", &link).unwrap();
        check("certificatesDir", "/etc/kubernetes/pki/sub", Use::Written, &node).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path: String) {
            let (_directory, node) = test_node();
            let _ = check("f", &format!("/{path}"), Use::Written, &node);
        }
    }
}
