//! What the checks of a control plane are told of the cluster, once its configuration is known.

use super::configuration::{ControlPlaneConfiguration, Etcd};
use crate::config::{Arg, ControlPlaneSettings};

/// Parameters by the names that `context.parameter` of the WIT lists.
pub fn parameters(
    configuration: &ControlPlaneConfiguration,
    settings: &ControlPlaneSettings,
) -> Vec<(&'static str, String)> {
    let mut known = vec![("cluster-version", configuration.kubernetes_version.clone())];
    let mut set = |name, value: &str| {
        if !value.is_empty() {
            known.push((name, value.to_owned()));
        }
    };
    let api_server = &configuration.api_server.component.extra_args;
    set("api-server-bind-address", last(api_server, "bind-address"));
    set("controller-manager-bind-address", last(&configuration.controller_manager.extra_args, "bind-address"));
    set("scheduler-bind-address", last(&configuration.scheduler.extra_args, "bind-address"));
    set("service-subnet", &configuration.networking.service_subnet);
    set("pod-subnet", &configuration.networking.pod_subnet);
    match &configuration.etcd {
        Etcd::Local(etcd) => {
            // kubeadm's manifest binds etcd to the advertise address, and its check follows an argument of the API server.
            let own = settings.advertise_address.to_string();
            let advertised = last(api_server, "advertise-address");
            set("etcd-address", if advertised.is_empty() { &own } else { advertised });
            set("etcd-data-dir", &etcd.data_dir);
        }
        // With a certificate key they are downloaded later.
        Etcd::External(etcd) if settings.certificate_key.is_none() => {
            set("etcd-ca-file", &etcd.ca_file);
            set("etcd-cert-file", &etcd.cert_file);
            set("etcd-key-file", &etcd.key_file);
        }
        Etcd::External(_) => {}
    }
    known
}

/// The last value counts; empty where there is none.
fn last<'a>(args: &'a [Arg], name: &str) -> &'a str {
    args.iter().rev().find(|arg| arg.name == name).map_or("", |arg| &arg.value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(certificate_key: bool) -> ControlPlaneSettings {
        ControlPlaneSettings {
            advertise_address: "192.0.2.7".parse().unwrap(),
            bind_port: 6443,
            certificate_key: certificate_key.then(|| "00".repeat(32).parse().unwrap()),
            etcd_snapshot: None,
            replace_member: None,
        }
    }

    fn of(written: serde_json::Value, certificate_key: bool) -> Vec<(&'static str, String)> {
        parameters(&serde_json::from_value(written).unwrap(), &settings(certificate_key))
    }

    fn named<'a>(known: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn stacked_etcd_is_told_with_its_address_and_directory() {
        let known = of(json!({"kubernetesVersion": "v1.37.2", "networking": {"podSubnet": "10.244.0.0/16"}}), false);
        let expected = [
            ("cluster-version", "v1.37.2"),
            ("service-subnet", "10.96.0.0/12"),
            ("pod-subnet", "10.244.0.0/16"),
            ("etcd-address", "192.0.2.7"),
            ("etcd-data-dir", "/var/lib/etcd"),
        ];
        assert_eq!(known, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn last_of_several_addresses_counts() {
        let args = json!([{"name": "bind-address", "value": "a"}, {"name": "bind-address", "value": "127.0.0.1"},
            {"name": "advertise-address", "value": "192.0.2.8"}]);
        let known = of(json!({"apiServer": {"extraArgs": args}, "scheduler": {"extraArgs": args}}), false);
        assert_eq!(named(&known, "api-server-bind-address"), Some("127.0.0.1"));
        assert_eq!(named(&known, "scheduler-bind-address"), Some("127.0.0.1"));
        assert_eq!(named(&known, "controller-manager-bind-address"), None);
        assert_eq!(named(&known, "etcd-address"), Some("192.0.2.8"));
    }

    #[test]
    fn files_of_an_external_etcd_are_told_where_nobody_downloads_them() {
        let external =
            json!({"etcd": {"external": {"endpoints": ["https://e:2379"], "caFile": "/ca", "keyFile": "/k"}}});
        let known = of(external.clone(), false);
        assert_eq!((named(&known, "etcd-ca-file"), named(&known, "etcd-key-file")), (Some("/ca"), Some("/k")));
        assert_eq!((named(&known, "etcd-cert-file"), named(&known, "etcd-data-dir")), (None, None));
        assert_eq!(named(&of(external, true), "etcd-ca-file"), None);
    }
}
