//! What the checks of stage `cluster` are told of a control plane: `mortise:host/context`, `parameter`.

use super::LocalNode;
use super::configuration::{ControlPlaneConfiguration, Etcd};
use crate::config::Arg;

/// Names and values, as `wit/host/context.wit` lists them. `downloads`: whether shared files come from the cluster.
pub fn of(
    configuration: &ControlPlaneConfiguration,
    local: &LocalNode,
    downloads: bool,
) -> Vec<(&'static str, String)> {
    let mut known = Vec::new();
    let mut tell = |name, value: &str| {
        if !value.is_empty() {
            known.push((name, value.to_owned()));
        }
    };
    let api_server = &configuration.api_server.component.extra_args;
    for (name, arguments) in [
        ("api-server-bind-address", api_server),
        ("controller-manager-bind-address", &configuration.controller_manager.extra_args),
        ("scheduler-bind-address", &configuration.scheduler.extra_args),
    ] {
        tell(name, last(arguments, "bind-address").unwrap_or_default());
    }
    tell("service-subnet", &configuration.networking.service_subnet);
    tell("pod-subnet", &configuration.networking.pod_subnet);
    match &configuration.etcd {
        Etcd::Local(etcd) => {
            // kubeadm checks etcd's ports on the address that the API server is told to advertise.
            let advertised = local.advertise_address.to_string();
            tell("etcd-address", last(api_server, "advertise-address").unwrap_or(&advertised));
            tell("etcd-data-dir", &etcd.data_dir);
        }
        Etcd::External(_) if downloads => {}
        Etcd::External(etcd) => {
            tell("etcd-ca-file", &etcd.ca_file);
            tell("etcd-cert-file", &etcd.cert_file);
            tell("etcd-key-file", &etcd.key_file);
        }
    }
    known
}

/// Of several arguments of one name the last counts.
fn last<'a>(arguments: &'a [Arg], name: &str) -> Option<&'a str> {
    arguments.iter().rfind(|arg| arg.name == name).map(|arg| &*arg.value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(stored: serde_json::Value, downloads: bool) -> Vec<String> {
        let local = LocalNode { name: "n2".into(), advertise_address: "10.0.0.2".parse().unwrap(), bind_port: 6443 };
        let configuration = ControlPlaneConfiguration::of(&stored).unwrap();
        of(&configuration, &local, downloads).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn the_last_argument_counts_and_what_is_not_set_is_not_told() {
        let stored = json!({"apiServer": {"extraArgs": [
            {"name": "bind-address", "value": "10.1.1.1"}, {"name": "bind-address", "value": "10.2.2.2"},
            {"name": "advertise-address", "value": "10.3.3.3"},
        ]}});
        let expected = [
            "api-server-bind-address=10.2.2.2",
            "service-subnet=10.96.0.0/12",
            "etcd-address=10.3.3.3",
            "etcd-data-dir=/var/lib/etcd",
        ];
        assert_eq!(told(stored, true), expected);
    }

    #[test]
    fn files_of_an_external_etcd_have_to_be_here_only_if_they_are_not_downloaded() {
        let stored = json!({"etcd": {"external": {"endpoints": ["https://e"], "caFile": "/ca", "certFile": "/c"}}});
        assert_eq!(told(stored.clone(), true), ["service-subnet=10.96.0.0/12"]);
        assert_eq!(told(stored, false), ["service-subnet=10.96.0.0/12", "etcd-ca-file=/ca", "etcd-cert-file=/c"]);
    }
}
