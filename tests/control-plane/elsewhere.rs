//! A control plane whose images come from a registry of the site, and one whose etcd is not on control planes.

use std::process::{Child, Stdio};

use mortise_cluster::{Cluster, UpOptions, ensure_registry_tools};

use crate::lab::{self, SOON, text};

/// Of the node itself: to such an address containerd speaks plain HTTP.
const REGISTRY: &str = "127.0.0.1:5000";
const REPOSITORY: &str = "127.0.0.1:5000/site";
const EDITED: &str = "/etc/test/kubeadm-config.yaml";

/// Replaces lines of the cluster's configuration by a script of sed.
fn edit(cluster: &Cluster, script: &str) {
    let command = format!(
        "set -o pipefail; export KUBECONFIG=/etc/kubernetes/admin.conf; mkdir -p /etc/test; \
         kubectl -n kube-system get configmap kubeadm-config -o yaml | sed '{script}' > {EDITED}; \
         kubectl apply -f {EDITED} 2>&1"
    );
    cluster.run("n1", &["bash", "-c", &command]).unwrap();
}

/// Starts a registry on a node, with all that it keeps there.
fn registry(cluster: &Cluster, node: &str) -> Child {
    ensure_registry_tools(&|text| eprintln!("{text}")).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: /var/lib/test-registry}}}}\n\
         http: {{addr: {REGISTRY}}}\n"
    );
    lab::write(cluster, node, "/etc/test/registry.yaml", &config);
    let serve = ["docker-registry", "serve", "/etc/test/registry.yaml"];
    let child = cluster.command(node, &serve).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    lab::wait_until("the registry", SOON, || {
        let asked = cluster.run(node, &["curl", "-sSf", &format!("http://{REGISTRY}/v2/")]);
        asked.map(drop).map_err(|error| format!("{error:#}"))
    });
    child
}

#[test]
#[ignore = "needs a cluster: root, 60 s"]
fn images_come_from_the_registry_that_the_cluster_names_and_one_that_is_down_stops_before_anything_is_touched() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    cluster.add("n2").unwrap();
    edit(&cluster, &format!("s#imageRepository: .*#imageRepository: {REPOSITORY}#"));

    let refused = lab::try_mortise(&cluster, "n2", &[]);
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    let image = format!("{REPOSITORY}/kube-apiserver:v1.37.2");
    assert!(told.contains(&format!("[ERROR ImagePull]: failed to pull image {image}: ")), "{told}");
    assert!(told.contains(&format!("pull {image}` tries the same")), "{told}");
    let left = cluster.run("n2", &["bash", "-c", "find /etc/kubernetes /var/lib/etcd -type f 2>/dev/null || true"]);
    assert_eq!(left.unwrap(), "", "nothing was touched");

    let mut registry = registry(&cluster, "n2");
    // Away from the node's store, all but the sandbox's, which is the runtime's own affair.
    let move_images = format!(
        "set -e; for name in $(ctr -n k8s.io images ls -q | grep ^registry.k8s.io/); do \
         there={REPOSITORY}/${{name##*/}}; ctr -n k8s.io images tag \"$name\" \"$there\" >/dev/null; \
         ctr -n k8s.io images push --plain-http \"$there\" >/dev/null; ctr -n k8s.io images rm \"$there\" >/dev/null; \
         case $name in */pause:*) ;; *) ctr -n k8s.io images rm --sync \"$name\" >/dev/null;; esac; done; \
         ctr -n k8s.io images ls -q"
    );
    let kept = cluster.run("n2", &["bash", "-c", &move_images]).unwrap();
    assert!(!kept.contains("kube-apiserver") && !kept.contains("127.0.0.1"), "{kept}");
    let joined = lab::try_mortise(&cluster, "n2", &[]);
    lab::is_whole(&cluster, "n2", &joined);
    let of_pods = "jsonpath={.items[*].spec.containers[*].image}";
    let select = ["-n", "kube-system", "get", "pods", "--field-selector=spec.nodeName=n2", "-o", of_pods];
    let images = cluster.kubectl(&select).unwrap();
    assert!(images.contains(&image) && images.contains(&format!("{REPOSITORY}/etcd:")), "{images}");
    assert!(!images.contains("registry.k8s.io"), "{images}");
    registry.kill().unwrap();
    registry.wait().unwrap();
}

#[test]
#[ignore = "needs a cluster: root, 80 s"]
fn an_external_etcd_is_used_and_left_as_it_is() {
    let cluster = Cluster::up(&UpOptions::default()).unwrap();
    let address = cluster.nodes().unwrap()[0].address;
    // That of the first control plane is as good as another one: to those that join it is elsewhere.
    let external = format!(
        "s#^      local:#      external:#; s#^        dataDir: .*#        endpoints: [https://{address}:2379]\\n\
         \\x20       caFile: /etc/kubernetes/pki/etcd/ca.crt\\n\
         \\x20       certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt\\n\
         \\x20       keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key#"
    );
    edit(&cluster, &external);
    // The certificates of such an etcd are shared as well.
    let line = cluster.control_plane_join_line().unwrap();
    let configuration =
        ["-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "jsonpath={.data.ClusterConfiguration}"];
    let init = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ncertificateKey: {}\n---\n{}",
        lab::after(&line, "--certificate-key"),
        cluster.kubectl(&configuration).unwrap()
    );
    lab::write(&cluster, "n1", "/etc/test/upload.yaml", &init);
    let upload = ["kubeadm", "init", "phase", "upload-certs", "--upload-certs", "--config=/etc/test/upload.yaml"];
    cluster.run("n1", &upload).unwrap();

    cluster.add("n2").unwrap();
    let joined = lab::try_mortise(&cluster, "n2", &[]);
    lab::is_whole(&cluster, "n2", &joined);
    // What the real one does with it.
    lab::join(&cluster, "n3", lab::By::Kubeadm);
    let state = |node: &str| {
        let files =
            "cd /etc/kubernetes; find . -type f ! -name '.*' | sort; grep -- --etcd- manifests/kube-apiserver.yaml";
        cluster.run(node, &["bash", "-c", files]).unwrap()
    };
    assert_eq!(state("n2"), state("n3"));
    assert!(state("n2").contains(&format!("--etcd-servers=https://{address}:2379")), "{}", state("n2"));
    assert!(!state("n2").contains("etcd.yaml"), "{}", state("n2"));
    assert_eq!(lab::members(&cluster, "n1"), (1, 0));
    lab::answers_alone(&cluster, "n2");
}
