//! Which certificates a control plane has, and which CA signs each: kubeadm's list.

use super::authority::{Subject, Usage};
use super::names::{Names, NamesError};
use crate::join::control_plane::LocalNode;
use crate::join::control_plane::configuration::{ControlPlaneConfiguration, Etcd};

/// A CA and the certificates of this machine that it signs.
pub(in crate::join::control_plane) struct Family {
    /// File name of the CA, without ending, below the certificates' directory.
    pub(in crate::join::control_plane) ca: &'static str,
    pub(in crate::join::control_plane) leaves: Vec<Leaf>,
}

/// One certificate of this machine.
pub(in crate::join::control_plane) struct Leaf {
    /// As [`Family::ca`].
    pub(in crate::join::control_plane) file: &'static str,
    pub(super) subject: Subject,
}

/// The CAs that a control plane of this configuration needs.
pub(in crate::join::control_plane) fn authorities(configuration: &ControlPlaneConfiguration) -> Vec<&'static str> {
    match configuration.etcd {
        Etcd::Local(_) => vec!["ca", "front-proxy-ca", "etcd/ca"],
        Etcd::External(_) => vec!["ca", "front-proxy-ca"],
    }
}

/// The whole list. Names of the configuration that cannot stand in a certificate are `ignored`, with a line each.
pub(in crate::join::control_plane) fn families(
    configuration: &ControlPlaneConfiguration,
    local: &LocalNode,
    ignored: &mut Vec<String>,
) -> Result<Vec<Family>, NamesError> {
    let client = |file, common_name: &str| leaf(file, common_name, &[Usage::Client], Names::default());
    let api_server = Names::of_api_server(configuration, local, ignored)?;
    let mut families = vec![
        Family {
            ca: "ca",
            leaves: vec![
                leaf("apiserver", "kube-apiserver", &[Usage::Server], api_server),
                // No organization: since 1.37 a ClusterRoleBinding for this user gives its rights.
                client("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
            ],
        },
        Family { ca: "front-proxy-ca", leaves: vec![client("front-proxy-client", "front-proxy-client")] },
    ];
    if let Etcd::Local(etcd) = &configuration.etcd {
        let mut member = |file, sans: &[String]| {
            leaf(file, &local.name, &[Usage::Server, Usage::Client], Names::of_etcd(local, sans, file, ignored))
        };
        families.push(Family {
            ca: "etcd/ca",
            leaves: vec![
                member("etcd/server", &etcd.server_cert_sans),
                member("etcd/peer", &etcd.peer_cert_sans),
                client("etcd/healthcheck-client", "kube-etcd-healthcheck-client"),
                client("apiserver-etcd-client", "kube-apiserver-etcd-client"),
            ],
        });
    }
    Ok(families)
}

fn leaf(file: &'static str, common_name: &str, usages: &'static [Usage], names: Names) -> Leaf {
    Leaf { file, subject: Subject { common_name: common_name.to_owned(), organization: None, usages, names } }
}
