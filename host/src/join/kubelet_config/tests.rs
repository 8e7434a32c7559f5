use serde_json::json;

use super::*;
use crate::api::Dialer;
use crate::api::scripted::{test_context, token_discovery};
use crate::config::{Arg, Taint};

/// Made by `kubeadm config print init-defaults --component-configs KubeletConfiguration` of 1.37.2, its last document.
const KUBEADM: &str = include_str!("init-defaults.yaml");

fn cluster(kubelet: Value) -> ClusterConfiguration {
    ClusterConfiguration {
        cluster_name: "kubernetes".into(),
        kubernetes_version: "v1.37.2".into(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        kubeadm: serde_json::Value::Null,
        kubelet,
    }
}

fn context() -> (tempfile::TempDir, JoinContext) {
    test_context(&Dialer::Tcp, token_discovery("127.0.0.1:1", Vec::new()))
}

#[tokio::test]
async fn writes_the_clusters_configuration_as_kubeadm_does() {
    let (_directory, cx) = context();
    let tree: Value = serde_saphyr::from_str(KUBEADM).unwrap();
    let text = config(&cluster(tree), "unix:///run/x.sock", false, &cx).unwrap();
    let endpoint = "containerRuntimeEndpoint: ";
    assert_eq!(text, KUBEADM.replace(&format!("{endpoint}\"\""), &format!("{endpoint}unix:///run/x.sock")));
}

#[tokio::test]
async fn keeps_unknown_keys_and_lets_no_patch_win_over_the_runtime_socket() {
    let (directory, cx) = context();
    let patches = directory.path().join("patches");
    std::fs::create_dir(&patches).unwrap();
    std::fs::write(
        patches.join("kubeletconfiguration.yaml"),
        "containerRuntimeEndpoint: unix:///evil.sock\nmaxPods: 50\nhealthzBindAddress: ::1\nhealthzPort: 1\n",
    )
    .unwrap();
    let cx = cx.with(|settings| settings.patches = Some(patches));
    let cluster = cluster(json!({"b": {"new": true}, "maxPods": 10}));
    let text = config(&cluster, "unix:///run/x.sock", false, &cx).unwrap();
    assert_eq!(
        text,
        "b:\n  new: true\ncontainerRuntimeEndpoint: unix:///run/x.sock\nhealthzBindAddress: ::1\nhealthzPort: 1\nmaxPods: 50\n"
    );
    assert_eq!(healthz_url(&cluster, &cx).unwrap().unwrap(), "http://[::1]:1/healthz");
}

#[test]
fn finds_the_health_address() {
    let (_directory, cx) = context();
    let url = |kubelet| healthz_url(&cluster(kubelet), &cx).map_err(|error| error.code());
    assert_eq!(url(json!({})), Ok(Some("http://127.0.0.1:10248/healthz".into())));
    assert_eq!(
        url(json!({"healthzBindAddress": "0.0.0.0", "healthzPort": 9})),
        Ok(Some("http://0.0.0.0:9/healthz".into()))
    );
    assert_eq!(url(json!({"healthzPort": 0})), Ok(None));
    for bad in [json!({"healthzPort": 70000}), json!({"healthzPort": "x"}), json!({"healthzBindAddress": "localhost"})]
    {
        assert_eq!(url(bad), Err("kubelet-healthz-address"));
    }
}

#[test]
fn writes_the_instance_configuration_with_quotes() {
    assert_eq!(instance_config("unix:///run/x.sock"), "containerRuntimeEndpoint: \"unix:///run/x.sock\"\n");
}

#[test]
fn writes_flags_as_kubeadm_does() {
    let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
    let taint =
        |key: &str, value: &str, effect: &str| Taint { key: key.into(), value: value.into(), effect: effect.into() };
    let flags = |hostname: &str, taints: Option<Vec<Taint>>, args: Vec<Arg>| {
        let (_directory, cx) = context();
        let cx = cx.with(|settings| {
            settings.node.taints = taints;
            settings.node.kubelet_extra_args = args;
        });
        let text = super::flags(&cx.settings, hostname, Start::Registering { node_ip: None });
        text.strip_prefix("KUBELET_KUBEADM_ARGS=").unwrap().trim_end().to_owned()
    };
    assert_eq!(flags("n1", None, vec![]), r#""""#);
    assert_eq!(flags("n1", Some(vec![]), vec![]), r#""""#);
    assert_eq!(flags("host", None, vec![]), r#""--hostname-override=n1""#);
    let taints =
        vec![taint("a", "b", "NoSchedule"), taint("c", "", "NoExecute"), taint("d", "", ""), taint("e", "f", "")];
    assert_eq!(
        flags("host", Some(taints), vec![arg("z", "1"), arg("a", ""), arg("z", "2")]),
        r#""--hostname-override=n1 --register-with-taints=a=b:NoSchedule,c:NoExecute,d,e=f: --z=1 --a= --z=2""#
    );
    // The operator's own word about a flag replaces ours.
    assert_eq!(flags("host", None, vec![arg("hostname-override", "x")]), r#""--hostname-override=x""#);
    assert_eq!(flags("x", None, vec![arg("hostname-override", "x")]), r#""--hostname-override=x""#);
    assert_eq!(flags("n1", None, vec![arg("v", "a \"b\" \\")]), r#""--v=a \"b\" \\""#);
}

#[test]
fn a_control_planes_first_start_registers_its_taints_and_the_later_ones_are_as_with_kubeadm() {
    let (_directory, cx) = context();
    let cx = cx.with(|settings| {
        settings.node.kubelet_extra_args = vec![Arg { name: "node-labels".into(), value: "a=b".into() }];
        settings.control_plane = Some(crate::config::ControlPlaneSettings {
            advertise_address: "10.0.0.2".parse().unwrap(),
            bind_port: 6443,
            certificate_key: None,
            etcd_snapshot: None,
            replace_member: None,
        });
    });
    assert_eq!(
        super::flags(&cx.settings, "n1", Start::Registering { node_ip: None }),
        "KUBELET_KUBEADM_ARGS=\"--register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule --node-labels=a=b \
         --node-labels=node.kubernetes.io/exclude-from-external-load-balancers=\"\n"
    );
    assert_eq!(super::flags(&cx.settings, "n1", Start::Lasting), "KUBELET_KUBEADM_ARGS=\"--node-labels=a=b\"\n");

    // Where the node's own name does not resolve, unless the operator or a cloud provider has a say in it.
    let with = |name: &str, value: &str| {
        let arg = Arg { name: name.into(), value: value.into() };
        let mut settings = cx.settings.as_ref().clone();
        settings.node.kubelet_extra_args = vec![arg];
        super::flags(&settings, "n1", Start::Registering { node_ip: Some("10.0.0.9".parse().unwrap()) })
    };
    assert!(with("v", "2").contains(" --node-ip=10.0.0.9 --v=2 "));
    assert!(with("cloud-provider", "other").contains("--node-ip=10.0.0.9"));
    assert!(!with("cloud-provider", "external").contains("--node-ip"));
    assert_eq!(with("node-ip", "::").matches("--node-ip").count(), 1);
}
