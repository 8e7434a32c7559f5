//! What `kubeadm init` leaves in a cluster, and the controllers that keep it so.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::request::{CONFIG_MAPS, Kind, NAMESPACES, SECRETS};
use super::store::{Key, Store};
use super::user::{is_expired, secret_text};
use super::{ControlPlaneOptions, TokenOptions};

const JWS_PREFIX: &str = "jws-kubeconfig-";

/// Fills an empty store.
pub(super) fn seed(store: &mut Store, options: &ControlPlaneOptions, server: &str, ca_pem: &str) {
    for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        create(store, &NAMESPACES, "", namespace, json!({"status": {"phase": "Active"}}));
    }
    let config_map = |store: &mut Store, namespace: &str, name: &str, data: Value| {
        create(store, &CONFIG_MAPS, namespace, name, json!({"data": data}));
    };
    config_map(store, "kube-public", "cluster-info", json!({"kubeconfig": cluster_info(server, ca_pem)}));
    let cluster = cluster_configuration(&options.kubernetes_version, server);
    config_map(store, "kube-system", "kubeadm-config", json!({"ClusterConfiguration": cluster}));
    create(
        store,
        &CONFIG_MAPS,
        "kube-system",
        "kubelet-config",
        with_hash(json!({"data": {"kubelet": KUBELET_CONFIGURATION}})),
    );
    let mut proxy = with_hash(json!({
        "data": {"config.conf": PROXY_CONFIGURATION, "kubeconfig.conf": proxy_kubeconfig(server)},
    }));
    proxy["metadata"]["labels"] = json!({"app": "kube-proxy"});
    create(store, &CONFIG_MAPS, "kube-system", "kube-proxy", proxy);
    for token in &options.tokens {
        let name = format!("bootstrap-token-{}", token.token.id());
        create(store, &SECRETS, "kube-system", &name, bootstrap_secret(token));
    }
    sign_cluster_info(store);
}

/// Removes expired tokens and signs cluster-info with those that are left: tokencleaner and bootstrapsigner.
pub(super) fn reconcile_tokens(store: &mut Store) {
    let expired: Vec<_> = store
        .list(&SECRETS, "kube-system")
        .filter(|(_, secret)| secret["type"] == "bootstrap.kubernetes.io/token" && is_expired(secret))
        .map(|(key, _)| key.clone())
        .collect();
    for key in expired {
        store.delete(&key).expect("the key was read under the same lock");
    }
    sign_cluster_info(store);
}

fn sign_cluster_info(store: &mut Store) {
    let key = Key { kind: &CONFIG_MAPS, namespace: "kube-public".into(), name: "cluster-info".into() };
    let Some(mut cluster_info) = store.get(&key).cloned() else { return };
    let Some(payload) = cluster_info["data"]["kubeconfig"].as_str().map(str::to_owned) else { return };
    let signatures: Vec<_> = store
        .list(&SECRETS, "kube-system")
        .filter(|(_, secret)| secret["type"] == "bootstrap.kubernetes.io/token")
        .filter(|(_, secret)| secret_text(secret, "usage-bootstrap-signing").as_deref() == Some("true"))
        .filter_map(|(_, secret)| Some((secret_text(secret, "token-id")?, secret_text(secret, "token-secret")?)))
        .map(|(id, secret)| (format!("{JWS_PREFIX}{id}"), detached_jws(&id, &secret, &payload)))
        .collect();
    let data = cluster_info["data"].as_object_mut().expect("the ConfigMap has a kubeconfig");
    data.retain(|key, _| !key.starts_with(JWS_PREFIX));
    data.extend(signatures.into_iter().map(|(key, jws)| (key, jws.into())));
    store.update(&key, cluster_info).expect("the object was read under the same lock");
}

/// `base64url(header)..base64url(mac)`, as the bootstrap signer stores it.
fn detached_jws(id: &str, secret: &str, payload: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mac = aws_lc_rs::hmac::sign(&key, input.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac))
}

