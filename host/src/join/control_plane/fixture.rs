//! A shared PKI for tests, as another control plane would have it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::LocalNode;
use super::configuration::ControlPlaneConfiguration;
use crate::api::Dialer;
use crate::api::scripted::test_context;
use crate::config::Discovery;
use crate::join::JoinContext;
use crate::node::Node;
use crate::pki::pem_block;

/// Where the certificates are below the root.
pub(super) const PKI: &str = "etc/kubernetes/pki";

pub(super) fn local() -> LocalNode {
    LocalNode { name: "n2".into(), advertise_address: "10.0.0.2".parse().unwrap(), bind_port: 6443 }
}

/// With ECDSA keys, since those of RSA take long.
pub(super) fn configuration() -> ControlPlaneConfiguration {
    serde_json::from_value(serde_json::json!({
        "kubernetesVersion": "v1.37.2",
        "controlPlaneEndpoint": "cp.example:6443",
        "encryptionAlgorithm": "ECDSA-P256",
    }))
    .unwrap()
}

/// A machine on which nothing is yet.
pub(super) fn machine() -> (tempfile::TempDir, JoinContext) {
    test_context(&Dialer::Tcp, Discovery::Recorded)
}

/// The same machine with a node of its own, as the next run has it.
pub(super) fn with_node(cx: &JoinContext, node: Node) -> JoinContext {
    JoinContext { node, ..cx.clone() }
}

pub(super) fn ca_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = rcgen::date_time_ymd(2024, 2, 29);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params
}

pub(super) fn put(root: &Path, name: &str, content: &str, mode: u32) {
    let path = root.join(PKI).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A CA in its files; what signs as it.
pub(super) fn put_ca(root: &Path, name: &str, params: CertificateParams, key: KeyPair) -> Issuer<'static, KeyPair> {
    put(root, &format!("{name}.crt"), &params.self_signed(&key).unwrap().pem(), 0o644);
    put(root, &format!("{name}.key"), &key.serialize_pem(), 0o600);
    Issuer::new(params, key)
}

pub(super) fn ec() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Everything that control planes share.
pub(super) fn put_shared(root: &Path) {
    use rcgen::PublicKeyData as _;
    for (name, common_name) in [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")] {
        put_ca(root, name, ca_params(common_name), ec());
    }
    let account = ec();
    put(root, "sa.key", &account.serialize_pem(), 0o600);
    put(root, "sa.pub", &pem_block("PUBLIC KEY", &account.subject_public_key_info()), 0o644);
}

pub(super) fn read(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(PKI).join(name)).unwrap()
}

pub(super) fn remove(root: &Path, name: &str) {
    fs::remove_file(root.join(PKI).join(name)).unwrap();
}

pub(super) fn mode(root: &Path, path: &str) -> u32 {
    fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777
}