fn create(store: &mut Store, kind: &'static Kind, namespace: &str, name: &str, mut object: Value) {
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    let key = Key { kind, namespace: namespace.into(), name: name.into() };
    store.create(key, object).expect("the store was empty");
}

/// The Secret that `kubeadm token create` makes.
fn bootstrap_secret(options: &TokenOptions) -> Value {
    let seconds = i64::try_from(options.ttl.as_secs()).unwrap_or(i64::MAX / 2);
    let expires = Timestamp::now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    let encode = |text: &str| STANDARD.encode(text);
    let mut data = json!({
        "token-id": encode(options.token.id()),
        "token-secret": encode(options.token.expose_secret()),
        "expiration": encode(&expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        "auth-extra-groups": encode(&options.groups.join(",")),
    });
    for usage in &options.usages {
        data[format!("usage-bootstrap-{usage}")] = encode("true").into();
    }
    json!({"type": "bootstrap.kubernetes.io/token", "data": data})
}

/// The annotation of kubeadm's own component configuration: a hash over the values in the order of their keys.
fn with_hash(mut object: Value) -> Value {
    let mut entries: Vec<_> = object["data"].as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    let text: String = entries.into_iter().filter_map(|(_, value)| value.as_str()).collect();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    object["metadata"] =
        json!({"annotations": {"kubeadm.kubernetes.io/component-config.hash": format!("sha256:{hex}")}});
    object
}

fn cluster_info(server: &str, ca_pem: &str) -> String {
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \
         \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n",
        STANDARD.encode(ca_pem)
    )
}

fn cluster_configuration(version: &str, server: &str) -> String {
    let endpoint = server.trim_start_matches("https://");
    format!(
        "apiServer: {{}}\napiVersion: kubeadm.k8s.io/v1beta4\ncaCertificateValidityPeriod: \
         87600h0m0s\ncertificateValidityPeriod: 8760h0m0s\ncertificatesDir: /etc/kubernetes/pki\nclusterName: \
         kubernetes\ncontrolPlaneEndpoint: {endpoint}\ncontrollerManager: {{}}\ndns: {{}}\nencryptionAlgorithm: \
         RSA-2048\netcd:\n  local:\n    dataDir: /var/lib/etcd\nimageRepository: registry.k8s.io\nkind: \
         ClusterConfiguration\nkubernetesVersion: {version}\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: \
         10.244.0.0/16\n  serviceSubnet: 10.96.0.0/12\nproxy: {{}}\nscheduler: {{}}\n"
    )
}

fn proxy_kubeconfig(server: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority: \
         /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n    server: {server}\n  name: default\ncontexts:\n- \
         context:\n    cluster: default\n    namespace: default\n    user: default\n  name: default\ncurrent-context: \
         default\nusers:\n- name: default\n  user:\n    tokenFile: \
         /var/run/secrets/kubernetes.io/serviceaccount/token\n"
    )
}

/// Made with: kubectl -n kube-system get configmap kubelet-config -o yaml, in a cluster of tests/cluster (kubeadm
/// v1.37.2); without what that cluster overrides, so with kubeadm's cgroup driver.
const KUBELET_CONFIGURATION: &str = include_str!("kubelet-config.yaml");
/// Made with: kubectl -n kube-system get configmap kube-proxy -o yaml, there, without its mode. Ends without a newline,
/// as kubeadm's does.
const PROXY_CONFIGURATION: &str = include_str!("kube-proxy.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_bootstrap_signer_does() {
        // Made with: printf header.payload | openssl dgst -sha256 -hmac 0123456789abcdef -binary | basenc --base64url
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..";
        let jws = detached_jws("abcdef", "0123456789abcdef", "payload");
        assert!(jws.starts_with(expected), "{jws}");
        assert_eq!(jws.split("..").nth(1), Some("pQpAf41KnbpDpf53Otu_ufAeAbWD9CSytTS_WpoG4Mc"));
    }
}
